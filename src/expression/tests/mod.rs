//! Tests of the whole folder: the language, hostile input, and what compiling an expression shows.

mod absence;
mod absent;
mod adversarial;
pub(super) mod conformance;
mod hostile_values;
mod own_functions;
mod reads;

use super::*;
