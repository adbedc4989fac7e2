//! The rules: what the settings say about sign-ups. They are built from the settings alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{BuiltinMessages, Check, MessageCatalog, MessageRenderer, Reads, Reserve};
use crate::expression::{Lists, Variable};
use crate::kratos::Flow;
use crate::model::delivery::{Event, Subscription};

/// The checks, subscriptions, lists and messages of the settings.
///
/// Hooks, dispatcher, sweeper and reconciliation share one value. Rules need neither a store nor services.
#[derive(Debug)]
pub struct Rules {
    checks: Vec<CompiledCheck>,
    by_name: BTreeMap<String, usize>,
    subscriptions: Vec<Subscription>,
    lists: Arc<Lists>,
    messages: MessageCatalog,
    is_quick: bool,
}

/// A check, with the indexes of the checks that it depends on and that depend on it.
#[derive(Debug)]
pub(super) struct CompiledCheck {
    pub(super) check: Check,
    /// The check's name, for records.
    pub(super) name: Arc<str>,
    /// The checks that must let the sign-up pass before this check starts.
    pub(super) after: Vec<usize>,
    /// How many checks must be finished before this check starts.
    pub(super) waits_for: usize,
    /// The checks that wait for this check.
    pub(super) awaited_by: Vec<usize>,
    /// The checks whose response this check reads.
    pub(super) reads_checks: Vec<usize>,
    /// What the check reads, also through other checks.
    pub(super) reads: Reads,
}

impl Rules {
    /// Compiles the rules. No circle of checks waits for each other; the settings ensure that.
    #[must_use]
    pub fn new(
        checks: Vec<Check>,
        subscriptions: Vec<Subscription>,
        lists: Arc<Lists>,
        messages: MessageCatalog,
    ) -> Self {
        let is_quick = checks.iter().all(Check::is_quick);
        let by_name: BTreeMap<String, usize> = checks
            .iter()
            .enumerate()
            .map(|(index, check)| (check.name.clone(), index))
            .collect();
        Self {
            checks: compile(checks, &by_name),
            by_name,
            subscriptions,
            lists,
            messages,
            is_quick,
        }
    }

    pub(super) fn compiled(&self) -> &[CompiledCheck] {
        &self.checks
    }

    /// The checks, in order of the settings.
    pub fn checks(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().map(|compiled| &compiled.check)
    }

    /// The check of this name.
    #[must_use]
    pub fn check(&self, name: &str) -> Option<&Check> {
        let index = self.by_name.get(name)?;
        Some(&self.checks[*index].check)
    }

    /// Returns whether something that the check of this name reads differs between two states of an identity. `false` if
    /// there is no such check.
    #[must_use]
    pub fn reads_differ(&self, check: &str, one: &Value, other: &Value) -> bool {
        let index = self.by_name.get(check);
        index.is_some_and(|index| self.checks[*index].reads.differ(one, other))
    }

    /// The entry `reserve` of the check of this name.
    #[must_use]
    pub fn reserve(&self, name: &str) -> Option<&Reserve> {
        self.check(name)?.reserve.as_ref()
    }

    /// The subscriptions, in order of the settings.
    #[must_use]
    pub fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }

    /// The subscription of this name.
    #[must_use]
    pub fn subscription(&self, name: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|one| one.name == name)
    }

    /// The lists that expressions read.
    #[must_use]
    pub fn lists(&self) -> &Lists {
        &self.lists
    }

    /// The built-in messages.
    #[must_use]
    pub fn messages(&self) -> &BuiltinMessages {
        &self.messages.builtin
    }

    /// The renderer of messages for a visitor with this `Accept-Language`.
    #[must_use]
    pub fn renderer<'a>(&'a self, accept_language: Option<&'a str>) -> MessageRenderer<'a> {
        MessageRenderer {
            accept_language,
            default_language: &self.messages.default_language,
        }
    }

    /// Returns whether all checks need only microseconds for a short input.
    #[must_use]
    pub fn are_quick(&self) -> bool {
        self.is_quick
    }

    /// The checks that reserve or may be deferred.
    pub fn holding(&self) -> impl Iterator<Item = &Check> {
        self.checks()
            .filter(|check| check.reserve.is_some() || check.defers())
    }

    /// Returns whether reservations and deferred checks of a flow must be read from the store.
    #[must_use]
    pub fn needs_flow_state(&self) -> bool {
        self.holding().next().is_some()
    }

    /// Returns whether a check of this flow reserves or defers.
    #[must_use]
    pub fn holds(&self, flow: Flow) -> bool {
        self.holding().any(|check| check.flows.contains(&flow))
    }

    /// Returns whether a check can be deferred.
    #[must_use]
    pub fn defers(&self) -> bool {
        self.checks().any(Check::defers)
    }

    /// Returns whether it matters from which of two sign-ups an account resulted.
    #[must_use]
    pub fn needs_attribution(&self) -> bool {
        self.needs_flow_state() || self.wants(Event::RegistrationFailed)
    }

    /// Returns whether a subscription wants this event.
    #[must_use]
    pub fn wants(&self, event: Event) -> bool {
        self.subscriptions
            .iter()
            .any(|one| one.events.contains(&event))
    }

    /// Returns whether a delivery reads this variable.
    #[must_use]
    pub fn deliveries_read(&self, root: Variable) -> bool {
        self.subscriptions.iter().any(|one| one.reads(root))
    }
}

fn compile(checks: Vec<Check>, by_name: &BTreeMap<String, usize>) -> Vec<CompiledCheck> {
    let indexes_of = |names: &[String]| -> Vec<usize> {
        let known = names.iter().filter_map(|name| by_name.get(name).copied());
        known.collect()
    };
    let mut awaited_by = vec![Vec::new(); checks.len()];
    let mut waits_for = vec![0; checks.len()];
    for (index, check) in checks.iter().enumerate() {
        for other in indexes_of(&check.waits_for()) {
            awaited_by[other].push(index);
            waits_for[index] += 1;
        }
    }
    let reads = Reads::of_all(&checks);
    checks
        .into_iter()
        .zip(reads)
        .zip(waits_for.into_iter().zip(awaited_by))
        .map(|((check, reads), (waits_for, awaited_by))| CompiledCheck {
            name: check.name.as_str().into(),
            after: indexes_of(&check.after),
            waits_for,
            awaited_by,
            reads_checks: indexes_of(&check.checks_read()),
            reads,
            check,
        })
        .collect()
}
