//! Decides what to do when the outcome of a sign-up is known: Kratos created an account, or never will.

mod in_force;

use std::collections::BTreeSet;

use serde_json::Value;
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::checks::{Check, Rules, deferred, reserve, rule};
use crate::expression::Variables;
use crate::kratos::fingerprint::guard_id;
use crate::kratos::{Flow, Hook};
use crate::model::delivery::subscription::{Trigger, deliveries_for};
use crate::model::delivery::{EvaluationContext, Event, NewDelivery, Queue};
use crate::model::pending::{
    AttributedSubmission, Attribution, PendingSignUp, PendingState, SubmissionHash, attribute,
};
use crate::model::reservation::{ReleaseReason, Reservation, State};
use crate::store::{Closing, Ending, FlowState, PendingEnd, Release, WriteSet};

pub use in_force::InForce;

/// An account that was created or changed.
#[derive(Clone, Copy)]
pub struct IdentityChange<'a> {
    /// What happened.
    pub event: Event,
    /// The identity that was created or changed.
    pub identity_id: Uuid,
    /// The flow that created or changed the identity.
    pub flow_id: Uuid,
    /// The id that distinguishes this trigger from another one of the same identity.
    pub trigger_id: &'a str,
    /// The variables that deliveries may read.
    pub variables: Variables<'a>,
    /// When the flow expires.
    pub expires_at: Timestamp,
    /// When the identity was created or changed.
    pub created_at: Timestamp,
    /// Since when the checks that reserve or defer are in force.
    pub in_force: &'a InForce,
}

impl IdentityChange<'_> {
    /// Returns whether the change can result from this submission. A registration flow results in one account, whatever
    /// methods the visitor tried before. A settings form can be submitted with several methods, one after another.
    fn can_be_of(&self, pending: &PendingSignUp) -> bool {
        match self.event {
            Event::IdentityCreated => pending.flow == Flow::Registration,
            _ => pending.flow == Flow::Settings && pending.method == self.variables.method,
        }
    }

    /// Returns whether the identity has the `external_id` of its flow, so that no other identity can result from the
    /// flow.
    fn closes_its_flow(&self) -> bool {
        let external_id = self
            .variables
            .identity
            .and_then(|identity| identity["external_id"].as_str());
        self.event == Event::IdentityCreated && external_id == Some(&guard_id(self.flow_id))
    }
}

/// The consequences of a change, and the facts to report.
#[derive(Debug, Default)]
pub struct FollowUp {
    /// The writes that are stored together.
    pub batch: WriteSet,
    /// The checks whose reservation was released before the account was known. The reservation is taken again.
    pub taken_again: Vec<String>,
    /// The checks whose reservation was released before the account was known. The reservation cannot be taken again.
    pub too_late: Vec<String>,
    /// What is wrong with the attribution, if anything.
    pub doubt: Option<Doubt>,
    /// Whether the identity has Vestibule's `external_id`, if `pre` had answered with it.
    pub guard: Option<bool>,
    /// Whether a submission was accepted while the state was read, so that the state must be read again.
    pub is_stale: bool,
    /// Whether no recorded submission of the flow has the traits. The submission may be about to be recorded.
    pub is_unmatched: bool,
}

/// What is wrong with the attribution of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// The flow has one submission, with other traits.
    OtherTraits,
    /// The flow has several submissions, none with these traits.
    Ambiguous,
    /// No submission is recorded, although a check could have reserved or deferred.
    NotRecorded,
    /// The flow has an identity already, although Vestibule's `external_id` allows only one.
    SecondIdentity,
}

impl Doubt {
    /// Returns the name of this doubt in logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OtherTraits => "other_traits",
            Self::Ambiguous => "ambiguous",
            Self::NotRecorded => "not_recorded",
            Self::SecondIdentity => "second_identity",
        }
    }
}

/// Returns the event that a `post` of this hook reports. Of all settings methods, only `profile` changes traits.
#[must_use]
pub fn event(hook: &Hook) -> Event {
    event_of(hook.flow, &hook.method)
}

fn event_of(flow: Flow, method: &str) -> Event {
    match (flow, method) {
        (Flow::Registration, _) => Event::IdentityCreated,
        (Flow::Settings, "profile" | "") => Event::IdentityUpdated,
        (Flow::Settings, _) => Event::CredentialsChanged,
        // Login and recovery have no `post`.
        (Flow::Verification | Flow::Login | Flow::Recovery, _) => Event::IdentityVerified,
    }
}

/// Returns whether such a call reports the traits of an identity to the subscriptions. A change before any other call is
/// still to be reported.
#[must_use]
pub fn reports_traits(flow: Flow, method: &str) -> bool {
    matches!(
        event_of(flow, method),
        Event::IdentityCreated | Event::IdentityUpdated
    )
}

/// Returns the id that distinguishes one submission from another. A settings form can be submitted repeatedly.
fn trigger_id_of(pending: &PendingSignUp) -> String {
    let key = &pending.key;
    format!("{}:{}", key.flow_id, key.submission)
}

/// Returns the submission of a settings change that `post` and a look-up deliver in the same way. A look-up does not
/// find a change whose traits a later hook changed. For a repeated `post`, or a `post` after a look-up, the result is
/// the newest saved submission. If that submission has other values, the call reports a further change, which is not
/// recorded.
fn change_of<'a>(
    attribution: &Attribution<'a>,
    pending: &'a [PendingSignUp],
    hash: &SubmissionHash,
) -> Option<&'a PendingSignUp> {
    match attribution {
        Attribution::Exact(one) => Some(one),
        Attribution::Known => pending
            .iter()
            .filter(|one| one.identity_id.is_some())
            .max_by_key(|one| one.accepted_at)
            .filter(|one| one.hash.traits == hash.traits),
        Attribution::Only(_) | Attribution::Ambiguous | Attribution::Unknown => None,
    }
}

/// Returns whether Vestibule can confirm `taken` in place of `released`, because another submission of the flow has the
/// same reservation.
fn replaces(taken: &Reservation, released: &Reservation) -> bool {
    taken.state == State::Taken
        && released.state == State::Released
        && taken.check == released.check
        && taken.request_hash == released.request_hash
}

/// Returns whether the submission that took the reservation over was not accepted, or created no account.
fn has_no_owner(reservation: &Reservation, state: &FlowState, now: Timestamp) -> bool {
    let may_be_saved = |one: &PendingSignUp| {
        one.key.submission == reservation.submission && one.state != PendingState::NeverCreated
    };
    reservation.in_use_until <= now && !state.pending.iter().any(may_be_saved)
}

/// Returns whether the identity has the same reservation already, by another submission.
fn has_same_reservation(
    one: &PendingSignUp,
    reservation: &Reservation,
    attributed: &[AttributedSubmission],
) -> bool {
    one.other_causes(attributed).any(|other| {
        let reserved = other.reserved.as_ref();
        reserved.is_some_and(|(check, request_hash)| {
            *check == reservation.check && *request_hash == reservation.request_hash
        })
    })
}

/// Returns the row that is kept to take a reservation again for this submission, if another submission has taken the
/// reservation over.
fn taken_over_from<'a>(
    one: &PendingSignUp,
    reservation: &Reservation,
    state: &'a FlowState,
) -> Option<&'a Reservation> {
    let is_former = |other: &&Reservation| {
        other.release_reason == Some(ReleaseReason::TakenOver)
            && other.submission == one.key.submission
            && other.check == reservation.check
            && other.request_hash == reservation.request_hash
    };
    state.reservations.iter().find(is_former)
}

/// How the values that a check reads in a saved identity compare with those that it checked for a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SavedValues {
    /// The same values.
    AsChecked,
    /// The values from before the change, or unknown values.
    AsBefore,
    /// Other new values.
    Other,
}

/// Returns the checks that have a reservation for this submission.
fn reserved_by<'s>(one: &'s PendingSignUp, state: &'s FlowState) -> impl Iterator<Item = &'s str> {
    let reservations = state.reservations.iter();
    reservations
        .filter(|reservation| one.details.reservations.contains(&reservation.id))
        .map(|reservation| reservation.check.as_str())
}

/// Keeps all reservations, because the submission of the identity is unknown. An operator decides.
fn keep_all(
    batch: &mut WriteSet,
    change: &IdentityChange<'_>,
    pending: &[PendingSignUp],
    state: &FlowState,
) {
    let now = change.variables.now;
    let reason = format!(
        "the account belongs to one of the accepted submissions of its flow ({}), and none of them had these traits; check whether \
         their reservations and deferred checks are still right",
        pending.len()
    );
    let is_of_account = |reservation: &Reservation| {
        // A registration flow that is closed has only this account. A settings form can be submitted again.
        change.event == Event::IdentityCreated
            || pending
                .iter()
                .any(|one| one.details.reservations.contains(&reservation.id))
    };
    for reservation in &state.reservations {
        if reservation.state == State::Taken && is_of_account(reservation) {
            batch.confirmed.push(reservation.id);
            batch.deliveries.push(reserve::dead_letter(
                &Queue::Confirm(&reservation.check),
                reservation.id.to_string(),
                (change.identity_id, change.event),
                reason.clone(),
                now,
            ));
        }
    }
    for one in pending {
        for deferred in &one.details.deferred {
            batch.deliveries.push(reserve::dead_letter(
                &Queue::DeferredCheck(&deferred.check),
                format!("{}:{}", trigger_id_of(one), deferred.check),
                (change.identity_id, change.event),
                reason.clone(),
                now,
            ));
        }
    }
}

impl Rules {
    /// The names of the checks that reserve or may be deferred, each with a hash. The hash changes if the check can
    /// reserve or defer for other sign-ups.
    #[must_use]
    pub fn holding_rules(&self) -> Vec<(String, String)> {
        let rule = |check: &Check| (check.name.clone(), rule::hash(check, self.lists()));
        self.holding().map(rule).collect()
    }

    /// Returns the consequences if the account exists. Its events are delivered. The reservations of its submission are
    /// confirmed, and the deferred checks of its submission are asked.
    ///
    /// `attributed`: the other submissions of the identity. What was confirmed for one of them is not confirmed again.
    #[must_use]
    pub fn on_saved(
        &self,
        change: &IdentityChange<'_>,
        state: &FlowState,
        attributed: &[AttributedSubmission],
    ) -> FollowUp {
        self.on_saved_from(change, &state.pending, state, attributed)
    }

    /// Returns the consequences if the account exists and belongs to one of these submissions.
    fn on_saved_from(
        &self,
        change: &IdentityChange<'_>,
        submissions: &[PendingSignUp],
        state: &FlowState,
        attributed: &[AttributedSubmission],
    ) -> FollowUp {
        let mut follow_up = FollowUp::default();
        follow_up.batch.deliveries = self.deliveries(change, change.trigger_id);
        let attributed_before = state.record.as_ref().and_then(|record| record.identity_id);
        if attributed_before == Some(change.identity_id) {
            return follow_up;
        }
        let closes = change.closes_its_flow();
        if closes && attributed_before.is_some() {
            follow_up.doubt = Some(Doubt::SecondIdentity);
            let dead_letters = self.of_second_identity(change);
            follow_up.batch.deliveries.extend(dead_letters);
            return follow_up;
        }
        let null = Value::Null;
        let identity = change.variables.identity.unwrap_or(&null);
        let hash = SubmissionHash::of(identity, change.variables.flow.unwrap_or(&null));
        let pending: Vec<PendingSignUp> = submissions
            .iter()
            .filter(|one| change.can_be_of(one))
            .cloned()
            .collect();
        let knows_payload =
            change.variables.flow.is_some() && change.event == Event::IdentityCreated;
        let mut attribution = attribute(&pending, change.identity_id, &hash, knows_payload, closes);
        follow_up.is_unmatched = attribution == Attribution::Unknown;
        if follow_up.is_unmatched && change.event != Event::IdentityCreated {
            attribution = self.attribute_changed(change, &pending, state);
        }
        if change.event != Event::IdentityCreated
            && let Some(one) = change_of(&attribution, &pending, &hash)
        {
            // `post` and a look-up store the same deliveries.
            follow_up.batch.deliveries = self.deliveries(change, &trigger_id_of(one));
        }
        follow_up.guard = match attribution {
            Attribution::Exact(one) | Attribution::Only(one) if one.guarded => Some(closes),
            _ => closes.then_some(true),
        };
        match attribution {
            Attribution::Known => return follow_up,
            Attribution::Exact(one) => {
                self.follow_up(&mut follow_up, change, one, state, attributed, true);
            }
            Attribution::Only(one) => {
                follow_up.doubt = Some(Doubt::OtherTraits);
                self.follow_up(&mut follow_up, change, one, state, attributed, false);
            }
            Attribution::Ambiguous if change.event != Event::IdentityCreated => {
                follow_up.doubt = Some(Doubt::Ambiguous);
                let is_uncertain = |one: &PendingSignUp| self.reserved_another(change, one, state);
                let uncertain: Vec<PendingSignUp> =
                    pending.into_iter().filter(is_uncertain).collect();
                keep_all(&mut follow_up.batch, change, &uncertain, state);
                return follow_up;
            }
            Attribution::Ambiguous => {
                follow_up.doubt = Some(Doubt::Ambiguous);
                keep_all(&mut follow_up.batch, change, &pending, state);
            }
            Attribution::Unknown => {
                let unrecorded = self.unrecorded(change);
                if !unrecorded.is_empty() {
                    follow_up.doubt = Some(Doubt::NotRecorded);
                    follow_up.batch.deliveries.extend(unrecorded);
                }
            }
        }
        if closes {
            follow_up.batch.closed.push(Closing {
                flow_id: change.flow_id,
                flow: Flow::Registration,
                identity_id: change.identity_id,
                expires_at: change.expires_at,
                at: change.variables.now,
            });
        } else if let Attribution::Exact(one) | Attribution::Only(one) = attribution {
            let end = PendingEnd::Attributed(change.identity_id);
            follow_up.batch.ended.push(Ending::of(one, end));
        }
        follow_up
    }

    /// Attributes a settings change that has the traits of no recorded submission. A later hook may have changed the
    /// traits. The change may also be a submission that was not recorded, because no check held anything for it.
    fn attribute_changed<'p>(
        &self,
        change: &IdentityChange<'_>,
        pending: &'p [PendingSignUp],
        state: &FlowState,
    ) -> Attribution<'p> {
        let unattributed = || pending.iter().filter(|one| one.identity_id.is_none());
        let newest = unattributed()
            .filter(|one| self.is_still_held(change, one, state))
            .max_by_key(|one| one.accepted_at);
        match newest {
            Some(one) => Attribution::Only(one),
            None if unattributed().any(|one| self.reserved_another(change, one, state)) => {
                Attribution::Ambiguous
            }
            None => Attribution::Unknown,
        }
    }

    /// Returns whether the submission reserved, deferred or lifted something, and the values that these checks read are
    /// saved as they were checked.
    fn is_still_held(
        &self,
        change: &IdentityChange<'_>,
        one: &PendingSignUp,
        state: &FlowState,
    ) -> bool {
        let details = &one.details;
        let deferred = details.deferred.iter().map(|one| one.check.as_str());
        let lifted = details.no_longer_deferred.iter();
        let lifted = lifted.chain(&details.no_longer_refused);
        let mut checks = deferred
            .chain(lifted.map(String::as_str))
            .chain(reserved_by(one, state))
            .peekable();
        checks.peek().is_some()
            && checks.all(|check| self.saved_values(change, one, check) == SavedValues::AsChecked)
    }

    /// Returns whether the submission has a reservation, and the saved identity has another new value for that check.
    fn reserved_another(
        &self,
        change: &IdentityChange<'_>,
        one: &PendingSignUp,
        state: &FlowState,
    ) -> bool {
        let mut reservations = state.reservations.iter();
        one.identity_id.is_none()
            && reservations.any(|reservation| {
                reservation.state == State::Taken
                    && one.details.reservations.contains(&reservation.id)
                    && self.saved_values(change, one, &reservation.check) == SavedValues::Other
            })
    }

    fn saved_values(
        &self,
        change: &IdentityChange<'_>,
        one: &PendingSignUp,
        check: &str,
    ) -> SavedValues {
        let compiled = self.compiled().iter().find(|one| one.check.name == check);
        let (Some(compiled), Some(identity), Some(checked)) = (
            compiled,
            change.variables.identity,
            one.details.context.identity.as_ref(),
        ) else {
            return SavedValues::AsBefore;
        };
        let previous = change.variables.previous;
        if !compiled.reads.differ(checked, identity) {
            SavedValues::AsChecked
        } else if previous.is_some_and(|previous| compiled.reads.differ(previous, identity)) {
            SavedValues::Other
        } else {
            SavedValues::AsBefore
        }
    }

    fn deliveries(&self, change: &IdentityChange<'_>, trigger_id: &str) -> Vec<NewDelivery> {
        let trigger = Trigger {
            event: change.event,
            identity_id: change.identity_id,
            trigger_id,
            check: None,
        };
        deliveries_for(self.subscriptions(), &trigger, &change.variables)
    }

    /// Adds the consequences for the submission of the identity, and for the other submissions of a flow that is closed
    /// now.
    fn follow_up(
        &self,
        follow_up: &mut FollowUp,
        change: &IdentityChange<'_>,
        one: &PendingSignUp,
        state: &FlowState,
        attributed: &[AttributedSubmission],
        is_certain: bool,
    ) {
        let now = change.variables.now;
        let context = EvaluationContext {
            is_uncertain: !is_certain,
            ..EvaluationContext::of(&change.variables)
        };
        let trigger_id = trigger_id_of(one);
        for deferred in &one.details.deferred {
            let about = (change.identity_id, change.event);
            let question = deferred::recheck(deferred, &trigger_id, about, &context, now);
            follow_up.batch.deliveries.extend(question);
        }
        let details = &one.details;
        let accepted = details.context.identity.as_ref();
        let accepted = accepted.or(change.variables.identity);
        let ended = details.no_longer_deferred.iter();
        let ended: BTreeSet<&String> = ended.chain(&details.no_longer_refused).collect();
        for check in ended {
            let key = format!("{trigger_id}:{check}:accepted");
            let about = (change.identity_id, change.event);
            let accepted = accepted.unwrap_or(&Value::Null);
            let end = deferred::end_after_acceptance(check, about, key, accepted, now);
            follow_up.batch.deliveries.push(end);
        }
        let is_read = |id: &Uuid| state.reservations.iter().any(|one| one.id == *id);
        follow_up.is_stale = !one.details.reservations.iter().all(is_read);
        self.follow_up_reservations(follow_up, change, one, state, attributed, is_certain);
    }

    fn follow_up_reservations(
        &self,
        follow_up: &mut FollowUp,
        change: &IdentityChange<'_>,
        one: &PendingSignUp,
        state: &FlowState,
        attributed: &[AttributedSubmission],
        is_certain: bool,
    ) {
        let now = change.variables.now;
        let closes = change.closes_its_flow();
        let is_used = |id: &Uuid| one.details.reservations.contains(id);
        for reservation in &state.reservations {
            let former = taken_over_from(one, reservation, state);
            // A reservation that no submission took over is shared: the guard was proven when the submission used it.
            let is_its_own = closes
                || former.is_none()
                || reservation.submission == one.key.submission
                || has_no_owner(reservation, state, now);
            let is_free = reservation.in_use_until <= now;
            if is_used(&reservation.id) && has_same_reservation(one, reservation, attributed) {
                // The sweeper releases a reservation that is still in use.
                if is_its_own && is_free {
                    let because = ReleaseReason::NotUsed;
                    self.release(&mut follow_up.batch, reservation, because, &[], now);
                }
                continue;
            }
            let is_replacement = state
                .reservations
                .iter()
                .any(|released| closes && is_used(&released.id) && replaces(reservation, released));
            match reservation.state {
                State::Taken if is_used(&reservation.id) && is_its_own => {
                    self.confirm(&mut follow_up.batch, reservation, change);
                }
                State::Taken if is_replacement => {
                    self.confirm(&mut follow_up.batch, reservation, change);
                }
                // The reservation was released, or another submission took it over, before the account was known.
                State::Taken | State::Confirmed | State::Released if is_used(&reservation.id) => {
                    let mut others = state.reservations.iter();
                    if !(closes && others.any(|other| replaces(other, reservation))) {
                        let kept = former.unwrap_or(reservation);
                        self.take_again(follow_up, change, kept, !is_certain);
                    }
                }
                State::Taking | State::Taken if closes && is_free => {
                    self.release(
                        &mut follow_up.batch,
                        reservation,
                        ReleaseReason::NotUsed,
                        &[],
                        now,
                    );
                }
                _ => {}
            }
        }
    }

    /// Takes a reservation again, because the account was found after the release.
    fn take_again(
        &self,
        follow_up: &mut FollowUp,
        change: &IdentityChange<'_>,
        reservation: &Reservation,
        is_uncertain: bool,
    ) {
        let now = change.variables.now;
        let null = Value::Null;
        let about = (
            change.identity_id,
            change.variables.identity.unwrap_or(&null),
        );
        let is_known = self.reserve(&reservation.check).is_some();
        let delivery = is_known
            .then(|| reserve::take_again(reservation, about, change.event, is_uncertain, now))
            .flatten();
        let check = reservation.check.clone();
        if let Some(delivery) = delivery {
            follow_up.batch.taken_again.push(reservation.id);
            follow_up.batch.deliveries.push(delivery);
            follow_up.taken_again.push(check);
        } else {
            let dead_letter = reserve::too_late(reservation, change.identity_id, change.event, now);
            follow_up.batch.deliveries.push(dead_letter);
            follow_up.too_late.push(check);
        }
    }

    /// Returns the dead letters for an account without a recorded submission: one for each check that could have
    /// reserved or deferred.
    fn unrecorded(&self, change: &IdentityChange<'_>) -> Vec<NewDelivery> {
        if change.event != Event::IdentityCreated {
            return Vec::new();
        }
        let reason = "the account exists, and no accepted sign-up of its flow is recorded, so this check may not have \
                      run; check that the hooks of all methods in kratos.yml call `pre`";
        let is_in_force = |check: &Check| change.in_force.covers(&check.name, change.created_at);
        self.dead_letters(change, reason, is_in_force)
    }

    /// Returns the dead letters for a second account of a flow: one for each check that could have reserved or deferred
    /// for it.
    fn of_second_identity(&self, change: &IdentityChange<'_>) -> Vec<NewDelivery> {
        let reason = "another account has come from the same form before, and has what this check reserved; the deferred checks \
                      of this account are not known any more";
        self.dead_letters(change, reason, |_| true)
    }

    /// Returns a dead letter for each of these checks that could have reserved or deferred for the account.
    fn dead_letters(
        &self,
        change: &IdentityChange<'_>,
        reason: &str,
        is_in_force: impl Fn(&Check) -> bool,
    ) -> Vec<NewDelivery> {
        let applies = |check: &&Check| {
            check.flows.contains(&Flow::Registration)
                && is_in_force(check)
                && check.could_apply(&Variables {
                    lists: self.lists(),
                    ..change.variables
                })
        };
        let dead_letter = |check: &Check| {
            let queue = if check.reserve.is_some() {
                Queue::Confirm(&check.name)
            } else {
                Queue::DeferredCheck(&check.name)
            };
            reserve::dead_letter(
                &queue,
                format!("unrecorded:{}", change.identity_id),
                (change.identity_id, change.event),
                reason.to_owned(),
                change.variables.now,
            )
        };
        self.holding().filter(applies).map(dead_letter).collect()
    }

    fn confirm(
        &self,
        batch: &mut WriteSet,
        reservation: &Reservation,
        change: &IdentityChange<'_>,
    ) {
        batch.confirmed.push(reservation.id);
        let Some(requests) = self.reserve(&reservation.check) else {
            let queue = Queue::Confirm(&reservation.check);
            let (id, event, now) = (change.identity_id, change.event, change.variables.now);
            let dead_letter = reserve::check_removed(&queue, reservation, id, event, now);
            batch.deliveries.push(dead_letter);
            return;
        };
        let null = Value::Null;
        let identity = change.variables.identity.unwrap_or(&null);
        batch.deliveries.extend(reserve::confirmation(
            requests,
            reservation,
            (change.identity_id, identity),
            change.event,
            self.lists(),
            change.variables.now,
        ));
    }

    /// Returns the consequences if a look-up has found the account. `sought` is the submission that was looked up.
    ///
    /// `attributed`: the other submissions of the identity. An equal change that one of them saved is not delivered
    /// again.
    #[must_use]
    pub fn on_found(
        &self,
        sought: &PendingSignUp,
        (identity_id, identity): (Uuid, &Value),
        state: &FlowState,
        attributed: &[AttributedSubmission],
        now: Timestamp,
    ) -> FollowUp {
        let hash = SubmissionHash::of(identity, &Value::Null);
        let is_change = sought.flow != Flow::Registration;
        let one = match attribute(&state.pending, identity_id, &hash, false, false) {
            Attribution::Exact(one) if !is_change => one.clone(),
            _ => sought.clone(),
        };
        let is_its_own = one.hash.traits == hash.traits;
        let is_guarded = identity["external_id"].as_str() == Some(&guard_id(one.key.flow_id));
        // A look-up by the keys of this submission finds only the account of this submission.
        let only = [PendingSignUp {
            hash: SubmissionHash {
                traits: hash.traits,
                ..one.hash.clone()
            },
            ..one.clone()
        }];
        let submissions = if !is_guarded || is_change {
            &only[..]
        } else {
            &state.pending[..]
        };
        let context = &one.details.context;
        let variables = Variables {
            identity: Some(identity),
            now,
            ..context.variables(self.lists(), None)
        };
        let change = IdentityChange {
            event: event_of(one.flow, &one.method),
            identity_id,
            flow_id: one.key.flow_id,
            trigger_id: &trigger_id_of(&one),
            variables,
            expires_at: one.expires_at,
            created_at: now,
            in_force: &InForce::default(),
        };
        let mut follow_up = self.on_saved_from(&change, submissions, state, attributed);
        let is_explained = is_change
            && one
                .other_causes(attributed)
                .any(|other| other.traits_hash == one.hash.traits);
        if is_explained {
            let deliveries = &mut follow_up.batch.deliveries;
            deliveries
                .retain(|new| !matches!(Queue::named(&new.subscription), Queue::Subscription(_)));
        }
        if !is_its_own {
            // A later hook changed the traits, or this is another sign-up of the same visitor. No account is
            // deactivated for it.
            for delivery in &mut follow_up.batch.deliveries {
                if let (Queue::DeferredCheck(_) | Queue::Take(_), Some(context)) =
                    (Queue::named(&delivery.subscription), &mut delivery.context)
                {
                    context.is_uncertain = true;
                }
            }
        }
        follow_up
    }

    /// Returns the consequences if a submission has no account, or if that cannot be found out. The submission's
    /// reservations are released, unless another open submission uses them.
    #[must_use]
    pub fn on_never_created(
        &self,
        one: &PendingSignUp,
        end: PendingEnd,
        state: &FlowState,
        now: Timestamp,
    ) -> WriteSet {
        let mut batch = WriteSet {
            ended: vec![Ending::of(one, end)],
            ..WriteSet::default()
        };
        let because = match end {
            PendingEnd::NeverCreated => ReleaseReason::NeverCreated,
            PendingEnd::Undecided | PendingEnd::Attributed(_) => ReleaseReason::Expired,
        };
        let others = || {
            state
                .pending
                .iter()
                .filter(|other| other.state == PendingState::Open && other.key != one.key)
        };
        for reservation in &state.reservations {
            let is_used = one.details.reservations.contains(&reservation.id);
            let is_shared =
                others().any(|other| other.details.reservations.contains(&reservation.id));
            let is_free = reservation.in_use_until <= now;
            if is_used && !is_shared && is_free {
                self.release(&mut batch, reservation, because, &state.pending, now);
            }
        }
        batch
    }

    /// Returns the deliveries once it is certain that a registration flow has no account. They report the newest
    /// submission.
    #[must_use]
    pub fn failed(&self, newest: &PendingSignUp, now: Timestamp) -> Vec<NewDelivery> {
        let variables = Variables {
            now,
            ..newest.details.context.variables(self.lists(), None)
        };
        let flow_id = newest.key.flow_id.to_string();
        let trigger = Trigger {
            event: Event::RegistrationFailed,
            identity_id: Uuid::nil(),
            trigger_id: &flow_id,
            check: None,
        };
        deliveries_for(self.subscriptions(), &trigger, &variables)
    }

    /// Releases a reservation, if it is open. Keeps what one of these submissions needs to take the reservation again.
    pub fn release(
        &self,
        batch: &mut WriteSet,
        reservation: &Reservation,
        release_reason: ReleaseReason,
        submissions: &[PendingSignUp],
        now: Timestamp,
    ) {
        if !matches!(reservation.state, State::Taking | State::Taken) {
            return;
        }
        let check = self.check(&reservation.check);
        batch.released.push(Release {
            id: reservation.id,
            release_reason,
            unused_since: now,
            kept: check.and_then(|check| reserve::kept(check, reservation, submissions)),
        });
        if let Some(requests) = self.reserve(&reservation.check) {
            let release = reserve::release(requests, reservation, self.lists(), now);
            batch.deliveries.push(release);
        } else {
            let queue = Queue::Release(&reservation.check);
            let event = Event::RegistrationFailed;
            let dead_letter = reserve::check_removed(&queue, reservation, Uuid::nil(), event, now);
            batch.deliveries.push(dead_letter);
        }
    }
}
