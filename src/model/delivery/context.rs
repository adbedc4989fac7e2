//! The evaluation context: the stored variables of a delivery, for expressions that read its response later.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Subscription;
use super::subscription::has_default_body;
use crate::base::clock::Timestamp;
use crate::expression::{Lists, Variable, Variables};

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
    /// `value`
    #[serde(skip_serializing_if = "Option::is_none")]
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

    /// Stores the values of those variables that the subscription reads.
    #[must_use]
    pub fn read_by(
        subscription: &Subscription,
        variables: &Variables<'_>,
        check: Option<&str>,
    ) -> Self {
        let has_default_body = has_default_body(&subscription.send);
        let if_read = |root, value: Option<Value>| {
            let is_in_default_body =
                has_default_body && matches!(root, Variable::Identity | Variable::Previous);
            value.filter(|_| is_in_default_body || subscription.reads(root))
        };
        let all = Self::of(variables);
        Self {
            identity: if_read(Variable::Identity, all.identity),
            previous: if_read(Variable::Previous, all.previous),
            flow: if_read(Variable::Flow, all.flow),
            request: if_read(Variable::Request, all.request),
            check: check.map(ToOwned::to_owned),
            ..all
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
