//! What an absent field means for a check.

use serde_json::Value;

use super::Check;
use crate::expression::Variables;

static NULL: Value = Value::Null;

/// The key `absent`: what an absent field means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Absent {
    /// The check is not applicable.
    #[default]
    Skip,
    /// The check refuses with the message `required`.
    Refuse,
    /// The check runs, and `value` is null.
    Check,
}

impl Check {
    /// Returns whether the check has a field that is absent in this identity.
    #[must_use]
    pub fn is_absent_in(&self, identity: &Value) -> bool {
        let field = self.field.as_ref();
        field.is_some_and(|field| field.present_in(identity).is_none())
    }

    /// Returns the value of the variable `value` for this identity: null for an absent field, and `None` for a check
    /// without a field.
    #[must_use]
    pub fn value_in<'v>(&self, identity: &'v Value) -> Option<&'v Value> {
        let field = self.field.as_ref()?;
        Some(field.present_in(identity).unwrap_or(&NULL))
    }

    /// Returns whether the check can have run for this sign-up. Its field is present, unless the check runs for an
    /// absent field too, and its condition is true or cannot be evaluated.
    #[must_use]
    pub fn could_apply(&self, variables: &Variables<'_>) -> bool {
        let identity = variables.identity.unwrap_or(&NULL);
        let variables = Variables {
            value: self.value_in(identity),
            ..*variables
        };
        (self.absent == Absent::Check || !self.is_absent_in(identity))
            && self
                .when
                .as_ref()
                .is_none_or(|when| when.holds(&variables).unwrap_or(true))
    }
}
