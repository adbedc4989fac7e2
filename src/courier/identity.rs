//! Writing into an identity.

use super::{Porter, without_answer};
use crate::check::late;
use crate::delivery::{Attempt, Claimed, Judged, Put, Queue, State, Unanswered};
use crate::identities;
use crate::identities::writer::WriteError;
use crate::store::Filter;
use crate::worker::Carried;

impl Porter {
    pub(super) async fn write(&self, delivery: &Claimed, puts: &[Put]) -> Carried {
        let Some(writer) = &self.knows.writer else {
            return Attempt::Unanswered(Unanswered::NotSent).into();
        };
        if self.is_outdated(delivery, puts).await {
            return Attempt::answered(200).into();
        }
        attempt(&writer.write(delivery.identity_id, puts).await).into()
    }

    /// Keeps a person out whom a check refused late.
    pub(super) async fn enforce(&self, delivery: &Claimed, puts: &[Put]) -> Carried {
        let (Some(writer), Queue::LateRefusal(check)) =
            (&self.knows.writer, Queue::named(&delivery.plan))
        else {
            return Attempt::Unanswered(Unanswered::NotSent).into();
        };
        attempt(&writer.enforce(delivery.identity_id, check, puts).await).into()
    }

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

fn attempt(written: &Result<(), WriteError>) -> Attempt {
    match written {
        Ok(()) => Attempt::answered(200),
        Err(WriteError::Gone) => Attempt::Answered {
            status: 404,
            retry_after: None,
            judged: Judged::GiveUp,
        },
        // It is not known whether another write is under way.
        Err(WriteError::Busy | WriteError::Store(_)) => Attempt::Unanswered(Unanswered::Busy),
        Err(WriteError::Undone) => Attempt::Answered {
            status: 200,
            retry_after: None,
            judged: Judged::NotDelivered,
        },
        Err(WriteError::Kratos(error)) => match error {
            identities::Error::NoAnswer(none) => without_answer(*none),
            identities::Error::Status(status) => Attempt::Answered {
                status: *status,
                retry_after: None,
                judged: Judged::NotDelivered,
            },
            identities::Error::Concurrent => Attempt::Unanswered(Unanswered::Busy),
            identities::Error::NotUnderstood => Attempt::Unanswered(Unanswered::Connection),
        },
    }
}
