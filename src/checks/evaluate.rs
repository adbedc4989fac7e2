//! Evaluates the checks of one call. A check starts when the checks that it waits for are finished. At the deadline
//! every unfinished check becomes unavailable.

mod answer;
mod immutable;
mod outcome;
mod reservation;
mod run_decision;
mod start;
mod summary;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::Value;
use uuid::Uuid;

use super::observe::CheckObserver;
use super::reserver::{ReserveResult, TakeReservation};
use super::{Check, Rules};
use crate::base::clock::{Clock, Deadline, Timestamp, milliseconds};
use crate::base::telemetry::Trace;
use crate::expression::Variables;
use crate::kratos::{Hook, Payload};
use crate::model::decision::CheckRecord;
use crate::model::pending::Deferred;
use crate::model::request::{Method, Request};
use crate::model::verdict::{Finding, Verdict};
use crate::outbound::services::IDEMPOTENCY_KEY;
use crate::outbound::services::client::{Answer, CallError, QUESTION_TIMEOUT, Services, TimeLimit};
pub use answer::response_in;
use outcome::{Asked, Finished, Outcome, Slot};
use run_decision::{RunDecision, run_decisions};
use start::Start;

/// Asks services.
#[async_trait]
pub trait AskService: Send + Sync {
    /// Sends the request to the service of this name, with these headers. Returns the answer, or why there is none by
    /// `until`.
    async fn ask(
        &self,
        service: &str,
        request: &Request,
        headers: &[(&'static str, String)],
        until: Deadline,
    ) -> Result<Answer, CallError>;
}

#[async_trait]
impl AskService for Services {
    async fn ask(
        &self,
        service: &str,
        request: &Request,
        headers: &[(&'static str, String)],
        until: Deadline,
    ) -> Result<Answer, CallError> {
        let limit = TimeLimit {
            of_request: None,
            otherwise: QUESTION_TIMEOUT,
            until,
        };
        self.call(service, request, headers, limit).await
    }
}

/// Evaluates the checks of calls.
pub struct Evaluator {
    /// The rules.
    pub rules: Arc<Rules>,
    /// Asks the questions of the checks.
    pub services: Arc<dyn AskService>,
    /// Takes the reservations of the checks.
    pub reservations: Arc<dyn TakeReservation>,
    /// Is notified of outcomes.
    pub observer: Arc<dyn CheckObserver>,
    /// The clock.
    pub clock: Clock,
}

/// One call whose checks are evaluated.
#[derive(Clone, Copy, Debug)]
pub struct CheckInput<'a> {
    /// The hook that Kratos called.
    pub hook: &'a Hook,
    /// The payload of the call; it has an identity.
    pub payload: &'a Payload,
    /// The deadline for the verdict.
    pub until: Deadline,
    /// The trace of the call.
    pub trace: Trace,
    /// The submission of the flow.
    pub submission: &'a str,
    /// Whether at most one identity can be created from the flow.
    pub is_guarded: bool,
    /// In settings, the checks that are deferred for this identity.
    pub deferrals: &'a OpenDeferrals,
    /// In settings, the checks whose late refusal of this identity is in force.
    pub refused_late: &'a BTreeSet<String>,
}

/// The deferred checks of an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenDeferrals {
    /// The variables of the checks.
    pub checks: BTreeSet<String>,
    /// Whether the store could not be read. In that case every check that can be deferred counts.
    pub is_unknown: bool,
}

impl OpenDeferrals {
    fn has(&self, check: &Check) -> bool {
        self.checks.contains(&check.name) || self.is_unknown && check.defers()
    }
}

/// The result of an evaluation: the verdict, and what must be recorded for it.
#[derive(Debug)]
pub struct Evaluated {
    /// The verdict that Kratos gets.
    pub verdict: Verdict,
    /// One record for each check of the flow, in order of the settings.
    pub records: Vec<CheckRecord>,
    /// The checks that are deferred. The verdict is valid only once these checks are stored.
    pub deferred_checks: Vec<DeferredCheck>,
    /// The reservations of the checks that accepted.
    pub reservations: Vec<Uuid>,
    /// The deferred checks that have accepted the values that the identity gets now.
    pub no_longer_deferred: Vec<String>,
    /// The checks that had refused the identity late, and have accepted the values that it gets now.
    pub no_longer_refused: Vec<String>,
}

/// A check that is deferred because it has no usable answer.
#[derive(Clone, Debug)]
pub struct DeferredCheck {
    /// The question to repeat.
    pub deferred: Deferred,
    /// The finding for the visitor if the deferred check cannot be stored.
    pub otherwise: Finding,
}

impl Evaluator {
    /// Runs the checks of the call's flow in parallel, and returns the verdict.
    pub async fn evaluate(&self, call: CheckInput<'_>) -> Evaluated {
        let identity = call.payload.identity.as_ref().unwrap_or(&Value::Null);
        let compiled = self.rules.compiled();
        let mut evaluation = Evaluation {
            evaluator: self,
            call,
            identity,
            run_decisions: run_decisions(&self.rules, call, identity),
            started: self.clock.now(),
            slots: compiled
                .iter()
                .map(|one| Slot::Waiting(one.waits_for))
                .collect(),
            ready: (0..compiled.len())
                .filter(|index| compiled[*index].waits_for == 0)
                .collect(),
            responses: BTreeMap::new(),
        };
        evaluation.run().await;
        evaluation.into_result()
    }
}

/// The evaluation of one call. A check is known by its index in the rules.
struct Evaluation<'a> {
    evaluator: &'a Evaluator,
    call: CheckInput<'a>,
    identity: &'a Value,
    run_decisions: Vec<RunDecision>,
    started: Timestamp,
    /// The state of each check.
    slots: Vec<Slot>,
    /// The checks that wait for no other check.
    ready: BTreeSet<usize>,
    /// The responses that other checks can read, by check.
    responses: BTreeMap<String, Arc<Value>>,
}

/// The result of an operation that takes time.
enum Completion {
    Asked(usize, Result<Answer, CallError>),
    Reserved(usize, ReserveResult),
    /// The result of `take` was stored, or could not be stored.
    Stored {
        index: usize,
        outcome: Outcome,
        is_stored: bool,
    },
}

impl<'a> Evaluation<'a> {
    async fn run(&mut self) {
        let mut running: FuturesUnordered<BoxFuture<'a, Completion>> = FuturesUnordered::new();
        loop {
            while let Some(index) = self.ready.pop_first() {
                match self.start(index) {
                    Start::Finished(outcome) => self.finish(index, outcome),
                    Start::Asks(request) => running.push(self.ask(index, request)),
                    Start::Takes(boxed) => {
                        let (request, context) = *boxed;
                        running.extend(self.take(index, request, context));
                    }
                }
            }
            match running.next().await {
                Some(Completion::Asked(index, answer)) => {
                    let (outcome, _) = self.interpret_answer(index, answer);
                    self.finish(index, outcome);
                }
                Some(Completion::Reserved(index, result)) => {
                    running.extend(self.interpret_reservation(index, result));
                }
                Some(Completion::Stored {
                    index,
                    outcome,
                    is_stored,
                }) => {
                    let outcome = match outcome {
                        Outcome::Accepted if !is_stored => {
                            self.not_stored(index, "the reservation could not be stored")
                        }
                        outcome => outcome,
                    };
                    self.finish(index, outcome);
                }
                None => break,
            }
        }
    }

    fn rules(&self) -> &'a Rules {
        &self.evaluator.rules
    }

    fn check(&self, index: usize) -> &'a Check {
        &self.rules().compiled()[index].check
    }

    fn ask(&mut self, index: usize, request: Request) -> BoxFuture<'a, Completion> {
        let (evaluator, call, check) = (self.evaluator, self.call, self.check(index));
        evaluator.observer.asks(&check.name, &request);
        self.slots[index] = Slot::Running(Asked {
            question: check.defers().then(|| request.clone()),
            reservation: None,
        });
        async move {
            let service = check.ask.as_ref().map(|request| request.service.as_str());
            let headers = question_headers(&request, call.trace.child());
            let answer =
                evaluator
                    .services
                    .ask(service.unwrap_or_default(), &request, &headers, call.until);
            Completion::Asked(index, answer.await)
        }
        .boxed()
    }

    /// Finishes a check, and makes the checks ready that waited for it alone.
    fn finish(&mut self, index: usize, outcome: Outcome) {
        let duration_ms = milliseconds(self.started, self.evaluator.clock.now());
        let outcome = match outcome {
            Outcome::Accepted | Outcome::Refused(_) => outcome,
            other if self.run_decisions[index] == RunDecision::RunsWhileDeferred => {
                let check = self.check(index);
                tracing::info!(
                    check = check.name, outcome = other.as_str(), trace.id = %self.call.trace, flow.id = %self.call.payload.flow_id,
                    "Refused a change: check `{}` is deferred and did not accept the change", check.name
                );
                Outcome::Refused(self.message(check, &self.rules().messages().try_again, None))
            }
            other => other,
        };
        let slot = &mut self.slots[index];
        let asked = match slot {
            Slot::Running(asked) => std::mem::take(asked),
            Slot::Waiting(_) | Slot::Finished(_) => Asked::default(),
        };
        *slot = Slot::Finished(Finished {
            outcome,
            duration_ms,
            asked,
        });
        for other in &self.rules().compiled()[index].awaited_by {
            if let Slot::Waiting(number) = &mut self.slots[*other] {
                *number -= 1;
                if *number == 0 {
                    self.ready.insert(*other);
                }
            }
        }
    }

    fn variables<'n>(&'n self, check: &Check, response: Option<&'n Value>) -> Variables<'n> {
        Variables {
            identity: Some(self.identity),
            previous: self.call.payload.previous.as_ref(),
            value: check.value_in(self.identity),
            flow: Some(&self.call.payload.flow),
            request: Some(&self.call.payload.request),
            method: &self.call.hook.method,
            now: self.started,
            response,
            checks: Some(&self.responses),
            taken: None,
            lists: self.rules().lists(),
        }
    }
}

/// Returns the headers of every question. A question that is not a GET has an `Idempotency-Key`, so that it can be
/// repeated if the service closed the connection. A key of the settings takes precedence.
fn question_headers(request: &Request, traceparent: String) -> Vec<(&'static str, String)> {
    let mut headers = vec![("traceparent", traceparent)];
    let has_key =
        (request.headers.iter()).any(|(name, _)| name.eq_ignore_ascii_case(IDEMPOTENCY_KEY));
    if request.method != Method::Get && !has_key {
        headers.push((IDEMPOTENCY_KEY, Uuid::new_v4().to_string()));
    }
    headers
}
