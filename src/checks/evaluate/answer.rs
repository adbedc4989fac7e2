//! From the answer of a service to the outcome of a check, with the message for the visitor.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Evaluation;
use super::outcome::Outcome;
use crate::checks::interpret::{Failure, Interpretation, interpret, without_answer};
use crate::checks::{Check, Kind, Mode, Policy};
use crate::kratos::Message;
use crate::model::message::MessageTemplate;
use crate::outbound::services::client::{Answer, CallError};

/// Returns the answer in what other checks can read of it.
#[must_use]
pub fn response_in(readable: &Value) -> Option<&Value> {
    readable.get("response")
}

impl Evaluation<'_> {
    /// Interprets an answer. Returns the outcome, and what other checks can read of the answer.
    pub(super) fn interpret_answer(
        &mut self,
        index: usize,
        answer: Result<Answer, CallError>,
    ) -> (Outcome, Option<Arc<Value>>) {
        let check = self.check(index);
        let Answer {
            status, response, ..
        } = match answer {
            Ok(answer) => answer,
            Err(none) => {
                self.evaluator.observer.answered(&check.name, Err(none));
                return (self.outcome_of(check, without_answer(none), None), None);
            }
        };
        // An answer can have 1 MiB, so all readers share it.
        let readable: Map<_, _> = [("response".to_owned(), response)].into_iter().collect();
        let readable = Arc::new(Value::Object(readable));
        self.evaluator.observer.answered(&check.name, Ok(&readable));
        self.responses
            .insert(check.name.clone(), Arc::clone(&readable));
        let own = response_in(&readable);
        let interpretation = interpret(check, status, &self.variables(check, own));
        let outcome = self.outcome_of(check, interpretation, own);
        (outcome, Some(readable))
    }

    pub(super) fn outcome_of(
        &self,
        check: &Check,
        interpretation: Interpretation,
        response: Option<&Value>,
    ) -> Outcome {
        match interpretation {
            Interpretation::Accepted => Outcome::Accepted,
            Interpretation::Refused(entry) => {
                self.evaluator.observer.refused_by_entry(&check.name, entry);
                let own = check
                    .refuse
                    .get(entry)
                    .and_then(|refusal| refusal.message.as_ref());
                let template = own.unwrap_or(&self.rules().messages().not_valid);
                Outcome::Refused(self.message(check, template, response))
            }
            Interpretation::Unavailable(kind, because) => self.unavailable(check, kind, &because),
        }
    }

    /// The outcome if an expression failed without an answer of the check's own. The visitor chose the value on
    /// which the expression failed, so the message says that the value is not valid. If the expression read the
    /// missing response of another check, the check is unavailable instead.
    pub(super) fn failed(&self, check: &Check, Failure { setting, error }: &Failure) -> Outcome {
        let policy = check.on_unavailable.policy(Kind::Expression);
        let because = format!("`{setting}`: {error}");
        if error.missing_check {
            let try_again = &self.rules().messages().try_again;
            return self.unavailable_with(check, Kind::Expression, &because, try_again);
        }
        if policy != Policy::Refuse {
            return self.unavailable(check, Kind::Expression, &because);
        }
        tracing::info!(
            check = check.name, setting, %error, trace.id = %self.call.trace, flow.id = %self.call.payload.flow_id,
            "Refused a value: an expression of the check failed on the value"
        );
        self.evaluator.observer.refused_invalid(&check.name);
        self.refused(check, self.invalid(check))
    }

    /// The outcome if the check refuses without an answer.
    pub(super) fn refused(&self, check: &Check, template: &MessageTemplate) -> Outcome {
        Outcome::Refused(self.message(check, template, None))
    }

    /// The outcome if a reservation cannot be stored. What must be released later, and cannot be stored, is not
    /// taken.
    pub(super) fn not_stored(&self, index: usize, because: &str) -> Outcome {
        self.unavailable(self.check(index), Kind::NotStored, because)
    }

    /// The outcome if there is no usable answer. A value that the visitor chose has caused a rejected question or a
    /// failed expression, so the message is about the value.
    fn unavailable(&self, check: &Check, kind: Kind, because: &str) -> Outcome {
        let template = match kind {
            Kind::RejectedQuestion | Kind::Expression => self.invalid(check),
            _ => &self.rules().messages().try_again,
        };
        self.unavailable_with(check, kind, because, template)
    }

    fn unavailable_with(
        &self,
        check: &Check,
        kind: Kind,
        because: &str,
        template: &MessageTemplate,
    ) -> Outcome {
        let policy = check.on_unavailable.policy(kind);
        let observed = check.mode == Mode::Observe;
        if kind == Kind::RejectedCredentials {
            self.report_rejected_credentials(check, because);
        }
        tracing::warn!(
            check = check.name, kind = kind.as_str(), because, trace.id = %self.call.trace, flow.id = %self.call.payload.flow_id,
            policy = policy.as_str(), observed,
            "Check `{}` has no usable answer", check.name
        );
        Outcome::Unavailable {
            kind,
            policy,
            message: self.message(check, template, None),
        }
    }

    /// Alerts the operator, because neither the visitor nor a later attempt can fix rejected credentials.
    fn report_rejected_credentials(&self, check: &Check, because: &str) {
        let service = check.asks().map_or("", |request| request.service.as_str());
        self.evaluator.observer.rejected_credentials(service);
        tracing::error!(
            check = check.name, service.name = service, because, trace.id = %self.call.trace,
            "ALARM: service `{service}` rejects Vestibule's credentials; check `auth` and `headers` of the service in the settings"
        );
    }

    /// The message for a value that is not valid.
    fn invalid<'n>(&'n self, check: &'n Check) -> &'n MessageTemplate {
        let own = check.invalid_message.as_ref();
        own.unwrap_or(&self.rules().messages().not_valid)
    }

    pub(super) fn message(
        &self,
        check: &Check,
        template: &MessageTemplate,
        response: Option<&Value>,
    ) -> Message {
        let rules = self.rules();
        rules
            .renderer(self.call.payload.header("Accept-Language"))
            .message(
                template,
                &rules.messages().not_valid,
                &self.variables(check, response),
                Some(&check.name),
                check.field.as_ref(),
            )
    }
}
