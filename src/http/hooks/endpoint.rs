//! The endpoint of a hook, and the hook that a call names.

use actix_web::HttpRequest;

use crate::kratos::{Flow, Hook, Stage};

/// The endpoint of a hook: the part of the URL that the routes match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The flow.
    pub flow: Flow,
    /// The stage of the flow.
    pub stage: Stage,
}

impl Endpoint {
    /// Returns the hook that the request calls: this endpoint, and the method in the query.
    #[must_use]
    pub fn hook(self, request: &HttpRequest) -> Hook {
        Hook {
            flow: self.flow,
            stage: self.stage,
            method: method(request.query_string()),
        }
    }
}

/// Returns the `method=` of a query. A value that cannot be a method's name counts as missing.
fn method(query: &str) -> String {
    let method = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("method="))
        .unwrap_or_default();
    let plain = method.len() <= 32
        && method
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    if plain {
        method.to_owned()
    } else {
        String::new()
    }
}
