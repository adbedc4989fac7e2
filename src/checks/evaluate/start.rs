//! Starts one check: decides without a service, or builds the request to one.

use super::Evaluation;
use super::outcome::{Outcome, Slot};
use crate::checks::Mode;
use crate::checks::interpret::{Failure, decide};
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
}
