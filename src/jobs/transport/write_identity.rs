//! Writing into an identity.

use uuid::Uuid;

use super::{HttpTransport, without_answer};
use crate::checks::deferred;
use crate::jobs::dispatcher::AttemptResult;
use crate::jobs::identity_writer::WriteError;
use crate::model::delivery::{
    Attempt, Claimed, FieldWrite, NoResponse, Queue, ResponseVerdict, State,
};
use crate::model::late_refusal::LateRefusal;
use crate::outbound::kratos_admin;
use crate::store::{self, Filter};

impl HttpTransport {
    pub(super) async fn write(&self, delivery: &Claimed, puts: &[FieldWrite]) -> AttemptResult {
        let Some(writer) = &self.knows.writer else {
            return Attempt::NoResponse(NoResponse::NotSent).into();
        };
        if self.is_outdated(delivery, puts).await {
            return Attempt::answered(200).into();
        }
        let written = match self.current(delivery.identity_id, puts).await {
            Ok(puts) => writer.write(delivery.identity_id, &puts).await,
            Err(error) => Err(error.into()),
        };
        attempt(&written).into()
    }

    /// The values without those that a later refusal, or the lift of one, has replaced: deliveries of one identity may be
    /// written in another order than they were stored.
    async fn current(
        &self,
        id: Uuid,
        puts: &[FieldWrite],
    ) -> Result<Vec<FieldWrite>, store::Error> {
        let is_about_refusals = |put: &FieldWrite| {
            deferred::check_of_mark(&put.path).is_some() || put.path == ["state"]
        };
        if !puts.iter().any(is_about_refusals) {
            return Ok(puts.to_vec());
        }
        let in_force = self.knows.store.late_refusals_of(id).await?;
        let mut current = Vec::with_capacity(puts.len());
        for put in puts {
            let is_replaced = match (deferred::check_of_mark(&put.path), &put.value) {
                (Some(check), value) => {
                    let is_in_force = in_force.iter().any(|one| one.check == check);
                    match value {
                        None => is_in_force,
                        Some(_) => {
                            !is_in_force
                                && self.knows.store.late_refusal_was_lifted(id, check).await?
                        }
                    }
                }
                (None, Some(value)) if put.path == ["state"] && value == "active" => {
                    in_force.iter().any(LateRefusal::keeps_out)
                }
                (None, _) => false,
            };
            if !is_replaced {
                current.push(put.clone());
            }
        }
        Ok(current)
    }

    /// Keeps a person out whom a check refused late.
    pub(super) async fn enforce(&self, delivery: &Claimed, puts: &[FieldWrite]) -> AttemptResult {
        let (Some(writer), Queue::LateRefusal(check)) =
            (&self.knows.writer, Queue::named(&delivery.plan))
        else {
            return Attempt::NoResponse(NoResponse::NotSent).into();
        };
        attempt(&writer.enforce(delivery.identity_id, check, puts).await).into()
    }

    /// Whether it notes that a check is deferred, and that has been settled meanwhile. Its end may have been written first.
    async fn is_outdated(&self, delivery: &Claimed, puts: &[FieldWrite]) -> bool {
        let Queue::WriteBack(name) = Queue::named(&delivery.plan) else {
            return false;
        };
        let notes = puts
            .iter()
            .any(|put| put.value.is_some() && put.path == deferred::deferred_marker(name));
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
        Err(WriteError::Gone) => Attempt::Response {
            status: 404,
            retry_after: None,
            judged: ResponseVerdict::GiveUp,
        },
        // It is not known whether another write is under way.
        Err(WriteError::Busy | WriteError::Store(_)) => {
            Attempt::NoResponse(NoResponse::IdentityLocked)
        }
        Err(WriteError::Undone) => Attempt::Response {
            status: 200,
            retry_after: None,
            judged: ResponseVerdict::NotDelivered,
        },
        Err(WriteError::Kratos(error)) => match error {
            kratos_admin::Error::CallError(none) => without_answer(*none),
            kratos_admin::Error::Status(status) => Attempt::Response {
                status: *status,
                retry_after: None,
                judged: ResponseVerdict::NotDelivered,
            },
            kratos_admin::Error::Concurrent => Attempt::NoResponse(NoResponse::IdentityLocked),
            kratos_admin::Error::NotUnderstood => Attempt::NoResponse(NoResponse::Connection),
        },
    }
}
