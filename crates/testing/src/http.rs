//! HTTP clients.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};

use crate::wait::BOUND;

/// A client without a proxy and without redirects, whose calls end within [`BOUND`].
pub fn client() -> Client {
    client_with_timeout(BOUND)
}

/// A client as from [`client`], with this timeout of a call.
pub fn client_with_timeout(timeout: Duration) -> Client {
    let client = client_builder(timeout).build();
    client.expect("the HTTP client builds")
}

/// The options of [`client`], with this timeout of a call.
pub fn client_builder(timeout: Duration) -> ClientBuilder {
    Client::builder()
        .no_proxy()
        .timeout(timeout)
        .redirect(Policy::none())
}

/// The value in the line of `metrics` that starts with `name`, or 0 if there is none.
pub fn metric(metrics: &str, name: &str) -> f64 {
    let mut lines = metrics.lines();
    lines
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
        .unwrap_or(0.0)
}
