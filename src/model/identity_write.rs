//! Records writes into identities through Kratos's admin API, and checks whether the identities still have the written
//! values.
//!
//! Kratos reads, changes and writes whole rows without a lock. So a settings request that began before a write through
//! the admin API undoes the write. The write can also undo what a visitor saved at that moment. Each write is
//! therefore verified for some hours.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::base::clock::{Timestamp, saturating_add};
use crate::model::delivery::FieldWrite;

/// When a write is verified, counted from the write.
pub const VERIFY_AFTER: [Duration; 6] = [
    Duration::from_secs(5),
    Duration::from_mins(1),
    Duration::from_mins(10),
    Duration::from_hours(1),
    Duration::from_hours(2),
    Duration::from_hours(3),
];
/// How long after the end of a write a `post` can belong to a save that the write undid.
const POST_AFTER_WRITE: Duration = Duration::from_mins(1);
/// After this time, a write without an answer has ended.
const MAX_WRITE_DURATION: Duration = Duration::from_mins(2);
/// How long a write waits for the `post` of settings calls, counted from the first `pre`.
pub const MAX_SETTINGS_WAIT: Duration = Duration::from_mins(1);
/// After this time without a `post`, a settings call counts as ended, and the next `pre` counts as the first. Writes
/// happen between the two limits, whatever a visitor sends.
pub const SETTINGS_CALL_TIMEOUT: Duration = Duration::from_mins(5);

/// The parts of an identity that a save in settings reports.
const SAVED_PARTS: [&str; 2] = ["traits", "metadata_public"];
/// The path of the marks of checks.
const MARKS: [&str; 2] = ["metadata_admin", "vestibule"];

/// All writes into one identity that are still verified.
#[derive(Clone, Debug, PartialEq)]
pub struct IdentityWrites {
    /// The identity.
    pub identity_id: Uuid,
    /// The writes, oldest first.
    pub writes: Vec<Write>,
    /// The start time for [`VERIFY_AFTER`].
    pub written_at: Timestamp,
    /// How many of the planned verifications are done.
    pub verified: usize,
    /// When the next verification is due, or when a lease ends.
    pub verify_at: Timestamp,
    /// The changes that visitors saved in settings since the oldest write began, oldest first.
    pub saved: Vec<SavedChange>,
    /// When the newest of the changes was saved that a verification has found in the identity, after all writes had ended.
    /// No write undid that change or an earlier one.
    pub seen_at: Option<Timestamp>,
}

/// One PATCH.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Write {
    /// When the request was about to be sent.
    pub began_at: Timestamp,
    /// When the answer arrived. `None` if no answer arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The fields that the PATCH changed.
    pub fields: Vec<FieldChange>,
    /// Whether the write repeats another write, or restores a visitor's change.
    #[serde(default)]
    pub is_repair: bool,
}

/// The record of one changed field of a [`Write`], before and after the PATCH. `None` means that the field was absent.
/// The instruction to change a field is a [`FieldWrite`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// The path of the field: `["metadata_admin", "crm_id"]`.
    pub path: Vec<String>,
    /// The value before the write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// The written value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// A change that a visitor saved in settings, as `post` reports it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedChange {
    /// When `post` arrived.
    pub saved_at: Timestamp,
    /// `traits` and `metadata_public` before the change.
    pub previous: Value,
    /// `traits` and `metadata_public` after the change.
    pub identity: Value,
}

/// The result of comparing an identity with the writes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    /// Fields to write again: the identity has the values from before the writes.
    pub undone: Vec<FieldWrite>,
    /// Fields to restore: a write undid what the visitor had saved.
    pub restore: Vec<FieldWrite>,
    /// Whether a field has a third value, or only some fields have their earlier values. An operator may have made
    /// this change, so Vestibule keeps it.
    pub keeps_other_value: bool,
}

impl Write {
    /// Returns the record of a write of these values into this identity.
    #[must_use]
    pub fn new(identity: &Value, writes: &[FieldWrite], now: Timestamp) -> Self {
        // The state is not compared here. The refusals in force decide the state, and otherwise the operator.
        let fields = writes
            .iter()
            .filter(|write| write.path != ["state"])
            .map(|write| FieldChange {
                path: write.path.clone(),
                before: value_at(identity, &write.path).cloned(),
                after: write.value.clone(),
            });
        Self {
            began_at: now,
            ended_at: None,
            fields: fields.collect(),
            is_repair: false,
        }
    }

    /// Returns when the write had ended at the latest.
    fn end(&self) -> Timestamp {
        self.ended_at
            .unwrap_or(saturating_add(self.began_at, MAX_WRITE_DURATION))
    }
}

impl IdentityWrites {
    /// Returns a record without writes.
    #[must_use]
    pub fn new(identity_id: Uuid, now: Timestamp) -> Self {
        Self {
            identity_id,
            writes: Vec::new(),
            written_at: now,
            verified: 0,
            verify_at: now,
            saved: Vec::new(),
            seen_at: None,
        }
    }

    /// Adds a write, and restarts the verifications.
    pub fn add(&mut self, write: Write) {
        self.written_at = write.began_at;
        self.verified = 0;
        self.writes.push(write);
        self.verify_at = saturating_add(self.written_at, VERIFY_AFTER[0]);
    }

    /// Records that the newest write has its answer.
    pub fn ended(&mut self, now: Timestamp) {
        if let Some(newest) = self.writes.last_mut() {
            newest.ended_at = Some(now);
        }
    }

    /// Returns the number of writes that are repairs.
    #[must_use]
    pub fn repairs(&self) -> usize {
        self.writes.iter().filter(|write| write.is_repair).count()
    }

    /// Removes the marks of these checks from the writes to verify.
    pub fn exclude_marks(&mut self, checks: &[String]) {
        let is_mark = |field: &FieldChange| {
            field.path.starts_with(&MARKS.map(str::to_owned))
                && field.path.last().is_some_and(|name| checks.contains(name))
        };
        for write in &mut self.writes {
            write.fields.retain(|field| !is_mark(field));
        }
    }

    /// Keeps only the newest writes.
    pub fn drop_oldest(&mut self, keep: usize) {
        let surplus = self.writes.len().saturating_sub(keep);
        self.writes.drain(..surplus);
    }

    /// Returns the next planned verification and its number, if the latest verification was done `now`. `None` after
    /// the last.
    #[must_use]
    pub fn next_verification(&self, now: Timestamp) -> Option<(usize, Timestamp)> {
        VERIFY_AFTER
            .iter()
            .enumerate()
            .map(|(index, after)| (index, saturating_add(self.written_at, *after)))
            .find(|(_, at)| *at > now)
    }

    /// Compares the identity with the writes.
    #[must_use]
    pub fn compare(&self, identity: &Value) -> Finding {
        let mut finding = Finding {
            restore: self.restore(identity),
            ..Finding::default()
        };
        for (index, write) in self.writes.iter().enumerate() {
            // Without an answer, the delivery itself is retried.
            if write.ended_at.is_none() {
                continue;
            }
            let later_writes = &self.writes[index + 1..];
            let is_current = |field: &&FieldChange| {
                !later_writes
                    .iter()
                    .flat_map(|write| &write.fields)
                    .any(|other| overlap(&other.path, &field.path))
            };
            // A save sets the traits to the values of the form, and restores everything else as it was read. So a save
            // undoes every other field of a write, or none.
            let (traits, rest): (Vec<&FieldChange>, Vec<&FieldChange>) = write
                .fields
                .iter()
                .filter(is_current)
                .partition(|field| field.path.first().is_some_and(|root| root == "traits"));
            let is_rest_as_written = rest.iter().all(|field| is_as_written(field, identity));
            let is_rest_undone = !is_rest_as_written
                && rest
                    .iter()
                    .all(|field| self.is_undone(field, write, identity));
            finding.keeps_other_value |= !is_rest_as_written && !is_rest_undone;
            let mut undone: Vec<&FieldChange> = if is_rest_undone {
                rest.clone()
            } else {
                Vec::new()
            };
            for field in traits {
                if is_as_written(field, identity) {
                    continue;
                }
                if (rest.is_empty() || is_rest_undone) && self.is_undone(field, write, identity) {
                    undone.push(field);
                } else {
                    finding.keeps_other_value = true;
                }
            }
            finding.undone.extend(
                undone
                    .into_iter()
                    .filter(|field| !is_as_written(field, identity))
                    .map(|field| FieldWrite {
                        path: field.path.clone(),
                        value: field.after.clone(),
                    }),
            );
        }
        finding
    }

    /// Returns whether a field has its value from before one of the writes, unless the visitor changed the written
    /// value.
    fn is_undone(&self, field: &FieldChange, write: &Write, identity: &Value) -> bool {
        self.was_before(&field.path, value_at(identity, &field.path))
            && !self.was_seen_and_changed(field, write)
    }

    /// Returns whether one of the writes replaced this value at this path.
    fn was_before(&self, path: &[String], value: Option<&Value>) -> bool {
        self.writes
            .iter()
            .flat_map(|write| &write.fields)
            .any(|field| field.path == path && same_option(field.before.as_ref(), value))
    }

    /// Returns whether the visitor saw the written value in the form and saved another one.
    fn was_seen_and_changed(&self, field: &FieldChange, write: &Write) -> bool {
        self.saved.iter().any(|saved| {
            saved.saved_at >= write.began_at
                && same_option(value_at(&saved.previous, &field.path), field.after.as_ref())
                && !same_option(value_at(&saved.identity, &field.path), field.after.as_ref())
        })
    }

    /// Returns when the newest change was saved, if the identity has it and no write can undo it any more.
    #[must_use]
    pub fn newest_in_place(&self, identity: &Value, now: Timestamp) -> Option<Timestamp> {
        let newest = self.saved.last()?;
        let is_in_place = same(
            &identity["traits"],
            &self.with_own_fields(newest, &newest.identity, identity)["traits"],
        );
        let have_ended = self.writes.iter().all(|write| write.end() <= now);
        (is_in_place && have_ended && self.restore(identity).is_empty()).then_some(newest.saved_at)
    }

    /// Returns the fields to restore if a write undid a save. A save was undone if the identity is as before the save, but
    /// for what the write wrote, and the `post` of the save arrived during the write.
    fn restore(&self, identity: &Value) -> Vec<FieldWrite> {
        let unseen = |saved: &&SavedChange| self.seen_at.is_none_or(|seen| saved.saved_at > seen);
        let mut unseen = self.saved.iter().filter(unseen);
        let undone = unseen.find(|saved| self.was_undone(saved, identity));
        let (Some(undone), Some(newest)) = (undone, self.saved.last()) else {
            return Vec::new();
        };
        let before = self.with_own_fields(undone, &undone.previous, identity);
        let wanted = self.with_own_fields(undone, &newest.identity, identity);
        SAVED_PARTS
            .into_iter()
            .filter(|part| same(&identity[part], &before[part]))
            .flat_map(|part| differences(part, &identity[part], &wanted[part]))
            .collect()
    }

    /// Returns whether a write undid this save. If the save changed traits, the traits decide.
    fn was_undone(&self, saved: &SavedChange, identity: &Value) -> bool {
        if self.writes_during(saved).next().is_none() {
            return false;
        }
        let before = self.with_own_fields(saved, &saved.previous, identity);
        let after = self.with_own_fields(saved, &saved.identity, identity);
        let mut changed = SAVED_PARTS
            .iter()
            .filter(|part| !same(&before[part], &after[part]));
        changed
            .next()
            .is_some_and(|part| same(&identity[part], &before[part]))
    }

    /// Returns the writes that can have undone this save.
    fn writes_during<'a>(&'a self, saved: &SavedChange) -> impl Iterator<Item = &'a Write> {
        let saved_at = saved.saved_at;
        self.writes.iter().filter(move |write| {
            write.began_at <= saved_at && saved_at <= saturating_add(write.end(), POST_AFTER_WRITE)
        })
    }

    /// Returns this state of a save with the values that writes during the save have given to the identity. A value that
    /// the visitor saw and changed is left out.
    fn with_own_fields(&self, saved: &SavedChange, state: &Value, identity: &Value) -> Value {
        let mut state = state.clone();
        for write in self.writes_during(saved) {
            for field in &write.fields {
                let is_saved = field
                    .path
                    .first()
                    .is_some_and(|root| SAVED_PARTS.contains(&root.as_str()));
                if is_saved
                    && is_as_written(field, identity)
                    && !self.was_seen_and_changed(field, write)
                {
                    set_at(&mut state, &field.path, field.after.as_ref());
                }
            }
        }
        state
    }
}

fn is_as_written(field: &FieldChange, identity: &Value) -> bool {
    same_option(value_at(identity, &field.path), field.after.as_ref())
}

/// Sets or removes the value at this path. Missing objects on the path are created. A list keeps its length, so nothing
/// is done for an entry that does not exist, or that would be removed.
pub fn set_at(value: &mut Value, path: &[String], new: Option<&Value>) {
    let Some((last, way)) = path.split_last() else {
        return;
    };
    let mut there = value;
    for name in way {
        let Some(next) = next_on_the_way(there, name, new.is_some()) else {
            return;
        };
        there = next;
    }
    match (new, there) {
        (Some(new), Value::Object(map)) => {
            map.insert(last.clone(), new.clone());
        }
        (None, Value::Object(map)) => {
            map.remove(last);
        }
        (Some(new), Value::Array(list)) => {
            if let Some(entry) = index(last).and_then(|index| list.get_mut(index)) {
                *entry = new.clone();
            }
        }
        _ => {}
    }
}

/// Returns the value of this name, which becomes an object if it can hold no member.
fn next_on_the_way<'v>(there: &'v mut Value, name: &str, creates: bool) -> Option<&'v mut Value> {
    let next = match there {
        Value::Array(list) => list.get_mut(index(name)?)?,
        Value::Object(map) if map.contains_key(name) || creates => {
            map.entry(name.to_owned()).or_insert(Value::Null)
        }
        _ => return None,
    };
    if !next.is_object() && !next.is_array() {
        if !creates {
            return None;
        }
        *next = Value::Object(Map::new());
    }
    Some(next)
}

/// Returns the index that this name of a path is in a list.
#[must_use]
pub fn index(name: &str) -> Option<usize> {
    let is_number = name == "0" || !name.starts_with('0');
    let is_digits = name.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && is_digits)
        .then(|| name.parse().ok())
        .flatten()
}

/// Returns the members of this part of `wanted` that differ. Members that are unchanged are not written, because Jsonnet
/// rounds numbers.
fn differences(part: &str, now: &Value, wanted: &Value) -> Vec<FieldWrite> {
    let nothing = Map::new();
    let (now, wanted) = (
        now.as_object().unwrap_or(&nothing),
        wanted.as_object().unwrap_or(&nothing),
    );
    let path = |name: &String| vec![part.to_owned(), name.clone()];
    let changed = wanted
        .iter()
        .filter(|(name, value)| !now.get(*name).is_some_and(|now| same(now, value)))
        .map(|(name, value)| FieldWrite {
            path: path(name),
            value: Some(value.clone()),
        });
    let removed = now
        .keys()
        .filter(|name| !wanted.contains_key(*name))
        .map(|name| FieldWrite {
            path: path(name),
            value: None,
        });
    changed.chain(removed).collect()
}

/// Returns the value at this path. An empty path is the whole identity. A number leads to an entry of a list.
#[must_use]
pub fn value_at<'a>(identity: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter()
        .try_fold(identity, |value, name| part(value, name))
}

/// Returns the member of this name, or the entry of this index.
#[must_use]
pub fn part<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Array(list) => list.get(index(name)?),
        value => value.get(name),
    }
}

fn overlap(one: &[String], other: &[String]) -> bool {
    one.iter().zip(other).all(|(one, other)| one == other)
}

/// Returns whether both values are equal or absent, ignoring number formats.
#[must_use]
pub fn same_option(one: Option<&Value>, other: Option<&Value>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => same(one, other),
        (one, other) => one.is_none() == other.is_none(),
    }
}

/// Returns whether both values are equal, ignoring number formats. Hooks get numbers from Jsonnet, which uses 64-bit
/// floats.
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(seconds: u64) -> Timestamp {
        saturating_add(Timestamp::UNIX_EPOCH, Duration::from_secs(seconds))
    }

    fn set(path: &str, value: Option<Value>) -> FieldWrite {
        FieldWrite {
            path: path.split('.').map(ToOwned::to_owned).collect(),
            value,
        }
    }

    /// Records a write that began at second 1 and was answered at second 2.
    fn written(before: &Value, fields: &[FieldWrite]) -> IdentityWrites {
        let mut writes = IdentityWrites::new(Uuid::nil(), at(1));
        writes.add(Write::new(before, fields, at(1)));
        writes.ended(at(2));
        writes
    }

    fn saved(seconds: u64, previous: &Value, traits: &Value) -> SavedChange {
        SavedChange {
            saved_at: at(seconds),
            previous: json!({ "traits": previous }),
            identity: json!({ "traits": traits }),
        }
    }

    #[test]
    fn a_write_is_repeated_only_if_all_of_it_is_as_before() {
        let before = json!({"metadata_admin": {"note": 1, "other": 5}, "traits": {"name": "old"}});
        let fields = [
            set("metadata_admin.note", None),
            set("metadata_admin.mark", Some(json!(2))),
            set("traits.name", Some(json!("set"))),
            set("state", Some(json!("inactive"))),
        ];
        let writes = written(&before, &fields);
        let repeated = |indexes: &[usize]| -> Vec<FieldWrite> {
            indexes.iter().map(|index| fields[*index].clone()).collect()
        };
        for (admin, name, undone, keeps_other_value) in [
            (json!({"mark": 2}), "set", vec![], false),
            // A save that read the row before the write, with the old name or with a new one.
            (json!({"note": 1, "other": 5}), "old", vec![0, 1, 2], false),
            (json!({"note": 1, "other": 7}), "new", vec![0, 1], true),
            // A save that read the row after the write.
            (json!({"mark": 2}), "new", vec![], true),
            (json!({"mark": 2}), "old", vec![], true),
            // The mark was removed.
            (json!({}), "set", vec![], true),
            (json!({"mark": 3}), "set", vec![], true),
            (json!({"note": 1, "mark": 2}), "set", vec![], true),
        ] {
            let now = json!({"metadata_admin": admin, "traits": {"name": name}, "state": "active"});
            let finding = writes.compare(&now);
            assert_eq!(finding.undone, repeated(&undone), "{now}");
            assert_eq!(finding.keeps_other_value, keeps_other_value, "{now}");
            assert_eq!(finding.restore, [], "{now}");
        }
    }

    #[test]
    fn the_later_of_two_writes_to_one_field_is_restored() {
        let mut writes = written(&json!({}), &[set("metadata_admin.note", Some(json!(1)))]);
        let between = json!({"metadata_admin": {"note": 1}});
        writes.add(Write::new(
            &between,
            &[set("metadata_admin.note", None)],
            at(3),
        ));
        let undone = |writes: &IdentityWrites, now: Value| writes.compare(&now).undone;
        assert_eq!(
            undone(&writes, between.clone()),
            [],
            "the later write has no answer yet"
        );
        writes.ended(at(4));
        assert_eq!(undone(&writes, json!({"metadata_admin": {}})), []);
        assert_eq!(undone(&writes, between), [set("metadata_admin.note", None)]);
    }

    #[test]
    fn a_change_that_a_write_undid_is_written_back_and_no_other() {
        let old = json!({"name": "old", "number": 1, "gone": "x"});
        let new = json!({"name": "new", "number": 1.0, "more": true});
        let admin = [set("metadata_admin.crm", Some(json!(7)))];
        let back = [
            set("traits.more", Some(json!(true))),
            set("traits.name", Some(json!("new"))),
            set("traits.gone", None),
        ];
        for (posts, now, expected) in [
            (vec![], &old, &[][..]),
            (vec![saved(2, &old, &new)], &new, &[]),
            (vec![saved(2, &old, &new)], &old, &back),
            (vec![saved(61, &old, &new)], &old, &back),
            // A save before the write began, and a save long after the write had ended.
            (vec![saved(0, &old, &new)], &old, &[]),
            (vec![saved(90, &old, &new)], &old, &[]),
            // The visitor reverted the change.
            (vec![saved(2, &old, &new), saved(3, &new, &old)], &old, &[]),
            // Two changes, both undone by the write.
            (
                vec![
                    saved(2, &old, &json!({"name": "between"})),
                    saved(3, &json!({"name": "between"}), &new),
                ],
                &old,
                &back,
            ),
            // An operator's value.
            (
                vec![saved(2, &old, &new)],
                &json!({"name": "corrected"}),
                &[],
            ),
        ] {
            let mut writes = written(&json!({ "traits": old }), &admin);
            writes.saved = posts;
            let now = json!({"traits": now, "metadata_admin": {"crm": 7}});
            let mut restore = writes.compare(&now).restore;
            restore.sort_by_key(|write| (write.value.is_none(), write.path.clone()));
            assert_eq!(restore, expected, "{now} {:?}", writes.saved);
        }
    }

    #[test]
    fn a_change_is_restored_without_the_fields_of_the_write() {
        let old = json!({"name": "old", "company": "old"});
        let set_company = [set("traits.company", Some(json!("set")))];
        let name = set("traits.name", Some(json!("new")));
        for (previous, saved_traits, now, expected) in [
            // The write undid the name, and its own value stays.
            (
                &old,
                json!({"name": "new", "company": "old"}),
                json!({"name": "old", "company": "set"}),
                vec![name.clone()],
            ),
            // The visitor changed only the written field, so the write came later.
            (
                &old,
                json!({"name": "old", "company": "new"}),
                json!({"name": "old", "company": "set"}),
                vec![],
            ),
            // The visitor saw the written value and changed it.
            (
                &json!({"name": "old", "company": "set"}),
                json!({"name": "old", "company": "new"}),
                json!({"name": "old", "company": "set"}),
                vec![set("traits.company", Some(json!("new")))],
            ),
            // Both changes are in place.
            (
                &old,
                json!({"name": "new", "company": "old"}),
                json!({"name": "new", "company": "set"}),
                vec![],
            ),
        ] {
            let mut writes = written(&json!({ "traits": old }), &set_company);
            writes.saved = vec![saved(2, previous, &saved_traits)];
            let now = json!({ "traits": now });
            assert_eq!(writes.compare(&now).restore, expected, "{now}");
        }
    }

    #[test]
    fn metadata_public_is_restored_unless_it_has_another_value() {
        let admin = [set("metadata_admin.crm", Some(json!(7)))];
        let back = set("metadata_public.plan", Some(json!("new")));
        let name = set("traits.name", Some(json!("new")));
        for (changes_name, now, expected) in [
            (
                true,
                json!({"plan": "old"}),
                vec![name.clone(), back.clone()],
            ),
            (true, json!({"plan": "other"}), vec![name.clone()]),
            (false, json!({"plan": "old"}), vec![back]),
            (false, json!({"plan": "other"}), vec![]),
            (false, json!({"plan": "new"}), vec![]),
        ] {
            let new_name = if changes_name { "new" } else { "old" };
            let mut writes = written(&json!({}), &admin);
            writes.saved = vec![SavedChange {
                saved_at: at(2),
                previous: json!({"traits": {"name": "old"}, "metadata_public": {"plan": "old"}}),
                identity: json!({"traits": {"name": new_name}, "metadata_public": {"plan": "new"}}),
            }];
            let identity = json!({"traits": {"name": "old"}, "metadata_public": now});
            assert_eq!(writes.compare(&identity).restore, expected, "{identity}");
        }
    }

    #[test]
    fn a_change_that_was_seen_in_place_is_not_restored() {
        let (old, new) = (json!({"name": "old"}), json!({"name": "new"}));
        let mut writes = written(&json!({}), &[set("metadata_admin.crm", Some(json!(7)))]);
        writes.saved = vec![saved(2, &old, &new)];
        let in_place = json!({ "traits": new });
        let reset = json!({ "traits": old });
        assert_eq!(writes.newest_in_place(&reset, at(3)), None);
        assert_eq!(writes.newest_in_place(&in_place, at(3)), Some(at(2)));
        assert_eq!(writes.compare(&reset).restore.len(), 1);
        writes.seen_at = Some(at(2));
        assert_eq!(writes.compare(&reset).restore, []);
        // A later change is restored all the same.
        writes.saved.push(saved(3, &new, &json!({"name": "newer"})));
        assert_eq!(writes.compare(&in_place).restore.len(), 1);
        // A write without an answer can still undo the change.
        writes.add(Write::new(&json!({}), &[], at(4)));
        writes.saved = vec![saved(5, &old, &new)];
        assert_eq!(writes.newest_in_place(&in_place, at(6)), None);
        assert_eq!(writes.newest_in_place(&in_place, at(200)), Some(at(5)));
    }

    #[test]
    fn verifications_follow_the_schedule_until_the_last() {
        let writes = written(&json!({}), &[]);
        let mut moments = vec![writes.verify_at];
        while let Some((_, next)) = writes.next_verification(moments[moments.len() - 1]) {
            moments.push(next);
        }
        assert_eq!(
            moments,
            VERIFY_AFTER.map(|after| saturating_add(at(1), after))
        );
    }

    #[test]
    fn numbers_are_equal_in_every_format() {
        for (one, other, expected) in [
            (json!(1), json!(1.0), true),
            (
                json!({"a": [1, {"b": 2.50}]}),
                json!({"a": [1.0, {"b": 2.5}]}),
                true,
            ),
            (
                json!(9_007_199_254_740_993_u64),
                json!(9_007_199_254_740_992_u64),
                true,
            ),
            (json!(1), json!("1"), false),
            (json!({"a": null}), json!({}), false),
            (json!([1, 2]), json!([2, 1]), false),
        ] {
            assert_eq!(same(&one, &other), expected, "{one} {other}");
        }
    }
}
