//! Tests of the whole folder: the language, hostile input, and what compiling an expression shows.

mod absence;
mod absent;
mod adversarial;
pub(super) mod conformance;
mod reads;

use super::*;
