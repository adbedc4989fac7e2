//! Reservations: taking, taken, then confirmed or released.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::model::delivery::EvaluationContext;
use crate::model::request::Request;

/// Something that a service keeps for the submissions of one flow: an invite, a seat, a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Reservation {
    /// The id. The request to take the reservation has this id as its `Idempotency-Key`.
    pub id: Uuid,
    /// The flow. The identity has no id yet, so the flow's id is the only name that both hooks have.
    pub flow_id: Uuid,
    /// The name of the check.
    pub check: String,
    /// The [`request_hash`] of the request. Another value is another reservation.
    pub request_hash: String,
    /// The state.
    pub state: State,
    /// The data for further requests. `None` after the confirmation. A released reservation keeps the data for taking
    /// it again until its account can no longer be found.
    pub details: Option<Details>,
    /// Why the reservation was released.
    pub release_reason: Option<ReleaseReason>,
    /// When taking began.
    pub created_at: Timestamp,
    /// When the flow expires.
    pub expires_at: Timestamp,
    /// The submission that owns the reservation, unless the one-identity guard is proven.
    pub submission: String,
    /// Until this time, a `pre` that uses the reservation may be running. The reservation is not released before.
    pub in_use_until: Timestamp,
}

/// The data for the requests `confirm` and `release`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// The request that takes the reservation.
    pub take: Request,
    /// The variables for the expressions of `confirm` and `release`. `taken` is set once there was an answer.
    pub context: EvaluationContext,
}

/// The state of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The service was asked, or is about to be asked.
    Taking,
    /// The service accepted.
    Taken,
    /// The account exists.
    Confirmed,
    /// The reservation was released, or its release is pending.
    Released,
}

/// Why a reservation was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseReason {
    /// The visitor sent another value.
    Changed,
    /// Whether the service took the reservation is unknown.
    Unclear,
    /// The service took the reservation, and the check refused the answer.
    AnswerRefused,
    /// The flow expired.
    Expired,
    /// The submission has no account.
    NeverCreated,
    /// The flow's identity is attributed to another submission.
    NotUsed,
    /// Another submission of the flow has the reservation now. This row is kept for the submission that had it before.
    TakenOver,
}

impl State {
    /// All states.
    pub const ALL: [Self; 4] = [Self::Taking, Self::Taken, Self::Confirmed, Self::Released];

    /// Returns the name of the state in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Taking => "taking",
            Self::Taken => "taken",
            Self::Confirmed => "confirmed",
            Self::Released => "released",
        }
    }

    /// Returns the state with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl ReleaseReason {
    /// All reasons.
    pub const ALL: [Self; 7] = [
        Self::Changed,
        Self::Unclear,
        Self::AnswerRefused,
        Self::Expired,
        Self::NeverCreated,
        Self::NotUsed,
        Self::TakenOver,
    ];

    /// Returns the name of the reason in the store and the log.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unclear => "unclear",
            Self::AnswerRefused => "answer_refused",
            Self::Expired => "expired",
            Self::NeverCreated => "never_created",
            Self::NotUsed => "not_used",
            Self::TakenOver => "taken_over",
        }
    }

    /// Returns the reason with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

/// Returns a hash of the request. The hash recognises the same request without storing the visitor's input.
#[must_use]
pub fn request_hash(take: &Request) -> String {
    let written = serde_json::to_vec(take).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(Sha256::digest(&written))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::request::Method;

    #[test]
    fn another_value_is_another_reservation() {
        let take = |invite: &str| Request {
            method: Method::Post,
            path: format!("/invites/{invite}/hold"),
            headers: Vec::new(),
            body: None,
        };
        assert_eq!(request_hash(&take("a")), request_hash(&take("a")));
        assert_ne!(request_hash(&take("a")), request_hash(&take("b")));
        assert_eq!(request_hash(&take("a")).len(), 43);
    }
}
