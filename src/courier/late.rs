//! The question of a deferred check, put again.

use super::{Porter, without_answer};
use crate::check::ask::{Conclusion, conclude};
use crate::check::{Check, late};
use crate::delivery::plan::{Occasion, deliveries_for};
use crate::delivery::{Attempt, Claimed, Event, Judged, New, Scene, Unanswered};
use crate::request::Request;
use crate::service::client::Answer;
use crate::worker::Carried;

impl Porter {
    pub(super) async fn ask(&self, delivery: &Claimed, request: &Request) -> Carried {
        let queue = crate::delivery::Queue::named(&delivery.plan);
        let (crate::delivery::Queue::Check(name), Some(scene)) = (&queue, &delivery.scene) else {
            return Attempt::Unanswered(Unanswered::NotSent).into();
        };
        let (Some(check), Some(service)) = (self.check(name), self.service(&queue)) else {
            return Attempt::Unanswered(Unanswered::NotSent).into();
        };
        let answer = match self.send(service, request, &delivery.id.to_string()).await {
            Ok(answer) => answer,
            Err(none) => return without_answer(none).into(),
        };
        let still = match self.is_still_so(check, scene, delivery).await {
            Ok(still) => still,
            Err(unanswered) => return Attempt::Unanswered(unanswered).into(),
        };
        let names = scene.names(&self.knows.lists, Some(&answer.response));
        let (judged, words, followers) = match conclude(check, answer.status, &names) {
            Conclusion::Accepted | Conclusion::Refused(_) if !still => {
                tracing::info!(check = check.name, identity.id = %delivery.identity_id, "The value that a deferred check was about is not there any more");
                let puts = vec![late::note_goes(check)];
                (
                    Judged::Delivered,
                    None,
                    vec![self.written(check, delivery, puts)],
                )
            }
            Conclusion::Accepted => {
                tracing::info!(check = check.name, identity.id = %delivery.identity_id, "The deferred check has accepted");
                let puts = late::accepted(check, scene, &answer.response, &self.knows.lists);
                (
                    Judged::Delivered,
                    None,
                    vec![self.written(check, delivery, puts)],
                )
            }
            Conclusion::Refused(refusal) => {
                tracing::warn!(check = check.name, identity.id = %delivery.identity_id, late_refusal = ?check.late_refusal, "The deferred check has refused");
                let followers = self.refused(check, refusal, delivery, scene, &answer);
                (Judged::Delivered, None, followers)
            }
            Conclusion::Unavailable(_, because) => {
                (Judged::NotDelivered, Some(because), Vec::new())
            }
        };
        Carried {
            attempt: self.answered(&answer, judged),
            words,
            followers,
        }
    }

    /// Whether the account still has the value that the question is about: it may have been changed since, and then another
    /// check has looked at it.
    async fn is_still_so(
        &self,
        check: &Check,
        scene: &Scene,
        delivery: &Claimed,
    ) -> Result<bool, Unanswered> {
        let (Some(field), Some(identities)) = (&check.field, &self.knows.identities) else {
            return Ok(true);
        };
        match identities.get(delivery.identity_id).await {
            Ok(Some(identity)) => Ok(field.value_in(&identity) == scene.value.as_ref()),
            // Nobody is there to be refused any more.
            Ok(None) => Ok(false),
            Err(_) => Err(Unanswered::Connection),
        }
    }

    fn written(&self, check: &Check, delivery: &Claimed, puts: Vec<crate::delivery::Put>) -> New {
        late::write(
            &check.name,
            delivery.identity_id,
            delivery.event,
            delivery.id.to_string(),
            puts,
            self.knows.clock.now(),
        )
    }

    fn refused(
        &self,
        check: &Check,
        refusal: usize,
        delivery: &Claimed,
        scene: &Scene,
        answer: &Answer,
    ) -> Vec<New> {
        let now = self.knows.clock.now();
        let mut followers = vec![self.written(check, delivery, late::refused(check, refusal, now))];
        let occasion = Occasion {
            event: Event::CheckRefused,
            identity_id: delivery.identity_id,
            trigger_id: &delivery.id.to_string(),
            check: Some(&check.name),
        };
        let names = crate::expression::Names {
            now,
            ..scene.names(&self.knows.lists, Some(&answer.response))
        };
        followers.extend(deliveries_for(&self.knows.plans, &occasion, &names));
        followers
    }
}
