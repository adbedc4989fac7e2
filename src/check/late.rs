//! What a deferred check does once the account exists.

use std::time::Duration;

use chrono::SecondsFormat;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Check, LateRefusal};
use crate::clock::{Timestamp, later};
use crate::delivery::{Event, New, Put, Queue, Scene, Work, time_ordered_id};
use crate::expression::Lists;
use crate::pending::Deferred;

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
pub fn note(check: &str) -> Vec<String> {
    place("deferred", check)
}

fn written(moment: Timestamp) -> Value {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true).into()
}

/// The question, to be put until there is an answer, and the note of it in the identity. `yes` tells the yes that it
/// belongs to from others; `scene` has the identity as it was saved.
#[must_use]
pub fn question(
    deferred: &Deferred,
    yes: &str,
    (identity_id, event): (Uuid, Event),
    scene: &Scene,
    now: Timestamp,
) -> Vec<New> {
    let scene = Scene {
        value: deferred.value.clone(),
        ..scene.clone()
    };
    let key = format!("{yes}:{}", deferred.check);
    let put = Put {
        path: note(&deferred.check),
        value: Some(json!({"since": written(now)})),
    };
    vec![
        New {
            id: time_ordered_id(now),
            plan: Queue::Check(&deferred.check).to_string(),
            event,
            unique_key: key.clone(),
            identity_id,
            work: Ok(Work::Ask(deferred.request.clone())),
            scene: Some(scene),
            created_at: now,
            due_at: later(now, FIRST_PAUSE),
            keep_trying_until: later(now, KEEP_TRYING_FOR),
        },
        write(&deferred.check, identity_id, event, key, vec![put], now),
    ]
}

/// What is written into an identity.
#[must_use]
pub fn write(
    name: &str,
    identity_id: Uuid,
    event: Event,
    unique_key: String,
    puts: Vec<Put>,
    now: Timestamp,
) -> New {
    New {
        id: time_ordered_id(now),
        plan: Queue::Save(name).to_string(),
        event,
        unique_key,
        identity_id,
        work: Ok(Work::Write(puts)),
        scene: None,
        created_at: now,
        due_at: now,
        keep_trying_until: later(now, KEEP_TRYING_FOR),
    }
}

/// What is written when it accepts at last: the note goes, and what the check sets comes.
#[must_use]
pub fn accepted(check: &Check, scene: &Scene, response: &Value, lists: &Lists) -> Vec<Put> {
    let names = scene.names(lists, Some(response));
    let mut puts = vec![note_goes(check)];
    for set in &check.set {
        match set.value.render(&names) {
            Ok(Value::Null) => {}
            Ok(value) => puts.push(Put {
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

/// What is written when it refuses at last.
#[must_use]
pub fn refused(check: &Check, refusal: usize, now: Timestamp) -> Vec<Put> {
    let mut puts = vec![note_goes(check)];
    if check.late_refusal == LateRefusal::Notify {
        return puts;
    }
    let wording = check
        .refuse
        .get(refusal)
        .and_then(|refusal| refusal.message.as_ref());
    let mut mark = json!({"at": written(now)});
    if let Some(wording) = wording {
        mark["message_id"] = wording.id.into();
    }
    puts.push(Put {
        path: place("refused", &check.name),
        value: Some(mark),
    });
    if check.late_refusal == LateRefusal::Deactivate {
        puts.push(Put {
            path: vec!["state".to_owned()],
            value: Some("inactive".into()),
        });
    }
    puts
}

/// The note that the check is deferred goes.
#[must_use]
pub fn note_goes(check: &Check) -> Put {
    Put {
        path: note(&check.name),
        value: None,
    }
}
