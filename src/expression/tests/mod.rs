//! Tests of the whole folder: the language, hostile input, and what compiling an expression shows.

mod adversarial;
pub(super) mod conformance;
mod own_functions;
mod reads;

use super::*;
