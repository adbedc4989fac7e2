//! The outcome of one check of one call.

use uuid::Uuid;

use crate::checks::rules::CompiledCheck;
use crate::checks::{Kind, Mode, Policy};
use crate::kratos::Message;
use crate::model::decision::CheckRecord;
use crate::model::request::Request;

/// The outcome of a check.
#[derive(Debug)]
pub(super) enum Outcome {
    Accepted,
    Refused(Message),
    Unavailable {
        kind: Kind,
        policy: Policy,
        message: Message,
    },
    NotApplicable,
    Skipped,
}

/// The state of a check while a call is evaluated.
#[derive(Debug)]
pub(super) enum Slot {
    /// The check waits for this many other checks.
    Waiting(usize),
    /// The check asks a service.
    Running(Asked),
    /// The check is finished.
    Finished(Finished),
}

/// What a check has asked for so far.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The question, if it can be repeated later.
    pub(super) question: Option<Request>,
    /// The reservation.
    pub(super) reservation: Option<Uuid>,
}

/// A finished check.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) outcome: Outcome,
    pub(super) duration_ms: u64,
    pub(super) asked: Asked,
}

impl Slot {
    pub(super) fn finished(&self) -> Option<&Finished> {
        match self {
            Self::Finished(finished) => Some(finished),
            Self::Waiting(_) | Self::Running(_) => None,
        }
    }

    pub(super) fn outcome(&self) -> Option<&Outcome> {
        self.finished().map(|finished| &finished.outcome)
    }
}

impl Outcome {
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused(_) => "refused",
            Self::Unavailable { .. } => "unavailable",
            Self::NotApplicable => "not_applicable",
            Self::Skipped => "skipped",
        }
    }

    /// Whether a check that is named in `after` lets the sign-up pass with this outcome.
    pub(super) fn lets_pass(&self) -> bool {
        match self {
            Self::Accepted | Self::NotApplicable => true,
            Self::Unavailable { policy, .. } => matches!(policy, Policy::Accept | Policy::Defer),
            Self::Refused(_) | Self::Skipped => false,
        }
    }

    /// Why there was no usable answer, and what follows.
    pub(super) fn unavailable(&self) -> Option<(Kind, Policy)> {
        match self {
            Self::Unavailable { kind, policy, .. } => Some((*kind, *policy)),
            _ => None,
        }
    }

    /// The message that keeps the sign-up from passing unless the check is deferred.
    pub(super) fn objection(&self) -> Option<&Message> {
        match self {
            Self::Refused(message)
            | Self::Unavailable {
                policy: Policy::Refuse | Policy::Defer,
                message,
                ..
            } => Some(message),
            _ => None,
        }
    }
}

impl Finished {
    /// The record of the check in the decision log.
    pub(super) fn record(&self, CompiledCheck { check, name, .. }: &CompiledCheck) -> CheckRecord {
        let (kind, message_id) = match &self.outcome {
            Outcome::Refused(message) => (None, Some(message.id)),
            Outcome::Unavailable { kind, .. } => (Some(kind.as_str()), None),
            _ => (None, None),
        };
        CheckRecord {
            check: name.clone(),
            outcome: self.outcome.as_str(),
            kind,
            message_id,
            observed: check.mode == Mode::Observe,
            duration_ms: self.duration_ms,
        }
    }
}
