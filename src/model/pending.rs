//! Pending sign-ups: sign-ups that `pre` accepted and whose outcome is not known yet.
//!
//! A visitor can submit one registration flow many times, also in parallel, and Kratos creates an identity for each
//! submission that it saves. So every accepted submission is recorded, and a `post` is attributed to one of them.

use std::time::Duration;

use chrono::SubsecRound as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::base::clock::{Timestamp, saturating_add};
use crate::kratos::Flow;
use crate::kratos::fingerprint::{fingerprint, is_of_another_flow};
use crate::model::delivery::{EvaluationContext, null_is_a_value};
use crate::model::request::Request;

/// Whether `pre` answers with an `external_id` of Vestibule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ExternalId {
    /// If a check reserves or defers, or if identities can be looked up.
    #[default]
    Auto,
    /// For every sign-up.
    Always,
    /// For no sign-up.
    Never,
}

/// The maximum time from the acceptance to the identity, including later hooks. An identity without Vestibule's
/// `external_id` that is younger belongs to another sign-up.
const SAVED_WITHIN: Duration = Duration::from_mins(5);
/// The first and the maximum pause after a look-up that Kratos did not answer.
const PAUSE: Duration = Duration::from_secs(5);
const MAX_PAUSE: Duration = Duration::from_mins(16);
/// The maximum number of accepted submissions of one registration flow. Further submissions are refused.
pub const MAX_SUBMISSIONS: u32 = 20;

/// An accepted submission of a flow.
#[derive(Clone, Debug, PartialEq)]
pub struct PendingSignUp {
    /// The key.
    pub key: PendingKey,
    /// Registration, or a change in settings.
    pub flow: Flow,
    /// The method of the hook.
    pub method: String,
    /// The hash of the traits as Kratos will save them, and of the transient payload.
    pub hash: SubmissionHash,
    /// Whether `pre` answered with Vestibule's `external_id`.
    pub guarded: bool,
    /// The last time on Kratos's clock at which the identity did not exist.
    pub last_known_absent_at: Timestamp,
    /// When `pre` accepted the submission.
    pub accepted_at: Timestamp,
    /// When the flow expires.
    pub expires_at: Timestamp,
    /// The outcome, as far as it is known.
    pub state: PendingState,
    /// The identity to which the submission is attributed.
    pub identity_id: Option<Uuid>,
    /// The data that is needed once the outcome is known.
    pub details: Details,
}

/// The key of a submission. Kratos's retries of one call have the same key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PendingKey {
    /// The flow.
    pub flow_id: Uuid,
    /// The trigger id of the call, or a hash of the call if Kratos sends no trigger id.
    pub submission: String,
}

/// The hash by which a submission is recognised in `post` and in the admin API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubmissionHash {
    /// The hash of the traits.
    pub traits: String,
    /// The hash of `flow.transient_payload`, which only hooks of the same submission have.
    pub transient_payload: String,
}

impl SubmissionHash {
    /// Returns the hash of an identity, and of the flow if it is known.
    #[must_use]
    pub fn of(identity: &Value, flow: &Value) -> Self {
        // If the client sent no payload, Kratos leaves the payload out or sends `{}`.
        let empty = Value::Object(serde_json::Map::new());
        let payload = flow.get("transient_payload").unwrap_or(&empty);
        let payload = if payload.is_null() { &empty } else { payload };
        Self {
            traits: fingerprint(&identity["traits"]),
            transient_payload: fingerprint(payload),
        }
    }
}

/// The outcome of a submission, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PendingState {
    /// The outcome is not known.
    Open,
    /// The look-up found no identity. The reservations are released.
    NeverCreated,
    /// The outcome cannot be determined. The reservations are released.
    Undecided,
    /// The submission is attributed to an identity.
    Attributed,
}

impl PendingState {
    /// Returns the name of the state in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::NeverCreated => "never_created",
            Self::Undecided => "undecided",
            Self::Attributed => "attributed",
        }
    }

    /// Returns the state with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        [
            Self::Open,
            Self::NeverCreated,
            Self::Undecided,
            Self::Attributed,
        ]
        .into_iter()
        .find(|state| state.as_str() == name)
    }
}

/// The data that is needed once the outcome is known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Details {
    /// The keys by which the identity can be found.
    pub lookup_keys: LookupKeys,
    /// The variables for deliveries.
    pub context: EvaluationContext,
    /// The deferred checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deferred: Vec<Deferred>,
    /// The reservations that the submission uses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reservations: Vec<Uuid>,
    /// The checks that were deferred before, and have accepted the new values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_longer_deferred: Vec<String>,
    /// The checks that had refused the identity late, and have accepted the new values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub no_longer_refused: Vec<String>,
}

/// The keys by which Kratos finds an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LookupKeys {
    /// The identifiers with which the visitor can sign in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identifiers: Vec<String>,
    /// The `external_id` that the identity gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// In settings, the identity itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity_id: Option<Uuid>,
}

/// The question of a deferred check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deferred {
    /// The name of the check.
    pub check: String,
    /// The request.
    pub request: Request,
    /// The value of the check's field, as Kratos will save it.
    #[serde(
        default,
        deserialize_with = "null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub value: Option<Value>,
}

/// A submission that is attributed to an identity. A submission with several reservations is listed once for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributedSubmission {
    /// The key.
    pub key: PendingKey,
    /// Registration, or a change in settings.
    pub flow: Flow,
    /// The hash of the traits.
    pub traits_hash: String,
    /// When `pre` accepted the submission.
    pub accepted_at: Timestamp,
    /// The check and the request hash of a reservation that was confirmed, or taken again, for the submission.
    pub reserved: Option<(String, String)>,
}

/// The record of a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// The flow.
    pub flow_id: Uuid,
    /// Registration or settings.
    pub flow: Flow,
    /// The identity of the flow. `Some` only for registration flows with the one-identity guard. The flow is then
    /// closed, and its other submissions cannot succeed.
    pub identity_id: Option<Uuid>,
    /// When the flow expires.
    pub expires_at: Timestamp,
    /// When the newest submission was accepted.
    pub newest_at: Timestamp,
    /// How many look-ups there were since the newest submission.
    pub lookups: u32,
    /// How many submissions were accepted.
    pub submissions: u32,
}

/// Why a flow is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupKind {
    /// The look-up is due by [`LookupTimes`].
    Planned,
    /// A `post` could not be read, and it may belong to this flow.
    Urgent,
}

/// The minimum time between two look-ups of a flow because of unreadable `post` calls. A flood of these calls does not
/// multiply the look-ups.
pub const URGENT_LOOKUP_INTERVAL: Duration = Duration::from_mins(1);

/// When submissions without a `post` are looked up.
#[derive(Clone, Debug)]
pub struct LookupTimes {
    /// The look-ups after the newest submission of a flow.
    pub after_acceptance: [Duration; 4],
    /// After this time without an identity, the submission has no identity.
    pub conclusive_after: Duration,
    /// The look-up after the end of the flow. Kratos can begin to save at the very end of a flow.
    pub after_expiry: Duration,
    /// The last look-up after the end of the flow. Until then, a late `post` is attributed.
    pub known_for: Duration,
}

impl Default for LookupTimes {
    fn default() -> Self {
        Self {
            after_acceptance: [
                Duration::from_secs(5),
                Duration::from_secs(30),
                Duration::from_mins(2),
                Duration::from_mins(10),
            ],
            conclusive_after: Duration::from_mins(10),
            after_expiry: Duration::from_secs(90),
            known_for: Duration::from_hours(24),
        }
    }
}

impl LookupTimes {
    /// Divides all times by this number, for tests.
    #[must_use]
    pub fn divided_by(&self, times: u32) -> Self {
        let times = times.max(1);
        Self {
            after_acceptance: self.after_acceptance.map(|after| after / times),
            conclusive_after: self.conclusive_after / times,
            after_expiry: self.after_expiry / times,
            known_for: self.known_for / times,
        }
    }

    /// Returns when the first look-up after an acceptance is due.
    #[must_use]
    pub fn first(&self, accepted_at: Timestamp) -> Timestamp {
        saturating_add(accepted_at, self.after_acceptance[0])
    }

    /// Returns when the next look-up of a flow without an outcome is due. `None`: there are no further look-ups.
    #[must_use]
    pub fn next(&self, record: &FlowRecord, now: Timestamp) -> Option<Timestamp> {
        let after_acceptance = self
            .after_acceptance
            .iter()
            .map(|after| saturating_add(record.newest_at, *after));
        let at_the_end = [self.after_expiry, self.known_for]
            .map(|after| saturating_add(record.expires_at, after));
        after_acceptance
            .chain(at_the_end)
            .filter(|at| *at > now)
            .min()
    }

    /// Returns when the next look-up is due after one that Kratos did not answer. Pauses grow, and the planned times
    /// are kept.
    #[must_use]
    pub fn retry(&self, record: &FlowRecord, now: Timestamp) -> Timestamp {
        let pause = PAUSE
            .saturating_mul(1 << record.lookups.min(8))
            .min(MAX_PAUSE);
        let retry = saturating_add(now, pause);
        self.next(record, now).map_or(retry, |next| next.min(retry))
    }

    /// Returns whether a look-up at `now` that finds no identity proves that the submission has none.
    #[must_use]
    pub fn is_conclusive(&self, accepted_at: Timestamp, now: Timestamp) -> bool {
        now >= saturating_add(accepted_at, self.conclusive_after)
    }

    /// Returns whether the flow has expired, and Kratos can save nothing more of it.
    #[must_use]
    pub fn is_over(&self, expires_at: Timestamp, now: Timestamp) -> bool {
        now >= saturating_add(expires_at, self.after_expiry)
    }
}

impl PendingSignUp {
    /// Returns whether the keys find every identity of this submission, so that a look-up without a result proves that
    /// there is none. Kratos does not send hooks the identifier of social sign-ups, passkeys and security keys.
    /// `guard_is_proven`: Kratos stores Vestibule's `external_id`.
    #[must_use]
    pub fn can_be_found(&self, guard_is_proven: bool) -> bool {
        let keys = &self.details.lookup_keys;
        let has_own_id = keys.external_id.is_some() && !self.guarded;
        (self.guarded && guard_is_proven)
            || has_own_id
            || keys.identity_id.is_some()
            || (matches!(self.method.as_str(), "password" | "code") && !keys.identifiers.is_empty())
    }

    /// Returns whether this identity can belong to the submission. An identity that existed before cannot.
    #[must_use]
    pub fn is_about(&self, identity: &Value) -> bool {
        let keys = &self.details.lookup_keys;
        if keys.identity_id.is_some() {
            // In settings, the change was saved if the identity has the new traits.
            let wanted = self.details.context.identity.as_ref();
            return fingerprint(&identity["traits"]) == self.hash.traits
                && wanted.is_none_or(|wanted| was_saved_since(wanted, identity));
        }
        let created = identity["created_at"]
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok());
        // Kratos on MySQL stores whole seconds.
        let earliest = self.last_known_absent_at.trunc_subsecs(0);
        if created.is_none_or(|created| created < earliest) {
            return false;
        }
        let external_id = identity["external_id"].as_str();
        let is_ours = keys.external_id.is_some() && external_id == keys.external_id.as_deref();
        // Kratos created it from another form, even if that was within the same second.
        if !is_ours && external_id.is_some_and(|id| is_of_another_flow(id, self.key.flow_id)) {
            return false;
        }
        // `last_known_absent_at` is when the flow was opened, if the Jsonnet template does not send when the form was
        // submitted.
        let latest = saturating_add(
            self.last_known_absent_at.max(self.accepted_at),
            SAVED_WITHIN,
        );
        is_ours || created.is_some_and(|created| created <= latest)
    }
}

impl PendingSignUp {
    /// Returns the other submissions of the identity that can be the reason why the identity has the values of this
    /// submission. A change in settings that was accepted before Kratos read the identity for this submission is not
    /// among them: Kratos had saved that change before.
    pub fn other_causes<'a>(
        &self,
        attributed: &'a [AttributedSubmission],
    ) -> impl Iterator<Item = &'a AttributedSubmission> {
        let seen = self.details.context.identity.as_ref().and_then(saved_at);
        let since = seen.map(|seen| seen.min(self.accepted_at));
        attributed
            .iter()
            .filter(move |other| other.key != self.key && other.flow == self.flow)
            .filter(move |other| {
                other.flow == Flow::Registration
                    || since.is_none_or(|since| other.accepted_at > since)
            })
    }
}

fn saved_at(identity: &Value) -> Option<Timestamp> {
    identity["updated_at"].as_str()?.parse().ok()
}

/// Returns whether the identity was saved after `pre` received it. Without `updated_at`, the answer is `true`.
fn was_saved_since(seen: &Value, now: &Value) -> bool {
    match (saved_at(seen), saved_at(now)) {
        (Some(before), Some(now)) => before < now,
        _ => true,
    }
}

/// The result of attributing an identity to a submission.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attribution<'a> {
    /// This submission: it has the same hash.
    Exact(&'a PendingSignUp),
    /// This submission: the flow has no other, although the hash differs.
    Only(&'a PendingSignUp),
    /// One of several submissions, none of which has the hash.
    Ambiguous,
    /// This identity is attributed already: the call is a repeated one.
    Known,
    /// No submission is recorded.
    Unknown,
}

/// Attributes an identity to one of the submissions of its flow. Among submissions with the same hash, one with a
/// deferred check comes first, then the newest. `is_closed`: the flow has only this identity. Then a single submission
/// is attributed even if a later hook changed the traits.
#[must_use]
pub fn attribute<'a>(
    pending: &'a [PendingSignUp],
    identity_id: Uuid,
    hash: &SubmissionHash,
    knows_payload: bool,
    is_closed: bool,
) -> Attribution<'a> {
    // A registration flow creates an identity once. A settings flow changes an identity many times.
    let is_repeated = pending
        .iter()
        .any(|one| one.identity_id == Some(identity_id) && one.flow == Flow::Registration);
    if is_repeated {
        return Attribution::Known;
    }
    let free: Vec<&PendingSignUp> = pending
        .iter()
        .filter(|one| one.identity_id.is_none())
        .collect();
    let same_hash = free
        .iter()
        .copied()
        .filter(|one| one.hash.traits == hash.traits)
        .max_by_key(|one| {
            let same_payload =
                !knows_payload || one.hash.transient_payload == hash.transient_payload;
            let has_deferred = !one.details.deferred.is_empty();
            let is_open = one.state == PendingState::Open;
            (same_payload, has_deferred, is_open, one.accepted_at)
        });
    match (same_hash, free.as_slice()) {
        (Some(one), _) => Attribution::Exact(one),
        (None, [only]) if is_closed => Attribution::Only(only),
        (None, [_, ..]) if is_closed => Attribution::Ambiguous,
        (None, _) if is_attributed(pending, identity_id, hash) => Attribution::Known,
        (None, _) => Attribution::Unknown,
    }
}

fn is_attributed(pending: &[PendingSignUp], identity_id: Uuid, hash: &SubmissionHash) -> bool {
    pending
        .iter()
        .any(|one| one.identity_id == Some(identity_id) && one.hash.traits == hash.traits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kratos::fingerprint::guard_id;
    use serde_json::json;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn pending(method: &str, lookup_keys: LookupKeys) -> PendingSignUp {
        PendingSignUp {
            key: PendingKey {
                flow_id: Uuid::from_u128(1),
                submission: "t1".to_owned(),
            },
            flow: Flow::Registration,
            method: method.to_owned(),
            hash: SubmissionHash::default(),
            guarded: false,
            last_known_absent_at: at("2026-11-23T12:00:00.5Z"),
            accepted_at: at("2026-11-23T12:00:01Z"),
            expires_at: at("2026-11-23T13:00:00Z"),
            state: PendingState::Open,
            identity_id: None,
            details: Details {
                lookup_keys,
                ..Details::default()
            },
        }
    }

    fn known_by(identifiers: &[&str]) -> LookupKeys {
        LookupKeys {
            identifiers: identifiers.iter().map(ToString::to_string).collect(),
            ..LookupKeys::default()
        }
    }

    #[test]
    fn without_the_guard_only_some_methods_can_be_found() {
        let external = LookupKeys {
            external_id: Some("crm-1".to_owned()),
            ..LookupKeys::default()
        };
        for (method, keys, expected) in [
            ("password", known_by(&["a@example.org"]), true),
            ("code", known_by(&["a@example.org"]), true),
            ("password", known_by(&[]), false),
            ("oidc", known_by(&["a@example.org"]), false),
            ("passkey", known_by(&["a@example.org"]), false),
            ("webauthn", known_by(&["a@example.org"]), false),
            ("", known_by(&["a@example.org"]), false),
            ("oidc", external, true),
        ] {
            assert_eq!(
                pending(method, keys).can_be_found(true),
                expected,
                "{method}"
            );
        }
        let mut guarded = pending("oidc", known_by(&[]));
        guarded.guarded = true;
        guarded.details.lookup_keys.external_id = Some("vestibule:1".to_owned());
        assert!(guarded.can_be_found(true));
        assert!(!guarded.can_be_found(false), "Kratos may ignore the id");
    }

    #[test]
    fn an_identity_that_existed_before_belongs_to_another_sign_up() {
        let mut one = pending("password", known_by(&["a@example.org"]));
        for (created_at, expected) in [
            (json!("2026-11-23T11:59:59.999999Z"), false),
            (json!("2026-11-23T12:00:00Z"), true), // a database that stores whole seconds
            (json!("2026-11-23T12:00:00.5Z"), true),
            (json!("2026-11-23T12:05:01Z"), true),
            (json!("2026-11-23T12:05:02Z"), false), // a later sign-up
            (json!("2025-01-01T00:00:00Z"), false),
            (json!(null), false),
        ] {
            let identity = json!({"created_at": created_at});
            assert_eq!(one.is_about(&identity), expected, "{created_at}");
        }
        // With Vestibule's `external_id` there is no doubt, however long another hook took.
        one.details.lookup_keys.external_id = Some("vestibule:1".to_owned());
        let slow = json!({"created_at": "2026-11-23T12:30:00Z", "external_id": "vestibule:1"});
        assert!(one.is_about(&slow));
        let before = json!({"created_at": "2026-11-23T11:00:00Z", "external_id": "vestibule:1"});
        assert!(!one.is_about(&before));
    }

    /// Someone whose account is a moment old signs up again, by another method.
    #[test]
    fn an_identity_of_another_form_belongs_to_that_form() {
        let one = pending("oidc", known_by(&["a@example.org"]));
        let created_with = |external_id: &str| json!({"created_at": "2026-11-23T12:00:00.5Z", "external_id": external_id});
        let other_flow = Uuid::from_u128(0xf00);
        assert_ne!(other_flow, one.key.flow_id);
        for (external_id, expected) in [
            (guard_id(other_flow), false),
            (guard_id(one.key.flow_id), true),
            ("crm-1".to_owned(), true),
        ] {
            assert_eq!(
                one.is_about(&created_with(&external_id)),
                expected,
                "{external_id}"
            );
        }
    }

    #[test]
    fn a_change_was_saved_if_the_identity_has_its_traits_and_is_newer() {
        let mut entry = pending("profile", LookupKeys::default());
        entry.details.lookup_keys.identity_id = Some(Uuid::from_u128(7));
        let seen = json!({"traits": {"vat": "new"}, "updated_at": "2026-11-23T12:00:00Z"});
        entry.hash = SubmissionHash::of(&seen, &Value::Null);
        entry.details.context.identity = Some(seen.clone());
        assert!(
            !entry.is_about(&seen),
            "the identity had these traits before"
        );
        let saved = json!({"traits": {"vat": "new"}, "updated_at": "2026-11-23T12:00:02Z"});
        assert!(entry.is_about(&saved));
        let other = json!({"traits": {"vat": "old"}, "updated_at": "2026-11-23T12:00:02Z"});
        assert!(!entry.is_about(&other));
    }

    #[test]
    fn an_equal_change_explains_a_change_only_if_kratos_saved_it_afterwards() {
        let mut one = pending("profile", LookupKeys::default());
        one.flow = Flow::Settings;
        one.accepted_at = at("2026-11-23T12:10:00Z");
        let other = |submission: &str, accepted_at: &str| AttributedSubmission {
            key: PendingKey {
                flow_id: Uuid::from_u128(2),
                submission: submission.to_owned(),
            },
            flow: Flow::Settings,
            traits_hash: String::new(),
            accepted_at: at(accepted_at),
            reserved: None,
        };
        let attributed = [
            other("saved before", "2026-11-23T12:00:00Z"),
            other("in parallel", "2026-11-23T12:09:00Z"),
            other("later", "2026-11-23T12:11:00Z"),
            AttributedSubmission {
                flow: Flow::Registration,
                ..other("the sign-up", "2026-11-23T12:11:00Z")
            },
            AttributedSubmission {
                key: one.key.clone(),
                ..other("itself", "2026-11-23T12:11:00Z")
            },
        ];
        for (updated_at, expected) in [
            (
                json!("2026-11-23T12:05:00Z"),
                &["in parallel", "later"] as &[&str],
            ),
            // Kratos's clock is ahead.
            (json!("2026-11-23T12:30:00Z"), &["later"]),
            (json!(null), &["saved before", "in parallel", "later"]),
        ] {
            one.details.context.identity = Some(json!({ "updated_at": updated_at }));
            let causes: Vec<&str> = one
                .other_causes(&attributed)
                .map(|other| other.key.submission.as_str())
                .collect();
            assert_eq!(causes, expected, "{updated_at}");
        }
    }

    #[test]
    fn look_ups_come_after_the_newest_submission_and_at_the_end_of_the_flow() {
        let times = LookupTimes::default();
        let record = FlowRecord {
            flow_id: Uuid::from_u128(1),
            flow: Flow::Registration,
            identity_id: None,
            expires_at: at("2026-11-23T13:00:00Z"),
            newest_at: at("2026-11-23T12:00:00Z"),
            lookups: 0,
            submissions: 1,
        };
        let mut now = record.newest_at;
        let mut seen = Vec::new();
        while let Some(next) = times.next(&record, now) {
            seen.push(next.to_rfc3339_opts(chrono::SecondsFormat::Secs, true));
            now = next;
        }
        assert_eq!(
            seen,
            [
                "2026-11-23T12:00:05Z",
                "2026-11-23T12:00:30Z",
                "2026-11-23T12:02:00Z",
                "2026-11-23T12:10:00Z",
                "2026-11-23T13:01:30Z",
                "2026-11-24T13:00:00Z",
            ]
        );
        // Kratos does not answer: pauses grow, and there is always another look-up.
        let mut failing = record.clone();
        let mut pauses = Vec::new();
        now = at("2026-11-24T14:00:00Z");
        for lookups in 0..10 {
            failing.lookups = lookups;
            let next = times.retry(&failing, now);
            pauses.push((next - now).num_seconds());
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 960, 960]);
    }

    #[test]
    fn a_post_is_attributed_by_the_hash_of_its_traits() {
        let of = |traits: Value, submission: &str, second: u32| {
            let mut one = pending("password", LookupKeys::default());
            submission.clone_into(&mut one.key.submission);
            one.hash = SubmissionHash::of(&json!({ "traits": traits }), &Value::Null);
            one.accepted_at = at(&format!("2026-11-23T12:00:{second:02}Z"));
            one
        };
        let (a, b) = (of(json!({"e": "a"}), "a", 1), of(json!({"e": "b"}), "b", 2));
        let mut b_deferred = of(json!({"e": "b"}), "b2", 1);
        b_deferred.details.deferred = vec![Deferred {
            check: "vat".to_owned(),
            request: Request {
                method: crate::model::request::Method::Get,
                path: "/".to_owned(),
                headers: Vec::new(),
                body: None,
            },
            value: None,
        }];
        let hash = |traits: Value| SubmissionHash::of(&json!({ "traits": traits }), &Value::Null);
        let identity_id = Uuid::from_u128(70);
        let cases = [
            (vec![&a, &b], json!({"e": "a"}), true, Some("a")),
            (vec![&a, &b], json!({"e": "b"}), false, Some("b")),
            // A submission with a deferred check comes first, so that no submission evades the check.
            (
                vec![&a, &b, &b_deferred],
                json!({"e": "b"}),
                true,
                Some("b2"),
            ),
            // A later hook changed the traits; the flow has one submission.
            (vec![&a], json!({"e": "changed"}), true, Some("a")),
            (vec![&a], json!({"e": "changed"}), false, None),
            (vec![&a, &b], json!({"e": "changed"}), true, None),
            (vec![], json!({"e": "a"}), true, None),
        ];
        for (all, traits, is_closed, expected) in cases {
            let all: Vec<PendingSignUp> = all.into_iter().cloned().collect();
            let found = attribute(&all, identity_id, &hash(traits.clone()), true, is_closed);
            let submission = match found {
                Attribution::Exact(one) | Attribution::Only(one) => {
                    Some(one.key.submission.as_str())
                }
                Attribution::Ambiguous | Attribution::Known | Attribution::Unknown => None,
            };
            assert_eq!(submission, expected, "{traits} closed {is_closed}");
        }
        let two = [a.clone(), b.clone()];
        let changed = hash(json!({"e": "c"}));
        assert_eq!(
            attribute(&two, identity_id, &changed, true, true),
            Attribution::Ambiguous
        );
        assert_eq!(
            attribute(&two, identity_id, &changed, true, false),
            Attribution::Unknown
        );
        assert!(matches!(
            attribute(&two[..1], identity_id, &changed, true, true),
            Attribution::Only(_)
        ));
        // A repeated `post`, and a second identity with the same traits.
        let mut done = a.clone();
        done.state = PendingState::Attributed;
        done.identity_id = Some(identity_id);
        let hash = done.hash.clone();
        let done = [done];
        assert_eq!(
            attribute(&done, identity_id, &hash, true, true),
            Attribution::Known
        );
        let second = Uuid::from_u128(71);
        assert_eq!(
            attribute(&done, second, &hash, true, false),
            Attribution::Unknown
        );
    }
}
