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
    /// The check has refused the identity late, and something that it reads has changed. An acceptance ends the refusal.
    RunsAfterLateRefusal,
    /// The check is deferred for this identity, and something that it reads has changed. The change needs an acceptance,
    /// which ends the deferral.
    RunsWhileDeferred,
    /// Nothing that the check reads has changed.
    Unchanged,
    NotInThisFlow,
}

impl RunDecision {
    pub(super) fn runs(self) -> bool {
        match self {
            Self::Runs | Self::RunsAfterLateRefusal | Self::RunsWhileDeferred => true,
            Self::Unchanged | Self::NotInThisFlow => false,
        }
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
    let is_in_flow = check.flows.contains(&flow);
    if flow != Flow::Settings {
        return if is_in_flow {
            RunDecision::Runs
        } else {
            RunDecision::NotInThisFlow
        };
    }
    let previous = call.payload.previous.as_ref();
    // A check that reads nothing of the identity reads no change. Its acceptance is about this call, and says nothing about
    // the sign-up.
    let reads_a_change = !compiled.reads.nothing_of_the_identity()
        && previous.is_none_or(|previous| compiled.reads.differ(previous, identity));
    // A change must not evade a deferred check or a late refusal, even if `flows` excludes settings.
    if reads_a_change && call.deferrals.has(check) {
        return RunDecision::RunsWhileDeferred;
    }
    if reads_a_change && call.refused_late.contains(&check.name) {
        return RunDecision::RunsAfterLateRefusal;
    }
    match is_in_flow {
        false => RunDecision::NotInThisFlow,
        true if reads_a_change || compiled.reads.nothing_of_the_identity() => RunDecision::Runs,
        true => RunDecision::Unchanged,
    }
}
