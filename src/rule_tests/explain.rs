//! Why a check of a tried submission ended as it did, and what its expressions came to.

use serde::Serialize;
use serde_json::Value;

use crate::checks::{Absent, Check, Condition};
use crate::expression::{EvaluationError, Expression, Variables};
use crate::kratos::Flow;

/// One expression of a check.
#[derive(Debug, Serialize)]
pub struct TriedExpression {
    /// The key in the settings of the check.
    pub setting: String,
    /// The expression.
    pub source: String,
    /// `true`, `false`, or the error.
    pub result: String,
}

/// Returns why a check did not run, or why it refused without a question.
pub(super) fn why_not(
    outcome: &str,
    check: &Check,
    flow: Flow,
    variables: &Variables<'_>,
) -> Option<&'static str> {
    let identity = variables.identity.unwrap_or(&Value::Null);
    let is_absent = check.is_absent_in(identity);
    let when = check.when.as_ref();
    match outcome {
        "skipped" => Some("a check that it waits for did not let the submission pass"),
        "not_applicable" if when.is_some_and(|when| when.holds(variables) == Ok(false)) => {
            Some("`when` is false")
        }
        "not_applicable" if is_absent => Some("its field is absent"),
        "not_applicable" if flow == Flow::Settings => Some("nothing that it reads has changed"),
        "refused" if is_absent && is_required(check, variables) => {
            Some("`required`: its field is absent")
        }
        _ => None,
    }
}

/// Returns whether an absent field is refused. A condition that fails counts as true.
fn is_required(check: &Check, variables: &Variables<'_>) -> bool {
    match &check.required_if {
        Some(condition) => condition.holds(variables).unwrap_or(true),
        None => check.absent == Absent::Refuse,
    }
}

/// Evaluates the expressions of a check. Without `has_run`, only its `when` was evaluated.
pub(super) fn expressions(
    check: &Check,
    variables: &Variables<'_>,
    has_run: bool,
) -> Vec<TriedExpression> {
    let mut all: Vec<(String, &Expression)> = Vec::new();
    all.extend(check.when.as_ref().map(|when| ("when".to_owned(), when)));
    if has_run {
        let declared = check.on_unavailable.when.as_ref();
        all.extend(declared.map(|when| ("on_unavailable.when".to_owned(), when)));
        for (index, refusal) in check.refuse.iter().enumerate() {
            if let Condition::Expression(when) = &refusal.when {
                all.push((format!("refuse[{index}].when"), when));
            }
        }
        if let Some(Condition::Expression(accept)) = &check.accept {
            all.push(("accept".to_owned(), accept));
        }
    }
    let tried = all
        .into_iter()
        .map(|(setting, expression)| TriedExpression {
            setting,
            source: expression.source().to_owned(),
            result: shown(expression.holds(variables)),
        });
    tried.collect()
}

fn shown(result: Result<bool, EvaluationError>) -> String {
    result.map_or_else(|error| format!("error: {error}"), |holds| holds.to_string())
}
