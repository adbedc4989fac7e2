//! What every part uses: the clock, secrets, logs and metrics, and problems with their place in a file.

pub mod clock;
pub mod diagnostics;
pub mod secret;
pub mod telemetry;
