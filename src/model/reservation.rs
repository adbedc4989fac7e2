//! taken -> confirmed or released

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::model::delivery::EvaluationContext;
use crate::model::request::Request;

/// Keeps something of a service (an invite, a seat, a number) for the submissions of one flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Reservation {
    /// Also the `Idempotency-Key` of taking it.
    pub id: Uuid,
    /// The identity has no id yet, so the flow's id is the only name that both hooks share.
    pub flow_id: Uuid,
    /// The check's name.
    pub check: String,
    /// What was asked for, as [`asked`] tells it: another value is another reservation.
    pub request_hash: String,
    /// Where it stands.
    pub state: State,
    /// `None` once it is confirmed. Of a released one it is what taking it again needs, if its account may still be found.
    pub details: Option<Details>,
    /// Why it was released.
    pub release_reason: Option<ReleaseReason>,
    /// When taking began.
    pub created_at: Timestamp,
    /// When the flow's life ends.
    pub expires_at: Timestamp,
    /// The submission that it belongs to, where the one-identity guard is not relied on.
    pub submission: String,
    /// Until then a `pre` that uses it may still be running, and it is not released.
    pub in_use_until: Timestamp,
}

/// What confirming and releasing need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// The request that takes it.
    pub take: Request,
    /// What the expressions of `confirm` and `release` may read. It has `taken` once there was an answer.
    pub context: EvaluationContext,
}

/// Where a reservation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The service was asked, or is about to be.
    Taking,
    /// The service said yes.
    Taken,
    /// The account exists.
    Confirmed,
    /// It was given back.
    Released,
}

/// Why a reservation was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseReason {
    /// The person sent another value.
    Changed,
    /// The service did not say whether it was taken.
    Unclear,
    /// The flow's life ended.
    Expired,
    /// No account came of it.
    NeverCreated,
    /// The flow's identity came of another submission.
    NotUsed,
    /// Another submission of the flow has it now. This row is what is kept for the submission that had it before.
    TakenOver,
}

impl State {
    /// Every state there is.
    pub const ALL: [Self; 4] = [Self::Taking, Self::Taken, Self::Confirmed, Self::Released];

    /// As the store writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Taking => "taking",
            Self::Taken => "taken",
            Self::Confirmed => "confirmed",
            Self::Released => "released",
        }
    }

    /// The state of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

impl ReleaseReason {
    /// Every reason there is.
    pub const ALL: [Self; 6] = [
        Self::Changed,
        Self::Unclear,
        Self::Expired,
        Self::NeverCreated,
        Self::NotUsed,
        Self::TakenOver,
    ];

    /// As the store and the log write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unclear => "unclear",
            Self::Expired => "expired",
            Self::NeverCreated => "never_created",
            Self::NotUsed => "not_used",
            Self::TakenOver => "taken_over",
        }
    }

    /// The reason of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.as_str() == name)
    }
}

/// A hash of what is asked for, so that the same question is known again without keeping what was typed.
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
