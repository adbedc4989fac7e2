//! Services that answer from the test file, and reservations without a database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use indexmap::IndexMap;
use serde_json::{Value, json};
use uuid::Uuid;

use super::file::{CannedAnswer, ConnectionFault};
use super::reservation::taking;
use crate::base::clock::{Clock, Deadline};
use crate::checks::reserver::{ReserveOutcome, ReserveRequest, ReserveResult, TakeReservation};
use crate::checks::{AskService, Check};
use crate::config::parse_duration;
use crate::model::request::{Method, Request};
use crate::model::reservation::Reservation;
use crate::outbound::services::client::{Answer, CallError, QUESTION_TIMEOUT};

/// A request that a check made.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) service: String,
    pub(super) request: Request,
}

/// The services of one case.
pub(super) struct CannedServices {
    pub(super) answers: IndexMap<String, Vec<CannedAnswer>>,
    pub(super) not_asked: Vec<String>,
    /// The time limits of services that have one.
    pub(super) timeouts: BTreeMap<String, Duration>,
    pub(super) clock: Clock,
    pub(super) asked: Mutex<Vec<Asked>>,
    /// The answers that were given: the service, and the position in its list.
    pub(super) used: Mutex<BTreeSet<(String, usize)>>,
    pub(super) problems: Mutex<Vec<String>>,
}

impl CannedAnswer {
    /// Returns the method and the path, if exactly one is given.
    pub(super) fn target(&self) -> Option<(Method, &str)> {
        let given = [
            (Method::Get, &self.get),
            (Method::Post, &self.post),
            (Method::Put, &self.put),
            (Method::Patch, &self.patch),
            (Method::Delete, &self.delete),
        ];
        let mut given = given
            .into_iter()
            .filter_map(|(method, path)| Some((method, path.as_deref()?)));
        given.next().filter(|_| given.next().is_none())
    }

    fn delay(&self) -> Duration {
        let delay = self.delay.as_deref().map(parse_duration);
        delay.and_then(Result::ok).unwrap_or_default()
    }

    fn answer(&self) -> Answer {
        let status = self.status.unwrap_or(200);
        Answer {
            status,
            response: json!({"status": status, "headers": self.headers, "body": self.body}),
            retry_after: self.headers.get("retry-after").cloned(),
        }
    }
}

impl CannedServices {
    /// Returns one text for each answer that no request got.
    pub(super) fn unused(&self) -> Vec<String> {
        let used = locked(&self.used);
        let mut unused = Vec::new();
        for (service, answers) in &self.answers {
            for (index, answer) in answers.iter().enumerate() {
                if let Some((method, path)) = answer.target()
                    && !used.contains(&(service.clone(), index))
                {
                    unused.push(format!("answer not used: {} {path}", method.as_str()));
                }
            }
        }
        unused
    }
}

#[async_trait]
impl AskService for CannedServices {
    async fn ask(
        &self,
        service: &str,
        request: &Request,
        _: &[(&'static str, String)],
        until: Deadline,
    ) -> Result<Answer, CallError> {
        locked(&self.asked).push(Asked {
            service: service.to_owned(),
            request: request.clone(),
        });
        let line = format!("{} {}", request.method.as_str(), request.path);
        if self.not_asked.iter().any(|name| name == service) {
            let problem = format!("`{service}` must not be asked, and was asked `{line}`");
            locked(&self.problems).push(problem);
        }
        let answers = self.answers.get(service).into_iter().flatten();
        let target = (request.method, request.path.as_str());
        let mut answers = answers.enumerate();
        let Some((index, canned)) = answers.find(|(_, answer)| answer.target() == Some(target))
        else {
            let problem = format!(
                "`{service}` was asked `{line}`, and the case has no answer to that; add it to `answers.{service}`"
            );
            locked(&self.problems).push(problem);
            return Err(CallError::Connection);
        };
        locked(&self.used).insert((service.to_owned(), index));
        if canned.connection == Some(ConnectionFault::Refused) {
            return Err(CallError::Connection);
        }
        let limit = self.timeouts.get(service).copied();
        let rest = self.clock.time_left(until);
        if canned.delay() >= limit.unwrap_or(QUESTION_TIMEOUT).min(rest) {
            return Err(CallError::Timeout);
        }
        Ok(canned.answer())
    }
}

/// Reservations that are taken at the canned services, and stored nowhere.
pub(super) struct CannedReservations(pub(super) Arc<CannedServices>);

#[async_trait]
impl TakeReservation for CannedReservations {
    async fn take(&self, request: ReserveRequest<'_>) -> ReserveResult {
        let service = &request.reserve.take.service;
        let answer = self.0.ask(service, &request.take, &[], request.until).await;
        ReserveResult::Now {
            reservation: taking(request, Uuid::nil(), self.0.clock.now()),
            is_ours: true,
            answer,
        }
    }

    async fn store_reservation(
        &self,
        _: &Check,
        _: Reservation,
        _: Option<&Value>,
        _: ReserveOutcome,
        _: Deadline,
    ) -> bool {
        true
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
