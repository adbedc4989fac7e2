//! What Kratos accepts back.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::message::Message;

/// An answer to a hook. There is no way to write one that Kratos would ask again about, or would take
/// for a yes by mistake: every refusal has messages, every 200 has a body.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// 204: yes, unchanged; or, to `post`, stored.
    Yes,
    /// 200: yes, with these fields of the identity replaced whole.
    Changed(Map<String, Value>),
    /// A 4xx with messages.
    Refused {
        /// 400, unless the fault lies with who is calling (401, 404, 405, 413).
        status: RefusalStatus,
        /// At least one.
        messages: Vec<PlacedMessages>,
    },
    /// 503, only ever to `post`: not stored, call again.
    Retry,
}

/// The statuses that Kratos reads messages from and does not retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalStatus {
    /// 400
    BadRequest,
    /// 401: wrong or missing key.
    Unauthorized,
    /// 404: no such hook.
    NotFound,
    /// 405: a hook, but not called with POST.
    MethodNotAllowed,
    /// 413: more than a sign-up can be.
    TooLarge,
}

/// Messages and the place where they stand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlacedMessages {
    /// `#/traits/vat_number`, or `#/` for form level.
    pub instance_ptr: String,
    /// In the order in which they shall be shown.
    pub messages: Vec<Message>,
}

impl PlacedMessages {
    /// One message at one place.
    #[must_use]
    pub fn new(instance_ptr: &str, message: Message) -> Self {
        Self {
            instance_ptr: instance_ptr.to_owned(),
            messages: vec![message],
        }
    }
}

impl Reply {
    /// A refusal with status 400.
    #[must_use]
    pub fn refused(messages: Vec<PlacedMessages>) -> Self {
        Self::Refused {
            status: RefusalStatus::BadRequest,
            messages,
        }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Yes => 204,
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

    /// The body, if there is one.
    #[must_use]
    pub fn body(&self) -> Option<Value> {
        match self {
            Self::Yes | Self::Retry => None,
            Self::Changed(identity) => Some(serde_json::json!({ "identity": identity })),
            Self::Refused { messages, .. } => Some(serde_json::json!({ "messages": messages })),
        }
    }
}
