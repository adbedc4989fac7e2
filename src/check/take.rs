//! Taking something for a flow: written down before the service is asked, so that it can always be given back.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Check, Reserve, reserve};
use crate::clock::{Clock, Timestamp};
use crate::delivery::{Scene, time_ordered_id};
use crate::expression::Lists;
use crate::request::Request;
use crate::reservation::{Because, Details, Reservation, State, asked};
use crate::service::client::{Answer, NoAnswer, Services};
use crate::store::{self, Batch, Store};

/// Where it is written down.
pub struct Book {
    /// The database.
    pub store: Arc<dyn Store>,
    /// Wakes the worker, for what is to be released.
    pub stored: Arc<Notify>,
}

/// Takes, and writes down what came of it.
pub(super) struct Taker {
    pub(super) book: Book,
    pub(super) services: Arc<Services>,
    pub(super) lists: Arc<Lists>,
    pub(super) clock: Clock,
}

/// What is taken, and for whom.
pub(super) struct Wanted<'a> {
    pub(super) check: &'a Check,
    pub(super) reserve: &'a Reserve,
    pub(super) flow_id: Uuid,
    pub(super) take: Request,
    pub(super) scene: Scene,
    /// When the flow's life ends.
    pub(super) expires_at: Timestamp,
    /// By when there must be an answer.
    pub(super) until: Timestamp,
    pub(super) traceparent: String,
}

/// What came of taking.
pub(super) enum Taken {
    /// It was taken for this flow before, and this was the answer.
    Before(Value),
    /// The service was asked just now, under this reservation. Only whose it is may give it back: somebody else may be
    /// asking for the same flow at the same moment.
    Now {
        reservation: Box<Reservation>,
        is_ours: bool,
        answer: Result<Answer, NoAnswer>,
    },
    /// It could not be written down, so nobody was asked.
    NotStored(String),
}

/// What the check makes of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// It is taken.
    Yes,
    /// It is not taken.
    No,
    /// Nobody can tell.
    Unclear,
}

impl Taker {
    pub(super) async fn take(&self, wanted: Wanted<'_>) -> Taken {
        let begun = self
            .clock
            .before(wanted.until, self.begin(&wanted))
            .await
            .unwrap_or_else(|| Err("the database did not answer in time".to_owned()));
        let (reservation, is_ours) = match begun {
            Ok(begun) => begun,
            Err(error) => return Taken::NotStored(error),
        };
        let answered = reservation.details.as_ref().and_then(|details| {
            let taken = details.scene.taken.clone()?;
            (reservation.state == State::Taken).then_some(taken)
        });
        if let Some(taken) = answered {
            return Taken::Before(taken);
        }
        let key = reservation.id.to_string();
        let extra = [
            ("traceparent", wanted.traceparent),
            ("idempotency-key", key),
        ];
        let service = &wanted.reserve.take.service;
        let answer = self
            .services
            .exchange(service, &wanted.take, &extra, wanted.until)
            .await;
        Taken::Now {
            reservation: Box::new(reservation),
            is_ours,
            answer,
        }
    }

    /// The reservation under which it is taken: an open one for the very same, else a new one, which is ours. What was taken
    /// for other values is released.
    async fn begin(&self, wanted: &Wanted<'_>) -> Result<(Reservation, bool), String> {
        let asked = asked(&wanted.take);
        // Twice, because a call at the same moment may have begun.
        for _ in 0..2 {
            let state = self
                .book
                .store
                .flow(wanted.flow_id)
                .await
                .map_err(in_full)?;
            let open = state.reservations.into_iter().find(|one| {
                one.check == wanted.check.name && matches!(one.state, State::Taking | State::Taken)
            });
            let mut batch = Batch::default();
            match open {
                Some(same) if same.asked == asked => return Ok((same, false)),
                Some(other) => self.give_back(&mut batch, wanted.reserve, &other, Because::Changed),
                None => {}
            }
            let now = self.clock.now();
            let new = Reservation {
                id: time_ordered_id(now),
                flow_id: wanted.flow_id,
                check: wanted.check.name.clone(),
                asked: asked.clone(),
                state: State::Taking,
                details: Some(Details {
                    take: wanted.take.clone(),
                    scene: wanted.scene.clone(),
                }),
                because: None,
                created_at: now,
                expires_at: wanted.expires_at,
            };
            batch.reserved.push(new.clone());
            match self.write(&batch).await {
                Ok(()) => return Ok((new, true)),
                Err(error) if is_too_late(&error) => {}
                Err(error) => return Err(in_full(error)),
            }
        }
        Err("somebody else is taking for the same flow".to_owned())
    }

    /// Writes down what the check makes of the answer. `false` if a yes could not be kept.
    pub(super) async fn keep(
        &self,
        check: &Check,
        mut reservation: Reservation,
        answer: Option<&Value>,
        judged: Judged,
        until: Timestamp,
    ) -> bool {
        // What was said instead of a yes tells nothing of what is held.
        if let Some(details) = &mut reservation.details
            && judged == Judged::Yes
        {
            details.scene.taken = answer.map(|answer| reserve::taken(reservation.id, Some(answer)));
        }
        let kept = async {
            match (judged, &reservation.details, &check.reserve) {
                (Judged::Yes, Some(details), _) => {
                    self.book.store.taken(reservation.id, details).await
                }
                (Judged::No, ..) => self
                    .book
                    .store
                    .not_taken(reservation.id)
                    .await
                    .map(|()| true),
                (Judged::Unclear, _, Some(plans)) => {
                    let mut batch = Batch::default();
                    self.give_back(&mut batch, plans, &reservation, Because::Unclear);
                    self.write(&batch).await.map(|()| true)
                }
                _ => Ok(false),
            }
        };
        let kept = match judged {
            Judged::Yes => self.clock.before(until, kept).await,
            // Nobody waits for it; and whatever is not written down is released when the flow has expired.
            Judged::No | Judged::Unclear => Some(kept.await),
        };
        match kept {
            Some(Ok(kept)) => kept,
            Some(Err(error)) => {
                let error = error.in_full();
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

    async fn write(&self, batch: &Batch) -> Result<(), store::Error> {
        self.book.store.write(batch).await?;
        if !batch.deliveries.is_empty() {
            self.book.stored.notify_one();
        }
        Ok(())
    }

    fn give_back(
        &self,
        batch: &mut Batch,
        plans: &Reserve,
        reservation: &Reservation,
        because: Because,
    ) {
        let now = self.clock.now();
        batch.released.push((reservation.id, because));
        batch
            .deliveries
            .push(reserve::release(plans, reservation, &self.lists, now));
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn in_full(error: store::Error) -> String {
    error.in_full()
}

/// Whether another call for the same flow was faster.
fn is_too_late(error: &store::Error) -> bool {
    match error {
        store::Error::Changed => true,
        store::Error::Database(error) => error
            .as_database_error()
            .is_some_and(sqlx::error::DatabaseError::is_unique_violation),
        _ => false,
    }
}
