//! Repeats the question of a deferred check.

use std::sync::PoisonError;

use serde_json::Value;

use super::{HttpTransport, without_answer};
use crate::base::telemetry::metrics::StateLabels;
use crate::checks::interpret::{Interpretation, interpret};
use crate::checks::{Absent, Check, OnExpiry, OnLateRefusal, deferred};
use crate::expression::Variables;
use crate::jobs::dispatcher::AttemptResult;
use crate::model::delivery::subscription::{Trigger, deliveries_for};
use crate::model::delivery::{
    Attempt, Claimed, EvaluationContext, Event, FieldWrite, NewDelivery, NoResponse, Queue,
    ResponseVerdict,
};
use crate::model::request::Request;
use crate::outbound::kratos_admin::hook_view::hook_view;
use crate::outbound::services::client::{Answer, CallError};
use crate::store::SettledQuestion;

/// The account's current value of the field, compared with the value of the deferred check.
enum CurrentValue {
    /// The same value.
    Same,
    /// Another value, in this identity.
    Other(Box<Value>),
    /// No value: the field was emptied.
    Absent,
    /// The account was deleted.
    Deleted,
}

impl HttpTransport {
    pub(super) async fn recheck(&self, delivery: &Claimed, request: &Request) -> AttemptResult {
        let queue = Queue::named(&delivery.subscription);
        let (Queue::DeferredCheck(name), Some(context)) = (&queue, &delivery.context) else {
            return Attempt::NoResponse(NoResponse::NotSent).into();
        };
        let (Some(check), Some(service)) = (self.check(name), self.service(&queue)) else {
            return Attempt::NoResponse(NoResponse::NotSent).into();
        };
        let id = delivery.id.to_string();
        let answer = match self.send(service, request, &id).await {
            Ok(answer) => answer,
            Err(none) => return self.unanswered(check, delivery, context, none),
        };
        let variables = context.variables(self.deps.rules.lists(), Some(&answer.response));
        match interpret(check, answer.status, &variables) {
            Interpretation::Unavailable(_, because) => {
                let attempt = self.answered(&answer, ResponseVerdict::Retry);
                self.no_answer(check, delivery, context, attempt, Some(because))
            }
            Interpretation::Accepted => match self.current_value(check, context, delivery).await {
                Ok(CurrentValue::Same) => {
                    tracing::info!(check = check.name, identity.id = %delivery.identity_id, "The deferred check has accepted");
                    let fields = deferred::accepted(
                        check,
                        context,
                        &answer.response,
                        self.deps.rules.lists(),
                    );
                    self.accepted(check, delivery, &answer, fields)
                }
                Ok(_) => {
                    tracing::info!(check = check.name, identity.id = %delivery.identity_id, "The deferred check has accepted a value that the account no longer has");
                    self.end_with(
                        check,
                        delivery,
                        &answer,
                        vec![deferred::clear_marker(check)],
                    )
                }
                Err(unanswered) => Attempt::NoResponse(unanswered).into(),
            },
            Interpretation::Refused(refusal) => {
                match self.current_value(check, context, delivery).await {
                    Ok(CurrentValue::Deleted) => self.end_with(
                        check,
                        delivery,
                        &answer,
                        vec![deferred::clear_marker(check)],
                    ),
                    Ok(CurrentValue::Other(identity)) => {
                        self.recheck_current_value(check, service, delivery, context, &identity)
                            .await
                    }
                    // An emptied field does not undo the sign-up.
                    Ok(CurrentValue::Same | CurrentValue::Absent) => AttemptResult {
                        attempt: self.answered(&answer, ResponseVerdict::Delivered),
                        ..self.refused(check, Some(refusal), delivery, context, &answer.response)
                    },
                    Err(unanswered) => Attempt::NoResponse(unanswered).into(),
                }
            }
        }
    }

    /// Ends the deferral and the late refusal of a check that has accepted a saved change. Ends nothing if something that
    /// the check reads has another value again, because a save that began earlier has overwritten the change.
    pub(super) async fn end_after_acceptance(&self, delivery: &Claimed) -> AttemptResult {
        let (Queue::WriteBack(check), Some(context)) =
            (Queue::named(&delivery.subscription), &delivery.context)
        else {
            return Attempt::NoResponse(NoResponse::NotSent).into();
        };
        let (id, event, now) = (delivery.identity_id, delivery.event, self.deps.clock.now());
        if let Some(identities) = self.identities() {
            let identity = match identities.get(id).await {
                Ok(Some(identity)) => hook_view(&identity),
                // The account was deleted.
                Ok(None) => return Attempt::answered(200).into(),
                Err(_) => return Attempt::NoResponse(NoResponse::Connection).into(),
            };
            let accepted = context.identity.as_ref().unwrap_or(&Value::Null);
            if self.deps.rules.reads_differ(check, accepted, &identity) {
                tracing::warn!(check, identity.id = %id, "The account has lost a change that the check had accepted, so the check stays deferred or refused");
                return Attempt::answered(200).into();
            }
        }
        tracing::info!(check, identity.id = %id, "The check has accepted the values that the account has now");
        let marker = FieldWrite {
            path: deferred::deferred_marker(check),
            value: None,
        };
        let key = delivery.id.to_string();
        let unmark = deferred::identity_write(check, id, event, key, vec![marker], now);
        let key = format!("{}:accepted", delivery.id);
        AttemptResult {
            follow_up_deliveries: vec![unmark],
            refusal_lift: Some(deferred::lift_after_acceptance(check, id, event, key, now)),
            question_settled: Some(SettledQuestion {
                subscription: Queue::DeferredCheck(check).to_string(),
                identity_id: id,
                at: now,
            }),
            ..Attempt::answered(200).into()
        }
    }

    /// Repeats the question with the account's current value, after the service refused the original value. The current
    /// value counts if the service accepts it.
    async fn recheck_current_value(
        &self,
        check: &Check,
        service: &str,
        delivery: &Claimed,
        context: &EvaluationContext,
        identity: &Value,
    ) -> AttemptResult {
        let view = hook_view(identity);
        let context = EvaluationContext {
            value: check.value_in(&view).cloned(),
            identity: Some(view.clone()),
            ..context.clone()
        };
        let variables = context.variables(self.deps.rules.lists(), None);
        let Some(Ok(request)) = check.ask.as_ref().map(|ask| ask.build(&variables)) else {
            return AttemptResult {
                attempt: Attempt::answered(200),
                ..self.refused(check, None, delivery, &context, &Value::Null)
            };
        };
        let id = format!("{}-present", delivery.id);
        let answer = match self.send(service, &request, &id).await {
            Ok(answer) => answer,
            Err(none) => return self.unanswered(check, delivery, &context, none),
        };
        let variables = context.variables(self.deps.rules.lists(), Some(&answer.response));
        match interpret(check, answer.status, &variables) {
            Interpretation::Accepted => {
                tracing::info!(check = check.name, identity.id = %delivery.identity_id, "The deferred check has accepted the value that the account has now");
                let fields =
                    deferred::accepted(check, &context, &answer.response, self.deps.rules.lists());
                self.accepted(check, delivery, &answer, fields)
            }
            Interpretation::Refused(refusal) => AttemptResult {
                attempt: self.answered(&answer, ResponseVerdict::Delivered),
                ..self.refused(check, Some(refusal), delivery, &context, &answer.response)
            },
            Interpretation::Unavailable(_, because) => {
                let attempt = self.answered(&answer, ResponseVerdict::Retry);
                self.no_answer(check, delivery, &context, attempt, Some(because))
            }
        }
    }

    async fn current_value(
        &self,
        check: &Check,
        context: &EvaluationContext,
        delivery: &Claimed,
    ) -> Result<CurrentValue, NoResponse> {
        let Some(identities) = self.identities() else {
            return Ok(CurrentValue::Same);
        };
        let identity = match identities.get(delivery.identity_id).await {
            Ok(Some(identity)) => identity,
            Ok(None) => return Ok(CurrentValue::Deleted),
            // This was the last attempt, so the answer must not be lost.
            Err(_) if self.deps.clock.now() >= delivery.keep_trying_until => {
                return Ok(CurrentValue::Same);
            }
            Err(_) => return Err(NoResponse::Connection),
        };
        if check.field.is_none() || check.value_in(&identity) == context.value.as_ref() {
            return Ok(CurrentValue::Same);
        }
        let is_absent = check.is_absent_in(&identity) && check.absent != Absent::Check;
        Ok(if is_absent {
            CurrentValue::Absent
        } else {
            CurrentValue::Other(Box::new(identity))
        })
    }

    fn unanswered(
        &self,
        check: &Check,
        delivery: &Claimed,
        context: &EvaluationContext,
        none: CallError,
    ) -> AttemptResult {
        self.no_answer(check, delivery, context, without_answer(none), None)
    }

    /// Handles an unusable answer. When the time of the deferred check ends, `on_expiry` decides.
    fn no_answer(
        &self,
        check: &Check,
        delivery: &Claimed,
        context: &EvaluationContext,
        attempt: Attempt,
        error_excerpt: Option<String>,
    ) -> AttemptResult {
        let now = self.deps.clock.now();
        let result = AttemptResult {
            error_excerpt,
            ..attempt.into()
        };
        if now < delivery.keep_trying_until {
            self.report_half_time(check, delivery);
            return result;
        }
        self.forget_half_time(delivery);
        self.count_unanswered("end");
        tracing::error!(
            check = check.name, identity.id = %delivery.identity_id, delivery.id = %delivery.id, on_expiry = ?check.on_expiry,
            "ALARM: a deferred check has expired without a usable answer; see `vestibule deliveries list --state abandoned`"
        );
        match check.on_expiry {
            OnExpiry::Keep => result,
            OnExpiry::Refuse => AttemptResult {
                attempt: settled(attempt),
                ..self.refused(check, None, delivery, context, &Value::Null)
            },
            OnExpiry::Accept => AttemptResult {
                attempt: settled(attempt),
                follow_up_deliveries: vec![self.written(
                    check,
                    delivery,
                    vec![deferred::clear_marker(check)],
                )],
                ..result
            },
        }
    }

    fn report_half_time(&self, check: &Check, delivery: &Claimed) {
        let now = self.deps.clock.now();
        let (elapsed, left) = (now - delivery.created_at, delivery.keep_trying_until - now);
        let is_new = || {
            let mut reported = self
                .half_time
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            reported.insert(delivery.id)
        };
        if elapsed >= left && is_new() {
            self.count_unanswered("half_time");
            tracing::error!(
                check = check.name, identity.id = %delivery.identity_id, delivery.id = %delivery.id,
                "ALARM: a deferred check has had no usable answer for half of its time; the check expires at {}",
                delivery.keep_trying_until
            );
        }
    }

    fn forget_half_time(&self, delivery: &Claimed) {
        let mut reported = self
            .half_time
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        reported.remove(&delivery.id);
    }

    fn count_unanswered(&self, state: &'static str) {
        self.deps
            .metrics
            .deferred_unanswered
            .get_or_create(&StateLabels { state })
            .inc();
    }

    /// Ends the deferred check with this answer, and writes these values.
    fn end_with(
        &self,
        check: &Check,
        delivery: &Claimed,
        answer: &Answer,
        fields: Vec<FieldWrite>,
    ) -> AttemptResult {
        self.forget_half_time(delivery);
        AttemptResult {
            follow_up_deliveries: vec![self.written(check, delivery, fields)],
            ..self.answered(answer, ResponseVerdict::Delivered).into()
        }
    }

    /// Ends the deferred check as accepted. The acceptance lifts an earlier refusal of the check, because the check
    /// has accepted the account's current value.
    fn accepted(
        &self,
        check: &Check,
        delivery: &Claimed,
        answer: &Answer,
        fields: Vec<FieldWrite>,
    ) -> AttemptResult {
        let (id, event) = (delivery.identity_id, delivery.event);
        let key = format!("{}:accepted", delivery.id);
        let now = self.deps.clock.now();
        AttemptResult {
            refusal_lift: Some(deferred::lift_after_acceptance(
                &check.name,
                id,
                event,
                key,
                now,
            )),
            ..self.end_with(check, delivery, answer, fields)
        }
    }

    fn written(&self, check: &Check, delivery: &Claimed, fields: Vec<FieldWrite>) -> NewDelivery {
        deferred::identity_write(
            &check.name,
            delivery.identity_id,
            delivery.event,
            delivery.id.to_string(),
            fields,
            self.deps.clock.now(),
        )
    }

    /// Returns the write as an abandoned delivery if the settings have no `kratos.admin_url`. Then an operator makes
    /// the change, and hooks refuse the visitor meanwhile.
    fn written_by_operator(&self, mut write: NewDelivery) -> NewDelivery {
        if self.deps.writer.is_none() {
            write.action = Err(
                "the check has refused the account, but Vestibule cannot write into the identity without `kratos.admin_url`"
                    .to_owned(),
            );
        }
        write
    }

    /// Returns the late refusal, the write that follows from it, and the deliveries of `check.refused`. `refusal` is
    /// the index of the `refuse` entry; `None` if the deferred check expired.
    pub(super) fn refused(
        &self,
        check: &Check,
        refusal: Option<usize>,
        delivery: &Claimed,
        context: &EvaluationContext,
        response: &Value,
    ) -> AttemptResult {
        self.forget_half_time(delivery);
        let now = self.deps.clock.now();
        // An account is not deactivated if its attribution to the sign-up is uncertain.
        let on_late_refusal = match check.on_late_refusal(delivery.event) {
            OnLateRefusal::Deactivate if context.is_uncertain => OnLateRefusal::Mark,
            chosen => chosen,
        };
        tracing::warn!(check = check.name, identity.id = %delivery.identity_id, late_refusal = ?on_late_refusal, "The check has refused an existing account");
        let variables = Variables {
            now,
            ..context.variables(self.deps.rules.lists(), Some(response))
        };
        let fields = deferred::refused(check, refusal, on_late_refusal, now);
        let nothing_to_write = fields.is_empty();
        let write = if on_late_refusal == OnLateRefusal::Deactivate {
            deferred::enforcement(
                &check.name,
                delivery.identity_id,
                delivery.event,
                delivery.id.to_string(),
                fields,
                now,
            )
        } else {
            self.written(check, delivery, fields)
        };
        let stored = deferred::stored(
            check,
            refusal,
            on_late_refusal,
            delivery.identity_id,
            &variables,
        );
        let trigger = Trigger {
            event: Event::CheckRefused,
            identity_id: delivery.identity_id,
            trigger_id: &delivery.id.to_string(),
            check: Some(&check.name),
        };
        let mut follow_up_deliveries = Vec::new();
        if !nothing_to_write {
            follow_up_deliveries.push(self.written_by_operator(write));
        }
        follow_up_deliveries.extend(deliveries_for(
            self.deps.rules.subscriptions(),
            &trigger,
            &variables,
        ));
        AttemptResult {
            follow_up_deliveries,
            late_refusal: Some(stored),
            ..Attempt::answered(200).into()
        }
    }
}

/// Returns the attempt as a final one, which ends the deferred check.
fn settled(attempt: Attempt) -> Attempt {
    match attempt {
        Attempt::Response {
            status,
            retry_after,
            ..
        } => Attempt::Response {
            status,
            retry_after,
            verdict: ResponseVerdict::Delivered,
        },
        Attempt::NoResponse(_) => Attempt::NoResponse(NoResponse::Expired),
    }
}
