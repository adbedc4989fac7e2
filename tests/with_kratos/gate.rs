//! Every way by which a check could be evaded.

pub mod changes;
pub mod hang_ups;
pub mod late_refusals;
pub mod methods;
pub mod parallel_changes;
pub mod quiet;
pub mod social;
pub mod submissions;
