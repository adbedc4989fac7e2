//! Checks a file whose values are partly missing: once with each choice that a missing value can be.

use super::Resolved;
use crate::base::diagnostics::Problem;

/// Returns what holds whatever the missing values are: a finding of one choice only may be none in the operator's
/// environment. `check` gets the number of the round, and returns how many rounds there are.
pub(super) fn common(check: impl Fn(usize) -> (Resolved, usize)) -> Resolved {
    let (first, rounds) = check(0);
    let others = (1..rounds).map(|round| check(round).0);
    let mut valid = Vec::new();
    let mut invalid = Vec::new();
    for resolved in std::iter::once(first).chain(others) {
        match &resolved.settings {
            Some(_) => valid.push(resolved),
            None => invalid.push(resolved),
        }
    }
    // A section with a problem is not reviewed further, so its warnings are missing.
    let is_valid = !valid.is_empty();
    let rounds = if is_valid { valid } else { invalid };
    let problems = in_all(&rounds, |round| &round.problems);
    let warnings = in_all(&rounds, |round| &round.warnings);
    let safest = rounds.iter().position(|round| {
        let settings = round.settings.as_ref();
        settings.is_some_and(super::Settings::can_deactivate)
    });
    let mut rounds = rounds;
    let chosen = rounds.swap_remove(safest.unwrap_or_default());
    Resolved {
        // With each choice the file has another problem.
        problems: if problems.is_empty() && !is_valid {
            chosen.problems
        } else {
            problems
        },
        warnings,
        settings: chosen.settings,
    }
}

/// Returns the findings that every round has.
fn in_all(rounds: &[Resolved], findings: impl Fn(&Resolved) -> &Vec<Problem>) -> Vec<Problem> {
    let is_in = |round: &Resolved, one: &Problem| {
        let mut others = findings(round).iter();
        others.any(|other| (&other.path, &other.message) == (&one.path, &one.message))
    };
    let first = rounds.first().map(&findings).into_iter().flatten();
    first
        .filter(|one| rounds.iter().all(|round| is_in(round, one)))
        .cloned()
        .collect()
}
