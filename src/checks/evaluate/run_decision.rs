//! Decides which checks run in a call.

use serde_json::Value;

use super::CheckInput;
use crate::checks::Rules;
use crate::checks::rules::CompiledCheck;
use crate::kratos::Flow;

/// Whether a check runs in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunDecision {
    Runs,
    /// The check is deferred for this identity, so the change needs an acceptance.
    RunsWhileDeferred,
    /// Nothing that the check reads has changed.
    Unchanged,
    NotInThisFlow,
}

impl RunDecision {
    pub(super) fn runs(self) -> bool {
        matches!(self, Self::Runs | Self::RunsWhileDeferred)
    }
}

/// Decides for every check of the rules. In settings, these are the checks that read a changed value, and the checks
/// whose response such a check reads.
pub(super) fn run_decisions(
    rules: &Rules,
    call: CheckInput<'_>,
    identity: &Value,
) -> Vec<RunDecision> {
    let checks = rules.compiled();
    let mut decisions: Vec<RunDecision> = checks
        .iter()
        .map(|compiled| decide(compiled, call, identity))
        .collect();
    if call.hook.flow == Flow::Settings {
        let runs = |(index, decision): (usize, &RunDecision)| decision.runs().then_some(index);
        let mut running: Vec<usize> = decisions.iter().enumerate().filter_map(runs).collect();
        while let Some(index) = running.pop() {
            for other in &checks[index].reads_checks {
                if !decisions[*other].runs() {
                    decisions[*other] = RunDecision::Runs;
                    running.push(*other);
                }
            }
        }
    }
    decisions
}

fn decide(compiled: &CompiledCheck, call: CheckInput<'_>, identity: &Value) -> RunDecision {
    let check = &compiled.check;
    let flow = call.hook.flow;
    let is_settings = flow == Flow::Settings;
    let reads_a_change = || {
        let previous = call.payload.previous.as_ref();
        previous.is_none_or(|previous| compiled.reads.differ(previous, identity))
    };
    // A change must not evade a deferred check, even if `flows` excludes settings. A check that has refused late runs
    // again.
    let is_deferred = is_settings && call.deferrals.has(check);
    let is_refused_late = is_settings && call.refused_late.contains(&check.name);
    if !check.flows.contains(&flow) && !is_deferred {
        return if is_refused_late && reads_a_change() {
            RunDecision::Runs
        } else {
            RunDecision::NotInThisFlow
        };
    }
    let is_concerned = !is_settings || compiled.reads.nothing_of_the_identity() || reads_a_change();
    match (is_concerned, is_deferred) {
        (false, _) => RunDecision::Unchanged,
        (true, true) => RunDecision::RunsWhileDeferred,
        (true, false) => RunDecision::Runs,
    }
}
