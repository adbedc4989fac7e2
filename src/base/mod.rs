//! Parts that every folder uses: the clock, long computations, secrets, logs and metrics, and problems with their
//! position in a file.

pub mod clock;
pub mod cpu;
pub mod diagnostics;
pub mod json;
pub mod secret;
pub mod telemetry;
