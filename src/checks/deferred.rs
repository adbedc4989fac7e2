//! What a deferred check does once the account exists.

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
    Action, EvaluationContext, Event, FieldWrite, NewDelivery, Queue, time_ordered_id,
};
use crate::model::late_refusal::{LateRefusal, StoredMessage};
use crate::model::message::MessageTemplate;
use crate::model::pending::Deferred;
use crate::store::{self, RefusalLift, Store};

/// The first question after the one that had no answer.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// How long it is asked.
const KEEP_TRYING_FOR: Duration = Duration::from_hours(24 * 8);

/// Where `metadata_admin` tells of deferred checks.
fn place(what: &str, check: &str) -> Vec<String> {
    ["metadata_admin", "vestibule", what, check]
        .map(ToOwned::to_owned)
        .to_vec()
}

/// Where it is noted that this check is deferred.
#[must_use]
pub fn deferred_marker(check: &str) -> Vec<String> {
    place("deferred", check)
}

fn written(moment: Timestamp) -> Value {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true).into()
}

/// The question, to be put until there is an answer, and the note of it in the identity. `yes` tells the yes that it
/// belongs to from others; `scene` has the identity as it was saved.
#[must_use]
pub fn recheck(
    deferred: &Deferred,
    yes: &str,
    (identity_id, event): (Uuid, Event),
    scene: &EvaluationContext,
    now: Timestamp,
) -> Vec<NewDelivery> {
    let scene = EvaluationContext {
        value: deferred.value.clone(),
        ..scene.clone()
    };
    let key = format!("{yes}:{}", deferred.check);
    let put = FieldWrite {
        path: deferred_marker(&deferred.check),
        value: Some(json!({"since": written(now)})),
    };
    vec![
        NewDelivery {
            id: time_ordered_id(now),
            plan: Queue::Check(&deferred.check).to_string(),
            event,
            unique_key: key.clone(),
            identity_id,
            work: Ok(Action::Ask(deferred.request.clone())),
            scene: Some(scene),
            created_at: now,
            due_at: saturating_add(now, FIRST_PAUSE),
            keep_trying_until: saturating_add(now, KEEP_TRYING_FOR),
        },
        identity_write(&deferred.check, identity_id, event, key, vec![put], now),
    ]
}

/// What is written into an identity.
#[must_use]
pub fn identity_write(
    name: &str,
    identity_id: Uuid,
    event: Event,
    unique_key: String,
    puts: Vec<FieldWrite>,
    now: Timestamp,
) -> NewDelivery {
    NewDelivery {
        id: time_ordered_id(now),
        plan: Queue::WriteBack(name).to_string(),
        event,
        unique_key,
        identity_id,
        work: Ok(Action::Write(puts)),
        scene: None,
        created_at: now,
        due_at: now,
        keep_trying_until: saturating_add(now, KEEP_TRYING_FOR),
    }
}

/// What is written when it accepts at last: the note goes, and what the check sets comes.
#[must_use]
pub fn accepted(
    check: &Check,
    scene: &EvaluationContext,
    response: &Value,
    lists: &Lists,
) -> Vec<FieldWrite> {
    let names = scene.names(lists, Some(response));
    let mut puts = vec![clear_marker(check)];
    for set in &check.set {
        match set.value.render(&names) {
            Ok(Value::Null) => {}
            Ok(value) => puts.push(FieldWrite {
                path: set.path.clone(),
                value: Some(value),
            }),
            Err(error) => {
                let path = set.path.join(".");
                tracing::warn!(check = check.name, path, %error, "A value of `set` was left out");
            }
        }
    }
    puts
}

/// What is written when it refuses at last. `refusal` is the entry of `refuse`; `None` if the question expired.
#[must_use]
pub fn refused(
    check: &Check,
    refusal: Option<usize>,
    on_late_refusal: OnLateRefusal,
    now: Timestamp,
) -> Vec<FieldWrite> {
    // What is reserved is not deferred.
    let is_deferred = check.reserve.is_none();
    let mut puts: Vec<FieldWrite> = is_deferred
        .then(|| clear_marker(check))
        .into_iter()
        .collect();
    if on_late_refusal == OnLateRefusal::Notify {
        return puts;
    }
    let mut mark = json!({"at": written(now)});
    if let Some(wording) = wording(check, refusal) {
        mark["message_id"] = wording.id.into();
    }
    puts.push(FieldWrite {
        path: refusal_mark(&check.name),
        value: Some(mark),
    });
    if on_late_refusal == OnLateRefusal::Deactivate {
        puts.push(FieldWrite {
            path: vec!["state".to_owned()],
            value: Some("inactive".into()),
        });
    }
    puts
}

fn wording(check: &Check, refusal: Option<usize>) -> Option<&MessageTemplate> {
    check.refuse.get(refusal?)?.message.as_deref()
}

/// Where it is noted that this check has refused late.
#[must_use]
pub fn refusal_mark(check: &str) -> Vec<String> {
    place("refused", check)
}

/// The refusal as it is stored. One that deactivates has its message in every language, so that hooks can refuse the person.
#[must_use]
pub fn stored(
    check: &Check,
    refusal: Option<usize>,
    effect: OnLateRefusal,
    identity_id: Uuid,
    names: &Variables<'_>,
) -> LateRefusal {
    // Hooks show it only to a person who is kept out.
    let wording = wording(check, refusal).filter(|_| effect == OnLateRefusal::Deactivate);
    let message = wording.and_then(|wording| {
        let texts = wording.texts.iter();
        let texts = texts.map(|(tag, template)| Ok((tag.clone(), template.render_text(names)?)));
        match texts.collect::<Result<Vec<_>, EvaluationError>>() {
            Ok(texts) => Some(StoredMessage {
                id: wording.id,
                name: wording.name.clone(),
                field: check.field.as_ref().map(|field| field.node_name().to_owned()),
                texts,
            }),
            Err(error) => {
                tracing::warn!(check = check.name, message.id = wording.id, %error, "The text of a message could not be filled in; the built-in `account_refused` is used instead");
                None
            }
        }
    });
    LateRefusal {
        identity_id,
        check: check.name.clone(),
        effect,
        message,
        refused_at: names.now,
        deactivated_at: None,
    }
}

/// The delivery that deactivates an account.
#[must_use]
pub fn enforcement(
    check: &str,
    identity_id: Uuid,
    event: Event,
    unique_key: String,
    puts: Vec<FieldWrite>,
    now: Timestamp,
) -> NewDelivery {
    NewDelivery {
        plan: Queue::LateRefusal(check).to_string(),
        work: Ok(Action::Enforce(puts)),
        ..identity_write(check, identity_id, event, unique_key, Vec::new(), now)
    }
}

/// The check has accepted what is saved now, so its late refusal is lifted, unless that one deactivates. The write removes the
/// mark.
#[must_use]
pub fn acceptance_lifts(
    check: &str,
    identity_id: Uuid,
    event: Event,
    unique_key: String,
    now: Timestamp,
) -> RefusalLift {
    let put = FieldWrite {
        path: refusal_mark(check),
        value: None,
    };
    RefusalLift {
        identity_id,
        check: check.to_owned(),
        at: now,
        write: identity_write(check, identity_id, event, unique_key, vec![put], now),
    }
}

/// The check whose refusal this path in an identity marks.
#[must_use]
pub fn check_of_mark(path: &[String]) -> Option<&str> {
    let check = path.last()?;
    (refusal_mark(check) == path).then_some(check)
}

/// What [`lift`] has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Lifted {
    /// The checks whose refusal was lifted.
    pub checks: Vec<String>,
    /// The checks whose refusal stays in force.
    pub others_in_force: Vec<String>,
    /// Whether Vestibule sets the identity active: a refusal that deactivated it was lifted, and no such refusal stays in force.
    pub activates: bool,
}

/// Lifts the late refusal of this check, or of all checks. A delivery removes the marks and, unless another refusal that
/// deactivates stays in force, activates the account.
pub async fn lift(
    store: &dyn Store,
    identity_id: Uuid,
    check: Option<&str>,
    now: Timestamp,
) -> Result<Lifted, store::Error> {
    let in_force = store.late_refusals_of(identity_id).await?;
    let (lifted, others): (Vec<LateRefusal>, Vec<LateRefusal>) = in_force
        .into_iter()
        .partition(|refusal| check.is_none_or(|check| refusal.check == check));
    let keeps_out = |refusals: &[LateRefusal]| refusals.iter().any(LateRefusal::keeps_out);
    let activates = keeps_out(&lifted) && !keeps_out(&others);
    let marked = lifted
        .iter()
        .filter(|one| one.effect != OnLateRefusal::Notify);
    let mut puts: Vec<FieldWrite> = marked
        .map(|refusal| FieldWrite {
            path: refusal_mark(&refusal.check),
            value: None,
        })
        .collect();
    if activates {
        puts.push(FieldWrite {
            path: vec!["state".to_owned()],
            value: Some("active".into()),
        });
    }
    let names = |refusals: Vec<LateRefusal>| -> Vec<String> {
        refusals.into_iter().map(|refusal| refusal.check).collect()
    };
    let (checks, others_in_force) = (names(lifted), names(others));
    if let Some(first) = checks.first() {
        let key = format!("lift:{}", time_ordered_id(now));
        let write = identity_write(first, identity_id, Event::CheckRefused, key, puts, now);
        let has_puts = matches!(&write.work, Ok(Action::Write(puts)) if !puts.is_empty());
        let writes = if has_puts { vec![write] } else { Vec::new() };
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

/// The note that the check is deferred goes.
#[must_use]
pub fn clear_marker(check: &Check) -> FieldWrite {
    FieldWrite {
        path: deferred_marker(&check.name),
        value: None,
    }
}
