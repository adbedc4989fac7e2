//! Runs deliveries that write into an identity.

use uuid::Uuid;

use super::{HttpTransport, without_answer};
use crate::checks::deferred;
use crate::jobs::dispatcher::AttemptResult;
use crate::jobs::identity_writer::WriteError;
use crate::model::delivery::{
    Attempt, Claimed, EntryWrite, FieldWrite, NoResponse, Queue, ResponseVerdict, State,
};
use crate::model::late_refusal::LateRefusal;
use crate::outbound::kratos_admin;
use crate::store::{self, Filter};

impl HttpTransport {
    pub(super) async fn write(
        &self,
        delivery: &Claimed,
        fields: &[FieldWrite],
        entries: &[EntryWrite],
    ) -> AttemptResult {
        let Some(writer) = &self.deps.writer else {
            return Attempt::NoResponse(NoResponse::NotSent).into();
        };
        if self.is_outdated(delivery, fields).await {
            return Attempt::answered(200).into();
        }
        let written = match self.current(delivery.identity_id, fields).await {
            Ok(fields) => writer.write(delivery.identity_id, &fields, entries).await,
            Err(error) => Err(error.into()),
        };
        let error_excerpt = match &written {
            Err(error @ WriteError::OtherEntry(_)) => Some(error.to_string()),
            _ => None,
        };
        AttemptResult {
            error_excerpt,
            ..attempt(&written).into()
        }
    }

    /// Returns the values without those that a later refusal, or its lift, has replaced. Deliveries of one identity
    /// can be attempted in another order than they were stored.
    async fn current(
        &self,
        id: Uuid,
        fields: &[FieldWrite],
    ) -> Result<Vec<FieldWrite>, store::Error> {
        let is_about_refusals = |field: &FieldWrite| {
            deferred::check_of_mark(&field.path).is_some() || field.path == ["state"]
        };
        if !fields.iter().any(is_about_refusals) {
            return Ok(fields.to_vec());
        }
        let in_force = self.deps.store.late_refusals_of(id).await?;
        let mut current = Vec::with_capacity(fields.len());
        for field in fields {
            let is_replaced = match (deferred::check_of_mark(&field.path), &field.value) {
                (Some(check), value) => {
                    let is_in_force = in_force.iter().any(|one| one.check == check);
                    match value {
                        None => is_in_force,
                        Some(_) => {
                            !is_in_force
                                && self.deps.store.late_refusal_was_lifted(id, check).await?
                        }
                    }
                }
                (None, Some(value)) if field.path == ["state"] && value == "active" => {
                    in_force.iter().any(LateRefusal::keeps_out)
                        || !self.was_active_before(id, fields).await?
                }
                (None, _) => false,
            };
            if !is_replaced {
                current.push(field.clone());
            }
        }
        Ok(current)
    }

    /// Returns whether the account was active before Vestibule enforced the refusals whose marks this write removes.
    async fn was_active_before(
        &self,
        id: Uuid,
        fields: &[FieldWrite],
    ) -> Result<bool, store::Error> {
        let checks = fields
            .iter()
            .filter_map(|field| deferred::check_of_mark(&field.path));
        for check in checks {
            if self.deps.store.state_before_refusal(id, check).await? == Some(true) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Enforces a late refusal: deletes the sessions and deactivates the account.
    pub(super) async fn enforce(&self, delivery: &Claimed, fields: &[FieldWrite]) -> AttemptResult {
        let (Some(writer), Queue::LateRefusal(check)) =
            (&self.deps.writer, Queue::named(&delivery.subscription))
        else {
            return Attempt::NoResponse(NoResponse::NotSent).into();
        };
        attempt(&writer.enforce(delivery.identity_id, check, fields).await).into()
    }

    /// Returns whether the write sets the mark of a deferred check that has been decided meanwhile. The write that
    /// clears the mark may have come first.
    async fn is_outdated(&self, delivery: &Claimed, fields: &[FieldWrite]) -> bool {
        let Queue::WriteBack(name) = Queue::named(&delivery.subscription) else {
            return false;
        };
        let sets_marker = fields
            .iter()
            .any(|field| field.value.is_some() && field.path == deferred::deferred_marker(name));
        let open = Filter {
            subscription: Some(Queue::DeferredCheck(name).to_string()),
            state: Some(State::Pending),
            identity: Some(delivery.identity_id),
            ..Filter::default()
        };
        sets_marker && matches!(self.deps.store.list(&open, 1).await, Ok(open) if open.is_empty())
    }
}

fn attempt(written: &Result<(), WriteError>) -> Attempt {
    match written {
        Ok(()) => Attempt::answered(200),
        // The identity was deleted, so nothing is left to write.
        Err(WriteError::NotFound) => Attempt::Response {
            status: 404,
            retry_after: None,
            verdict: ResponseVerdict::Delivered,
        },
        // What the event brought is not true of the entry that is there now.
        Err(WriteError::OtherEntry(_)) => Attempt::Response {
            status: 200,
            retry_after: None,
            verdict: ResponseVerdict::Abandon,
        },
        // Whether another write is in progress is unknown.
        Err(WriteError::Busy | WriteError::Store(_)) => {
            Attempt::NoResponse(NoResponse::IdentityLocked)
        }
        Err(WriteError::Overwritten) => Attempt::Response {
            status: 200,
            retry_after: None,
            verdict: ResponseVerdict::Failed,
        },
        Err(WriteError::Kratos(error)) => match error {
            kratos_admin::Error::CallError(none) => without_answer(*none),
            kratos_admin::Error::Status(status) => Attempt::Response {
                status: *status,
                retry_after: None,
                verdict: ResponseVerdict::Failed,
            },
            kratos_admin::Error::Concurrent => Attempt::NoResponse(NoResponse::IdentityLocked),
            kratos_admin::Error::NotUnderstood => Attempt::NoResponse(NoResponse::Connection),
        },
    }
}
