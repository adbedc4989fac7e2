//! Decides whether a check applies: `when`, an absent field, and an immutable field.

use super::Evaluation;
use super::outcome::Outcome;
use crate::checks::interpret::Failure;
use crate::checks::{Absent, Check};
use crate::expression::{EvaluationError, Variables};

impl Evaluation<'_> {
    /// Returns an error if the check ends here: it is not applicable, or it refuses the field without a further look at
    /// the value.
    pub(super) fn applies(&self, check: &Check, variables: &Variables<'_>) -> Result<(), Outcome> {
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
