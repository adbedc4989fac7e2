//! Starts one check: decides whether it applies (`when`, an absent field, an immutable field), then decides without a
//! service, or builds the request to one.

use super::Evaluation;
use super::outcome::{Outcome, Slot};
use crate::checks::interpret::{Failure, decide};
use crate::checks::{Absent, Check, Mode};
use crate::expression::{EvaluationError, Variables};
use crate::model::delivery::EvaluationContext;
use crate::model::request::Request;

/// How a check starts.
pub(super) enum Start {
    Finished(Outcome),
    Asks(Request),
    Takes(Box<(Request, EvaluationContext)>),
}

impl Evaluation<'_> {
    pub(super) fn start(&self, index: usize) -> Start {
        let compiled = &self.rules().compiled()[index];
        let check = &compiled.check;
        if !self.run_decisions[index].runs() {
            return Start::Finished(Outcome::NotApplicable);
        }
        let lets_pass = |other: &usize| {
            self.check(*other).mode == Mode::Observe
                || Slot::outcome(&self.slots[*other]).is_some_and(Outcome::lets_pass)
        };
        if !compiled.after.iter().all(lets_pass) {
            return Start::Finished(Outcome::Skipped);
        }
        let variables = self.variables(check, None);
        if let Err(outcome) = self.applies(check, &variables) {
            return Start::Finished(outcome);
        }
        if let Err(error) = check.expects_texts(&variables) {
            return Start::Finished(self.failed(check, &Failure::new("a text", error)));
        }
        match check.asks().map(|request| request.build(&variables)) {
            Some(Ok(request)) if check.reserve.is_some() => {
                Start::Takes(Box::new((request, EvaluationContext::of(&variables))))
            }
            Some(Ok(request)) => Start::Asks(request),
            Some(Err(error)) => {
                let setting = if check.ask.is_some() {
                    "ask"
                } else {
                    "reserve.take"
                };
                Start::Finished(self.failed(check, &Failure::new(setting, error)))
            }
            None => Start::Finished(match decide(check, &variables) {
                Ok(interpretation) => self.outcome_of(check, interpretation, None),
                Err(failure) => self.failed(check, &failure),
            }),
        }
    }

    /// Returns an error if the check ends here: it is not applicable, or it refuses the field without a further look at
    /// the value.
    fn applies(&self, check: &Check, variables: &Variables<'_>) -> Result<(), Outcome> {
        let is_absent = check.is_absent_in(self.identity);
        let is_skipped = is_absent && check.absent == Absent::Skip;
        if self.changes_immutable(check, self.identity) && !self.can_be_set(check) {
            return Err(self.refused(check, &self.rules().messages().immutable));
        }
        if is_skipped && check.required_if.is_none() {
            return Err(Outcome::NotApplicable);
        }
        let mut failed = None;
        match check.when.as_ref().map(|when| when.holds(variables)) {
            Some(Ok(false)) => return Err(Outcome::NotApplicable),
            Some(Err(error)) => failed = Some(error),
            Some(Ok(true)) | None => {}
        }
        match failed {
            Some(error) if error.missing_check => Err(self.failed_at(check, "when", error)),
            // Whatever `when` fails on for an absent field, the visitor sees that the field is required.
            _ if is_absent && self.is_required(check, variables)? => {
                Err(self.refused(check, &self.rules().messages().required))
            }
            _ if is_skipped => Err(Outcome::NotApplicable),
            Some(error) => Err(self.failed_at(check, "when", error)),
            None => Ok(()),
        }
    }

    /// Returns whether the check refuses an absent field. A condition that fails counts as true, unless it reads the
    /// missing response of another check.
    fn is_required(&self, check: &Check, variables: &Variables<'_>) -> Result<bool, Outcome> {
        let holds = check.required_if.as_ref().map(|one| one.holds(variables));
        match holds {
            Some(Err(error)) if error.missing_check => {
                Err(self.failed_at(check, "required", error))
            }
            Some(Ok(false)) => Ok(false),
            Some(Ok(true) | Err(_)) => Ok(true),
            None => Ok(check.absent == Absent::Refuse),
        }
    }

    fn failed_at(&self, check: &Check, setting: &str, error: EvaluationError) -> Outcome {
        self.failed(check, &Failure::new(setting, error))
    }
}
