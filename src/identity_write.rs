//! What was written into an identity through Kratos's admin API, and whether it is still there.
//!
//! Kratos reads, changes and writes whole rows without a lock. So a settings request that began before a write through the
//! admin API undoes it, and the write itself can undo what a person saved at that moment. Each write is therefore verified
//! for some hours.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::clock::{Timestamp, later};
use crate::delivery::Put;

/// When a write is verified, counted from the write.
pub const VERIFY_AFTER: [Duration; 6] = [
    Duration::from_secs(5),
    Duration::from_mins(1),
    Duration::from_mins(10),
    Duration::from_hours(1),
    Duration::from_hours(2),
    Duration::from_hours(3),
];
/// How long after the end of a write a `post` can still be of a save that the write undid.
const POST_AFTER_WRITE: Duration = Duration::from_mins(1);
/// How long a write waits for the `post` of settings calls, counted from the first `pre`.
pub const MAX_SETTINGS_WAIT: Duration = Duration::from_mins(1);
/// After so long without a `post`, a settings call is forgotten and the next `pre` counts as the first. The time between the
/// two limits belongs to writes, whatever a person sends.
pub const SETTINGS_FORGOTTEN_AFTER: Duration = Duration::from_mins(5);

/// Where checks leave their marks.
const MARKS: [&str; 2] = ["metadata_admin", "vestibule"];

/// All writes into one identity that are still verified.
#[derive(Clone, Debug, PartialEq)]
pub struct IdentityWrites {
    /// The identity.
    pub identity_id: Uuid,
    /// The writes, oldest first.
    pub writes: Vec<Write>,
    /// From when on [`VERIFY_AFTER`] counts.
    pub written_at: Timestamp,
    /// How many of the planned verifications are done.
    pub verified: usize,
    /// The next verification, or the end of a lease.
    pub verify_at: Timestamp,
    /// What people saved in settings since the oldest write began, oldest first.
    pub saved: Vec<SavedChange>,
}

/// One PATCH.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Write {
    /// When the request was about to be sent.
    pub began_at: Timestamp,
    /// When its answer had come. `None` if no answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// What it wrote.
    pub fields: Vec<FieldWrite>,
    /// Whether it repeats another one, or writes a person's change back.
    #[serde(default)]
    pub is_repair: bool,
}

/// One field of a [`Write`]; `None` stands for "not there".
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldWrite {
    /// `["metadata_admin", "crm_id"]`.
    pub path: Vec<String>,
    /// What was there before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// A change that a person saved in settings, as `post` tells of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedChange {
    /// When `post` arrived.
    pub saved_at: Timestamp,
    /// `traits` and `metadata_public` as they were.
    pub previous: Value,
    /// The same as they were saved.
    pub identity: Value,
}

/// What a look at the identity shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// To be written again: the identity has the values from before our writes.
    pub undone: Vec<Put>,
    /// To be written back: our write undid what the person had saved.
    pub restore: Vec<Put>,
    /// Whether some field has a third value, or only a part is as before. It may be an operator's, so it stays.
    pub left_alone: bool,
}

impl Write {
    /// A write of these values into this identity.
    #[must_use]
    pub fn new(identity: &Value, puts: &[Put], now: Timestamp) -> Self {
        // The state is not compared here: it belongs to the refusals in force, and else to the operator.
        let fields = puts
            .iter()
            .filter(|put| put.path != ["state"])
            .map(|put| FieldWrite {
                path: put.path.clone(),
                before: value_at(identity, &put.path).cloned(),
                after: put.value.clone(),
            });
        Self {
            began_at: now,
            ended_at: None,
            fields: fields.collect(),
            is_repair: false,
        }
    }
}

impl IdentityWrites {
    /// No write yet.
    #[must_use]
    pub fn new(identity_id: Uuid, now: Timestamp) -> Self {
        Self {
            identity_id,
            writes: Vec::new(),
            written_at: now,
            verified: 0,
            verify_at: now,
            saved: Vec::new(),
        }
    }

    /// Adds a write; its verifications begin anew.
    pub fn add(&mut self, write: Write) {
        self.written_at = write.began_at;
        self.verified = 0;
        self.writes.push(write);
        self.verify_at = later(self.written_at, VERIFY_AFTER[0]);
    }

    /// The newest write has its answer.
    pub fn ended(&mut self, now: Timestamp) {
        if let Some(newest) = self.writes.last_mut() {
            newest.ended_at = Some(now);
        }
    }

    /// How many writes repeated others.
    #[must_use]
    pub fn repairs(&self) -> usize {
        self.writes.iter().filter(|write| write.is_repair).count()
    }

    /// What Vestibule noted about deferred and refused checks is not verified any more.
    pub fn forget_marks(&mut self) {
        for write in &mut self.writes {
            write
                .fields
                .retain(|field| !field.path.starts_with(&MARKS.map(str::to_owned)));
        }
    }

    /// Keeps this many of the newest.
    pub fn drop_oldest(&mut self, keep: usize) {
        let surplus = self.writes.len().saturating_sub(keep);
        self.writes.drain(..surplus);
    }

    /// When the next planned verification is due, after one more was done `now`. `None` after the last.
    #[must_use]
    pub fn next_verification(&self, now: Timestamp) -> Option<(usize, Timestamp)> {
        VERIFY_AFTER
            .iter()
            .enumerate()
            .map(|(index, after)| (index, later(self.written_at, *after)))
            .find(|(_, at)| *at > now)
    }

    /// Compares the identity with what was written.
    #[must_use]
    pub fn compare(&self, identity: &Value) -> Finding {
        let mut finding = Finding {
            restore: self.restore(identity),
            ..Finding::default()
        };
        for (index, write) in self.writes.iter().enumerate() {
            let later_writes = &self.writes[index + 1..];
            let is_current = |field: &&FieldWrite| {
                !later_writes
                    .iter()
                    .flat_map(|write| &write.fields)
                    .any(|other| overlap(&other.path, &field.path))
            };
            let fields: Vec<&FieldWrite> = write.fields.iter().filter(is_current).collect();
            let changed: Vec<&&FieldWrite> = fields
                .iter()
                .filter(|field| !self.is_as_written(field, identity))
                .collect();
            if changed.is_empty() {
                continue;
            }
            // A save writes the whole row. So it undoes every field of a write, or none.
            let is_undone = fields.iter().all(|field| {
                self.was_before(&field.path, value_at(identity, &field.path))
                    && !self.was_seen_and_changed(field, write)
            });
            if is_undone {
                finding.undone.extend(changed.into_iter().map(|field| Put {
                    path: field.path.clone(),
                    value: field.after.clone(),
                }));
            } else {
                finding.left_alone = true;
            }
        }
        finding
    }

    #[expect(clippy::unused_self, reason = "beside its opposite")]
    fn is_as_written(&self, field: &FieldWrite, identity: &Value) -> bool {
        same_option(value_at(identity, &field.path), field.after.as_ref())
    }

    /// Whether one of the writes found this value at this place.
    fn was_before(&self, path: &[String], value: Option<&Value>) -> bool {
        self.writes
            .iter()
            .flat_map(|write| &write.fields)
            .any(|field| field.path == path && same_option(field.before.as_ref(), value))
    }

    /// Whether the person had the written value in the form and saved another one.
    fn was_seen_and_changed(&self, field: &FieldWrite, write: &Write) -> bool {
        self.saved.iter().any(|saved| {
            saved.saved_at >= write.began_at
                && same_option(value_at(&saved.previous, &field.path), field.after.as_ref())
                && !same_option(value_at(&saved.identity, &field.path), field.after.as_ref())
        })
    }

    /// What to write back if one of our writes undid a save: the traits are those from before a save whose `post` came
    /// while the write was under way.
    fn restore(&self, identity: &Value) -> Vec<Put> {
        let Some(newest) = self.saved.last() else {
            return Vec::new();
        };
        let traits = &identity["traits"];
        if same(traits, &newest.identity["traits"]) {
            return Vec::new();
        }
        let undone = self.saved.iter().find(|saved| {
            same(traits, &saved.previous["traits"])
                && self.writes.iter().any(|write| {
                    write.began_at <= saved.saved_at
                        && write
                            .ended_at
                            .is_none_or(|ended| saved.saved_at <= later(ended, POST_AFTER_WRITE))
                })
        });
        undone.map_or_else(Vec::new, |_| {
            differences(traits, &newest.identity["traits"])
        })
    }
}

/// The entries of `wanted` that differ, so that numbers that Jsonnet rounded are not written where nothing changed.
fn differences(now: &Value, wanted: &Value) -> Vec<Put> {
    let nothing = Map::new();
    let (now, wanted) = (
        now.as_object().unwrap_or(&nothing),
        wanted.as_object().unwrap_or(&nothing),
    );
    let path = |name: &String| vec!["traits".to_owned(), name.clone()];
    let changed = wanted
        .iter()
        .filter(|(name, value)| !now.get(*name).is_some_and(|now| same(now, value)))
        .map(|(name, value)| Put {
            path: path(name),
            value: Some(value.clone()),
        });
    let removed = now
        .keys()
        .filter(|name| !wanted.contains_key(*name))
        .map(|name| Put {
            path: path(name),
            value: None,
        });
    changed.chain(removed).collect()
}

/// What is at this path. An empty path is the whole.
#[must_use]
pub fn value_at<'a>(identity: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter()
        .try_fold(identity, |value, name| value.get(name))
}

fn overlap(one: &[String], other: &[String]) -> bool {
    one.iter().zip(other).all(|(one, other)| one == other)
}

fn same_option(one: Option<&Value>, other: Option<&Value>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => same(one, other),
        (one, other) => one.is_none() == other.is_none(),
    }
}

/// Whether both are the same value, however they are written: hooks get numbers from Jsonnet, which has 64-bit floats.
#[must_use]
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(name, value)| other.get(name).is_some_and(|other| same(value, other)))
        }
        _ => one == other,
    }
}
