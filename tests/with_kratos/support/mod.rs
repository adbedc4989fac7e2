//! Support for the tests with a real Kratos.

pub mod browser;
pub mod fields;
pub mod kratos;
pub mod load_balancer;
pub mod message;
pub mod passkey;
pub mod provider;
pub mod reservations;
pub mod service;
pub mod test_env;
pub mod vestibule;
pub mod visitor;

pub use fields::company;
pub use test_env::TestEnv;
pub use vestibule_testing::{bounded, eventually, port, postgres, rng, within};
pub use visitor::Client;

/// The notice when there is no Kratos.
pub const SKIPPED_NOTICE: &str = "
**************************************************************************************
*  NO KRATOS: THE TESTS WITH A REAL KRATOS ARE SKIPPED.                              *
*                                                                                    *
*  Put `kratos` v26.2.0 on PATH, or its path into KRATOS_BIN, and run again:         *
*                                                                                    *
*      KRATOS_BIN=/path/to/kratos cargo test --test with_kratos                      *
**************************************************************************************
";
