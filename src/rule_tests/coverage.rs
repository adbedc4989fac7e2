//! Which outcomes of the checks the cases reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use super::canned::locked;
use crate::checks::observe::CheckObserver;
use crate::checks::{Absent, Check, Kind, Policy, Rules};

/// The kinds of unavailability that a case can cause.
const KINDS: [Kind; 9] = [
    Kind::Timeout,
    Kind::Connection,
    Kind::Status5xx,
    Kind::RateLimited,
    Kind::RejectedCredentials,
    Kind::RejectedQuestion,
    Kind::Declared,
    Kind::UnexpectedAnswer,
    Kind::Expression,
];

/// The outcomes of every check, and how many cases reached each.
#[derive(Clone, Debug)]
pub struct Coverage {
    /// The checks, in the order of the settings.
    pub checks: Vec<CoveredCheck>,
}

/// The outcomes of one check.
#[derive(Clone, Debug)]
pub struct CoveredCheck {
    /// The name.
    pub name: String,
    /// The outcomes that the settings distinguish.
    pub outcomes: Vec<CoveredOutcome>,
}

/// One outcome.
#[derive(Clone, Debug)]
pub struct CoveredOutcome {
    /// The outcome, as the report names it.
    pub name: String,
    /// How many cases reached it.
    pub cases: usize,
    key: Key,
}

/// What identifies an outcome.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Accepted,
    /// An entry of `refuse`.
    Entry(usize),
    /// `required` or `immutable`.
    OwnRefusal,
    /// A value on which an expression failed, which is no outcome of the settings.
    Invalid,
    /// A kind of unavailability. Kinds with one policy are one outcome.
    Unavailable(&'static str),
    NotApplicable,
}

impl Coverage {
    pub(super) fn of(rules: &Rules) -> Self {
        let checks = rules.checks().map(|check| CoveredCheck {
            name: check.name.clone(),
            outcomes: outcomes(check),
        });
        Self {
            checks: checks.collect(),
        }
    }

    /// Adds what one case reached.
    pub(super) fn add(&mut self, reached: &Reached) {
        for (check, key) in locked(&reached.outcomes).iter() {
            let outcomes = &mut self.checks[*check].outcomes;
            if let Some(outcome) = outcomes.iter_mut().find(|one| one.key == *key) {
                outcome.cases += 1;
            }
        }
    }

    /// Returns how many outcomes were reached, and how many there are.
    #[must_use]
    pub fn total(&self) -> (usize, usize) {
        let all = || self.checks.iter().flat_map(|check| &check.outcomes);
        (all().filter(|one| one.cases > 0).count(), all().count())
    }
}

/// Returns the outcomes that the settings of the check distinguish.
fn outcomes(check: &Check) -> Vec<CoveredOutcome> {
    let outcome = |name: String, key: Key| CoveredOutcome {
        name,
        cases: 0,
        key,
    };
    let mut outcomes = vec![outcome("accepted".to_owned(), Key::Accepted)];
    for index in 0..check.refuse.len() {
        outcomes.push(outcome(
            format!("refused by refuse[{index}]"),
            Key::Entry(index),
        ));
    }
    if check.absent == Absent::Refuse || check.required_if.is_some() || check.immutable {
        let name = "refused by `required` or `immutable`".to_owned();
        outcomes.push(outcome(name, Key::OwnRefusal));
    }
    let asks = check.ask.is_some() || check.reserve.is_some();
    if asks {
        let mut groups: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for kind in KINDS.into_iter().filter(|kind| can_occur(check, *kind)) {
            let policy = check.on_unavailable.policy(kind).as_str();
            groups.entry(policy).or_default().push(kind.as_str());
        }
        for (policy, kinds) in groups {
            let name = format!("unavailable, {policy} ({})", kinds.join(", "));
            outcomes.push(outcome(name, Key::Unavailable(policy)));
        }
    }
    if check.when.is_some() || check.field.is_some() && check.absent == Absent::Skip {
        outcomes.push(outcome("not applicable".to_owned(), Key::NotApplicable));
    }
    outcomes
}

fn can_occur(check: &Check, kind: Kind) -> bool {
    match kind {
        Kind::Declared => check.on_unavailable.when.is_some(),
        _ => true,
    }
}

/// What one case reached, by the index of the check.
#[derive(Default)]
pub(super) struct Reached {
    outcomes: Mutex<BTreeSet<(usize, Key)>>,
    /// What refused, by check, unless it was `required` or `immutable`.
    refused_by: Mutex<BTreeMap<String, Key>>,
}

/// Observes the checks of one case.
pub(super) struct Observer {
    pub(super) rules: Arc<Rules>,
    pub(super) reached: Arc<Reached>,
}

impl CheckObserver for Observer {
    fn finished(&self, index: usize, outcome: &'static str, unavailable: Option<(Kind, Policy)>) {
        let name = self.rules.checks().nth(index).map(|check| &check.name);
        let refused_by = name.and_then(|name| locked(&self.reached.refused_by).get(name).cloned());
        let key = match (outcome, unavailable) {
            ("accepted", _) => Key::Accepted,
            ("refused", _) => refused_by.unwrap_or(Key::OwnRefusal),
            (_, Some((_, policy))) => Key::Unavailable(policy.as_str()),
            ("not_applicable", _) => Key::NotApplicable,
            _ => return,
        };
        locked(&self.reached.outcomes).insert((index, key));
    }

    fn refused_by_entry(&self, check: &str, entry: usize) {
        locked(&self.reached.refused_by).insert(check.to_owned(), Key::Entry(entry));
    }

    fn refused_invalid(&self, check: &str) {
        locked(&self.reached.refused_by).insert(check.to_owned(), Key::Invalid);
    }

    fn rejected_credentials(&self, _: &str) {}
    fn set_failed(&self, _: &str) {}
    fn reservation(&self, _: &'static str) {}
}
