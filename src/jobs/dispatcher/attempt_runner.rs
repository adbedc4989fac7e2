//! Runs one attempt of one delivery.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::watch;

use super::{AttemptObserver, AttemptResult, DispatcherLimits, Jitter, Transport};
use crate::base::clock::{Clock, Timestamp, milliseconds, saturating_add};
use crate::model::delivery::backoff::{Schedule, next_try};
use crate::model::delivery::{Action, Attempt, Claimed, NoResponse, Outcome};
use crate::store::settlement_writer::SettlementWriter;
use crate::store::{AttemptRecord, DeliveryStore, Settlement};

/// When to retry if another write into the same identity is in progress.
const BUSY: Duration = Duration::from_secs(1);

/// The part of a lease that remains after the longest attempt, to store its result.
const SETTLING: Duration = Duration::from_mins(1);

/// Everything that an attempt needs.
pub(super) struct AttemptRunner {
    pub(super) store: Arc<dyn DeliveryStore>,
    pub(super) settlement_writer: SettlementWriter,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) observer: Arc<dyn AttemptObserver>,
    pub(super) clock: Clock,
    pub(super) jitter: Jitter,
    pub(super) limits: DispatcherLimits,
}

impl AttemptRunner {
    /// Returns the length of a lease. A lease is longer than any attempt.
    pub(super) fn lease(&self) -> Duration {
        self.limits.max_attempt_duration + SETTLING
    }

    /// Calls the service and settles the delivery. If `abort` is signalled first, returns the delivery.
    pub(super) async fn attempt(&self, delivery: Claimed, mut abort: watch::Receiver<bool>) {
        let began_at = self.clock.now();
        let Some(delivery) = self.built(delivery).await else {
            return;
        };
        let end = self.clock.deadline(self.limits.max_attempt_duration);
        // A panic counts as an attempt, because the next attempt meets the same defect, and the attempts must end at
        // some time.
        let attempting = AssertUnwindSafe(self.transport.attempt(&delivery)).catch_unwind();
        let result = self.clock.timeout_at(end, attempting);
        let result = tokio::select! {
            biased;
            result = result => match result {
                Some(Ok(result)) => result,
                Some(Err(_)) => Attempt::NoResponse(NoResponse::Panicked).into(),
                None => Attempt::NoResponse(NoResponse::Timeout).into(),
            },
            () = signalled(&mut abort) => return self.give_back(delivery, self.clock.now()).await,
        };
        let AttemptResult {
            attempt,
            error_excerpt,
            follow_up_deliveries,
            late_refusal,
            refusal_lift,
            question_settled,
        } = result;
        let ended_at = self.clock.now();
        if matches!(attempt, Attempt::NoResponse(reason) if reason.is_uncounted()) {
            return self
                .give_back(delivery, saturating_add(ended_at, BUSY))
                .await;
        }
        let schedule = self.transport.schedule(&delivery.subscription);
        let outcome = attempt.outcome(
            &schedule.unwrap_or(self.limits.schedule),
            delivery.attempt,
            delivery.keep_trying_until,
            ended_at,
            (self.jitter)(),
        );
        let record = AttemptRecord {
            began_at,
            ended_at,
            status: attempt.status(),
            error: attempt.error().map(|error| match error_excerpt {
                Some(error_excerpt) => format!("{error}: {error_excerpt}"),
                None => error,
            }),
        };
        self.log_attempt(&delivery, &attempt, &record, &outcome);
        let lease_ends = saturating_add(began_at, self.lease());
        let settlement = Settlement {
            follow_up_deliveries: if outcome == Outcome::Delivered {
                follow_up_deliveries
            } else {
                Vec::new()
            },
            late_refusal: late_refusal.filter(|_| outcome == Outcome::Delivered),
            refusal_lift: refusal_lift.filter(|_| outcome == Outcome::Delivered),
            question_settled: question_settled.filter(|_| outcome == Outcome::Delivered),
            ..Settlement::of(&delivery, record, outcome.clone())
        };
        self.settle(&delivery, settlement, lease_ends, abort).await;
        self.observer.attempted(&delivery, &attempt, &outcome);
    }

    /// Builds the request if it is not built yet, and stores it before it is sent. Returns `None` if there is nothing to
    /// attempt.
    async fn built(&self, delivery: Claimed) -> Option<Claimed> {
        let Action::Build(unbuilt) = &delivery.action else {
            return Some(delivery);
        };
        let Some(built) = self.transport.build(&delivery, unbuilt) else {
            return Some(delivery);
        };
        let now = self.clock.now();
        match (self.store.keep_built(&delivery, &built, now).await, built) {
            (Ok(true), Ok(built)) => Some(Claimed {
                action: Action::Send(built.request),
                context: built.context,
                ..delivery
            }),
            // The delivery is abandoned again, or another dispatcher has it.
            (Ok(_), _) => None,
            (Err(error), _) => {
                tracing::warn!(
                    delivery.id = %delivery.id, subscription = delivery.subscription, error = %error.error_chain(),
                    "The request of a delivery could not be stored",
                );
                self.give_back(delivery, saturating_add(now, BUSY)).await;
                None
            }
        }
    }

    /// Stores the settlement, and retries until the lease ends. If the settlement cannot be stored, the delivery is
    /// attempted again with the same idempotency key.
    async fn settle(
        &self,
        delivery: &Claimed,
        settlement: Settlement,
        lease_ends: Timestamp,
        mut abort: watch::Receiver<bool>,
    ) {
        for tries in 1.. {
            let error = match self.settlement_writer.write(settlement.clone()).await {
                Ok(true) => return,
                Ok(false) => {
                    tracing::warn!(
                        delivery.id = %delivery.id, subscription = delivery.subscription, attempt = delivery.attempt,
                        "The lease had expired, so the result of this attempt is ignored",
                    );
                    return;
                }
                Err(error) => error.error_chain(),
            };
            let next = next_try(
                &Schedule::DATABASE,
                tries,
                self.clock.now(),
                (self.jitter)(),
            );
            let last = next >= lease_ends || *abort.borrow();
            tracing::error!(
                delivery.id = %delivery.id, subscription = delivery.subscription, attempt = delivery.attempt, error, last,
                "The result of an attempt could not be stored",
            );
            if last {
                return;
            }
            tokio::select! {
                () = self.clock.sleep_until(next) => {}
                () = signalled(&mut abort) => {}
            }
        }
    }

    async fn give_back(&self, delivery: Claimed, due_at: Timestamp) {
        let id = delivery.id;
        if let Err(error) = self.store.give_back(&[delivery], due_at).await {
            tracing::warn!(
                delivery.id = %id, error = %error.error_chain(),
                "A delivery could not be returned; it is due again when its lease ends",
            );
        }
    }

    fn log_attempt(
        &self,
        delivery: &Claimed,
        attempt: &Attempt,
        record: &AttemptRecord,
        outcome: &Outcome,
    ) {
        let target = self.transport.target(&delivery.subscription);
        let name = target.as_ref().map_or("?", |to| to.name.as_str());
        let duration_ms = milliseconds(record.began_at, record.ended_at);
        let tries = delivery.attempt;
        macro_rules! line {
            ($level:ident, $($message:tt)+) => {
                tracing::$level!(
                    delivery.id = %delivery.id, subscription = delivery.subscription, service.name = name,
                    attempt = tries, status = record.status, duration_ms, $($message)+
                )
            };
        }
        match outcome {
            Outcome::Delivered => line!(info, "Delivered to `{name}` on attempt {tries}"),
            Outcome::RetryAt(next) => line!(
                warn,
                "Not delivered to `{name}` on attempt {tries} ({attempt}); next attempt at {next}"
            ),
            Outcome::Abandoned => line!(
                error,
                "Abandoned after attempt {tries} at `{name}` ({attempt}); see `vestibule deliveries`"
            ),
        }
    }
}

/// Waits for the signal. Also returns if the sender is dropped.
async fn signalled(abort: &mut watch::Receiver<bool>) {
    let _ = abort.wait_for(|signalled| *signalled).await;
}
