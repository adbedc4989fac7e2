//! The replies that Kratos accepts from a hook.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::message::Message;

/// A reply to a hook.
///
/// The type cannot express a reply that Kratos would retry, or would take as accepted by mistake: every refusal has
/// messages, and every 200 has a body.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// 204: accepted without changes (`pre`), or stored (`post`).
    NoContent,
    /// 200: accepted with changes. Each of these fields of the identity is replaced as a whole.
    Changed(Map<String, Value>),
    /// A 4xx status with messages.
    Refused {
        /// 400, or 401, 404, 405 or 413 if the call itself is wrong.
        status: RefusalStatus,
        /// The messages, at least one.
        messages: Vec<PlacedMessages>,
    },
    /// 503, only for `post`: the call was not stored, and Kratos must call again.
    Retry,
}

/// The statuses whose messages Kratos reads, and that Kratos does not retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalStatus {
    /// 400
    BadRequest,
    /// 401: the key is wrong or missing.
    Unauthorized,
    /// 404: the hook does not exist.
    NotFound,
    /// 405: the hook exists, but the method is not POST.
    MethodNotAllowed,
    /// 413: the body is larger than a sign-up can be.
    TooLarge,
}

/// Messages and the pointer to their place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlacedMessages {
    /// `#/traits/vat_number`, or `#/` for form level.
    pub instance_ptr: String,
    /// The messages, in display order.
    pub messages: Vec<Message>,
}

impl PlacedMessages {
    /// Creates one message at one place.
    #[must_use]
    pub fn new(instance_ptr: &str, message: Message) -> Self {
        Self {
            instance_ptr: instance_ptr.to_owned(),
            messages: vec![message],
        }
    }
}

impl Reply {
    /// Creates a refusal with status 400.
    #[must_use]
    pub fn refused(messages: Vec<PlacedMessages>) -> Self {
        Self::Refused {
            status: RefusalStatus::BadRequest,
            messages,
        }
    }

    /// Returns the HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::NoContent => 204,
            Self::Changed(_) => 200,
            Self::Refused { status, .. } => match status {
                RefusalStatus::BadRequest => 400,
                RefusalStatus::Unauthorized => 401,
                RefusalStatus::NotFound => 404,
                RefusalStatus::MethodNotAllowed => 405,
                RefusalStatus::TooLarge => 413,
            },
            Self::Retry => 503,
        }
    }

    /// Returns the body, if the reply has one.
    #[must_use]
    pub fn body(&self) -> Option<Value> {
        match self {
            Self::NoContent | Self::Retry => None,
            Self::Changed(identity) => Some(serde_json::json!({ "identity": identity })),
            Self::Refused { messages, .. } => Some(serde_json::json!({ "messages": messages })),
        }
    }
}
