//! Takes the reservation of a check, and stores what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde_json::Value;
use uuid::Uuid;

use super::answer::response_in;
use super::outcome::{Asked, Outcome, Slot};
use super::{Completion, Evaluation};
use crate::checks::Reserve;
use crate::checks::reserver::{ReserveOutcome, ReserveRequest, ReserveResult};
use crate::model::delivery::EvaluationContext;
use crate::model::request::Request;
use crate::model::reservation::Reservation;
use crate::outbound::services::client::Answer;

/// The time before the deadline that is kept free to store the result of `take`.
const STORE_MARGIN: Duration = Duration::from_millis(200);

impl<'a> Evaluation<'a> {
    pub(super) fn take(
        &mut self,
        index: usize,
        take: Request,
        context: EvaluationContext,
    ) -> Option<BoxFuture<'a, Completion>> {
        self.slots[index] = Slot::Running(Asked::default());
        let (evaluator, call, check) = (self.evaluator, self.call, self.check(index));
        let reserve: &Reserve = check.reserve.as_ref()?;
        evaluator.observer.asks(&check.name, &take);
        let request = ReserveRequest {
            check,
            reserve,
            flow_id: call.payload.flow_id,
            submission: call.submission,
            is_guarded: call.is_guarded,
            take,
            context,
            expires_at: call.payload.expires_at(self.started),
            until: call.until.earlier_by(STORE_MARGIN),
            in_use_until: evaluator.clock.time_of(call.until),
            traceparent: call.trace.child(),
        };
        let take =
            async move { Completion::Reserved(index, evaluator.reservations.take(request).await) };
        Some(take.boxed())
    }

    /// Interprets the result of a reservation. If the service was asked, the result must be stored.
    pub(super) fn interpret_reservation(
        &mut self,
        index: usize,
        result: ReserveResult,
    ) -> Option<BoxFuture<'a, Completion>> {
        let (reservation, is_ours, answer) = match result {
            ReserveResult::NotStored(error) => {
                let outcome = self.not_stored(index, &error);
                self.finish(index, outcome);
                return None;
            }
            ReserveResult::InUse => {
                let outcome = self.in_use(index);
                self.finish(index, outcome);
                return None;
            }
            ReserveResult::Before(id, response) => {
                self.uses(index, id);
                let answer = Answer {
                    status: response["status"]
                        .as_u64()
                        .and_then(|status| u16::try_from(status).ok())
                        .unwrap_or_default(),
                    response,
                    retry_after: None,
                };
                let (outcome, _) = self.interpret_answer(index, Ok(answer));
                self.finish(index, outcome);
                return None;
            }
            ReserveResult::Now {
                reservation,
                is_ours,
                answer,
            } => (*reservation, is_ours, answer),
        };
        self.uses(index, reservation.id);
        // An entry of `refuse` that names the status says that the service has taken nothing.
        let check = self.check(index);
        let is_taken = matches!(&answer, Ok(answer) if (200..300).contains(&answer.status) && !check.refuses_status(answer.status));
        let (outcome, readable) = self.interpret_answer(index, answer);
        let reserve_outcome = match &outcome {
            Outcome::Accepted => ReserveOutcome::Reserved,
            Outcome::Refused(_) if is_taken => ReserveOutcome::AnswerRefused,
            Outcome::Refused(_) => ReserveOutcome::Refused,
            _ => ReserveOutcome::Unclear,
        };
        if !is_ours && reserve_outcome != ReserveOutcome::Reserved {
            self.finish(index, outcome);
            return None;
        }
        Some(self.store_reservation(index, reservation, readable, reserve_outcome, outcome))
    }

    /// Records which reservation the check uses.
    fn uses(&mut self, index: usize, id: Uuid) {
        if let Slot::Running(asked) = &mut self.slots[index] {
            asked.reservation = Some(id);
        }
    }

    fn in_use(&self, index: usize) -> Outcome {
        let check = self.check(index);
        tracing::info!(
            check = check.name, flow.id = %self.call.payload.flow_id, trace.id = %self.call.trace,
            "Refused a submission: another submission of the flow has the same reservation, and may still create an identity"
        );
        Outcome::Refused(self.message(check, &self.rules().messages().try_again, None))
    }

    fn store_reservation(
        &self,
        index: usize,
        reservation: Reservation,
        readable: Option<Arc<Value>>,
        reserve_outcome: ReserveOutcome,
        outcome: Outcome,
    ) -> BoxFuture<'a, Completion> {
        let (evaluator, until, check) = (self.evaluator, self.call.until, self.check(index));
        evaluator.observer.reservation(reserve_outcome.as_str());
        async move {
            let is_stored = evaluator
                .reservations
                .store_reservation(
                    check,
                    reservation,
                    readable.as_deref().and_then(response_in),
                    reserve_outcome,
                    until,
                )
                .await;
            Completion::Stored {
                index,
                outcome,
                is_stored,
            }
        }
        .boxed()
    }
}
