//! What follows once it is known what became of a sign-up: an account was made, or none ever will be.

mod in_force;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::checks::{Check, Reserve, deferred, reserve, rule};
use crate::expression::{Lists, Variables};
use crate::kratos::fingerprint::guard_id;
use crate::kratos::{Flow, Hook};
use crate::model::delivery::subscription::{Trigger, deliveries_for};
use crate::model::delivery::{
    EvaluationContext, Event, FieldWrite, NewDelivery, Queue, Subscription,
};
use crate::model::pending::{Attribution, PendingSignUp, PendingState, SubmissionHash, attribute};
use crate::model::reservation::{ReleaseReason, Reservation, State};
use crate::store::{Closing, Ending, FlowState, PendingEnd, Release, SettledQuestion, WriteSet};

pub use in_force::InForce;

/// Knows the settings that decide about it.
pub struct FollowUps {
    plans: Vec<Subscription>,
    reserves: BTreeMap<String, Reserve>,
    /// The checks that reserve or may be deferred.
    holding: Vec<Check>,
    lists: Arc<Lists>,
}

/// An account that was made or changed.
#[derive(Clone, Copy)]
pub struct IdentityChange<'a> {
    /// What happened.
    pub event: Event,
    /// To whom.
    pub identity_id: Uuid,
    /// By which flow.
    pub flow_id: Uuid,
    /// What tells this occasion from another of the same identity.
    pub trigger_id: &'a str,
    /// What deliveries may read.
    pub names: Variables<'a>,
    /// When the flow expires.
    pub expires_at: Timestamp,
    /// When the identity was created or changed.
    pub created_at: Timestamp,
    /// Since when the checks that reserve or defer are in force.
    pub in_force: &'a InForce,
}

impl IdentityChange<'_> {
    /// Whether it can have come of this submission. One account comes of a sign-up, by whatever method it was tried before;
    /// a form of settings may be sent by one method after another.
    fn can_be_of(&self, pending: &PendingSignUp) -> bool {
        match self.event {
            Event::IdentityCreated => pending.flow == Flow::Registration,
            _ => pending.flow == Flow::Settings && pending.method == self.names.method,
        }
    }

    /// Whether the identity carries the `external_id` of its flow, so that no other identity can come of the flow.
    fn closes_its_flow(&self) -> bool {
        let external_id = self
            .names
            .identity
            .and_then(|identity| identity["external_id"].as_str());
        self.event == Event::IdentityCreated && external_id == Some(&guard_id(self.flow_id))
    }
}

/// What follows, and what is reported.
#[derive(Debug, Default)]
pub struct FollowUp {
    /// To be stored together.
    pub batch: WriteSet,
    /// The checks whose reservation had been released before the account was known, and is taken again.
    pub taken_again: Vec<String>,
    /// The checks whose reservation had been released before the account was known, and cannot be taken again.
    pub too_late: Vec<String>,
    /// What is wrong with the attribution, if something is.
    pub doubt: Option<Doubt>,
    /// Whether `pre` had answered our `external_id`, and whether the identity has it.
    pub guard: Option<bool>,
    /// Whether a submission was accepted while the state was read, so that it must be read again.
    pub is_stale: bool,
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
}

impl Doubt {
    /// As logs and metrics write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OtherTraits => "other_traits",
            Self::Ambiguous => "ambiguous",
            Self::NotRecorded => "not_recorded",
        }
    }
}

/// What the call tells of. Of all that settings can change, only the profile holds the traits.
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

/// Tells one submission from another: a form of settings may be sent again and again.
fn occasion_of(pending: &PendingSignUp) -> String {
    let key = &pending.key;
    format!("{}:{}", key.flow_id, key.submission)
}

/// The submission that a settings change came of. Of a repeated `post`, or one after a look-up, it is the newest that was
/// saved. If that one has other values, the call is about a further change, which is not recorded.
fn change_of<'a>(
    attribution: &Attribution<'a>,
    pending: &'a [PendingSignUp],
    hash: &SubmissionHash,
) -> Option<&'a PendingSignUp> {
    match attribution {
        Attribution::Exact(one) | Attribution::Only(one) => Some(one),
        Attribution::Known => pending
            .iter()
            .filter(|one| one.identity_id.is_some())
            .max_by_key(|one| one.accepted_at)
            .filter(|one| one.hash.traits == hash.traits),
        Attribution::Ambiguous | Attribution::Unknown => None,
    }
}

/// Whether this one can be confirmed in place of one that was released: another submission of the flow has reserved the same.
fn replaces(taken: &Reservation, released: &Reservation) -> bool {
    taken.state == State::Taken
        && released.state == State::Released
        && taken.check == released.check
        && taken.request_hash == released.request_hash
}

/// Whether the submission that took the reservation over was not accepted in the end, or came to nothing.
fn has_no_owner(reservation: &Reservation, state: &FlowState, now: Timestamp) -> bool {
    let may_be_saved = |one: &PendingSignUp| {
        one.key.submission == reservation.submission && one.state != PendingState::NeverCreated
    };
    reservation.in_use_until <= now && !state.pending.iter().any(may_be_saved)
}

/// What is kept to take a reservation again for this submission: where another submission has taken it over, a row of its own.
fn kept_for<'a>(
    one: &PendingSignUp,
    reservation: &'a Reservation,
    state: &'a FlowState,
) -> &'a Reservation {
    let is_former = |other: &&Reservation| {
        other.release_reason == Some(ReleaseReason::TakenOver)
            && other.submission == one.key.submission
            && other.check == reservation.check
            && other.request_hash == reservation.request_hash
    };
    let former = state.reservations.iter().find(is_former);
    former.unwrap_or(reservation)
}

/// It is not known which submission the identity came of: everything that was reserved is kept, and an operator decides.
fn keep_all(
    batch: &mut WriteSet,
    made: &IdentityChange<'_>,
    pending: &[PendingSignUp],
    state: &FlowState,
) {
    let now = made.names.now;
    let reason = format!(
        "the account came of one of {} submissions of its flow, and none of them had these traits; look whether what was \
         reserved or deferred is still right",
        pending.len()
    );
    for reservation in &state.reservations {
        if reservation.state == State::Taken {
            batch.confirmed.push(reservation.id);
            batch.deliveries.push(reserve::dead_letter(
                &Queue::Confirm(&reservation.check),
                reservation.id.to_string(),
                (made.identity_id, made.event),
                reason.clone(),
                now,
            ));
        }
    }
    for one in pending {
        for deferred in &one.details.deferred {
            batch.deliveries.push(reserve::dead_letter(
                &Queue::DeferredCheck(&deferred.check),
                format!("{}:{}", occasion_of(one), deferred.check),
                (made.identity_id, made.event),
                reason.clone(),
                now,
            ));
        }
    }
}

impl FollowUps {
    /// By these plans and checks.
    #[must_use]
    pub fn new(plans: &[Subscription], checks: &[Check], lists: Arc<Lists>) -> Self {
        let reserves = checks
            .iter()
            .filter_map(|check| Some((check.name.clone(), check.reserve.clone()?)));
        let holding = checks
            .iter()
            .filter(|check| check.reserve.is_some() || check.defers());
        Self {
            plans: plans.to_vec(),
            reserves: reserves.collect(),
            holding: holding.cloned().collect(),
            lists,
        }
    }

    /// Whether what was taken or deferred for a flow must be looked up.
    #[must_use]
    pub fn needs_flow_state(&self) -> bool {
        !self.holding.is_empty()
    }

    /// Whether a check of this flow reserves or defers.
    #[must_use]
    pub fn holds(&self, flow: Flow) -> bool {
        self.holding.iter().any(|check| check.flows.contains(&flow))
    }

    /// Whether a check can be deferred.
    #[must_use]
    pub fn defers(&self) -> bool {
        self.holding.iter().any(Check::defers)
    }

    /// The names of the checks that reserve or may be deferred, each with a hash that changes if it can do so for other
    /// sign-ups.
    #[must_use]
    pub fn holding_rules(&self) -> Vec<(String, String)> {
        let rule = |check: &Check| (check.name.clone(), rule::hash(check, &self.lists));
        self.holding.iter().map(rule).collect()
    }

    /// Whether it matters which of two sign-ups an account came of.
    #[must_use]
    pub fn needs_attribution(&self) -> bool {
        self.needs_flow_state() || self.wants_registration_failed()
    }

    /// Whether somebody is told of sign-ups of which no account came.
    #[must_use]
    pub fn wants_registration_failed(&self) -> bool {
        self.tells_of(Event::RegistrationFailed)
    }

    /// Whether a plan wants this event.
    #[must_use]
    pub fn tells_of(&self, event: Event) -> bool {
        self.plans.iter().any(|plan| plan.events.contains(&event))
    }

    /// The account exists: it is delivered; of the submission that it came of, what was reserved is confirmed and what was
    /// deferred is asked.
    #[must_use]
    pub fn on_saved(&self, made: &IdentityChange<'_>, state: &FlowState) -> FollowUp {
        self.made_of(made, &state.pending, state)
    }

    /// The same. The account can have come of these submissions only.
    fn made_of(
        &self,
        made: &IdentityChange<'_>,
        submissions: &[PendingSignUp],
        state: &FlowState,
    ) -> FollowUp {
        let mut resolved = FollowUp::default();
        resolved.batch.deliveries = self.deliveries(made, made.trigger_id);
        let attributed_before = state.record.as_ref().and_then(|record| record.identity_id);
        if attributed_before == Some(made.identity_id) {
            return resolved;
        }
        let closes = made.closes_its_flow();
        let nobody = Value::Null;
        let identity = made.names.identity.unwrap_or(&nobody);
        let hash = SubmissionHash::of(identity, made.names.flow.unwrap_or(&nobody));
        let pending: Vec<PendingSignUp> = submissions
            .iter()
            .filter(|one| made.can_be_of(one))
            .cloned()
            .collect();
        let knows_payload = made.names.flow.is_some() && made.event == Event::IdentityCreated;
        let attribution = attribute(&pending, made.identity_id, &hash, knows_payload, closes);
        if made.event != Event::IdentityCreated
            && let Some(one) = change_of(&attribution, &pending, &hash)
        {
            // `post` and a look-up store the same deliveries.
            resolved.batch.deliveries = self.deliveries(made, &occasion_of(one));
        }
        resolved.guard = match attribution {
            Attribution::Exact(one) | Attribution::Only(one) if one.guarded => Some(closes),
            _ => closes.then_some(true),
        };
        match attribution {
            Attribution::Known => return resolved,
            Attribution::Exact(one) => self.follow_up(&mut resolved, made, one, state, true),
            Attribution::Only(one) => {
                resolved.doubt = Some(Doubt::OtherTraits);
                self.follow_up(&mut resolved, made, one, state, false);
            }
            Attribution::Ambiguous => {
                resolved.doubt = Some(Doubt::Ambiguous);
                keep_all(&mut resolved.batch, made, &pending, state);
            }
            Attribution::Unknown => {
                let unrecorded = self.unrecorded(made);
                if !unrecorded.is_empty() {
                    resolved.doubt = Some(Doubt::NotRecorded);
                    resolved.batch.deliveries.extend(unrecorded);
                }
            }
        }
        if closes {
            resolved.batch.closed.push(Closing {
                flow_id: made.flow_id,
                flow: Flow::Registration,
                identity_id: made.identity_id,
                expires_at: made.expires_at,
                at: made.names.now,
            });
        } else if let Attribution::Exact(one) = attribution {
            let end = PendingEnd::Attributed(made.identity_id);
            resolved.batch.ended.push(Ending::of(one, end));
        }
        resolved
    }

    fn deliveries(&self, made: &IdentityChange<'_>, trigger_id: &str) -> Vec<NewDelivery> {
        let occasion = Trigger {
            event: made.event,
            identity_id: made.identity_id,
            trigger_id,
            check: None,
        };
        deliveries_for(&self.plans, &occasion, &made.names)
    }

    /// What follows for the submission that the identity came of, and for the others of a flow that is closed now.
    fn follow_up(
        &self,
        resolved: &mut FollowUp,
        made: &IdentityChange<'_>,
        one: &PendingSignUp,
        state: &FlowState,
        is_certain: bool,
    ) {
        let now = made.names.now;
        let context = EvaluationContext {
            is_uncertain: !is_certain,
            ..EvaluationContext::of(&made.names)
        };
        let occasion = occasion_of(one);
        for deferred in &one.details.deferred {
            let about = (made.identity_id, made.event);
            let question = deferred::recheck(deferred, &occasion, about, &context, now);
            resolved.batch.deliveries.extend(question);
        }
        for check in &one.details.no_longer_deferred {
            resolved.batch.questions_settled.push(SettledQuestion {
                subscription: Queue::DeferredCheck(check).to_string(),
                identity_id: made.identity_id,
                at: now,
            });
            let key = format!("{occasion}:{check}:settled");
            let put = FieldWrite {
                path: deferred::deferred_marker(check),
                value: None,
            };
            let about = (made.identity_id, made.event);
            let write = deferred::identity_write(check, about.0, about.1, key, vec![put], now);
            resolved.batch.deliveries.push(write);
        }
        for check in &one.details.no_longer_refused {
            let key = format!("{occasion}:{check}:accepted");
            let lift = deferred::acceptance_lifts(check, made.identity_id, made.event, key, now);
            resolved.batch.refusals_lifted.push(lift);
        }
        let is_read = |id: &Uuid| state.reservations.iter().any(|one| one.id == *id);
        resolved.is_stale = !one.details.reservations.iter().all(is_read);
        self.follow_up_reservations(resolved, made, one, state, is_certain);
    }

    fn follow_up_reservations(
        &self,
        resolved: &mut FollowUp,
        made: &IdentityChange<'_>,
        one: &PendingSignUp,
        state: &FlowState,
        is_certain: bool,
    ) {
        let now = made.names.now;
        let closes = made.closes_its_flow();
        let is_used = |id: &Uuid| one.details.reservations.contains(id);
        for reservation in &state.reservations {
            let is_its_own = closes
                || reservation.submission == one.key.submission
                || has_no_owner(reservation, state, now);
            let is_replacement = state
                .reservations
                .iter()
                .any(|released| closes && is_used(&released.id) && replaces(reservation, released));
            match reservation.state {
                State::Taken if is_used(&reservation.id) && is_its_own => {
                    self.confirm(&mut resolved.batch, reservation, made);
                }
                State::Taken if is_replacement => {
                    self.confirm(&mut resolved.batch, reservation, made);
                }
                // It was released, or another submission took it over, before the account was known.
                State::Taken | State::Confirmed | State::Released if is_used(&reservation.id) => {
                    let mut others = state.reservations.iter();
                    if !(closes && others.any(|other| replaces(other, reservation))) {
                        let kept = kept_for(one, reservation, state);
                        self.take_again(resolved, made, kept, !is_certain);
                    }
                }
                State::Taking | State::Taken if closes && reservation.in_use_until <= now => {
                    self.release(
                        &mut resolved.batch,
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

    /// The account was found after its reservation had been released, so the reservation is taken again.
    fn take_again(
        &self,
        resolved: &mut FollowUp,
        made: &IdentityChange<'_>,
        reservation: &Reservation,
        is_uncertain: bool,
    ) {
        let now = made.names.now;
        let nobody = Value::Null;
        let about = (made.identity_id, made.names.identity.unwrap_or(&nobody));
        let is_known = self.reserves.contains_key(&reservation.check);
        let delivery = is_known
            .then(|| reserve::take_again(reservation, about, made.event, is_uncertain, now))
            .flatten();
        let check = reservation.check.clone();
        if let Some(delivery) = delivery {
            resolved.batch.taken_again.push(reservation.id);
            resolved.batch.deliveries.push(delivery);
            resolved.taken_again.push(check);
        } else {
            let dead = reserve::too_late(reservation, made.identity_id, made.event, now);
            resolved.batch.deliveries.push(dead);
            resolved.too_late.push(check);
        }
    }

    /// The dead letters for an account of which no accepted submission is recorded, one for each check that could have
    /// reserved or deferred.
    fn unrecorded(&self, made: &IdentityChange<'_>) -> Vec<NewDelivery> {
        if made.event != Event::IdentityCreated {
            return Vec::new();
        }
        let applies = |check: &&Check| {
            check.flows.contains(&Flow::Registration)
                && made.in_force.covers(&check.name, made.created_at)
                && check.could_apply(&Variables {
                    lists: &self.lists,
                    ..made.names
                })
        };
        let dead = |check: &Check| {
            let queue = if check.reserve.is_some() {
                Queue::Confirm(&check.name)
            } else {
                Queue::DeferredCheck(&check.name)
            };
            let reason = "the account exists, and no accepted sign-up of its flow is recorded, so this check may not have \
                          run; look whether the hooks of all methods in kratos.yml call `pre`";
            reserve::dead_letter(
                &queue,
                format!("unrecorded:{}", made.identity_id),
                (made.identity_id, made.event),
                reason.to_owned(),
                made.names.now,
            )
        };
        self.holding.iter().filter(applies).map(dead).collect()
    }

    fn confirm(&self, batch: &mut WriteSet, reservation: &Reservation, made: &IdentityChange<'_>) {
        batch.confirmed.push(reservation.id);
        let Some(plans) = self.reserves.get(&reservation.check) else {
            let queue = Queue::Confirm(&reservation.check);
            let (id, event, now) = (made.identity_id, made.event, made.names.now);
            let dead = reserve::gone(&queue, reservation, id, event, now);
            batch.deliveries.push(dead);
            return;
        };
        let nobody = Value::Null;
        let identity = made.names.identity.unwrap_or(&nobody);
        batch.deliveries.extend(reserve::confirmation(
            plans,
            reservation,
            (made.identity_id, identity),
            made.event,
            &self.lists,
            made.names.now,
        ));
    }

    /// The same, found by a look-up. `sought` is the submission that the look-up was for.
    #[must_use]
    pub fn on_found(
        &self,
        sought: &PendingSignUp,
        (identity_id, identity): (Uuid, &Value),
        state: &FlowState,
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
        // By its own keys only this submission can be meant.
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
        let names = Variables {
            identity: Some(identity),
            now,
            ..context.names(&self.lists, None)
        };
        let made = IdentityChange {
            event: event_of(one.flow, &one.method),
            identity_id,
            flow_id: one.key.flow_id,
            trigger_id: &occasion_of(&one),
            names,
            expires_at: one.expires_at,
            created_at: now,
            in_force: &InForce::default(),
        };
        let mut resolved = self.made_of(&made, submissions, state);
        if !is_its_own {
            // A later hook changed the traits, or it is another sign-up of the same visitor: no account is deactivated for it.
            for delivery in &mut resolved.batch.deliveries {
                if let (Queue::DeferredCheck(_) | Queue::Take(_), Some(context)) =
                    (Queue::named(&delivery.subscription), &mut delivery.context)
                {
                    context.is_uncertain = true;
                }
            }
        }
        resolved
    }

    /// No account came of a submission, or it cannot be found out: what it reserved is released, unless another open
    /// submission uses it.
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

    /// What is delivered once it is certain that no account came of a registration flow. The newest submission is reported.
    #[must_use]
    pub fn failed(&self, newest: &PendingSignUp, now: Timestamp) -> Vec<NewDelivery> {
        let names = Variables {
            now,
            ..newest.details.context.names(&self.lists, None)
        };
        let flow_id = newest.key.flow_id.to_string();
        let occasion = Trigger {
            event: Event::RegistrationFailed,
            identity_id: Uuid::nil(),
            trigger_id: &flow_id,
            check: None,
        };
        deliveries_for(&self.plans, &occasion, &names)
    }

    /// What was taken is given back, if it is open. What one of these submissions needs to take it again is kept.
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
        let mut checks = self.holding.iter();
        let check = checks.find(|check| check.name == reservation.check);
        batch.released.push(Release {
            id: reservation.id,
            release_reason,
            unused_since: now,
            kept: check.and_then(|check| reserve::kept(check, reservation, submissions)),
        });
        if let Some(plans) = self.reserves.get(&reservation.check) {
            let release = reserve::release(plans, reservation, &self.lists, now);
            batch.deliveries.push(release);
        } else {
            let queue = Queue::Release(&reservation.check);
            let event = Event::RegistrationFailed;
            let dead = reserve::gone(&queue, reservation, Uuid::nil(), event, now);
            batch.deliveries.push(dead);
        }
    }
}
