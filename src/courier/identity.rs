//! Writing into an identity. Kratos reads it, changes it and writes it without a lock, so only one of us does at a time.

use std::time::Duration;

use uuid::Uuid;

use super::{Porter, without_answer};
use crate::check::late;
use crate::clock::later;
use crate::delivery::{Attempt, Claimed, Judged, Put, Queue, State, Unanswered};
use crate::identities::{self, Identities, patch};
use crate::store::Filter;
use crate::worker::Carried;

/// For how long it is somebody's turn: longer than two calls to the admin API.
const TURN: Duration = Duration::from_mins(1);

impl Porter {
    pub(super) async fn write(&self, delivery: &Claimed, puts: &[Put]) -> Carried {
        let Some(identities) = &self.knows.identities else {
            return Attempt::Unanswered(Unanswered::NotSent).into();
        };
        if self.is_outdated(delivery, puts).await {
            return Attempt::answered(200).into();
        }
        let (turn, holder) = (format!("identity:{}", delivery.identity_id), Uuid::new_v4());
        let now = self.knows.clock.now();
        let ours = self
            .knows
            .store
            .take_turn(&turn, holder, now, later(now, TURN))
            .await;
        if !matches!(ours, Ok(true)) {
            return Attempt::Unanswered(Unanswered::Busy).into();
        }
        let attempt = put(identities, delivery.identity_id, puts).await;
        if let Err(error) = self.knows.store.end_turn(&turn, holder).await {
            tracing::warn!(error = %error.in_full(), "A turn could not be ended; it ends by itself within a minute");
        }
        attempt.into()
    }
}

impl Porter {
    /// Whether it notes that a check is deferred, and that has been settled meanwhile. Its end may have been written first.
    async fn is_outdated(&self, delivery: &Claimed, puts: &[Put]) -> bool {
        let Queue::Save(name) = Queue::named(&delivery.plan) else {
            return false;
        };
        let notes = puts
            .iter()
            .any(|put| put.value.is_some() && put.path == late::note(name));
        let open = Filter {
            plan: Some(Queue::Check(name).to_string()),
            state: Some(State::Pending),
            identity: Some(delivery.identity_id),
            ..Filter::default()
        };
        notes && matches!(self.knows.store.list(&open, 1).await, Ok(open) if open.is_empty())
    }
}

async fn put(identities: &Identities, id: Uuid, puts: &[Put]) -> Attempt {
    let gone = Attempt::Answered {
        status: 404,
        retry_after: None,
        judged: Judged::GiveUp,
    };
    let identity = match identities.get(id).await {
        Ok(Some(identity)) => identity,
        Ok(None) => return gone,
        Err(error) => return failed(error),
    };
    let operations = patch::all(
        &identity,
        puts.iter().map(|put| {
            (
                put.path.iter().map(String::as_str).collect(),
                put.value.as_ref(),
            )
        }),
    );
    if operations.is_empty() {
        return Attempt::answered(200);
    }
    match identities.patch(id, &operations).await {
        Ok(true) => Attempt::answered(200),
        Ok(false) => gone,
        Err(error) => failed(error),
    }
}

fn failed(error: identities::Error) -> Attempt {
    match error {
        identities::Error::NoAnswer(none) => without_answer(none),
        identities::Error::Status(status) => Attempt::Answered {
            status,
            retry_after: None,
            judged: Judged::NotDelivered,
        },
        identities::Error::NotUnderstood => Attempt::Unanswered(Unanswered::Connection),
    }
}
