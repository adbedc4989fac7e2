//! Every way in which a visitor could evade a check.

pub mod changes;
pub mod disconnects;
pub mod late_refusals;
pub mod methods;
pub mod no_false_alarms;
pub mod parallel_changes;
pub mod social;
pub mod submissions;
