//! Giving back what may have been taken: its answer never came.

use super::{Porter, without_answer};
use crate::checks::reserve;
use crate::jobs::dispatcher::Carried;
use crate::model::delivery::{Attempt, Claimed, Judged, Queue, Unanswered};
use crate::model::request::Request;

impl Porter {
    /// Asks once more to take it, with the key of the first time, so that it is the same; what the answer names is
    /// released.
    pub(super) async fn undo(&self, delivery: &Claimed, take: &Request, key: &str) -> Carried {
        let queue = Queue::named(&delivery.plan);
        let (Queue::Release(name), Some(scene)) = (&queue, &delivery.scene) else {
            return Attempt::Unanswered(Unanswered::NotSent).into();
        };
        let Some(plans) = self.check(name).and_then(|check| check.reserve.as_ref()) else {
            return Attempt::Unanswered(Unanswered::NotSent).into();
        };
        let answer = match self.send(&plans.take.service, take, key).await {
            Ok(answer) => answer,
            Err(none) => return without_answer(none).into(),
        };
        match answer.status {
            200..=299 => {}
            // It says no, so there is nothing to give back.
            400 | 403 | 404 | 405 | 409 | 410 | 422 => {
                return self.answered(&answer, Judged::Delivered).into();
            }
            _ => return self.answered(&answer, Judged::NotDelivered).into(),
        }
        let mut scene = scene.clone();
        let id = uuid::Uuid::parse_str(key).unwrap_or_default();
        scene.taken = Some(reserve::taken(id, Some(&answer.response)));
        let release = match plans.release.build(&scene.names(&self.knows.lists, None)) {
            Ok(release) => release,
            Err(error) => {
                return Carried {
                    words: Some(format!("`release` could not be built: {error}")),
                    ..self.answered(&answer, Judged::GiveUp).into()
                };
            }
        };
        self.send_off(delivery, &release).await
    }
}
