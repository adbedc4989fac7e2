//! Compensates a `take` whose answer was lost.

use super::{HttpTransport, without_answer};
use crate::checks::reserve;
use crate::jobs::dispatcher::AttemptResult;
use crate::model::delivery::{Attempt, Claimed, NoResponse, Queue, ResponseVerdict};
use crate::model::request::Request;

impl HttpTransport {
    /// Repeats `take` with the idempotency key of the first request, so that the service treats both as one. Then
    /// releases what the answer names.
    pub(super) async fn compensate(
        &self,
        delivery: &Claimed,
        take: &Request,
        key: &str,
    ) -> AttemptResult {
        let queue = Queue::named(&delivery.subscription);
        let (Queue::Release(name), Some(context)) = (&queue, &delivery.context) else {
            return Attempt::NoResponse(NoResponse::NotSent).into();
        };
        let Some(reserve) = self.check(name).and_then(|check| check.reserve.as_ref()) else {
            return Attempt::NoResponse(NoResponse::NotSent).into();
        };
        let answer = match self.send(&reserve.take.service, take, key).await {
            Ok(answer) => answer,
            Err(none) => return without_answer(none).into(),
        };
        match answer.status {
            200..=299 => {}
            // The service refuses, so there is nothing to release.
            400 | 403 | 404 | 405 | 409 | 410 | 422 => {
                return self.answered(&answer, ResponseVerdict::Delivered).into();
            }
            _ => return self.answered(&answer, ResponseVerdict::Failed).into(),
        }
        let mut context = context.clone();
        let id = uuid::Uuid::parse_str(key).unwrap_or_default();
        context.taken = Some(reserve::taken(id, Some(&answer.response)));
        let release = match reserve
            .release
            .build(&context.variables(self.deps.rules.lists(), None))
        {
            Ok(release) => release,
            Err(error) => {
                return AttemptResult {
                    error_excerpt: Some(format!("`release` could not be built: {error}")),
                    ..self.answered(&answer, ResponseVerdict::Abandon).into()
                };
            }
        };
        self.send_request(delivery, &release).await
    }
}
