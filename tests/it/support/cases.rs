//! The number of cases of a random test.

/// Returns `PROPTEST_CASES`, or else this number.
#[expect(
    clippy::disallowed_methods,
    reason = "the environment sets the number of cases, as in proptest"
)]
pub fn cases(otherwise: u32) -> u32 {
    let configured = std::env::var("PROPTEST_CASES").ok();
    configured
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(otherwise)
}
