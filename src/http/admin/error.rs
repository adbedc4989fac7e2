//! Makes an error of the admin API into a message and a status.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, Responder, ResponseError};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use crate::store;

/// Why something could not be done.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(super) struct ApiError {
    error: ErrorBody,
    #[serde(skip)]
    status: StatusCode,
}

/// What is wrong.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "ErrorWords")]
struct ErrorBody {
    /// What is wrong, and where.
    message: String,
    /// How to mend it.
    hint: Option<String>,
}

impl ApiError {
    fn new(status: StatusCode, message: String, hint: impl Into<Option<String>>) -> Self {
        Self {
            error: ErrorBody {
                message,
                hint: hint.into(),
            },
            status,
        }
    }

    /// 400: the request cannot be understood.
    pub(super) fn asked_wrongly(message: String, hint: impl Into<Option<String>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message, hint)
    }

    pub(super) fn no_such_delivery(id: Uuid) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("there is no delivery {id}"),
            "GET /deliveries lists them; what is settled is deleted after `retention.deliveries`"
                .to_owned(),
        )
    }

    pub(super) fn no_such_late_refusal(identity_id: Uuid, check: Option<&str>) -> Self {
        let by = check.map_or(String::new(), |check| format!(" by `{check}`"));
        Self::new(
            StatusCode::NOT_FOUND,
            format!("no late refusal{by} of {identity_id} is in force"),
            "GET /late-refusals lists those in force".to_owned(),
        )
    }

    pub(super) fn no_such_path(path: &str, known: &[&str]) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("there is nothing at {path}"),
            format!("there is {}", known.join(", ")),
        )
    }

    pub(super) fn wrong_verb(verb: &str, path: &str, verbs: &str) -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{path} cannot be called with {verb}"),
            format!("call it with {verbs}"),
        )
    }

    pub(super) fn no_json() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body is not said to be JSON".to_owned(),
            "send the header `Content-Type: application/json`; without it a web page could call this from an operator's browser"
                .to_owned(),
        )
    }

    pub(super) fn too_long(most: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is longer than {most} bytes"),
            "name fewer deliveries at once, or all of them by their plan, state or time".to_owned(),
        )
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        tracing::error!(
            error = error.error_chain(),
            "Failed a request of an operator: database error"
        );
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the database did not do it".to_owned(),
            "see the log of Vestibule and GET /health/ready, and try again; nothing is done twice"
                .to_owned(),
        )
    }
}

impl From<store::admin::InvalidFilter> for ApiError {
    fn from(unusable: store::admin::InvalidFilter) -> Self {
        Self::asked_wrongly(unusable.to_string(), None)
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
        HttpResponse::build(self.status).json(self)
    }
}

impl Responder for ApiError {
    type Body = actix_web::body::BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse {
        self.error_response()
    }
}
