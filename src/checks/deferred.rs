//! Decides what a deferred check does once the account exists.

use std::time::Duration;

use chrono::SecondsFormat;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Check, OnLateRefusal};
use crate::base::clock::{Timestamp, saturating_add};
use crate::expression::{EvaluationError, Lists, Variables};
use crate::model::delivery::{
    Action, DeliveryOrder, EvaluationContext, Event, FieldWrite, NewDelivery, Queue,
    time_ordered_id,
};
use crate::model::identity_write::MAX_SETTINGS_WAIT;
use crate::model::late_refusal::{LateRefusal, StoredMessage};
use crate::model::message::MessageTemplate;
use crate::model::pending::Deferred;
use crate::store::{self, LateRefusalStore, RefusalLift};

/// The time from the unanswered question of `pre` to the first repetition.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// How long Vestibule repeats the question.
const KEEP_TRYING_FOR: Duration = Duration::from_hours(24 * 8);

/// Returns the path in `metadata_admin` for this kind of mark of this check.
fn mark_path(what: &str, check: &str) -> Vec<String> {
    ["metadata_admin", "vestibule", what, check]
        .map(ToOwned::to_owned)
        .to_vec()
}

/// Returns the path of the mark that this check is deferred.
#[must_use]
pub fn deferred_marker(check: &str) -> Vec<String> {
    mark_path("deferred", check)
}

fn rfc3339(moment: Timestamp) -> Value {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true).into()
}

/// Returns the deliveries of a deferred check: the question, which is repeated until there is an answer, and the mark in the
/// identity. `trigger_id` distinguishes the submission from others. `context` has the saved identity.
#[must_use]
pub fn recheck(
    deferred: &Deferred,
    trigger_id: &str,
    (identity_id, event): (Uuid, Event),
    context: &EvaluationContext,
    now: Timestamp,
) -> Vec<NewDelivery> {
    let context = EvaluationContext {
        value: deferred.value.clone(),
        ..context.clone()
    };
    let key = format!("{trigger_id}:{}", deferred.check);
    let field = FieldWrite {
        path: deferred_marker(&deferred.check),
        value: Some(json!({"since": rfc3339(now)})),
    };
    vec![
        NewDelivery {
            id: time_ordered_id(now),
            subscription: Queue::DeferredCheck(&deferred.check).to_string(),
            event,
            unique_key: key.clone(),
            identity_id,
            action: Ok(Action::Recheck(deferred.request.clone())),
            order: DeliveryOrder::default(),
            context: Some(context),
            created_at: now,
            due_at: saturating_add(now, FIRST_PAUSE),
            keep_trying_until: saturating_add(now, KEEP_TRYING_FOR),
        },
        identity_write(&deferred.check, identity_id, event, key, vec![field], now),
    ]
}

/// Returns the delivery that writes fields into an identity.
#[must_use]
pub fn identity_write(
    name: &str,
    identity_id: Uuid,
    event: Event,
    unique_key: String,
    fields: Vec<FieldWrite>,
    now: Timestamp,
) -> NewDelivery {
    NewDelivery {
        id: time_ordered_id(now),
        subscription: Queue::WriteBack(name).to_string(),
        event,
        unique_key,
        identity_id,
        action: Ok(Action::PatchIdentity(fields)),
        order: DeliveryOrder::default(),
        context: None,
        created_at: now,
        due_at: now,
        keep_trying_until: saturating_add(now, KEEP_TRYING_FOR),
    }
}

/// Returns the fields to write when the check has accepted: the removal of the mark, and the check's `set` values.
#[must_use]
pub fn accepted(
    check: &Check,
    context: &EvaluationContext,
    response: &Value,
    lists: &Lists,
) -> Vec<FieldWrite> {
    let variables = context.variables(lists, Some(response));
    let mut fields = vec![clear_marker(check)];
    for set in &check.set {
        match set.value.render(&variables) {
            Ok(Value::Null) => {}
            Ok(value) => fields.push(FieldWrite {
                path: set.path.clone(),
                value: Some(value),
            }),
            Err(error) => {
                let path = set.path.join(".");
                tracing::warn!(check = check.name, path, %error, "Skipped a value of `set`");
            }
        }
    }
    fields
}

/// Returns the fields to write when the check has refused. `refusal` is the index of the `refuse` entry; `None` if the
/// deferred check expired.
#[must_use]
pub fn refused(
    check: &Check,
    refusal: Option<usize>,
    on_late_refusal: OnLateRefusal,
    now: Timestamp,
) -> Vec<FieldWrite> {
    // A check that reserves is not deferred.
    let is_deferred = check.reserve.is_none();
    let mut fields: Vec<FieldWrite> = is_deferred
        .then(|| clear_marker(check))
        .into_iter()
        .collect();
    if on_late_refusal == OnLateRefusal::Notify {
        return fields;
    }
    let mut mark = json!({"at": rfc3339(now)});
    if let Some(template) = message_of(check, refusal) {
        mark["message_id"] = template.id.into();
    }
    fields.push(FieldWrite {
        path: refusal_mark(&check.name),
        value: Some(mark),
    });
    if on_late_refusal == OnLateRefusal::Deactivate {
        fields.push(FieldWrite {
            path: vec!["state".to_owned()],
            value: Some("inactive".into()),
        });
    }
    fields
}

fn message_of(check: &Check, refusal: Option<usize>) -> Option<&MessageTemplate> {
    check.refuse.get(refusal?)?.message.as_deref()
}

/// Returns the path of the mark that this check has refused late.
#[must_use]
pub fn refusal_mark(check: &str) -> Vec<String> {
    mark_path("refused", check)
}

/// Returns the refusal in its stored form. A refusal that deactivates has its message in every language, so that hooks
/// can refuse the visitor.
#[must_use]
pub fn stored(
    check: &Check,
    refusal: Option<usize>,
    effect: OnLateRefusal,
    identity_id: Uuid,
    variables: &Variables<'_>,
) -> LateRefusal {
    // Hooks show the message only to the owner of a deactivated account.
    let template = message_of(check, refusal).filter(|_| effect == OnLateRefusal::Deactivate);
    let message = template.and_then(|template| {
        let texts = template.texts.iter();
        let texts = texts.map(|(tag, template)| Ok((tag.clone(), template.render_text(variables)?)));
        match texts.collect::<Result<Vec<_>, EvaluationError>>() {
            Ok(texts) => Some(StoredMessage {
                id: template.id,
                name: template.name.clone(),
                field: check.field.as_ref().map(|field| field.node_name().to_owned()),
                texts,
            }),
            Err(error) => {
                tracing::warn!(check = check.name, message.id = template.id, %error, "Could not render a message; Vestibule uses the built-in `account_refused` instead");
                None
            }
        }
    });
    LateRefusal {
        identity_id,
        check: check.name.clone(),
        effect,
        message,
        refused_at: variables.now,
        deactivated_at: None,
        was_active: None,
    }
}

/// Returns the delivery that ends the deferral and the late refusal of a check, because the check has accepted a change
/// that was saved. `accepted` is the identity with that change. A save that began earlier can overwrite the change, so the
/// delivery is due when such a save has ended.
#[must_use]
pub fn end_after_acceptance(
    check: &str,
    (identity_id, event): (Uuid, Event),
    unique_key: String,
    accepted: &Value,
    now: Timestamp,
) -> NewDelivery {
    let identity =
        json!({"traits": accepted["traits"], "metadata_public": accepted["metadata_public"]});
    NewDelivery {
        action: Ok(Action::EndAfterAcceptance),
        context: Some(EvaluationContext {
            identity: Some(identity),
            now,
            ..EvaluationContext::default()
        }),
        due_at: saturating_add(now, MAX_SETTINGS_WAIT),
        ..identity_write(check, identity_id, event, unique_key, Vec::new(), now)
    }
}

/// Returns the delivery that deactivates an account.
#[must_use]
pub fn enforcement(
    check: &str,
    identity_id: Uuid,
    event: Event,
    unique_key: String,
    fields: Vec<FieldWrite>,
    now: Timestamp,
) -> NewDelivery {
    NewDelivery {
        subscription: Queue::LateRefusal(check).to_string(),
        action: Ok(Action::Enforce(fields)),
        ..identity_write(check, identity_id, event, unique_key, Vec::new(), now)
    }
}

/// Returns the lift of a late refusal whose check has accepted the current values of the account. Does not lift a refusal
/// that deactivates. The write in the result removes the mark.
#[must_use]
pub fn lift_after_acceptance(
    check: &str,
    identity_id: Uuid,
    event: Event,
    unique_key: String,
    now: Timestamp,
) -> RefusalLift {
    let field = FieldWrite {
        path: refusal_mark(check),
        value: None,
    };
    RefusalLift {
        identity_id,
        check: check.to_owned(),
        at: now,
        write: identity_write(check, identity_id, event, unique_key, vec![field], now),
    }
}

/// Returns the name of the check whose refusal is marked at this path of an identity.
#[must_use]
pub fn check_of_mark(path: &[String]) -> Option<&str> {
    let check = path.last()?;
    (refusal_mark(check) == path).then_some(check)
}

/// The result of lifting late refusals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Lifted {
    /// The checks whose refusal was lifted.
    pub checks: Vec<String>,
    /// The checks whose refusal is still in force.
    pub others_in_force: Vec<String>,
    /// Whether Vestibule sets the identity active: a lifted refusal deactivated it, and no other such refusal is in force.
    pub activates: bool,
}

/// Lifts the late refusal of this check, or of all checks. A delivery removes the marks. The delivery also
/// activates the account, unless another refusal that deactivates is in force, or the account was inactive before
/// Vestibule enforced the refusal.
pub async fn lift(
    store: &dyn LateRefusalStore,
    identity_id: Uuid,
    check: Option<&str>,
    now: Timestamp,
) -> Result<Lifted, store::Error> {
    let in_force = store.late_refusals_of(identity_id).await?;
    let (lifted, others): (Vec<LateRefusal>, Vec<LateRefusal>) = in_force
        .into_iter()
        .partition(|refusal| check.is_none_or(|check| refusal.check == check));
    let keeps_out = |refusals: &[LateRefusal]| refusals.iter().any(LateRefusal::keeps_out);
    let was_active = |expected: &[Option<bool>]| {
        lifted
            .iter()
            .any(|one| one.keeps_out() && expected.contains(&one.was_active))
    };
    if was_active(&[Some(true)]) && keeps_out(&others) {
        // The lift of the last refusal activates the account.
        store.record_state_before(identity_id, true).await?;
    }
    // If the enforcement has not begun, the delivery finds out whether it began before the lift.
    let activates = was_active(&[Some(true), None]) && !keeps_out(&others);
    let marked = lifted
        .iter()
        .filter(|one| one.effect != OnLateRefusal::Notify);
    let mut fields: Vec<FieldWrite> = marked
        .map(|refusal| FieldWrite {
            path: refusal_mark(&refusal.check),
            value: None,
        })
        .collect();
    if activates {
        fields.push(FieldWrite {
            path: vec!["state".to_owned()],
            value: Some("active".into()),
        });
    }
    let check_names = |refusals: Vec<LateRefusal>| -> Vec<String> {
        refusals.into_iter().map(|refusal| refusal.check).collect()
    };
    let (checks, others_in_force) = (check_names(lifted), check_names(others));
    if let Some(first) = checks.first() {
        let key = format!("lift:{}", time_ordered_id(now));
        let write = identity_write(first, identity_id, Event::CheckRefused, key, fields, now);
        let has_fields =
            matches!(&write.action, Ok(Action::PatchIdentity(fields)) if !fields.is_empty());
        let writes = if has_fields { vec![write] } else { Vec::new() };
        store
            .lift_late_refusals(identity_id, &checks, now, &writes)
            .await?;
    }
    Ok(Lifted {
        checks,
        others_in_force,
        activates,
    })
}

/// Returns the write that removes the mark of a deferred check.
#[must_use]
pub fn clear_marker(check: &Check) -> FieldWrite {
    FieldWrite {
        path: deferred_marker(&check.name),
        value: None,
    }
}
