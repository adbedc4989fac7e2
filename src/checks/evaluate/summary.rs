//! Sums up the outcomes of all checks: the verdict, what is deferred, and what is recorded.

use serde_json::{Map, Value};

use super::answer::response_in;
use super::outcome::{Finished, Outcome};
use super::{DeferredCheck, Evaluated, Evaluation, RunDecision};
use crate::checks::set::Changes;
use crate::checks::{Check, Mode, Policy, Set};
use crate::expression::{Expression, Variables};
use crate::kratos::{Field, Flow};
use crate::model::pending::Deferred;
use crate::model::verdict::{Finding, Verdict};

impl Evaluation<'_> {
    pub(super) fn into_result(mut self) -> Evaluated {
        let changes = if self.has_finding() {
            None
        } else {
            Some(self.changes())
        };
        if let Some(changes) = &changes {
            self.refuse_changed_immutables(changes);
        }
        let mut findings = Vec::new();
        let mut result = Evaluated {
            verdict: Verdict::Admit,
            records: Vec::new(),
            deferred_checks: Vec::new(),
            reservations: Vec::new(),
            no_longer_deferred: Vec::new(),
            no_longer_refused: Vec::new(),
        };
        for (index, compiled) in self.rules().compiled().iter().enumerate() {
            let check = &compiled.check;
            // Every check is finished: no circle of checks waits for each other, and each call to a service ends by
            // the deadline.
            let Some(finished) = self.slots[index].finished() else {
                continue;
            };
            if self.run_decisions[index] == RunDecision::NotInThisFlow {
                continue;
            }
            let outcome = &finished.outcome;
            result.records.push(finished.record(compiled));
            self.evaluator
                .observer
                .finished(index, outcome.as_str(), outcome.unavailable());
            if matches!(outcome, Outcome::Accepted) {
                self.accepted(index, finished, &mut result);
            }
            if check.mode == Mode::Observe {
                continue;
            }
            let Some(message) = outcome.objection() else {
                continue;
            };
            let finding = Finding {
                field: check.field.clone(),
                message: message.clone(),
            };
            match self.deferred(check, finished) {
                Some(deferred) => result.deferred_checks.push(DeferredCheck {
                    deferred,
                    otherwise: finding,
                }),
                None => findings.push(finding),
            }
        }
        result.verdict = match changes {
            _ if !findings.is_empty() => Verdict::Refuse(findings),
            Some(changes) if !changes.is_empty() => Verdict::AdmitWith(changes),
            _ => Verdict::Admit,
        };
        if let Verdict::AdmitWith(changes) = &result.verdict
            && changes.contains_key("traits")
        {
            let saved = Value::Object(changes.clone());
            for one in &mut result.deferred_checks {
                let check = self.rules().check(&one.deferred.check);
                one.deferred.value = check.and_then(|check| check.value_in(&saved)).cloned();
            }
        }
        result
    }

    /// Adds what follows from an acceptance.
    fn accepted(&self, index: usize, finished: &Finished, result: &mut Evaluated) {
        let check = self.check(index);
        result.reservations.extend(finished.asked.reservation);
        if self.run_decisions[index] == RunDecision::RunsWhileDeferred {
            result.no_longer_deferred.push(check.name.clone());
        }
        let reads_a_change = matches!(
            self.run_decisions[index],
            RunDecision::RunsAfterLateRefusal | RunDecision::RunsWhileDeferred
        );
        if reads_a_change
            && check.mode == Mode::Enforce
            && self.call.refused_late.contains(&check.name)
        {
            result.no_longer_refused.push(check.name.clone());
        }
    }

    /// The question that is asked again, if the check is deferred. Without a question the check cannot be deferred.
    fn deferred(&self, check: &Check, finished: &Finished) -> Option<Deferred> {
        let Outcome::Unavailable {
            policy: Policy::Defer,
            ..
        } = &finished.outcome
        else {
            return None;
        };
        let request = finished.asked.question.clone()?;
        Some(Deferred {
            check: check.name.clone(),
            request,
            value: check.value_in(self.identity).cloned(),
        })
    }

    /// Returns whether a check keeps the sign-up from passing.
    fn has_finding(&self) -> bool {
        let checks = self.rules().checks().zip(&self.slots);
        let mut enforced = checks.filter(|(check, _)| check.mode == Mode::Enforce);
        enforced.any(|(check, slot)| {
            slot.finished().is_some_and(|finished| {
                finished.outcome.objection().is_some() && self.deferred(check, finished).is_none()
            })
        })
    }

    /// Returns the fields that the accepted checks change, each as a whole.
    fn changes(&self) -> Map<String, Value> {
        let mut changes = Changes::to(self.identity);
        for (check, decision) in self.rules().checks().zip(&self.run_decisions) {
            if self.is_stale(check, *decision) {
                let paths = check.set.iter().flat_map(Set::leaves);
                let public =
                    paths.filter(|path| path.first().is_some_and(|root| root == "metadata_public"));
                public.for_each(|path| changes.remove(&path));
            }
        }
        for (check, slot) in self.rules().checks().zip(&self.slots) {
            if matches!(slot.outcome(), Some(Outcome::Accepted)) && check.mode == Mode::Enforce {
                self.set(check, &mut changes);
            }
        }
        changes.finish()
    }

    /// Adds the values of the check's `set`. A value that cannot be written is left out.
    fn set(&self, check: &Check, changes: &mut Changes<'_>) {
        let response = self
            .responses
            .get(&check.name)
            .and_then(|readable| response_in(readable));
        let variables = self.variables(check, response);
        for set in &check.set {
            let value = set
                .value
                .render(&variables)
                .map_err(|error| error.to_string());
            let written = value.and_then(|value| {
                changes
                    .set(&set.path, value)
                    .map_err(|unfit| unfit.to_string())
            });
            if let Err(error) = written {
                let path = set.path.join(".");
                tracing::warn!(check = check.name, path, error, "Skipped a value of `set`");
                self.evaluator.observer.set_failed(&check.name);
            }
        }
    }

    /// Whether the value that the check wrote with `set` is stale. The value is stale if the check's field has
    /// changed or is gone. The value is also stale if the check's `when` was true for the previous identity and is
    /// no longer true. Checks that run at registration only are included.
    fn is_stale(&self, check: &Check, decision: RunDecision) -> bool {
        if self.call.hook.flow != Flow::Settings
            || decision == RunDecision::Unchanged
            || check.set.is_empty()
        {
            return false;
        }
        let previous = self.call.payload.previous.as_ref();
        let has_changed = |field: &Field| {
            previous.is_none_or(|previous| {
                field.present_in(previous) != field.present_in(self.identity)
            })
        };
        check.field.as_ref().is_some_and(has_changed)
            || check.when.as_ref().is_some_and(|when| {
                when.holds(&self.variables(check, None)) == Ok(false)
                    && (!when.checks_read().is_empty() || self.may_have_held(check, when))
            })
    }

    /// Whether the condition may have been true for the previous identity: it was true, or its result is unknown.
    fn may_have_held(&self, check: &Check, when: &Expression) -> bool {
        let Some(previous) = &self.call.payload.previous else {
            return true;
        };
        let mut identity = self.identity.clone();
        for part in ["traits", "metadata_public"] {
            identity[part] = previous.get(part).cloned().unwrap_or_default();
        }
        let variables = Variables {
            identity: Some(&identity),
            value: check.value_in(&identity),
            ..self.variables(check, None)
        };
        when.holds(&variables) != Ok(false)
    }
}
