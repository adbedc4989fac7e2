//! Takes a reservation again if its account was found after the release.

use uuid::Uuid;

use super::{HttpTransport, without_answer};
use crate::base::telemetry::metrics::StateLabels;
use crate::checks::interpret::{Interpretation, interpret};
use crate::checks::{Check, Reserve, reserve};
use crate::jobs::dispatcher::AttemptResult;
use crate::model::delivery::{
    Attempt, Claimed, EvaluationContext, NoResponse, Queue, ResponseVerdict,
};
use crate::model::request::Request;
use crate::outbound::services::client::Answer;

impl HttpTransport {
    /// Repeats `take`. If the service accepts, the reservation is confirmed. If the service refuses, that is a late
    /// refusal of the check. Without a usable answer, the delivery is retried.
    pub(super) async fn take_again(
        &self,
        delivery: &Claimed,
        take: &Request,
        released: Uuid,
    ) -> AttemptResult {
        let queue = Queue::named(&delivery.subscription);
        let (Queue::Take(name), Some(context)) = (&queue, &delivery.context) else {
            return Attempt::NoResponse(NoResponse::NotSent).into();
        };
        let check = self.check(name);
        let Some((check, reserve)) = check.and_then(|check| Some((check, check.reserve.as_ref()?)))
        else {
            return Attempt::NoResponse(NoResponse::NotSent).into();
        };
        if self.is_deleted(delivery.identity_id).await {
            tracing::info!(check = check.name, identity.id = %delivery.identity_id, "The account was deleted, so nothing is reserved for it again");
            return Attempt::answered(200).into();
        }
        // While the service still has the first reservation, the service may refuse a second one.
        let release = Queue::Release(name).to_string();
        let store = &self.deps.store;
        match store.is_pending(&release, &released.to_string()).await {
            Ok(false) => {}
            Ok(true) => {
                let attempt = Attempt::NoResponse(NoResponse::NotReleased);
                return self.not_reserved(check, delivery, attempt, None);
            }
            Err(_) => return Attempt::NoResponse(NoResponse::StoreFailed).into(),
        }
        let id = delivery.id.to_string();
        let answer = match self.send(&reserve.take.service, take, &id).await {
            Ok(answer) => answer,
            Err(none) => {
                return self.not_reserved(check, delivery, without_answer(none), None);
            }
        };
        let variables = context.variables(self.deps.rules.lists(), Some(&answer.response));
        match interpret(check, answer.status, &variables) {
            Interpretation::Accepted => self.reserved(check, reserve, delivery, context, &answer),
            Interpretation::Refused(refusal) => {
                self.count_reservation("refused_late");
                let mut refused =
                    self.refused(check, Some(refusal), delivery, context, &answer.response);
                refused.attempt = self.answered(&answer, ResponseVerdict::Delivered);
                if (200..300).contains(&answer.status) && !check.refuses_status(answer.status) {
                    let context = with_taken(delivery, context, &answer);
                    let (lists, now) = (self.deps.rules.lists(), self.deps.clock.now());
                    let name = &check.name;
                    let release =
                        reserve::release_of_taken(reserve, delivery, name, &context, lists, now);
                    refused.follow_up_deliveries.extend(release);
                }
                refused
            }
            Interpretation::Unavailable(_, because) => {
                let attempt = self.answered(&answer, ResponseVerdict::Retry);
                self.not_reserved(check, delivery, attempt, Some(because))
            }
        }
    }

    /// Returns whether Kratos answers that the account does not exist.
    async fn is_deleted(&self, identity_id: Uuid) -> bool {
        match self.identities() {
            Some(identities) => matches!(identities.get(identity_id).await, Ok(None)),
            None => false,
        }
    }

    fn reserved(
        &self,
        check: &Check,
        reserve: &Reserve,
        delivery: &Claimed,
        context: &EvaluationContext,
        answer: &Answer,
    ) -> AttemptResult {
        self.count_reservation("taken_again");
        tracing::info!(check = check.name, identity.id = %delivery.identity_id, "The reservation of check `{}` was released too early; Vestibule has taken it again", check.name);
        let context = with_taken(delivery, context, answer);
        let (lists, now) = (self.deps.rules.lists(), self.deps.clock.now());
        let confirmation =
            reserve::confirmation_of_taken(reserve, delivery, &check.name, &context, lists, now);
        AttemptResult {
            follow_up_deliveries: confirmation.into_iter().collect(),
            ..self.answered(answer, ResponseVerdict::Delivered).into()
        }
    }

    /// Returns the failed attempt, and raises an alarm if it was the last one.
    fn not_reserved(
        &self,
        check: &Check,
        delivery: &Claimed,
        attempt: Attempt,
        error_excerpt: Option<String>,
    ) -> AttemptResult {
        if self.deps.clock.now() >= delivery.keep_trying_until {
            self.deps.metrics.posts_after_release.inc();
            tracing::error!(
                check = check.name, identity.id = %delivery.identity_id, delivery.id = %delivery.id,
                "ALARM: the reservation of check `{}` was released before the account was known, and could not be taken again in \
                 time; see `vestibule deliveries list --state abandoned`", check.name
            );
        }
        AttemptResult {
            error_excerpt,
            ..attempt.into()
        }
    }

    fn count_reservation(&self, state: &'static str) {
        let reservations = &self.deps.metrics.reservations;
        reservations.get_or_create(&StateLabels { state }).inc();
    }
}

/// Returns the context with the variable `taken` of this answer.
fn with_taken(
    delivery: &Claimed,
    context: &EvaluationContext,
    answer: &Answer,
) -> EvaluationContext {
    EvaluationContext {
        taken: Some(reserve::taken(delivery.id, Some(&answer.response))),
        ..context.clone()
    }
}
