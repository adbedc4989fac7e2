//! The evaluation context: the stored variables of a delivery, for expressions that read its response later.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::expression::{Lists, Variables};

/// The stored variables of expressions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaluationContext {
    /// `identity`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Value>,
    /// `previous`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Value>,
    /// `value`, which is null for an absent field
    #[serde(
        deserialize_with = "null_is_a_value",
        skip_serializing_if = "Option::is_none"
    )]
    pub value: Option<Value>,
    /// `flow`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<Value>,
    /// `request`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
    /// `method`
    pub method: String,
    /// `now`
    pub now: Timestamp,
    /// `taken`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub taken: Option<Value>,
    /// The check that has refused late.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// Whether the attribution of the identity to this submission is uncertain. Then the identity is not deactivated
    /// for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_uncertain: bool,
}

/// Reads a value that can be null. A missing key is the only `None`.
pub(crate) fn null_is_a_value<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl EvaluationContext {
    /// Stores the values of these variables.
    #[must_use]
    pub fn of(variables: &Variables<'_>) -> Self {
        Self {
            identity: variables.identity.cloned(),
            previous: variables.previous.cloned(),
            value: variables.value.cloned(),
            flow: variables.flow.cloned(),
            request: variables.request.cloned(),
            method: variables.method.to_owned(),
            now: variables.now,
            taken: variables.taken.cloned(),
            check: None,
            is_uncertain: false,
        }
    }

    /// Returns the variables, with this response.
    #[must_use]
    pub fn variables<'a>(&'a self, lists: &'a Lists, response: Option<&'a Value>) -> Variables<'a> {
        Variables {
            identity: self.identity.as_ref(),
            previous: self.previous.as_ref(),
            value: self.value.as_ref(),
            flow: self.flow.as_ref(),
            request: self.request.as_ref(),
            method: &self.method,
            now: self.now,
            response,
            checks: None,
            taken: self.taken.as_ref(),
            lists,
        }
    }
}
