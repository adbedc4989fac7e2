//! Compares what followed with what a case expects.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use similar::{ChangeTag, TextDiff};

use super::canned::Asked;
use super::file::{Expected, ExpectedDelivery, ExpectedMessage, ExpectedRequest};
use crate::model::decision::CheckRecord;
use crate::model::delivery::{Action, NewDelivery};
use crate::model::request::{Body, Request};
use crate::model::verdict::{Finding, Verdict};

/// What followed from a case.
pub(super) struct Actual {
    pub(super) verdict: Verdict,
    pub(super) records: Vec<CheckRecord>,
    /// The members of the identity that the response changes, and nothing else.
    pub(super) changes: Value,
    pub(super) asked: Vec<Asked>,
    pub(super) deliveries: Vec<NewDelivery>,
}

/// Returns one text for each difference, with the lines that differ.
pub(super) fn differences(expected: &Expected, actual: &Actual) -> Vec<String> {
    let mut found = Vec::new();
    let verdict = (expected.verdict.as_str(), actual.verdict.as_str());
    let mut compare = |what: &str, (expected, actual): (Value, Value)| {
        if expected != actual {
            found.push(difference(what, &expected, &actual));
        }
    };
    compare("verdict", (verdict.0.into(), verdict.1.into()));
    if let Some(messages) = &expected.messages {
        compare("messages", messages_of(messages, &actual.verdict));
    }
    if let Some(changes) = &expected.changes {
        compare("changes", (changes.clone(), actual.changes.clone()));
    }
    if !expected.checks.is_empty() {
        compare("checks", checks_of(expected, &actual.records));
    }
    if let Some(asked) = &expected.asked {
        compare("asked", requests_of(asked, &actual.asked));
    }
    if let Some(deliveries) = &expected.deliveries {
        compare("deliveries", deliveries_of(deliveries, &actual.deliveries));
    }
    found
}

fn difference(what: &str, expected: &Value, actual: &Value) -> String {
    let (expected, actual) = (format!("{expected:#}\n"), format!("{actual:#}\n"));
    let mut text = format!("{what} (- expected, + actual)");
    for change in TextDiff::from_lines(&expected, &actual).iter_all_changes() {
        let sign = match change.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => ' ',
        };
        let _ = write!(text, "\n  {sign} {}", change.value().trim_end_matches('\n'));
    }
    text
}

/// The messages of both sides. Of an actual message, only what is expected of it is shown.
fn messages_of(expected: &[ExpectedMessage], verdict: &Verdict) -> (Value, Value) {
    let findings: &[Finding] = match verdict {
        Verdict::Refuse(findings) => findings,
        Verdict::Admit | Verdict::AdmitWith(_) => &[],
    };
    let left = expected.iter().map(|one| {
        let mut shown = Map::new();
        if let Some(field) = &one.field {
            shown.insert("field".to_owned(), json!(field));
        }
        if let Some(id) = one.id {
            shown.insert("id".to_owned(), id.into());
        }
        if let Some(text) = &one.text {
            shown.insert("text".to_owned(), text.as_str().into());
        }
        Value::Object(shown)
    });
    let pairs = paired(expected, findings, is_expected);
    let right = findings.iter().zip(pairs).map(|(finding, wanted)| {
        let mut shown = Map::new();
        if wanted.shows(expected, |one| one.field.is_some()) {
            shown.insert("field".to_owned(), json!(field_of(finding)));
        }
        if wanted.shows(expected, |one| one.id.is_some()) {
            shown.insert("id".to_owned(), finding.message.id.into());
        }
        if wanted.shows(expected, |one| one.text.is_some()) {
            shown.insert("text".to_owned(), finding.message.text.as_str().into());
        }
        Value::Object(shown)
    });
    (left.collect(), right.collect())
}

fn field_of(finding: &Finding) -> Option<String> {
    finding.field.as_ref().map(ToString::to_string)
}

/// Returns whether a message has everything that is expected of it.
fn is_expected(wanted: &ExpectedMessage, finding: &Finding) -> bool {
    let field = field_of(finding);
    let text = &finding.message.text;
    wanted.field.as_ref().is_none_or(|wanted| *wanted == field)
        && wanted.id.is_none_or(|id| id == finding.message.id)
        && wanted.text.as_ref().is_none_or(|wanted| wanted == text)
}

/// The expected entry with which an actual entry is compared, by its index. `None`: the entry is one too many.
#[derive(Clone, Copy)]
struct Wanted(Option<usize>);

impl Wanted {
    /// Returns whether a member of an actual entry is shown: the expected entry has it. Of an entry that is one too many, those
    /// members are shown that any expected entry has.
    fn shows<E>(self, expected: &[E], has: impl Fn(&E) -> bool) -> bool {
        match self.0.and_then(|index| expected.get(index)) {
            Some(wanted) => has(wanted),
            None => expected.is_empty() || expected.iter().any(has),
        }
    }
}

/// Finds the expected entry for each actual entry: the first that matches it, else the first that matches none.
fn paired<E, A>(expected: &[E], actual: &[A], matches: impl Fn(&E, &A) -> bool) -> Vec<Wanted> {
    let mut free: Vec<usize> = (0..expected.len()).collect();
    let mut take = |fits: &dyn Fn(usize) -> bool| {
        let place = free.iter().position(|index| fits(*index))?;
        Some(free.remove(place))
    };
    let matching: Vec<Option<usize>> = actual
        .iter()
        .map(|one| take(&|index| matches(&expected[index], one)))
        .collect();
    matching
        .into_iter()
        .map(|index| Wanted(index.or_else(|| take(&|_| true))))
        .collect()
}

fn checks_of(expected: &Expected, records: &[CheckRecord]) -> (Value, Value) {
    let outcome_of = |name: &str| {
        let record = records.iter().find(|record| &*record.check == name);
        record.map_or("not in this flow", |record| record.outcome)
    };
    let left = expected.checks.iter();
    let left: Map<String, Value> = left
        .map(|(name, outcome)| (name.clone(), outcome.as_str().into()))
        .collect();
    let right: Map<String, Value> = expected
        .checks
        .keys()
        .map(|name| (name.clone(), outcome_of(name).into()))
        .collect();
    (left.into(), right.into())
}

/// The requests of both sides, sorted, because checks run in parallel.
fn requests_of(expected: &[ExpectedRequest], actual: &[Asked]) -> (Value, Value) {
    let mut wanted: Vec<&ExpectedRequest> = expected.iter().collect();
    wanted.sort_by_key(|one| (&one.service, &one.request));
    let mut made: Vec<(&str, String, &Asked)> = actual
        .iter()
        .map(|one| (one.service.as_str(), line(&one.request), one))
        .collect();
    made.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    let left = wanted.iter().map(|one| {
        shown(
            "service",
            &one.service,
            Some(&one.request),
            one.body.as_ref(),
        )
    });
    let pairs = paired(&wanted, &made, |wanted, (service, line, _)| {
        wanted.service == *service && wanted.request == *line
    });
    let right = made.iter().zip(pairs).map(|((service, line, one), pair)| {
        let shows_body = pair.shows(&wanted, |one| one.body.is_some());
        let body = shows_body.then(|| body_of(one.request.body.as_ref()));
        shown("service", service, Some(line), body.as_ref())
    });
    (left.collect(), right.collect())
}

fn deliveries_of(expected: &[ExpectedDelivery], actual: &[NewDelivery]) -> (Value, Value) {
    let left = expected.iter().map(|one| {
        let mut shown = shown(
            "subscription",
            &one.subscription,
            one.request.as_ref(),
            one.body.as_ref(),
        );
        if one.not_built {
            shown["not_built"] = true.into();
        }
        shown
    });
    let pairs = paired(expected, actual, |wanted, delivery| {
        wanted.subscription == delivery.subscription
    });
    let right = actual.iter().zip(pairs).map(|(delivery, pair)| {
        let name = &delivery.subscription;
        let Ok(Action::Send(request)) = &delivery.action else {
            let mut shown = shown("subscription", name, None, None);
            shown["not_built"] = true.into();
            if pair.shows(expected, |one| !one.not_built) {
                shown["reason"] = delivery.unbuilt_reason().into();
            }
            return shown;
        };
        let line = pair
            .shows(expected, |one| one.request.is_some())
            .then(|| line(request));
        let body = pair
            .shows(expected, |one| one.body.is_some())
            .then(|| body_of(request.body.as_ref()));
        shown("subscription", name, line.as_ref(), body.as_ref())
    });
    (left.collect(), right.collect())
}

fn shown(kind: &str, name: &str, line: Option<&String>, body: Option<&Value>) -> Value {
    let mut shown = Map::new();
    shown.insert(kind.to_owned(), name.into());
    if let Some(line) = line {
        shown.insert("request".to_owned(), line.as_str().into());
    }
    if let Some(body) = body {
        shown.insert("body".to_owned(), body.clone());
    }
    shown.into()
}

pub(super) fn line(request: &Request) -> String {
    format!("{} {}", request.method.as_str(), request.path)
}

/// The body as JSON, or as a text if it is not JSON.
pub(super) fn body_of(body: Option<&Body>) -> Value {
    body.map_or(Value::Null, |body| {
        serde_json::from_str(&body.text).unwrap_or_else(|_| body.text.as_str().into())
    })
}

/// Returns the members of `after` that differ from `before`. A removed member is null.
pub(super) fn changed_members(before: &Value, after: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return after.clone();
    };
    let removed = before.keys().filter(|key| !after.contains_key(*key));
    let mut changed: Map<String, Value> = removed.map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in after {
        match before.get(key) {
            Some(old) if old == value => {}
            Some(old @ Value::Object(_)) if value.is_object() => {
                changed.insert(key.clone(), changed_members(old, value));
            }
            _ => {
                changed.insert(key.clone(), value.clone());
            }
        }
    }
    changed.into()
}
