//! Decides which accepted submissions are recorded, and which `external_id` `pre` sets, so that a flow has at most one
//! identity.

use std::borrow::Cow;

use serde_json::Value;
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::kratos::fingerprint::guard_id;
use crate::kratos::{Flow, Hook, Identifiers, Payload};
use crate::model::delivery::EvaluationContext;
use crate::model::pending::ExternalId;
use crate::model::pending::{
    Deferred, Details, LookupKeys, LookupTimes, PendingKey, PendingSignUp, PendingState,
    SubmissionHash,
};
use crate::model::verdict::Verdict;
use crate::store::Acceptance;

/// The settings that decide which accepted submissions are recorded, and with which data.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each depends on a different setting"
)]
#[derive(Clone, Debug)]
pub struct PendingPolicy {
    /// Whether identities can be looked up.
    pub looks_up: bool,
    /// The traits with which visitors sign in.
    pub identifiers: Identifiers,
    /// Whether sign-ups get an `external_id` of Vestibule.
    pub external_id: ExternalId,
    /// Whether a check of a registration reserves or defers.
    pub holds_registrations: bool,
    /// Whether a subscription has the event `identity.created` or `registration.failed`.
    pub wants_registrations: bool,
    /// Whether a subscription has the event `identity.updated`.
    pub wants_updates: bool,
    /// Whether a subscription has the event `registration.failed`.
    pub wants_failures: bool,
    /// Whether a delivery reads the flow.
    pub reads_flow: bool,
    /// Whether a delivery reads the visitor's request.
    pub reads_request: bool,
    /// When submissions are looked up.
    pub times: LookupTimes,
}

/// The deferred checks and the reservations of an accepted submission.
#[derive(Debug, Default)]
pub struct Held {
    /// The checks that were deferred.
    pub deferred: Vec<Deferred>,
    /// The reservations that the submission uses.
    pub reservations: Vec<Uuid>,
    /// The checks that were deferred before, and have accepted now.
    pub no_longer_deferred: Vec<String>,
    /// The checks that had refused the identity late, and have accepted now.
    pub no_longer_refused: Vec<String>,
}

impl Held {
    /// Returns whether the acceptance counts only once it is recorded.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        !self.deferred.is_empty()
            || !self.reservations.is_empty()
            || !self.no_longer_deferred.is_empty()
            || !self.no_longer_refused.is_empty()
    }
}

impl PendingPolicy {
    /// Returns whether `pre` reads the record of the flow before it evaluates checks.
    #[must_use]
    pub fn reads_record(&self, hook: &Hook) -> bool {
        hook.flow == Flow::Registration && (self.holds_registrations || self.looks_up)
    }

    /// Returns the `external_id` that the identity gets, so that Kratos creates at most one identity of the flow.
    #[must_use]
    pub fn guard_id(&self, hook: &Hook, payload: &Payload) -> Option<String> {
        let identity = payload.identity.as_ref()?;
        let has_one = identity["external_id"]
            .as_str()
            .is_some_and(|id| !id.is_empty());
        let wanted = match self.external_id {
            ExternalId::Always => true,
            ExternalId::Never => false,
            ExternalId::Auto => self.holds_registrations || self.looks_up,
        };
        (wanted && hook.flow == Flow::Registration && !has_one).then(|| guard_id(payload.flow_id))
    }

    /// Returns whether the response waits until the acceptance is recorded. Then a `post` of a registration without a
    /// record is certainly a fault. Without waiting, a change in settings could be delivered twice: by a `post` that
    /// arrives before its record, and by a look-up.
    #[must_use]
    pub fn is_awaited(&self, hook: &Hook) -> bool {
        match hook.flow {
            Flow::Registration => self.holds_registrations,
            _ => self.looks_up && self.delivers_change(hook),
        }
    }

    fn delivers_change(&self, hook: &Hook) -> bool {
        let is_profile = matches!(hook.method.as_str(), "profile" | "");
        hook.flow == Flow::Settings && self.wants_updates && is_profile
    }

    /// Returns the record of an accepted submission. `None` if its outcome is not needed.
    #[must_use]
    pub fn acceptance(
        &self,
        hook: &Hook,
        payload: &Payload,
        submission: &str,
        verdict: &Verdict,
        held: Held,
        now: Timestamp,
    ) -> Option<Acceptance> {
        let is_change = !payload.identity_id.is_nil();
        let wanted = if is_change {
            self.delivers_change(hook)
        } else {
            self.wants_registrations
        };
        let is_awaited = self.is_awaited(hook);
        let is_looked_up = self.looks_up && wanted;
        if !(held.is_durable() || is_awaited || is_looked_up) {
            return None;
        }
        let identity = as_saved(payload.identity.as_ref()?, verdict);
        let guard = self.guard_id(hook, payload);
        let lookup_keys = LookupKeys {
            identifiers: if is_change {
                Vec::new()
            } else {
                self.identifiers.in_identity(&identity)
            },
            external_id: identity["external_id"].as_str().map(ToOwned::to_owned),
            identity_id: is_change.then_some(payload.identity_id),
        };
        // Only the data that is read later is kept.
        let keeps_identity = self.wants_failures || is_change;
        let keeps_flow = self.reads_flow || !held.deferred.is_empty();
        let keeps_request = self.reads_request || !held.deferred.is_empty();
        Some(Acceptance {
            must_hold: held.is_durable(),
            next_lookup_at: self.looks_up.then(|| self.times.first(now)),
            sign_up: PendingSignUp {
                key: PendingKey {
                    flow_id: payload.flow_id,
                    submission: submission.to_owned(),
                },
                flow: hook.flow,
                method: hook.method.clone(),
                hash: SubmissionHash::of(&identity, &payload.flow),
                guarded: guard.is_some(),
                last_known_absent_at: payload.last_known_absent_at().unwrap_or(now),
                accepted_at: now,
                expires_at: payload.expires_at(now),
                state: PendingState::Open,
                identity_id: None,
                details: Details {
                    lookup_keys,
                    context: EvaluationContext {
                        identity: keeps_identity.then(|| identity.into_owned()),
                        previous: payload.previous.clone(),
                        flow: keeps_flow.then(|| payload.flow.clone()),
                        request: keeps_request.then(|| payload.request.clone()),
                        method: hook.method.clone(),
                        now,
                        ..EvaluationContext::default()
                    },
                    deferred: held.deferred,
                    reservations: held.reservations,
                    no_longer_deferred: held.no_longer_deferred,
                    no_longer_refused: held.no_longer_refused,
                },
            },
        })
    }
}

/// Returns the identity as Kratos will save it.
fn as_saved<'a>(identity: &'a Value, verdict: &Verdict) -> Cow<'a, Value> {
    let Verdict::AdmitWith(changes) = verdict else {
        return Cow::Borrowed(identity);
    };
    let mut identity = identity.clone();
    if let Value::Object(identity) = &mut identity {
        identity.extend(changes.clone());
    }
    Cow::Owned(identity)
}
