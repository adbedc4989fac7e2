//! stub
/// stub
pub const EXAMPLE_URL: &str = "x";
/// stub
pub const EXAMPLE_KEY: &str = "y";
