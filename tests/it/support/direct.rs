//! Evaluates checks without HTTP, a database or services. The responses of services are canned.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::base::clock::{Clock, Deadline, Timestamp};
use vestibule::base::telemetry::Trace;
use vestibule::checks::reserver::{ReserveOutcome, ReserveRequest, ReserveResult, TakeReservation};
use vestibule::checks::{AskService, Check, CheckInput, Evaluated, Evaluator, OpenDeferrals};
use vestibule::config::Settings;
use vestibule::kratos::hook::Stage;
use vestibule::kratos::{self, Flow, Hook};
use vestibule::model::request::Request;
use vestibule::model::reservation::Reservation;
use vestibule::outbound::services::client::{Answer, CallError};

use super::payload::Payload;

/// Returns the status and the body of the response to a request.
pub type Canned = dyn Fn(&Request) -> (u16, Value) + Send + Sync;

/// Evaluates the checks of settings.
pub struct Direct {
    evaluator: Evaluator,
    services: Arc<CannedServices>,
}

struct CannedServices {
    canned: Box<Canned>,
    asked: Mutex<Vec<Request>>,
}

impl Direct {
    pub fn new(
        settings: &Settings,
        canned: impl Fn(&Request) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        let services = Arc::new(CannedServices {
            canned: Box::new(canned),
            asked: Mutex::default(),
        });
        let started: Timestamp = "2026-11-23T14:32:53Z".parse().expect("a moment");
        Self {
            evaluator: Evaluator {
                rules: Arc::new(settings.rules()),
                services: Arc::<CannedServices>::clone(&services),
                reservations: Arc::new(NoReservations),
                observer: Arc::new(()),
                clock: Clock::manual(started).0,
            },
            services,
        }
    }

    /// Evaluates the `pre` of this flow.
    pub async fn evaluate(&self, flow: Flow, body: &Payload) -> Evaluated {
        let method = match flow {
            Flow::Settings => "profile",
            _ => "password",
        };
        let hook = Hook {
            flow,
            stage: Stage::Pre,
            method: method.to_owned(),
        };
        let payload = kratos::Payload::parse(body.to_string().as_bytes()).expect("a body");
        let call = CheckInput {
            hook: &hook,
            payload: &payload,
            until: self.evaluator.clock.deadline(Duration::from_secs(5)),
            trace: Trace::begin(),
            submission: "submission",
            is_guarded: false,
            deferrals: &OpenDeferrals::default(),
            refused_late: &std::collections::BTreeSet::new(),
        };
        self.evaluator.evaluate(call).await
    }

    /// Returns the requests so far.
    pub fn asked(&self) -> Vec<Request> {
        self.services.asked.lock().expect("a lock").clone()
    }
}

#[async_trait]
impl AskService for CannedServices {
    async fn ask(
        &self,
        _: &str,
        request: &Request,
        _: &[(&'static str, String)],
        _: Deadline,
    ) -> Result<Answer, CallError> {
        self.asked.lock().expect("a lock").push(request.clone());
        let (status, body) = (self.canned)(request);
        Ok(Answer {
            status,
            response: json!({"status": status, "headers": {}, "body": body}),
            retry_after: None,
        })
    }
}

/// Stores no reservation.
struct NoReservations;

#[async_trait]
impl TakeReservation for NoReservations {
    async fn take(&self, request: ReserveRequest<'_>) -> ReserveResult {
        let response = json!({"status": 201, "headers": {}, "body": {"hold_id": "hold-1"}});
        let _ = request;
        ReserveResult::Before(Uuid::nil(), response)
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
