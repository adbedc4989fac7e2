//! What follows once it is known what became of a sign-up: an account was made, or none ever will be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use crate::check::{Check, Reserve, late, reserve};
use crate::clock::Timestamp;
use crate::delivery::plan::{Occasion, deliveries_for};
use crate::delivery::{Event, Plan, Queue, Scene};
use crate::expression::{Lists, Names};
use crate::journal::{End, Entry};
use crate::kratos::{Field, Flow, Hook};
use crate::reservation::{Because, Reservation, State};
use crate::store::Batch;

/// Knows the settings that decide about it.
pub struct Resolution {
    plans: Vec<Plan>,
    reserves: BTreeMap<String, Reserve>,
    fields: BTreeMap<String, Field>,
    /// The checks whose field is saved otherwise than it was typed, because something is set there.
    rewritten: BTreeSet<String>,
    defers: bool,
    lists: Arc<Lists>,
}

/// An account that was made or changed.
#[derive(Clone, Copy)]
pub struct Made<'a> {
    /// What happened.
    pub event: Event,
    /// To whom.
    pub identity_id: Uuid,
    /// By which flow.
    pub flow_id: Uuid,
    /// What tells this occasion from another of the same identity.
    pub trigger_id: &'a str,
    /// What deliveries may read.
    pub names: Names<'a>,
}

impl Made<'_> {
    /// Whether a yes to this method is what it came of. One account comes of a sign-up, by whatever method it was tried
    /// before; a form of settings may be sent by one method after another.
    fn is_of(&self, method: &str) -> bool {
        self.event == Event::IdentityCreated || method == self.names.method
    }
}

/// What follows, and what somebody should hear of.
#[derive(Debug, Default)]
pub struct Resolved {
    /// To be stored together.
    pub batch: Batch,
    /// The checks whose reservation had been released before the account was known.
    pub too_late: Vec<String>,
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

fn rewritten(checks: &[Check]) -> BTreeSet<String> {
    let set = || {
        let all = checks.iter().flat_map(|check| &check.set);
        all.map(|set| set.path.as_slice())
    };
    let is_set = |field: &Field| set().any(|path| field.meets(path));
    let rewritten = checks
        .iter()
        .filter(|check| check.field.as_ref().is_some_and(is_set));
    rewritten.map(|check| check.name.clone()).collect()
}

/// What tells one yes to a flow from another: a form of settings may be sent again and again.
fn occasion_of(entry: &Entry) -> String {
    format!("{}:{}", entry.flow_id, entry.opened_at.timestamp_millis())
}

impl Resolution {
    /// By these plans and checks.
    #[must_use]
    pub fn new(plans: &[Plan], checks: &[Check], lists: Arc<Lists>) -> Self {
        let reserves = checks
            .iter()
            .filter_map(|check| Some((check.name.clone(), check.reserve.clone()?)));
        let fields = checks
            .iter()
            .filter_map(|check| Some((check.name.clone(), check.field.clone()?)));
        Self {
            plans: plans.to_vec(),
            reserves: reserves.collect(),
            fields: fields.collect(),
            rewritten: rewritten(checks),
            defers: checks.iter().any(Check::defers),
            lists,
        }
    }

    /// Whether what was taken or deferred for a flow must be looked up.
    #[must_use]
    pub fn looks_back(&self) -> bool {
        self.defers || !self.reserves.is_empty()
    }

    /// Whether it matters which of two sign-ups an account came of.
    #[must_use]
    pub fn tells_flows_apart(&self) -> bool {
        self.looks_back() || self.tells_of_failures()
    }

    /// Whether somebody is told of sign-ups of which no account came.
    #[must_use]
    pub fn tells_of_failures(&self) -> bool {
        self.tells_of(Event::RegistrationFailed)
    }

    fn tells_of(&self, event: Event) -> bool {
        self.plans.iter().any(|plan| plan.events.contains(&event))
    }

    /// The account exists: it is delivered, what was taken is confirmed, what was deferred is asked.
    #[must_use]
    pub fn made(
        &self,
        made: &Made<'_>,
        entry: Option<&Entry>,
        reservations: &[Reservation],
    ) -> Resolved {
        let now = made.names.now;
        let occasion = Occasion {
            event: made.event,
            identity_id: made.identity_id,
            trigger_id: made.trigger_id,
            check: None,
        };
        let mut resolved = Resolved::default();
        let batch = &mut resolved.batch;
        batch.deliveries = deliveries_for(&self.plans, &occasion, &made.names);
        let is_about_another = entry.is_some_and(|entry| !made.is_of(&entry.method));
        if !is_about_another {
            batch.closed.push(made.flow_id);
        }
        let entry = entry.filter(|_| !is_about_another);
        if let Some(entry) = entry.filter(|entry| !entry.details.deferred.is_empty()) {
            let scene = Scene::of(&made.names);
            let yes = occasion_of(entry);
            let saved = entry
                .details
                .deferred
                .iter()
                .filter(|one| self.was_saved(&one.check, one.value.as_ref(), made));
            let questions = saved.flat_map(|one| {
                late::question(one, &yes, (made.identity_id, made.event), &scene, now)
            });
            batch.deliveries.extend(questions);
        }
        for reservation in reservations {
            match (reservation.state, reservation.because) {
                (State::Taken, _) if self.is_for(reservation, made) => {
                    self.confirm(&mut resolved.batch, reservation, made);
                }
                (State::Released, Some(Because::Expired | Because::NeverCreated)) => {
                    let dead = reserve::too_late(reservation, made.identity_id, made.event, now);
                    resolved.batch.deliveries.push(dead);
                    resolved.too_late.push(reservation.check.clone());
                }
                _ => {}
            }
        }
        resolved
    }

    /// Whether the account has the value that a check was about.
    fn was_saved(&self, check: &str, value: Option<&Value>, made: &Made<'_>) -> bool {
        let nobody = Value::Null;
        let identity = made.names.identity.unwrap_or(&nobody);
        self.fields
            .get(check)
            .is_none_or(|field| field.value_in(identity) == value)
    }

    /// Whether the check's field was saved with a value that it had not had before.
    fn has_another_value(&self, check: &str, made: &Made<'_>) -> bool {
        let Some(field) = self.fields.get(check) else {
            return true;
        };
        let value_in = |identity: Option<&'_ Value>| {
            let value = identity.and_then(|identity| field.value_in(identity));
            value.filter(|value| *value != "").cloned()
        };
        let value = value_in(made.names.identity);
        value.is_some() && value != value_in(made.names.previous)
    }

    /// Whether something was taken for what was saved. If not, it is released when its flow has expired.
    fn is_for(&self, reservation: &Reservation, made: &Made<'_>) -> bool {
        reservation.details.as_ref().is_none_or(|details| {
            let check = &reservation.check;
            made.is_of(&details.scene.method)
                && if self.rewritten.contains(check) {
                    self.has_another_value(check, made)
                } else {
                    self.was_saved(check, details.scene.value.as_ref(), made)
                }
        })
    }

    fn confirm(&self, batch: &mut Batch, reservation: &Reservation, made: &Made<'_>) {
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

    /// The same, found by a look at Kratos's identities.
    #[must_use]
    pub fn found(
        &self,
        entry: &Entry,
        (identity_id, identity): (Uuid, &Value),
        reservations: &[Reservation],
        now: Timestamp,
    ) -> Resolved {
        let scene = &entry.details.scene;
        let names = Names {
            identity: Some(identity),
            now,
            ..scene.names(&self.lists, None)
        };
        let made = Made {
            event: event_of(entry.flow, &entry.method),
            identity_id,
            flow_id: entry.flow_id,
            trigger_id: &occasion_of(entry),
            names,
        };
        let mut resolved = self.made(&made, Some(entry), reservations);
        resolved.batch.closed.clear();
        resolved.batch.found.push(entry.yes());
        resolved
    }

    /// No account came of it, or nobody can tell: what was taken is released; and if it is certain, it is told.
    #[must_use]
    pub fn ended(
        &self,
        entry: &Entry,
        end: End,
        reservations: &[Reservation],
        now: Timestamp,
    ) -> Batch {
        let mut batch = Batch {
            ended: vec![(entry.yes(), end)],
            ..Batch::default()
        };
        let because = match end {
            End::NeverCreated => Because::NeverCreated,
            End::Undecided => Because::Expired,
        };
        for reservation in reservations {
            self.release(&mut batch, reservation, because, now);
        }
        if end == End::NeverCreated && entry.flow == Flow::Registration {
            let names = Names {
                now,
                ..entry.details.scene.names(&self.lists, None)
            };
            let flow_id = entry.flow_id.to_string();
            let occasion = Occasion {
                event: Event::RegistrationFailed,
                identity_id: Uuid::nil(),
                trigger_id: &flow_id,
                check: None,
            };
            batch
                .deliveries
                .extend(deliveries_for(&self.plans, &occasion, &names));
        }
        batch
    }

    /// What was taken is given back, if it is open.
    pub fn release(
        &self,
        batch: &mut Batch,
        reservation: &Reservation,
        because: Because,
        now: Timestamp,
    ) {
        if !matches!(reservation.state, State::Taking | State::Taken) {
            return;
        }
        batch.released.push((reservation.id, because));
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
