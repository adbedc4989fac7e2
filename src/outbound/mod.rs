//! Calls to other systems: the operator's services, and Kratos's admin API.

pub mod kratos_admin;
pub mod services;
