//! Hashes the rules of a check: what decides whether the check can reserve or defer.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Absent, Check, OnUnavailable, Policy, Reserve};
use crate::expression::{Expression, Lists, Variable};
use crate::kratos::Field;
use crate::kratos::fingerprint::fingerprint;
use crate::model::request::RequestTemplate;

/// Returns the hash of what decides whether the check can reserve or defer for a sign-up. Another hash means another
/// rule, even if the check has the same name. Of requests, the hash covers the expressions and not the texts, which may
/// hold secrets.
#[must_use]
pub fn hash(check: &Check, lists: &Lists) -> String {
    let field = check.field.as_ref();
    let flows: Vec<&str> = check.flows.iter().map(|flow| flow.as_str()).collect();
    let mut rule = json!({
        "field": field.map(Field::node_name),
        "flows": flows,
        "when": check.when.as_ref().map(|when| condition(when, lists)),
        "unavailable": unavailable(&check.on_unavailable),
        "asks": check.ask.is_some(),
        "reserve": check.reserve.as_ref().map(reserve),
    });
    if check.absent == Absent::Check {
        rule["absent"] = "check".into();
    }
    fingerprint(&rule)
}

/// Returns the condition, with the lists that it reads.
fn condition(when: &Expression, lists: &Lists) -> Value {
    let read = when.paths(Variable::Lists).map(|path| {
        let name = path.first_name().unwrap_or_default().to_owned();
        let entries = lists.entries(&name).unwrap_or_default().to_vec();
        (name, entries)
    });
    let read: BTreeMap<String, Vec<String>> = read.collect();
    json!({"source": when.source(), "lists": read})
}

fn unavailable(unavailable: &OnUnavailable) -> Value {
    let chosen = unavailable.chosen.iter();
    let chosen: BTreeMap<&str, &str> = chosen
        .map(|(kind, policy)| (kind.as_str(), policy.as_str()))
        .collect();
    let can_defer =
        unavailable.default == Policy::Defer || chosen.values().any(|one| *one == "defer");
    if !can_defer {
        return Value::Null;
    }
    let when = unavailable.when.as_ref();
    json!({
        "default": unavailable.default.as_str(),
        "chosen": chosen,
        "when": when.map(Expression::source),
    })
}

fn reserve(reserve: &Reserve) -> Value {
    json!({
        "take": request(&reserve.take),
        "confirm": reserve.confirm.as_ref().map(request),
        "release": request(&reserve.release),
    })
}

fn request(template: &RequestTemplate) -> Value {
    let sources: Vec<&str> = template
        .expressions()
        .into_iter()
        .map(Expression::source)
        .collect();
    json!({"service": template.service, "method": template.method.as_str(), "expressions": sources})
}
