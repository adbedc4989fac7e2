//! What runs beside the calls of Kratos.

pub mod verifier;
pub mod writer;
