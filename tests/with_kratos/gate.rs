//! Every way by which a check could be evaded.

pub mod late_refusals;
pub mod submissions;
