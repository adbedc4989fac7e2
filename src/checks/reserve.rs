//! Builds the deliveries of a reservation: take again, confirm and release.
//!
//! Kratos may fail after `pre` accepted, and does not report the failure. So Vestibule confirms the reservations of a
//! sign-up when `post` arrives, and releases them when it is certain that no `post` will arrive.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Check, Reserve};
use crate::base::clock::{Timestamp, saturating_add};
use crate::expression::{Lists, Variable};
use crate::model::delivery::{
    Action, Claimed, DeliveryOrder, EvaluationContext, Event, NewDelivery, Queue, Unbuilt,
    time_ordered_id,
};
use crate::model::pending::PendingSignUp;
use crate::model::request;
use crate::model::reservation::{Details, ReleaseReason, Reservation, State};

/// How long Vestibule retries to confirm or to release.
const KEEP_TRYING_FOR: Duration = Duration::from_hours(24 * 8);

/// Returns the value of the variable `taken`: the answer, if there was one, and the idempotency key of the `take`.
#[must_use]
pub fn taken(reservation: Uuid, answer: Option<&Value>) -> Value {
    let mut taken = answer.cloned().unwrap_or_else(|| json!({}));
    taken["key"] = reservation.to_string().into();
    taken
}

/// Returns the delivery that confirms the reservation for this identity. `None` if the service need not be notified.
#[must_use]
pub fn confirmation(
    reserve: &Reserve,
    reservation: &Reservation,
    (identity_id, identity): (Uuid, &Value),
    event: Event,
    lists: &Lists,
    now: Timestamp,
) -> Option<NewDelivery> {
    let template = reserve.confirm.as_ref()?;
    let action = match &reservation.details {
        Some(details) => {
            let context = EvaluationContext {
                identity: Some(identity.clone()),
                ..details.context.clone()
            };
            Ok(built_or_kept(template, &context, lists, "confirm"))
        }
        None => Err("the details of the reservation are deleted".to_owned()),
    };
    let queue = Queue::Confirm(&reservation.check);
    Some(delivery(
        &queue,
        reservation,
        identity_id,
        event,
        action,
        now,
    ))
}

/// Returns what is needed to take a reservation again, if an accepted submission uses it, because the account may be
/// found after the release. Of the visitor's data, only the parts that the check reads are kept.
#[must_use]
pub fn kept(
    check: &Check,
    reservation: &Reservation,
    submissions: &[PendingSignUp],
) -> Option<Details> {
    let is_used = |one: &PendingSignUp| one.details.reservations.contains(&reservation.id);
    let details = reservation.details.as_ref()?;
    let context = &details.context;
    let if_read = |root, part: &Option<Value>| part.clone().filter(|_| check.reads(root));
    submissions.iter().any(is_used).then(|| Details {
        take: details.take.clone(),
        context: EvaluationContext {
            // The saved identity replaces this one.
            identity: None,
            previous: if_read(Variable::Previous, &context.previous),
            flow: if_read(Variable::Flow, &context.flow),
            request: if_read(Variable::Request, &context.request),
            // The former answer no longer describes a reservation.
            taken: None,
            ..context.clone()
        },
    })
}

/// Returns the delivery that takes a released reservation again for the account that was found. `None` if the details
/// are not kept.
#[must_use]
pub fn take_again(
    reservation: &Reservation,
    (identity_id, identity): (Uuid, &Value),
    event: Event,
    is_uncertain: bool,
    now: Timestamp,
) -> Option<NewDelivery> {
    let details = reservation.details.as_ref()?;
    let action = Action::Take {
        take: details.take.clone(),
        released: reservation.id,
    };
    let queue = Queue::Take(&reservation.check);
    let mut new = delivery(&queue, reservation, identity_id, event, Ok(action), now);
    new.context = Some(EvaluationContext {
        identity: Some(identity.clone()),
        is_uncertain,
        ..details.context.clone()
    });
    Some(new)
}

/// Returns the delivery that confirms what a delivery has taken again. `None` if the service need not be notified.
#[must_use]
pub fn confirmation_of_taken(
    reserve: &Reserve,
    taking: &Claimed,
    check: &str,
    context: &EvaluationContext,
    lists: &Lists,
    now: Timestamp,
) -> Option<NewDelivery> {
    let template = reserve.confirm.as_ref()?;
    Some(NewDelivery {
        id: time_ordered_id(now),
        subscription: Queue::Confirm(check).to_string(),
        event: taking.event,
        unique_key: taking.id.to_string(),
        identity_id: taking.identity_id,
        action: Ok(built_or_kept(template, context, lists, "confirm")),
        order: DeliveryOrder::default(),
        context: None,
        created_at: now,
        due_at: now,
        keep_trying_until: saturating_add(now, KEEP_TRYING_FOR),
    })
}

/// Returns the delivery that releases what a delivery has taken again, because the check refused the answer. `None` if
/// `release` reads what the answer does not have, so that the answer names no reservation.
#[must_use]
pub fn release_of_taken(
    reserve: &Reserve,
    taking: &Claimed,
    check: &str,
    context: &EvaluationContext,
    lists: &Lists,
    now: Timestamp,
) -> Option<NewDelivery> {
    let action = built(&reserve.release, context, lists, "release").ok()?;
    Some(NewDelivery {
        id: time_ordered_id(now),
        subscription: Queue::Release(check).to_string(),
        event: taking.event,
        unique_key: taking.id.to_string(),
        identity_id: taking.identity_id,
        action: Ok(action),
        order: DeliveryOrder::default(),
        context: None,
        created_at: now,
        due_at: now,
        keep_trying_until: saturating_add(now, KEEP_TRYING_FOR),
    })
}

/// Returns the dead letter for an account whose reservation was released before Vestibule knew of the account.
#[must_use]
pub fn too_late(
    reservation: &Reservation,
    identity_id: Uuid,
    event: Event,
    now: Timestamp,
) -> NewDelivery {
    let because = reservation
        .release_reason
        .map_or("released", ReleaseReason::as_str);
    let action = Err(if reservation.state == State::Confirmed {
        "the account exists, but another account of its form has the reservation".to_owned()
    } else {
        format!(
            "the account exists, but its reservation was released earlier ({because}), and the details for taking it again are \
             not kept"
        )
    });
    let queue = Queue::Confirm(&reservation.check);
    NewDelivery {
        // Another account may have the reservation, and its confirmation has the usual key.
        unique_key: format!("{}:{identity_id}", reservation.id),
        ..delivery(&queue, reservation, identity_id, event, action, now)
    }
}

/// Returns the dead letter for a check that is no longer in the settings, so that its request cannot be built.
#[must_use]
pub fn check_removed(
    queue: &Queue<'_>,
    reservation: &Reservation,
    identity_id: Uuid,
    event: Event,
    now: Timestamp,
) -> NewDelivery {
    let action = Err(
        "the check is no longer in the settings, so the request to its service cannot be built"
            .to_owned(),
    );
    delivery(queue, reservation, identity_id, event, action, now)
}

/// Returns the delivery that releases the reservation. If the answer of `take` is not known and `release` needs it, the
/// delivery repeats `take` with the same key.
#[must_use]
pub fn release(
    reserve: &Reserve,
    reservation: &Reservation,
    lists: &Lists,
    now: Timestamp,
) -> NewDelivery {
    let action = match &reservation.details {
        Some(details) => {
            let answered = details.context.taken.is_some();
            let context = EvaluationContext {
                taken: Some(
                    details
                        .context
                        .taken
                        .clone()
                        .unwrap_or_else(|| taken(reservation.id, None)),
                ),
                ..details.context.clone()
            };
            Ok(
                match built_or_kept(&reserve.release, &context, lists, "release") {
                    Action::Build(_) if !answered => Action::Compensate {
                        take: details.take.clone(),
                        key: reservation.id.to_string(),
                    },
                    direct => direct,
                },
            )
        }
        None => Err("the details of the reservation are deleted".to_owned()),
    };
    let context = reservation
        .details
        .as_ref()
        .map(|details| details.context.clone());
    let queue = Queue::Release(&reservation.check);
    let event = Event::RegistrationFailed;
    let mut new = delivery(&queue, reservation, Uuid::nil(), event, action, now);
    new.context = context.filter(|_| matches!(new.action, Ok(Action::Compensate { .. })));
    new
}

fn built(
    template: &request::RequestTemplate,
    context: &EvaluationContext,
    lists: &Lists,
    what: &str,
) -> Result<Action, String> {
    template
        .build(&context.variables(lists, None))
        .map(Action::Send)
        .map_err(|error| format!("`{what}` could not be built: {error}"))
}

/// Builds a request. If an expression fails, the data for the request are kept, so that a retry can build it.
fn built_or_kept(
    template: &request::RequestTemplate,
    context: &EvaluationContext,
    lists: &Lists,
    what: &str,
) -> Action {
    built(template, context, lists, what).unwrap_or_else(|reason| {
        let context = context.clone();
        Action::Build(Box::new(Unbuilt { reason, context }))
    })
}

/// Returns a delivery that only an operator can settle.
#[must_use]
pub fn dead_letter(
    queue: &Queue<'_>,
    unique_key: String,
    (identity_id, event): (Uuid, Event),
    reason: String,
    now: Timestamp,
) -> NewDelivery {
    NewDelivery {
        id: time_ordered_id(now),
        subscription: queue.to_string(),
        event,
        unique_key,
        identity_id,
        action: Err(reason),
        order: DeliveryOrder::default(),
        context: None,
        created_at: now,
        due_at: now,
        keep_trying_until: saturating_add(now, KEEP_TRYING_FOR),
    }
}

fn delivery(
    queue: &Queue<'_>,
    reservation: &Reservation,
    identity_id: Uuid,
    event: Event,
    action: Result<Action, String>,
    now: Timestamp,
) -> NewDelivery {
    NewDelivery {
        id: time_ordered_id(now),
        subscription: queue.to_string(),
        event,
        unique_key: reservation.id.to_string(),
        identity_id,
        action,
        order: DeliveryOrder::default(),
        context: None,
        created_at: now,
        due_at: now,
        keep_trying_until: saturating_add(now, KEEP_TRYING_FOR),
    }
}
