//! Sends deliveries over HTTP, with the address and credentials of the current settings.

mod compensate;
mod deferred_check;
mod error_excerpt;
mod reserve_again;
mod slow_receivers;
mod write_back;
mod write_identity;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp};
use crate::base::telemetry::{Metrics, Trace};
use crate::checks::{Check, Rules};
use crate::jobs::dispatcher::{AttemptResult, Target, Transport};
use crate::jobs::identity_writer::IdentityWriter;
use crate::model::delivery::backoff::Schedule;
use crate::model::delivery::subscription::{Built, build_again};
use crate::model::delivery::{
    Action, Attempt, Claimed, NoResponse, Queue, ResponseVerdict, Subscription, Unbuilt,
};
use crate::model::request::{Request, RequestTemplate};
use crate::outbound::kratos_admin::{self, KratosAdmin};
use crate::outbound::services::IDEMPOTENCY_KEY;
use crate::outbound::services::client::{Answer, CallError, DELIVERY_TIMEOUT, Services, TimeLimit};
use crate::store::Store;
use slow_receivers::SlowReceivers;

/// The maximum duration of a request, even if the service's timeout is longer.
const MAX_DURATION: Duration = Duration::from_mins(1);

/// The dependencies of the transport.
pub struct TransportDeps {
    /// The rules.
    pub rules: Arc<Rules>,
    /// The services of the settings.
    pub services: Arc<Services>,
    /// The writer for identities, if the settings have `kratos.admin_url`.
    pub writer: Option<Arc<IdentityWriter>>,
    /// Stores deliveries and refusals.
    pub store: Arc<dyn Store>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Clock,
}

/// Sends deliveries over HTTP.
pub struct HttpTransport {
    deps: TransportDeps,
    /// The deferred checks whose half time has been reported.
    half_time: Mutex<HashSet<Uuid>>,
    slow_receivers: SlowReceivers,
}

impl HttpTransport {
    /// Returns a transport for the deliveries of these settings.
    #[must_use]
    pub fn new(deps: TransportDeps) -> Self {
        Self {
            half_time: Mutex::default(),
            slow_receivers: SlowReceivers::default(),
            deps,
        }
    }

    fn identities(&self) -> Option<&KratosAdmin> {
        self.deps.writer.as_deref().map(IdentityWriter::identities)
    }

    fn subscription(&self, name: &str) -> Option<&Subscription> {
        self.deps.rules.subscription(name)
    }

    fn check(&self, name: &str) -> Option<&Check> {
        self.deps.rules.check(name)
    }

    /// Returns the service that a queue's deliveries go to.
    fn service(&self, queue: &Queue<'_>) -> Option<&str> {
        let reserve = |name: &str| self.deps.rules.reserve(name);
        Some(match queue {
            Queue::Subscription(name) => &self.subscription(name)?.send.service,
            Queue::WriteBack(_) | Queue::LateRefusal(_) => kratos_admin::SERVICE,
            Queue::DeferredCheck(name) => &self.check(name)?.ask.as_ref()?.service,
            Queue::Take(name) => &reserve(name)?.take.service,
            Queue::Confirm(name) => &reserve(name)?.confirm.as_ref()?.service,
            Queue::Release(name) => &reserve(name)?.release.service,
        })
    }

    /// Sends one request with the headers of every delivery.
    async fn send(&self, service: &str, request: &Request, id: &str) -> Result<Answer, CallError> {
        self.send_within(service, request, id, None).await
    }

    /// Sends one request. `timeout` replaces the time limit of the service.
    async fn send_within(
        &self,
        service: &str,
        request: &Request,
        id: &str,
        timeout: Option<Duration>,
    ) -> Result<Answer, CallError> {
        let now = self.deps.clock.now();
        let services = &self.deps.services;
        let signature = services.signature(service, id, now, request);
        let mut extra = vec![
            (IDEMPOTENCY_KEY, id.to_owned()),
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", now.timestamp().to_string()),
            ("traceparent", Trace::begin().child()),
        ];
        extra.extend(signature.map(|signature| ("webhook-signature", signature)));
        let limit = TimeLimit {
            of_request: timeout,
            otherwise: DELIVERY_TIMEOUT,
            until: self.deps.clock.deadline(MAX_DURATION),
        };
        services.call(service, request, &extra, limit).await
    }

    fn answered(&self, answer: &Answer, verdict: ResponseVerdict) -> Attempt {
        let now = self.deps.clock.now();
        Attempt::Response {
            status: answer.status,
            retry_after: answer
                .retry_after
                .as_deref()
                .and_then(|header| pause(header, now)),
            verdict,
        }
    }

    /// Sends a delivery of a subscription, a confirmation or a release.
    async fn send_request(&self, delivery: &Claimed, request: &Request) -> AttemptResult {
        let queue = Queue::named(&delivery.subscription);
        let Some(service) = self.service(&queue) else {
            return Attempt::NoResponse(NoResponse::NotSent).into();
        };
        let id = delivery.id.to_string();
        let timeout = match &queue {
            Queue::Subscription(name) => self.subscription(name).and_then(|one| one.timeout),
            _ => None,
        };
        let answer = self.send_within(service, request, &id, timeout).await;
        self.note_time_out(delivery, service, answer.as_ref().err());
        let answer = match answer {
            Ok(answer) => answer,
            Err(none) => return without_answer(none).into(),
        };
        let (verdict, reason) = match (&queue, answer.status) {
            (Queue::Subscription(name), _) => self.verdict(name, delivery, &answer.response),
            // 404 and 410 mean that the service holds nothing to release.
            (Queue::Release(_), 404 | 410) => (ResponseVerdict::Delivered, None),
            // 404 means that the service holds nothing to confirm any more.
            (Queue::Confirm(_), 404) => (ResponseVerdict::Abandon, None),
            _ => (ResponseVerdict::ByStatus, None),
        };
        let attempt = self.answered(&answer, verdict);
        let follow_up_deliveries = match (attempt.arrived(), &queue) {
            (true, Queue::Subscription(name)) => self.write_back(name, delivery, &answer.response),
            _ => Vec::new(),
        };
        let error_excerpt = reason.or_else(|| {
            (!attempt.arrived())
                .then(|| error_excerpt::of(&answer.response["body"], request))
                .flatten()
        });
        AttemptResult {
            attempt,
            error_excerpt,
            follow_up_deliveries,
            ..attempt.into()
        }
    }

    /// Evaluates the subscription's expressions on a response.
    fn verdict(
        &self,
        subscription: &str,
        delivery: &Claimed,
        response: &Value,
    ) -> (ResponseVerdict, Option<String>) {
        let (Some(subscription), Some(context)) =
            (self.subscription(subscription), &delivery.context)
        else {
            return (ResponseVerdict::ByStatus, None);
        };
        let variables = context.variables(self.deps.rules.lists(), Some(response));
        match subscription
            .success_when
            .as_ref()
            .map(|when| when.holds(&variables))
        {
            Some(Ok(true)) => return (ResponseVerdict::Delivered, None),
            Some(Err(error)) => {
                return (
                    ResponseVerdict::Failed,
                    Some(format!("`success_when` failed: {error}")),
                );
            }
            Some(Ok(false)) | None => {}
        }
        match subscription
            .abandon_when
            .as_ref()
            .map(|when| when.holds(&variables))
        {
            Some(Ok(true)) => return (ResponseVerdict::Abandon, None),
            Some(Err(error)) => {
                return (
                    ResponseVerdict::Failed,
                    Some(format!("`abandon_when` failed: {error}")),
                );
            }
            Some(Ok(false)) | None => {}
        }
        if subscription.success_when.is_some() {
            (ResponseVerdict::Failed, None)
        } else {
            (ResponseVerdict::ByStatus, None)
        }
    }

    /// Warns once in a while about a receiver that keeps timing out.
    fn note_time_out(&self, delivery: &Claimed, service: &str, error: Option<&CallError>) {
        let subscription = &delivery.subscription;
        let has_timed_out = error == Some(&CallError::Timeout);
        let now = self.deps.clock.monotonic();
        if let Some(in_a_row) = self.slow_receivers.note(subscription, has_timed_out, now) {
            tracing::warn!(
                subscription,
                service.name = service,
                in_a_row,
                "The last {in_a_row} attempts of `{subscription}` timed out; each is repeated, and a receiver that is only slow gets \
                 every repetition: raise the `timeout` of the subscription's `send`, or let the receiver answer before it does the work"
            );
        }
    }

    /// Returns the template of this queue's requests.
    fn template(&self, queue: &Queue<'_>) -> Option<&RequestTemplate> {
        match queue {
            Queue::Confirm(name) => self.deps.rules.reserve(name)?.confirm.as_ref(),
            Queue::Release(name) => Some(&self.deps.rules.reserve(name)?.release),
            _ => None,
        }
    }
}

#[async_trait]
impl Transport for HttpTransport {
    fn target(&self, subscription: &str) -> Option<Target> {
        let service = self.service(&Queue::named(subscription))?;
        let limit = self.deps.services.named(service).map(|one| one.limit);
        Some(Target {
            name: service.to_owned(),
            max_concurrent: limit.and_then(|limit| limit.concurrent),
            per_second: limit.and_then(|limit| limit.per_second),
        })
    }

    fn schedule(&self, subscription: &str) -> Option<Schedule> {
        match Queue::named(subscription) {
            Queue::Subscription(name) => self
                .subscription(name)
                .map(|subscription| subscription.schedule),
            _ => None,
        }
    }

    fn build(&self, delivery: &Claimed, unbuilt: &Unbuilt) -> Option<Result<Built, String>> {
        let queue = Queue::named(&delivery.subscription);
        let lists = self.deps.rules.lists();
        if let Queue::Subscription(name) = &queue {
            let subscription = self.subscription(name)?;
            return Some(build_again(subscription, delivery.event, unbuilt, lists));
        }
        let template = self.template(&queue)?;
        let request = template.build(&unbuilt.context.variables(lists, None));
        Some(match request {
            Ok(request) => Ok(Built {
                request,
                context: None,
            }),
            Err(error) => Err(format!("the request could not be built: {error}")),
        })
    }

    async fn attempt(&self, delivery: &Claimed) -> AttemptResult {
        match &delivery.action {
            Action::Send(request) => self.send_request(delivery, request).await,
            Action::Recheck(request) => self.recheck(delivery, request).await,
            Action::PatchIdentity(fields) => self.write(delivery, fields, &[]).await,
            Action::PatchEntries { fields, entries } => self.write(delivery, fields, entries).await,
            // The settings have no template for the request any more.
            Action::Build(_) => Attempt::NoResponse(NoResponse::NotSent).into(),
            Action::EndAfterAcceptance => self.end_after_acceptance(delivery).await,
            Action::Enforce(fields) => self.enforce(delivery, fields).await,
            Action::Take { take, released } => self.take_again(delivery, take, *released).await,
            Action::Compensate { take, key } => self.compensate(delivery, take, key).await,
        }
    }
}

fn without_answer(none: CallError) -> Attempt {
    Attempt::NoResponse(match none {
        CallError::Timeout => NoResponse::Timeout,
        CallError::UnknownService | CallError::ForbiddenAddress => NoResponse::NotSent,
        CallError::Connection | CallError::TooLarge => NoResponse::Connection,
    })
}

/// Parses `Retry-After`: seconds, or a date.
fn pause(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        Some(Duration::from_secs(seconds))
    } else {
        let date = chrono::DateTime::parse_from_rfc2822(header).ok()?;
        (date.to_utc() - now).to_std().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "2026-11-23T12:00:00Z".parse().unwrap();
        for (header, expected) in [
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("Mon, 23 Nov 2026 12:01:00 GMT", Some(60)),
            ("Mon, 23 Nov 2026 11:00:00 GMT", None),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(
                pause(header, now),
                expected.map(Duration::from_secs),
                "{header}"
            );
        }
    }
}
