//! Refuses the change of an immutable field in settings.
//!
//! The value that Kratos will store is compared with the stored one, because a check may `set` the field. So a value that
//! a check normalises is equal to itself, and no `set` changes an immutable value. Where no check can `set` the field, the
//! check refuses before it asks a service. `when` is evaluated with the stored value of the field, so that no change of
//! the value itself ends its protection.

use serde_json::{Map, Value};

use super::{Evaluation, RunDecision};
use crate::checks::evaluate::outcome::{Outcome, Slot};
use crate::checks::{Check, Mode};
use crate::expression::Variables;
use crate::kratos::{Field, Flow};
use crate::model::identity_write::same;

impl Evaluation<'_> {
    /// Returns whether the check has an immutable field whose value differs in this identity from the stored one, or is
    /// gone. Without the previous identity, every value counts as changed.
    pub(super) fn changes_immutable(&self, check: &Check, identity: &Value) -> bool {
        let Some(field) = check.field.as_ref().filter(|_| check.immutable) else {
            return false;
        };
        if self.call.hook.flow != Flow::Settings {
            return false;
        }
        let Some(previous) = &self.call.payload.previous else {
            return self.keeps(check, self.identity);
        };
        let Some(before) = field.present_in(previous) else {
            return false;
        };
        let stays = field
            .present_in(identity)
            .is_some_and(|now| same(before, now));
        !stays
            && self.keeps(
                check,
                &with_stored_value(self.identity, field, before, previous),
            )
    }

    /// Returns whether `when` holds for this identity, or fails.
    fn keeps(&self, check: &Check, identity: &Value) -> bool {
        let variables = Variables {
            identity: Some(identity),
            value: check.value_in(identity),
            ..self.variables(check, None)
        };
        let when = check.when.as_ref();
        when.is_none_or(|when| when.holds(&variables) != Ok(false))
    }

    /// Returns whether the `set` of a check can write the field of this check.
    pub(super) fn can_be_set(&self, check: &Check) -> bool {
        let Some(field) = &check.field else {
            return false;
        };
        let enforced = self
            .rules()
            .checks()
            .filter(|one| one.mode == Mode::Enforce);
        enforced
            .flat_map(|one| &one.set)
            .any(|set| field.meets(&set.path))
    }

    /// Makes each check refuse whose immutable field changes with these changes of the accepted checks.
    pub(super) fn refuse_changed_immutables(&mut self, changes: &Map<String, Value>) {
        let checks = || self.rules().checks().enumerate();
        if self.call.hook.flow != Flow::Settings || !checks().any(|(_, check)| check.immutable) {
            return;
        }
        let mut stored = self.identity.clone();
        for (root, value) in changes {
            stored[root] = value.clone();
        }
        let is_violated = |(index, check): &(usize, &Check)| {
            self.run_decisions[*index] != RunDecision::NotInThisFlow
                && self.changes_immutable(check, &stored)
        };
        let immutable = &self.rules().messages().immutable;
        let violated: Vec<(usize, Outcome)> = checks()
            .filter(is_violated)
            .map(|(index, check)| (index, self.refused(check, immutable)))
            .collect();
        for (index, outcome) in violated {
            if let Slot::Finished(finished) = &mut self.slots[index] {
                finished.outcome = outcome;
            }
        }
    }
}

/// Returns the identity with the stored value of the field. If the field has no place there, the whole trait around it is
/// the stored one.
fn with_stored_value(identity: &Value, field: &Field, stored: &Value, previous: &Value) -> Value {
    let mut restored = identity.clone();
    if !field.put_into(&mut restored, stored.clone())
        && let [root, name, ..] = field.names()
    {
        restored[root][name] = previous[root][name].clone();
    }
    restored
}
