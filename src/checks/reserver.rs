//! Takes a reservation for a submission. Vestibule records it before it asks the service, so that it can always be
//! released.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

use super::evaluate::AskService;
use super::{Check, Reserve, Rules, reserve};
use crate::base::clock::{Clock, Deadline, Timestamp, saturating_add};
use crate::checks::account_lookup::Lookup;
use crate::model::delivery::{EvaluationContext, time_ordered_id};
use crate::model::pending::{PendingSignUp, PendingState};
use crate::model::request::Request;
use crate::model::reservation::{Details, ReleaseReason, Reservation, State, request_hash};
use crate::outbound::services::IDEMPOTENCY_KEY;
use crate::outbound::services::client::{Answer, CallError};
use crate::store::outbox::Outbox;
use crate::store::{self, FlowState, Release, Store, WriteSet};

/// Takes reservations for the checks of a call.
#[async_trait]
pub trait TakeReservation: Send + Sync {
    /// Records a reservation and asks the service for it, or finds one that may be used.
    async fn take(&self, request: ReserveRequest<'_>) -> ReserveResult;
    /// Stores what the check makes of the answer: keeps, deletes or releases the reservation. Returns `false` if an
    /// accepted reservation could not be stored.
    async fn store_reservation(
        &self,
        check: &Check,
        reservation: Reservation,
        answer: Option<&Value>,
        outcome: ReserveOutcome,
        until: Deadline,
    ) -> bool;
}

/// The time after an acceptance in which a look-up without a result proves nothing.
const LOOKUP_PROVES_NOTHING_FOR: Duration = Duration::from_secs(10);

/// Takes reservations at services, and records them in the database.
pub struct Reserver {
    /// The rules.
    pub rules: Arc<Rules>,
    /// The services that reserve.
    pub services: Arc<dyn AskService>,
    /// The database.
    pub store: Arc<dyn Store>,
    /// Stores reservations and releases.
    pub outbox: Outbox,
    /// Finds the outcome of another submission. `None`: identities cannot be looked up.
    pub lookup: Option<Lookup>,
    /// The clock.
    pub clock: Clock,
}

/// The reservation to take, and the submission that needs it.
pub struct ReserveRequest<'a> {
    /// The check.
    pub check: &'a Check,
    /// Its entry `reserve`.
    pub reserve: &'a Reserve,
    /// The flow.
    pub flow_id: Uuid,
    /// The submission of the flow.
    pub submission: &'a str,
    /// Whether at most one identity can result from the flow, so that its submissions may share a reservation.
    pub is_guarded: bool,
    /// The request that takes the reservation.
    pub take: Request,
    /// What later requests of the reservation may read.
    pub context: EvaluationContext,
    /// When the flow expires.
    pub expires_at: Timestamp,
    /// The deadline for the service's answer.
    pub until: Deadline,
    /// The deadline of the call; until then the reservation is in use.
    pub in_use_until: Timestamp,
    /// The header of that name.
    pub traceparent: String,
}

/// The result of `take`.
pub enum ReserveResult {
    /// The reservation exists already, and this was the answer.
    Before(Uuid, Value),
    /// The service was asked just now, under this reservation. Only the call that made the reservation may release
    /// it, because another call of the flow may be asking at the same moment.
    Now {
        /// The reservation.
        reservation: Box<Reservation>,
        /// Whether this call made the reservation.
        is_ours: bool,
        /// The answer of the service.
        answer: Result<Answer, CallError>,
    },
    /// Another submission of the flow has the reservation, and an identity may still result from that submission.
    InUse,
    /// The reservation could not be recorded, so the service was not asked.
    NotStored(String),
}

/// The reservation for a `take`.
enum Found {
    /// This reservation. `is_ours`: this call has just created it.
    Reservation(Box<Reservation>, bool),
    /// Another submission has the reservation.
    InUse,
}

/// The outcome of a reservation, by the check's interpretation of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveOutcome {
    /// The reservation is taken.
    Reserved,
    /// The service refused the reservation.
    Refused,
    /// The service took the reservation, and an expression of `refuse` refused what the answer says.
    AnswerRefused,
    /// Whether the reservation is taken is unknown.
    Unclear,
}

impl ReserveOutcome {
    /// The name of this outcome in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "taken",
            Self::Refused | Self::AnswerRefused => "refused",
            Self::Unclear => "unclear",
        }
    }
}

impl Reserver {
    /// Finds an open reservation with the same request that may be used, or records a new one.
    async fn find_or_record(&self, request: &ReserveRequest<'_>) -> Result<Found, String> {
        let request_hash = request_hash(&request.take);
        // There are several rounds, because other calls of the flow change reservations at the same moment.
        for _ in 0..4 {
            let state = self
                .store
                .flow(request.flow_id)
                .await
                .map_err(error_chain)?;
            let open = state.reservations.iter().filter(|one| {
                one.check == request.check.name && matches!(one.state, State::Taking | State::Taken)
            });
            let mut batch = WriteSet::default();
            let mut same = None;
            for one in open {
                if one.request_hash == request_hash {
                    same = Some(one);
                } else if request.is_guarded && self.is_unused(one, &state) {
                    let kept = reserve::kept(request.check, one, &state.pending);
                    self.release(
                        &mut batch,
                        request.reserve,
                        one,
                        ReleaseReason::Changed,
                        kept,
                    );
                }
            }
            if let Some(same) = same {
                match self
                    .reuse(same, &state, request)
                    .await
                    .map_err(error_chain)?
                {
                    Some(found) => return Ok(found),
                    None => continue,
                }
            }
            let now = self.clock.now();
            let new = Reservation {
                id: time_ordered_id(now),
                flow_id: request.flow_id,
                check: request.check.name.clone(),
                request_hash: request_hash.clone(),
                state: State::Taking,
                details: Some(Details {
                    take: request.take.clone(),
                    context: request.context.clone(),
                }),
                release_reason: None,
                created_at: now,
                expires_at: request.expires_at,
                submission: request.submission.to_owned(),
                in_use_until: request.in_use_until,
            };
            batch.reserved.push(new.clone());
            match self.outbox.write(batch).await {
                Ok(_) => return Ok(Found::Reservation(Box::new(new), true)),
                Err(error) if is_conflict(&error) => {}
                Err(error) => return Err(error.error_chain()),
            }
        }
        Err("other calls of the flow keep changing its reservations".to_owned())
    }

    /// Returns whether no accepted or running submission of the flow uses the reservation.
    fn is_unused(&self, reservation: &Reservation, state: &FlowState) -> bool {
        reservation.in_use_until <= self.clock.now()
            && !state.pending.iter().any(|pending| {
                pending.state == PendingState::Open
                    && pending.details.reservations.contains(&reservation.id)
            })
    }

    /// Returns the reservation, if this submission may use it. `None` if the reservation has changed meanwhile.
    async fn reuse(
        &self,
        same: &Reservation,
        state: &FlowState,
        request: &ReserveRequest<'_>,
    ) -> Result<Option<Found>, store::Error> {
        let store = &self.store;
        let until = request.in_use_until;
        let mut found = same.clone();
        if request.is_guarded || same.submission == request.submission {
            let shared = store.share_reservation(same.id, until).await?;
            found.in_use_until = found.in_use_until.max(until);
            return Ok(shared.then(|| Found::Reservation(Box::new(found), false)));
        }
        let owner = state
            .pending
            .iter()
            .find(|pending| pending.key.submission == same.submission);
        if same.in_use_until > self.clock.now() || !self.is_proven_absent(owner).await {
            return Ok(Some(Found::InUse));
        }
        let now = self.clock.now();
        let former = former(request.check, same, &state.pending, now);
        let is_taken_over = store
            .take_over_reservation(same, former.as_ref(), request.submission, now, until)
            .await?;
        request.submission.clone_into(&mut found.submission);
        found.in_use_until = until;
        Ok(is_taken_over.then(|| Found::Reservation(Box::new(found), false)))
    }

    /// Returns whether it is proven that no identity resulted from a submission. A submission that was never accepted
    /// cannot become an identity.
    async fn is_proven_absent(&self, owner: Option<&PendingSignUp>) -> bool {
        let Some(owner) = owner else { return true };
        match owner.state {
            PendingState::NeverCreated => return true,
            PendingState::Attributed | PendingState::Undecided => return false,
            PendingState::Open => {}
        }
        let Some(lookup) = &self.lookup else {
            return false;
        };
        if self.clock.now() < saturating_add(owner.accepted_at, LOOKUP_PROVES_NOTHING_FOR)
            || !lookup.can_find(owner).await
        {
            return false;
        }
        matches!(lookup.find(owner).await, Ok(None))
    }

    /// Deletes a reservation that the service did not take.
    async fn cancel(&self, reservation: &Reservation) -> Result<bool, String> {
        let cancelled = self.store.cancel_reservation(reservation.id).await;
        cancelled
            .map(|()| true)
            .map_err(|error| error.error_chain())
    }

    fn release(
        &self,
        batch: &mut WriteSet,
        requests: &Reserve,
        reservation: &Reservation,
        release_reason: ReleaseReason,
        kept: Option<Details>,
    ) {
        let now = self.clock.now();
        // The reservation belongs to this call, which is still running.
        let unused_since = match release_reason {
            ReleaseReason::Unclear | ReleaseReason::AnswerRefused => {
                saturating_add(now, Duration::from_hours(24))
            }
            _ => now,
        };
        batch.released.push(Release {
            id: reservation.id,
            release_reason,
            unused_since,
            kept,
        });
        batch.deliveries.push(reserve::release(
            requests,
            reservation,
            self.rules.lists(),
            now,
        ));
    }
}

#[async_trait]
impl TakeReservation for Reserver {
    async fn take(&self, request: ReserveRequest<'_>) -> ReserveResult {
        let found = self
            .clock
            .timeout_at(request.until, self.find_or_record(&request))
            .await
            .unwrap_or_else(|| Err("the database did not answer in time".to_owned()));
        let (reservation, is_ours) = match found {
            Ok(Found::Reservation(reservation, is_ours)) => (reservation, is_ours),
            Ok(Found::InUse) => return ReserveResult::InUse,
            Err(error) => return ReserveResult::NotStored(error),
        };
        let answered = reservation.details.as_ref().and_then(|details| {
            let taken = details.context.taken.clone()?;
            (reservation.state == State::Taken).then_some(taken)
        });
        if let Some(taken) = answered {
            return ReserveResult::Before(reservation.id, taken);
        }
        let key = reservation.id.to_string();
        let extra = [("traceparent", request.traceparent), (IDEMPOTENCY_KEY, key)];
        let service = &request.reserve.take.service;
        let answer = self
            .services
            .ask(service, &request.take, &extra, request.until)
            .await;
        ReserveResult::Now {
            reservation,
            is_ours,
            answer,
        }
    }

    async fn store_reservation(
        &self,
        check: &Check,
        mut reservation: Reservation,
        answer: Option<&Value>,
        outcome: ReserveOutcome,
        until: Deadline,
    ) -> bool {
        // Another answer does not describe a reservation.
        if let Some(details) = &mut reservation.details
            && matches!(
                outcome,
                ReserveOutcome::Reserved | ReserveOutcome::AnswerRefused
            )
        {
            details.context.taken =
                answer.map(|answer| reserve::taken(reservation.id, Some(answer)));
        }
        let kept = async {
            match (outcome, &reservation.details, &check.reserve) {
                (ReserveOutcome::Reserved, Some(details), _) => {
                    let marked = self.store.mark_reserved(reservation.id, details).await;
                    marked.map_err(|error| error.error_chain())
                }
                (ReserveOutcome::Refused, ..) => self.cancel(&reservation).await,
                (ReserveOutcome::AnswerRefused, _, Some(requests)) => {
                    let mut batch = WriteSet::default();
                    let reason = ReleaseReason::AnswerRefused;
                    self.release(&mut batch, requests, &reservation, reason, None);
                    let mut deliveries = batch.deliveries.iter();
                    if deliveries.any(|one| one.unbuilt_reason().is_some()) {
                        // `release` reads what the answer does not have, so the answer names no reservation.
                        self.cancel(&reservation).await
                    } else {
                        let written = self.outbox.write(batch).await;
                        written.map(|_| true).map_err(|error| error.error_chain())
                    }
                }
                (ReserveOutcome::Unclear, _, Some(requests)) => {
                    let mut batch = WriteSet::default();
                    let reason = ReleaseReason::Unclear;
                    self.release(&mut batch, requests, &reservation, reason, None);
                    let written = self.outbox.write(batch).await;
                    written.map(|_| true).map_err(|error| error.error_chain())
                }
                _ => Ok(false),
            }
        };
        let kept = match outcome {
            ReserveOutcome::Reserved => self.clock.timeout_at(until, kept).await,
            // No call waits for this. What cannot be stored is released when the flow has expired.
            ReserveOutcome::Refused | ReserveOutcome::AnswerRefused | ReserveOutcome::Unclear => {
                Some(kept.await)
            }
        };
        match kept {
            Some(Ok(kept)) => kept,
            Some(Err(error)) => {
                tracing::error!(
                    check = check.name,
                    error,
                    "Could not store the result of a reservation; the reservation is released when its flow has expired"
                );
                false
            }
            None => false,
        }
    }
}

/// Returns the row for the submission from which a reservation is taken over. Its account may be found later, and then
/// reserves again. `None` if that submission was never accepted.
fn former(
    check: &Check,
    reservation: &Reservation,
    submissions: &[PendingSignUp],
    now: Timestamp,
) -> Option<Reservation> {
    let mut owner = submissions.iter();
    let owner = owner.find(|one| one.key.submission == reservation.submission)?;
    Some(Reservation {
        id: time_ordered_id(now),
        state: State::Released,
        details: Some(reserve::kept(
            check,
            reservation,
            std::slice::from_ref(owner),
        )?),
        release_reason: Some(ReleaseReason::TakenOver),
        ..reservation.clone()
    })
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn error_chain(error: store::Error) -> String {
    error.error_chain()
}

/// Returns whether another call for the same flow was faster.
fn is_conflict(error: &store::Error) -> bool {
    match error {
        store::Error::Conflict => true,
        store::Error::Database(error) => error
            .as_database_error()
            .is_some_and(sqlx::error::DatabaseError::is_unique_violation),
        _ => false,
    }
}
