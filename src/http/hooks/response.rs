//! Converts replies to HTTP responses.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use bytes::Bytes;

use crate::kratos::Reply;

/// The status and the body of a response to Kratos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookResponse {
    /// The status.
    pub status: u16,
    /// The body as JSON, if there is one.
    pub body: Option<Bytes>,
    /// The outcome of the call, in one word, for metrics.
    pub outcome: &'static str,
}

impl HookResponse {
    /// Makes the response for a reply.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "a reply is sent once")]
    pub fn new(reply: Reply, outcome: &'static str) -> Self {
        Self {
            status: reply.status(),
            body: reply.body().map(|body| Bytes::from(body.to_string())),
            outcome,
        }
    }

    /// Returns whether a repeated call gets this response again. A response that asks Kratos to call again is not
    /// repeated.
    #[must_use]
    pub fn is_cacheable(&self) -> bool {
        self.status != 503
    }

    /// Returns how many bytes the cache needs for this response.
    #[must_use]
    pub fn size(&self) -> usize {
        256 + self.body.as_ref().map_or(0, Bytes::len)
    }
}

impl From<HookResponse> for HttpResponse {
    fn from(answer: HookResponse) -> Self {
        let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_REQUEST);
        let mut response = HttpResponse::build(status);
        match answer.body {
            Some(body) => response.content_type("application/json").body(body),
            None => response.finish(),
        }
    }
}
