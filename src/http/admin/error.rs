//! Converts errors of the admin API to responses.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::WWW_AUTHENTICATE;
use actix_web::{HttpRequest, HttpResponse, Responder, ResponseError};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::store;

/// An error response.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(super) struct ApiError {
    error: ErrorBody,
    #[serde(skip)]
    status: StatusCode,
}

/// The error.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "ErrorBody")]
struct ErrorBody {
    /// What is wrong, and where.
    message: String,
    /// What to do.
    help: Option<String>,
}

impl ApiError {
    fn new(status: StatusCode, message: String, help: impl Into<Option<String>>) -> Self {
        Self {
            error: ErrorBody {
                message,
                help: help.into(),
            },
            status,
        }
    }

    /// Creates the error for an invalid request, with status 400.
    pub(super) fn bad_request(message: String, help: impl Into<Option<String>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message, help)
    }

    /// Creates the error for a request whose `Host` is not one of the port.
    pub(super) fn forbidden_host(host: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            format!(
                "the request has the `Host` {host:?}, which is not an IP address, localhost or an allowed host"
            ),
            "call the IP address, or add the name to `serve.admin.allowed_hosts`".to_owned(),
        )
    }

    /// Creates the error for a request of another site.
    pub(super) fn forbidden_origin() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "the request has the `Origin` of another site".to_owned(),
            "call the admin port without a browser, or add the host of the page to `serve.admin.allowed_hosts`"
                .to_owned(),
        )
    }

    /// Creates the error for a request without the token of the settings.
    pub(super) fn no_token() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "the request does not have the token of `serve.admin.token`".to_owned(),
            "send `Authorization: Bearer …`".to_owned(),
        )
    }

    pub(super) fn no_such_delivery(id: Uuid) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("there is no delivery with the id {id}"),
            "list deliveries with GET /deliveries; settled deliveries are deleted after `retention.deliveries`"
                .to_owned(),
        )
    }

    pub(super) fn no_such_decision(flow_id: Uuid) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("there is no decision about the flow {flow_id}"),
            "list decisions with GET /decisions; a decision is stored about a second after the call, and kept for `retention.decisions`"
                .to_owned(),
        )
    }

    pub(super) fn no_such_late_refusal(identity_id: Uuid, check: Option<&str>) -> Self {
        let by = check.map_or(String::new(), |check| format!(" by `{check}`"));
        Self::new(
            StatusCode::NOT_FOUND,
            format!("{identity_id} has no late refusal{by} in force"),
            "list late refusals with GET /late-refusals".to_owned(),
        )
    }

    pub(super) fn no_such_path(path: &str, known: &[&str]) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("there is no path {path}"),
            format!("use one of {}", known.join(", ")),
        )
    }

    pub(super) fn method_not_allowed(verb: &str, path: &str, verbs: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{path} does not support {verb}"),
            format!("use {verbs}"),
        )
    }

    pub(super) fn no_json() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the request has no `Content-Type: application/json`".to_owned(),
            "send `Content-Type: application/json`, which keeps web pages in an operator's browser from calling this API"
                .to_owned(),
        )
    }

    pub(super) fn too_long(most: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {most} bytes"),
            "send fewer ids, or select the deliveries by subscription, state or time".to_owned(),
        )
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        tracing::error!(
            error = error.error_chain(),
            "Database error during a call of the admin API"
        );
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "database error".to_owned(),
            "see Vestibule's log and GET /health/ready, then try again".to_owned(),
        )
    }
}

impl From<store::admin::InvalidFilter> for ApiError {
    fn from(unusable: store::admin::InvalidFilter) -> Self {
        Self::bad_request(unusable.to_string(), None)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.error.message)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header((WWW_AUTHENTICATE, "Bearer"));
        }
        response.json(self)
    }
}

impl Responder for ApiError {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.error_response()
    }
}
