//! Reserving something for a submission: recorded before the service is asked, so that it can always be released.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Check, Reserve, reserve};
use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::checks::account_lookup::Lookup;
use crate::expression::Lists;
use crate::model::delivery::{EvaluationContext, time_ordered_id};
use crate::model::pending::{PendingSignUp, PendingState};
use crate::model::request::Request;
use crate::model::reservation::{Details, ReleaseReason, Reservation, State, request_hash};
use crate::outbound::services::client::{Answer, CallError, Services};
use crate::store::{self, FlowState, Release, Store, WriteSet};

/// Where it is written down.
pub struct ReservationDeps {
    /// The database.
    pub store: Arc<dyn Store>,
    /// Wakes the worker, for what is to be released.
    pub stored: Arc<Notify>,
    /// Finds out what came of another submission. `None`: identities cannot be looked up.
    pub lookup: Option<Lookup>,
}

/// Before this time after an acceptance a look-up that finds nothing proves nothing.
const LOOKUP_PROVES_NOTHING_FOR: Duration = Duration::from_secs(10);

/// Takes, and writes down what came of it.
pub(super) struct Reserver {
    pub(super) deps: ReservationDeps,
    pub(super) services: Arc<Services>,
    pub(super) lists: Arc<Lists>,
    pub(super) clock: Clock,
}

/// What is taken, and for whom.
pub(super) struct ReserveRequest<'a> {
    pub(super) check: &'a Check,
    pub(super) reserve: &'a Reserve,
    pub(super) flow_id: Uuid,
    pub(super) submission: &'a str,
    /// Whether at most one identity can come of the flow, so that its submissions may share a reservation.
    pub(super) is_guarded: bool,
    pub(super) take: Request,
    pub(super) context: EvaluationContext,
    /// When the flow's life ends.
    pub(super) expires_at: Timestamp,
    /// By when there must be an answer.
    pub(super) until: Timestamp,
    /// By when the call is answered: until then the reservation is in use.
    pub(super) in_use_until: Timestamp,
    pub(super) traceparent: String,
}

/// What came of taking.
pub(super) enum ReserveResult {
    /// The reservation exists already, and this was the answer.
    Before(Uuid, Value),
    /// The service was asked just now, under this reservation. Only the call that made it may release it: another call of
    /// the flow may be asking at the same moment.
    Now {
        reservation: Box<Reservation>,
        is_ours: bool,
        answer: Result<Answer, CallError>,
    },
    /// Another submission of the flow has the reservation, and an identity may still come of it.
    InUse,
    /// It could not be recorded, so the service was not asked.
    NotStored(String),
}

/// The reservation to take something under.
enum Found {
    /// This one. `is_ours`: it was made just now.
    Reservation(Box<Reservation>, bool),
    /// Another submission has it.
    InUse,
}

/// What the check makes of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReserveOutcome {
    /// It is taken.
    Reserved,
    /// It is not taken.
    Refused,
    /// Nobody can tell.
    Unclear,
}

impl Reserver {
    pub(super) async fn take(&self, wanted: ReserveRequest<'_>) -> ReserveResult {
        let begun = self
            .clock
            .timeout_at(wanted.until, self.begin(&wanted))
            .await
            .unwrap_or_else(|| Err("the database did not answer in time".to_owned()));
        let (reservation, is_ours) = match begun {
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
        let extra = [
            ("traceparent", wanted.traceparent),
            ("idempotency-key", key),
        ];
        let service = &wanted.reserve.take.service;
        let answer = self
            .services
            .call(service, &wanted.take, &extra, wanted.until)
            .await;
        ReserveResult::Now {
            reservation,
            is_ours,
            answer,
        }
    }

    /// An open reservation with the same request if there is one that may be used, else a new one.
    async fn begin(&self, wanted: &ReserveRequest<'_>) -> Result<Found, String> {
        let request_hash = request_hash(&wanted.take);
        // Several rounds, because other calls of the flow change reservations at the same moment.
        for _ in 0..4 {
            let state = self
                .deps
                .store
                .flow(wanted.flow_id)
                .await
                .map_err(error_chain)?;
            let open = state.reservations.iter().filter(|one| {
                one.check == wanted.check.name && matches!(one.state, State::Taking | State::Taken)
            });
            let mut batch = WriteSet::default();
            let mut same = None;
            for one in open {
                if one.request_hash == request_hash {
                    same = Some(one);
                } else if wanted.is_guarded && self.is_unused(one, &state) {
                    let kept = reserve::kept(wanted.check, one, &state.pending);
                    self.give_back(
                        &mut batch,
                        wanted.reserve,
                        one,
                        ReleaseReason::Changed,
                        kept,
                    );
                }
            }
            if let Some(same) = same {
                match self
                    .reuse(same, &state, wanted)
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
                flow_id: wanted.flow_id,
                check: wanted.check.name.clone(),
                request_hash: request_hash.clone(),
                state: State::Taking,
                details: Some(Details {
                    take: wanted.take.clone(),
                    context: wanted.context.clone(),
                }),
                release_reason: None,
                created_at: now,
                expires_at: wanted.expires_at,
                submission: wanted.submission.to_owned(),
                in_use_until: wanted.in_use_until,
            };
            batch.reserved.push(new.clone());
            match self.write(&batch).await {
                Ok(()) => return Ok(Found::Reservation(Box::new(new), true)),
                Err(error) if is_too_late(&error) => {}
                Err(error) => return Err(error_chain(error)),
            }
        }
        Err("other calls of the flow change its reservations at the same moment".to_owned())
    }

    /// Whether no submission of the flow that was accepted or is still being checked uses the reservation.
    fn is_unused(&self, reservation: &Reservation, state: &FlowState) -> bool {
        reservation.in_use_until <= self.clock.now()
            && !state.pending.iter().any(|pending| {
                pending.state == PendingState::Open
                    && pending.details.reservations.contains(&reservation.id)
            })
    }

    /// The reservation, if this submission may use it. `None` if it has changed meanwhile.
    async fn reuse(
        &self,
        same: &Reservation,
        state: &FlowState,
        wanted: &ReserveRequest<'_>,
    ) -> Result<Option<Found>, store::Error> {
        let store = &self.deps.store;
        let until = wanted.in_use_until;
        let mut found = same.clone();
        if wanted.is_guarded || same.submission == wanted.submission {
            let shared = store.share_reservation(same.id, until).await?;
            found.in_use_until = found.in_use_until.max(until);
            return Ok(shared.then(|| Found::Reservation(Box::new(found), false)));
        }
        let owner = state
            .pending
            .iter()
            .find(|pending| pending.key.submission == same.submission);
        if same.in_use_until > self.clock.now() || !self.came_to_nothing(owner).await {
            return Ok(Some(Found::InUse));
        }
        let now = self.clock.now();
        let former = former(wanted.check, same, &state.pending, now);
        let is_taken_over = store
            .take_over_reservation(same, former.as_ref(), wanted.submission, now, until)
            .await?;
        wanted.submission.clone_into(&mut found.submission);
        found.in_use_until = until;
        Ok(is_taken_over.then(|| Found::Reservation(Box::new(found), false)))
    }

    /// Whether it is proven that no identity came of a submission. One that was never accepted cannot become one.
    async fn came_to_nothing(&self, owner: Option<&PendingSignUp>) -> bool {
        let Some(owner) = owner else { return true };
        match owner.state {
            PendingState::NeverCreated => return true,
            PendingState::Attributed | PendingState::Undecided => return false,
            PendingState::Open => {}
        }
        let Some(lookup) = &self.deps.lookup else {
            return false;
        };
        if self.clock.now() < saturating_add(owner.accepted_at, LOOKUP_PROVES_NOTHING_FOR)
            || !lookup.can_find(owner).await
        {
            return false;
        }
        matches!(lookup.find(owner).await, Ok(None))
    }

    /// Writes down what the check makes of the answer. `false` if a yes could not be kept.
    pub(super) async fn keep(
        &self,
        check: &Check,
        mut reservation: Reservation,
        answer: Option<&Value>,
        judged: ReserveOutcome,
        until: Timestamp,
    ) -> bool {
        // What was said instead of a yes tells nothing of what is held.
        if let Some(details) = &mut reservation.details
            && judged == ReserveOutcome::Reserved
        {
            details.context.taken =
                answer.map(|answer| reserve::taken(reservation.id, Some(answer)));
        }
        let kept = async {
            match (judged, &reservation.details, &check.reserve) {
                (ReserveOutcome::Reserved, Some(details), _) => {
                    self.deps.store.mark_reserved(reservation.id, details).await
                }
                (ReserveOutcome::Refused, ..) => self
                    .deps
                    .store
                    .cancel_reservation(reservation.id)
                    .await
                    .map(|()| true),
                (ReserveOutcome::Unclear, _, Some(plans)) => {
                    let mut batch = WriteSet::default();
                    self.give_back(
                        &mut batch,
                        plans,
                        &reservation,
                        ReleaseReason::Unclear,
                        None,
                    );
                    self.write(&batch).await.map(|()| true)
                }
                _ => Ok(false),
            }
        };
        let kept = match judged {
            ReserveOutcome::Reserved => self.clock.timeout_at(until, kept).await,
            // Nobody waits for it; and whatever is not written down is released when the flow has expired.
            ReserveOutcome::Refused | ReserveOutcome::Unclear => Some(kept.await),
        };
        match kept {
            Some(Ok(kept)) => kept,
            Some(Err(error)) => {
                let error = error.error_chain();
                tracing::error!(
                    check = check.name,
                    error,
                    "What came of a reservation could not be written down; it is released when its flow has expired"
                );
                false
            }
            None => false,
        }
    }

    async fn write(&self, batch: &WriteSet) -> Result<(), store::Error> {
        self.deps.store.write(batch).await?;
        if !batch.deliveries.is_empty() {
            self.deps.stored.notify_one();
        }
        Ok(())
    }

    fn give_back(
        &self,
        batch: &mut WriteSet,
        plans: &Reserve,
        reservation: &Reservation,
        release_reason: ReleaseReason,
        kept: Option<Details>,
    ) {
        let now = self.clock.now();
        // What is unclear belongs to this call, which is still running.
        let unused_since = match release_reason {
            ReleaseReason::Unclear => saturating_add(now, Duration::from_hours(24)),
            _ => now,
        };
        batch.released.push(Release {
            id: reservation.id,
            release_reason,
            unused_since,
            kept,
        });
        batch
            .deliveries
            .push(reserve::release(plans, reservation, &self.lists, now));
    }
}

/// What is kept for the submission that a reservation is taken from: its account may be found after all, and reserves again
/// then. `None` if that submission was never accepted.
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

/// Whether another call for the same flow was faster.
fn is_too_late(error: &store::Error) -> bool {
    match error {
        store::Error::Conflict => true,
        store::Error::Database(error) => error
            .as_database_error()
            .is_some_and(sqlx::error::DatabaseError::is_unique_violation),
        _ => false,
    }
}
