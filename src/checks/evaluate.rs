//! Running the checks of one sign-up: what can begin begins, what must wait waits, and at the deadline
//! whatever is still open has had its time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use prometheus_client::metrics::counter::Counter;
use serde_json::Value;
use uuid::Uuid;

use super::interpret::{Interpretation, interpret, without_answer};
use super::messages::{BuiltinMessages, MessageCatalog, MessageRenderer};
use super::reserver::{ReservationDeps, ReserveOutcome, ReserveRequest, ReserveResult, Reserver};
use super::set::Changes;
use super::{Check, Condition, Kind, Mode, Policy, Reads, Reserve, Set};
use crate::base::clock::{Clock, Timestamp, milliseconds};
use crate::base::telemetry::metrics::{
    CheckLabels, CheckName, KindLabels, ReasonLabels, ServiceName,
};
use crate::base::telemetry::{Metrics, Trace};
use crate::expression::{EvaluationError, Expression, Lists, Variables};
use crate::kratos::{Field, Flow, Hook, Message, Payload};
use crate::model::decision::CheckRecord;
use crate::model::delivery::EvaluationContext;
use crate::model::message::MessageTemplate;
use crate::model::pending::Deferred;
use crate::model::request::Request;
use crate::model::reservation::Reservation;
use crate::model::verdict::{Finding, Verdict};
use crate::outbound::services::client::{Answer, CallError, Services};

/// All checks of the settings.
pub struct Checks {
    all: Vec<CompiledCheck>,
    quick: bool,
    taker: Reserver,
    services: Arc<Services>,
    lists: Arc<Lists>,
    builtin: BuiltinMessages,
    default_language: String,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// A check and the places of those it waits for.
#[derive(Debug)]
struct CompiledCheck {
    check: Check,
    /// The check's name, for records.
    name: Arc<str>,
    /// How often it came to each of [`OUTCOMES`], whether it decides or observes.
    counters: [Counter; OUTCOMES.len()],
    after: Vec<usize>,
    waits_for: Vec<usize>,
    /// The checks whose response it reads.
    reads_checks: Vec<usize>,
    /// What it reads, also through other checks.
    reads: Reads,
}

/// One call to be judged.
#[derive(Clone, Copy, Debug)]
pub struct CheckInput<'a> {
    /// Which hook it came through.
    pub hook: &'a Hook,
    /// What it carries; has an identity.
    pub payload: &'a Payload,
    /// By when there must be a verdict.
    pub until: Timestamp,
    /// The trace it belongs to.
    pub trace: Trace,
    /// Which submission of its flow it is.
    pub submission: &'a str,
    /// Whether at most one identity can come of the flow.
    pub is_guarded: bool,
    /// In settings, the checks that are deferred for this identity.
    pub deferrals: &'a OpenDeferrals,
    /// In settings, the checks whose late refusal of this identity is in force.
    pub refused_late: &'a BTreeSet<String>,
}

/// The checks whose question about an identity is still open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenDeferrals {
    /// Their names.
    pub checks: BTreeSet<String>,
    /// Whether it could not be found out; then every check that can be deferred counts.
    pub is_unknown: bool,
}

impl OpenDeferrals {
    fn has(&self, check: &Check) -> bool {
        self.checks.contains(&check.name) || self.is_unknown && check.defers()
    }
}

/// A verdict, and how it came about.
#[derive(Debug)]
pub struct Judgement {
    /// What Kratos is told.
    pub verdict: Verdict,
    /// One for each check of the flow, in order of the settings.
    pub records: Vec<CheckRecord>,
    /// The checks that passed without an answer, to be asked again. The verdict holds only once they are written down.
    pub postponed: Vec<DeferredCheck>,
    /// The reservations that accepted checks rely on.
    pub reservations: Vec<Uuid>,
    /// The deferred checks that have accepted the values that the identity gets now.
    pub no_longer_deferred: Vec<String>,
    /// The checks that had refused the identity late, and have accepted the values that it gets now.
    pub no_longer_refused: Vec<String>,
}

/// A check that passed without an answer.
#[derive(Clone, Debug)]
pub struct DeferredCheck {
    /// What is asked again.
    pub deferred: Deferred,
    /// What the person is told if that cannot be promised.
    pub otherwise: Finding,
}

/// What a check can come to, as [`Outcome::as_str`] says it.
const OUTCOMES: [&str; 5] = [
    "accepted",
    "refused",
    "unavailable",
    "not_applicable",
    "skipped",
];

/// What a check came to.
#[derive(Debug)]
enum Outcome {
    Accepted,
    Refused(Message),
    Unavailable {
        kind: Kind,
        policy: Policy,
        words: Message,
    },
    NotApplicable,
    Skipped,
}

#[derive(Debug)]
struct Finished {
    outcome: Outcome,
    duration_ms: u64,
}

/// How a check begins.
enum Start {
    Finished(Outcome),
    Asks(Request),
    Takes(Box<(Request, EvaluationContext)>),
}

/// What has come of something that takes time.
enum Completion {
    Answered(usize, Result<Answer, CallError>),
    Reserved(usize, ReserveResult),
    /// What came of taking is written down, or could not be.
    Kept {
        index: usize,
        outcome: Outcome,
        kept: bool,
    },
}

/// Of the time to take something, this much is left to write down what came of it.
const TO_WRITE_IT_DOWN: Duration = Duration::from_millis(200);

impl Checks {
    /// Makes ready to judge. The checks wait for each other in no circle; the settings saw to that.
    #[must_use]
    pub fn new(
        checks: Vec<Check>,
        services: Arc<Services>,
        lists: Arc<Lists>,
        messages: MessageCatalog,
        deps: ReservationDeps,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let taker = Reserver {
            deps,
            services: Arc::clone(&services),
            lists: Arc::clone(&lists),
            clock: clock.clone(),
        };
        let quick = checks.iter().all(Check::is_quick);
        let places: BTreeMap<String, usize> = checks
            .iter()
            .enumerate()
            .map(|(index, check)| (check.name.clone(), index))
            .collect();
        let found = |names: &[String]| {
            names
                .iter()
                .filter_map(|name| places.get(name).copied())
                .collect()
        };
        let reads = Reads::of_all(&checks);
        let all = checks
            .into_iter()
            .zip(reads)
            .map(|(check, reads)| CompiledCheck {
                name: check.name.as_str().into(),
                counters: counters(&check, &metrics),
                after: found(&check.after),
                waits_for: found(&check.waits_for()),
                reads_checks: found(&check.checks_read()),
                reads,
                check,
            })
            .collect();
        Self {
            all,
            quick,
            taker,
            services,
            lists,
            builtin: messages.builtin,
            default_language: messages.default_language,
            clock,
            metrics,
        }
    }

    /// Whether every one of them takes some microseconds, whatever the person sent.
    #[must_use]
    pub fn are_quick(&self) -> bool {
        self.quick
    }

    /// Runs the checks of the call's flow side by side and sums them up.
    pub async fn judge(&self, call: CheckInput<'_>) -> Judgement {
        let identity = call.payload.identity.as_ref().unwrap_or(&Value::Null);
        let mut round = Evaluation {
            checks: self,
            call,
            identity,
            run_decisions: self.run_decisions(call, identity),
            started: self.clock.now(),
            done: self.all.iter().map(|_| None).collect(),
            has_started: vec![false; self.all.len()],
            questions: self.all.iter().map(|_| None).collect(),
            reservations: self.all.iter().map(|_| None).collect(),
            responses: BTreeMap::new(),
        };
        round.run().await;
        round.sum_up()
    }

    /// Which checks run in this call. In settings those that a change concerns, and those whose response one of these reads.
    fn run_decisions(&self, call: CheckInput<'_>, identity: &Value) -> Vec<RunDecision> {
        let flow = call.hook.flow;
        let previous = call.payload.previous.as_ref();
        let reads_a_change = |wired: &CompiledCheck| {
            previous.is_none_or(|previous| wired.reads.differ(previous, identity))
        };
        let is_concerned = |wired: &CompiledCheck| {
            flow != Flow::Settings || wired.reads.nothing_of_the_identity() || reads_a_change(wired)
        };
        let mut run_decisions: Vec<RunDecision> = self
            .all
            .iter()
            .map(|wired| {
                // A change must not evade a check whose question is still open, whatever `flows` says. One that has refused
                // late runs again.
                let is_deferred = flow == Flow::Settings && call.deferrals.has(&wired.check);
                let is_refused_late =
                    flow == Flow::Settings && call.refused_late.contains(&wired.check.name);
                match wired.check.flows.contains(&flow) || is_deferred {
                    false if is_refused_late && reads_a_change(wired) => RunDecision::Runs,
                    false => RunDecision::NotInThisFlow,
                    true if is_concerned(wired) && is_deferred => RunDecision::RunsWhileDeferred,
                    true if is_concerned(wired) => RunDecision::Runs,
                    true => RunDecision::Unchanged,
                }
            })
            .collect();
        if flow == Flow::Settings {
            let runs = |(index, turn): (usize, &RunDecision)| turn.runs().then_some(index);
            let mut running: Vec<usize> =
                run_decisions.iter().enumerate().filter_map(runs).collect();
            while let Some(index) = running.pop() {
                for other in &self.all[index].reads_checks {
                    if !run_decisions[*other].runs() {
                        run_decisions[*other] = RunDecision::Runs;
                        running.push(*other);
                    }
                }
            }
        }
        run_decisions
    }
}

/// Whether a check runs in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunDecision {
    Runs,
    /// Its question from before is still open: only an acceptance lets the change pass.
    RunsWhileDeferred,
    /// Nothing that it reads has changed.
    Unchanged,
    NotInThisFlow,
}

impl RunDecision {
    fn runs(self) -> bool {
        matches!(self, Self::Runs | Self::RunsWhileDeferred)
    }
}

/// One call on its way through the checks.
struct Evaluation<'a> {
    checks: &'a Checks,
    call: CheckInput<'a>,
    identity: &'a Value,
    run_decisions: Vec<RunDecision>,
    started: Timestamp,
    done: Vec<Option<Finished>>,
    has_started: Vec<bool>,
    /// What may have to be asked again.
    questions: Vec<Option<Request>>,
    /// What is reserved, check by check.
    reservations: Vec<Option<Uuid>>,
    responses: BTreeMap<String, Arc<Value>>,
}

impl<'a> Evaluation<'a> {
    async fn run(&mut self) {
        let mut under_way: FuturesUnordered<BoxFuture<'a, Completion>> = FuturesUnordered::new();
        loop {
            while let Some(index) = self.next_ready() {
                self.has_started[index] = true;
                match self.begin(index) {
                    Start::Finished(outcome) => self.finish(index, outcome),
                    Start::Asks(request) => under_way.push(self.ask(index, request)),
                    Start::Takes(wanted) => {
                        let (request, scene) = *wanted;
                        under_way.extend(self.take(index, request, scene));
                    }
                }
            }
            match under_way.next().await {
                Some(Completion::Answered(index, exchange)) => {
                    let (outcome, _) = self.conclude(index, exchange);
                    self.finish(index, outcome);
                }
                Some(Completion::Reserved(index, taken)) => {
                    under_way.extend(self.conclude_taking(index, taken));
                }
                Some(Completion::Kept {
                    index,
                    outcome,
                    kept,
                }) => {
                    let outcome = match outcome {
                        Outcome::Accepted if !kept => self.not_stored(index, "it was not kept"),
                        outcome => outcome,
                    };
                    self.finish(index, outcome);
                }
                None => break,
            }
        }
    }

    fn ask(&mut self, index: usize, request: Request) -> BoxFuture<'a, Completion> {
        let (checks, call) = (self.checks, self.call);
        let check = &checks.all[index].check;
        if check.defers() {
            self.questions[index] = Some(request.clone());
        }
        async move {
            let service = check.ask.as_ref().map(|plan| plan.service.as_str());
            let extra = [("traceparent", call.trace.child())];
            let exchange =
                checks
                    .services
                    .call(service.unwrap_or_default(), &request, &extra, call.until);
            Completion::Answered(index, exchange.await)
        }
        .boxed()
    }

    fn take(
        &self,
        index: usize,
        take: Request,
        scene: EvaluationContext,
    ) -> Option<BoxFuture<'a, Completion>> {
        let (checks, call) = (self.checks, self.call);
        let check = &checks.all[index].check;
        let reserve: &Reserve = check.reserve.as_ref()?;
        let wanted = ReserveRequest {
            check,
            reserve,
            flow_id: call.payload.flow_id,
            submission: call.submission,
            is_guarded: call.is_guarded,
            take,
            scene,
            expires_at: call.payload.expires_at(self.started),
            until: call.until - TO_WRITE_IT_DOWN,
            in_use_until: call.until,
            traceparent: call.trace.child(),
        };
        Some(async move { Completion::Reserved(index, checks.taker.take(wanted).await) }.boxed())
    }

    /// What the check makes of taking; if the service was asked, it must be written down.
    fn conclude_taking(
        &mut self,
        index: usize,
        taken: ReserveResult,
    ) -> Option<BoxFuture<'a, Completion>> {
        let (reservation, is_ours, exchange) = match taken {
            ReserveResult::NotStored(error) => {
                let outcome = self.not_stored(index, &error);
                self.finish(index, outcome);
                return None;
            }
            ReserveResult::InUse => {
                let check = &self.checks.all[index].check;
                tracing::info!(
                    check = check.name, flow.id = %self.call.payload.flow_id, trace.id = %self.call.trace,
                    "Another submission of the flow has reserved the same and may still become an identity"
                );
                let message = self.words(check, &self.checks.builtin.try_again, None);
                self.finish(index, Outcome::Refused(message));
                return None;
            }
            ReserveResult::Before(id, response) => {
                self.reservations[index] = Some(id);
                let answer = Answer {
                    status: response["status"]
                        .as_u64()
                        .and_then(|status| u16::try_from(status).ok())
                        .unwrap_or_default(),
                    response,
                    retry_after: None,
                };
                let (outcome, _) = self.conclude(index, Ok(answer));
                self.finish(index, outcome);
                return None;
            }
            ReserveResult::Now {
                reservation,
                is_ours,
                answer,
            } => (*reservation, is_ours, answer),
        };
        self.reservations[index] = Some(reservation.id);
        let (outcome, response) = self.conclude(index, exchange);
        let judged = match &outcome {
            Outcome::Accepted => ReserveOutcome::Reserved,
            Outcome::Refused(_) => ReserveOutcome::Refused,
            _ => ReserveOutcome::Unclear,
        };
        if !is_ours && judged != ReserveOutcome::Reserved {
            self.finish(index, outcome);
            return None;
        }
        Some(self.keep(index, reservation, response, judged, outcome))
    }

    fn keep(
        &self,
        index: usize,
        reservation: Reservation,
        response: Option<Arc<Value>>,
        judged: ReserveOutcome,
        outcome: Outcome,
    ) -> BoxFuture<'a, Completion> {
        let (checks, until) = (self.checks, self.call.until);
        let check = &checks.all[index].check;
        let metrics = &checks.metrics.reservations;
        let reason = match judged {
            ReserveOutcome::Reserved => "taken",
            ReserveOutcome::Refused => "refused",
            ReserveOutcome::Unclear => "unclear",
        };
        metrics.get_or_create(&ReasonLabels { reason }).inc();
        async move {
            let kept = checks
                .taker
                .keep(check, reservation, response.as_deref(), judged, until)
                .await;
            Completion::Kept {
                index,
                outcome,
                kept,
            }
        }
        .boxed()
    }

    /// What must be given back some day, and cannot be written down, is not taken.
    fn not_stored(&self, index: usize, because: &str) -> Outcome {
        let check = &self.checks.all[index].check;
        self.unavailable(check, Kind::NotStored, because)
    }

    /// A check that has not begun and waits for nothing more.
    fn next_ready(&self) -> Option<usize> {
        let checks = &self.checks.all;
        (0..checks.len()).find(|index| {
            !self.has_started[*index]
                && checks[*index]
                    .waits_for
                    .iter()
                    .all(|other| self.done[*other].is_some())
        })
    }

    fn begin(&mut self, index: usize) -> Start {
        let CompiledCheck { check, after, .. } = &self.checks.all[index];
        if !self.run_decisions[index].runs() {
            return Start::Finished(Outcome::NotApplicable);
        }
        let let_pass = |other: &usize| {
            let observed = self.checks.all[*other].check.mode == Mode::Observe;
            let outcome = self.done[*other].as_ref().map(|done| &done.outcome);
            observed
                || matches!(
                    outcome,
                    Some(
                        Outcome::Accepted
                            | Outcome::NotApplicable
                            | Outcome::Unavailable {
                                policy: Policy::Accept | Policy::Defer,
                                ..
                            }
                    )
                )
        };
        if !after.iter().all(let_pass) {
            return Start::Finished(Outcome::Skipped);
        }
        let field = check.field.as_ref();
        let is_absent = field.is_some_and(|field| field.present_in(self.identity).is_none());
        if is_absent && !check.required {
            return Start::Finished(Outcome::NotApplicable);
        }
        let names = self.names(check, None);
        match check.when.as_ref().map(|when| when.holds(&names)) {
            Some(Ok(false)) => return Start::Finished(Outcome::NotApplicable),
            // Whatever fails on an absent field, the person is told that it is required.
            Some(Err(error)) if !is_absent || error.missing_check => {
                return Start::Finished(self.failed(check, "when", &error));
            }
            Some(Ok(true) | Err(_)) | None => {}
        }
        if is_absent {
            let words = self.words(check, &self.checks.builtin.required, None);
            return Start::Finished(Outcome::Refused(words));
        }
        if let Err(error) = check.expects_texts(&names) {
            return Start::Finished(self.failed(check, "a text", &error));
        }
        match check.asks().map(|plan| plan.build(&names)) {
            Some(Ok(request)) if check.reserve.is_some() => {
                Start::Takes(Box::new((request, EvaluationContext::of(&names))))
            }
            Some(Ok(request)) => Start::Asks(request),
            Some(Err(error)) => {
                let index = if check.ask.is_some() {
                    "ask"
                } else {
                    "reserve.take"
                };
                Start::Finished(self.failed(check, index, &error))
            }
            None => Start::Finished(self.without_question(check, &names)),
        }
    }

    /// A check that asks nobody: the first `refuse` that holds, else `accept`.
    fn without_question(&self, check: &Check, names: &Variables<'_>) -> Outcome {
        let holds = |condition: &Condition| match condition {
            Condition::Expression(expression) => expression.holds(names),
            Condition::Status(_) => Ok(false),
        };
        let mut failed = None;
        if let Some(when) = &check.on_unavailable.when {
            match when.holds(names) {
                Ok(false) => {}
                Ok(true) => {
                    return self.unavailable(check, Kind::Declared, "`on_unavailable.when` holds");
                }
                Err(error) => failed = Some(("on_unavailable.when".to_owned(), error)),
            }
        }
        // One that fails does not hide another that refuses.
        for (index, refusal) in check.refuse.iter().enumerate() {
            match holds(&refusal.when) {
                Ok(true) => return Outcome::Refused(self.refusal_words(check, index, None)),
                Ok(false) => {}
                Err(error) => {
                    failed.get_or_insert((format!("refuse[{index}].when"), error));
                }
            }
        }
        if let Some((index, error)) = failed {
            return self.failed(check, &index, &error);
        }
        match check.accept.as_ref().map(holds) {
            None | Some(Ok(true)) => Outcome::Accepted,
            Some(Ok(false)) => self.unavailable(
                check,
                Kind::UnexpectedAnswer,
                "neither refused nor accepted",
            ),
            Some(Err(error)) => self.failed(check, "accept", &error),
        }
    }

    /// What the check makes of an answer, and the answer.
    fn conclude(
        &mut self,
        index: usize,
        exchange: Result<Answer, CallError>,
    ) -> (Outcome, Option<Arc<Value>>) {
        let check = &self.checks.all[index].check;
        let mut response = None;
        let conclusion = match exchange {
            Err(none) => without_answer(none),
            Ok(answer) => {
                let own = Arc::new(answer.response);
                response = Some(Arc::clone(&own));
                let reachable = Value::Object(
                    [("response".to_owned(), (*own).clone())]
                        .into_iter()
                        .collect(),
                );
                self.responses
                    .insert(check.name.clone(), Arc::new(reachable));
                interpret(check, answer.status, &self.names(check, Some(&own)))
            }
        };
        let outcome = match conclusion {
            Interpretation::Accepted => Outcome::Accepted,
            Interpretation::Refused(index) => {
                Outcome::Refused(self.refusal_words(check, index, response.as_deref()))
            }
            Interpretation::Unavailable(kind, because) => self.unavailable(check, kind, &because),
        };
        (outcome, response)
    }

    /// An expression failed without an answer of the check's own. The visitor chose what it failed on, so the message says that
    /// the value is not valid; unless the expression read the response of another check that has none.
    fn failed(&self, check: &Check, index: &str, error: &EvaluationError) -> Outcome {
        let policy = check.on_unavailable.policy(Kind::Expression);
        if error.missing_check || policy != Policy::Refuse {
            return self.unavailable(check, Kind::Expression, &format!("`{index}`: {error}"));
        }
        tracing::info!(
            check = check.name, index, %error, trace.id = %self.call.trace, flow.id = %self.call.payload.flow_id,
            "The value is not valid: an expression of the check failed on it"
        );
        Outcome::Refused(self.words(check, self.invalid(check), None))
    }

    /// What the person is told of a value that is not valid.
    fn invalid<'n>(&'n self, check: &'n Check) -> &'n MessageTemplate {
        let own = check.invalid_message.as_ref();
        own.unwrap_or(&self.checks.builtin.not_valid)
    }

    fn unavailable(&self, check: &Check, kind: Kind, because: &str) -> Outcome {
        let policy = check.on_unavailable.policy(kind);
        let observed = check.mode == Mode::Observe;
        if kind == Kind::RejectedCredentials {
            self.alarm_of_credentials(check, because);
        }
        tracing::warn!(
            check = check.name, kind = kind.as_str(), because, trace.id = %self.call.trace, flow.id = %self.call.payload.flow_id,
            policy = policy.as_str(), observed,
            "Check `{}` has no usable answer", check.name
        );
        let wording = match kind {
            Kind::RejectedQuestion => self.invalid(check),
            _ => &self.checks.builtin.try_again,
        };
        Outcome::Unavailable {
            kind,
            policy,
            words: self.words(check, wording, None),
        }
    }

    /// Neither the visitor nor a later attempt can fix rejected credentials, so the operator is alerted.
    fn alarm_of_credentials(&self, check: &Check, because: &str) {
        let service = check.asks().map_or("", |plan| plan.service.as_str());
        let label = ServiceName {
            service: service.to_owned(),
        };
        let counter = &self.checks.metrics.rejected_credentials;
        counter.get_or_create(&label).inc();
        tracing::error!(
            check = check.name, service.name = service, because, trace.id = %self.call.trace,
            "ALARM: service `{service}` rejects Vestibule's credentials; check `auth` and `headers` of the service in the settings"
        );
    }

    fn refusal_words(&self, check: &Check, index: usize, response: Option<&Value>) -> Message {
        let wording = check
            .refuse
            .get(index)
            .and_then(|refusal| refusal.message.as_ref());
        self.words(
            check,
            wording.unwrap_or(&self.checks.builtin.not_valid),
            response,
        )
    }

    fn words(&self, check: &Check, wording: &MessageTemplate, response: Option<&Value>) -> Message {
        let reader = MessageRenderer {
            accept_language: self.call.payload.header("Accept-Language"),
            default_language: &self.checks.default_language,
        };
        let names = self.names(check, response);
        reader.message(
            wording,
            &self.checks.builtin.not_valid,
            &names,
            Some(&check.name),
            check.field.as_ref(),
        )
    }

    fn names<'n>(&'n self, check: &Check, response: Option<&'n Value>) -> Variables<'n> {
        Variables {
            identity: Some(self.identity),
            previous: self.call.payload.previous.as_ref(),
            value: check
                .field
                .as_ref()
                .and_then(|field| field.value_in(self.identity)),
            flow: Some(&self.call.payload.flow),
            request: Some(&self.call.payload.request),
            method: &self.call.hook.method,
            now: self.started,
            response,
            checks: Some(&self.responses),
            taken: None,
            lists: &self.checks.lists,
        }
    }

    fn finish(&mut self, index: usize, outcome: Outcome) {
        let duration_ms = milliseconds(self.started, self.checks.clock.now());
        let outcome = match outcome {
            Outcome::Accepted | Outcome::Refused(_) => outcome,
            other if self.run_decisions[index] == RunDecision::RunsWhileDeferred => {
                let check = &self.checks.all[index].check;
                tracing::info!(
                    check = check.name, outcome = other.as_str(), trace.id = %self.call.trace, flow.id = %self.call.payload.flow_id,
                    "The change is refused: it concerns check `{}`, which is deferred and did not accept it", check.name
                );
                Outcome::Refused(self.words(check, &self.checks.builtin.try_again, None))
            }
            other => other,
        };
        self.done[index] = Some(Finished {
            outcome,
            duration_ms,
        });
    }

    fn sum_up(self) -> Judgement {
        let mut findings = Vec::new();
        let mut records = Vec::new();
        let mut postponed = Vec::new();
        let mut reservations = Vec::new();
        let mut no_longer_deferred = Vec::new();
        let mut no_longer_refused = Vec::new();
        for (index, (wired, done)) in self.checks.all.iter().zip(&self.done).enumerate() {
            let check = &wired.check;
            // Every check is done: none waits in a circle, and each exchange ends by the deadline.
            let Some(done) = done else { continue };
            if self.run_decisions[index] == RunDecision::NotInThisFlow {
                continue;
            }
            let observed = check.mode == Mode::Observe;
            records.push(record(wired, done));
            self.count(wired, &done.outcome);
            if matches!(done.outcome, Outcome::Accepted) {
                reservations.extend(self.reservations[index]);
                if self.run_decisions[index] == RunDecision::RunsWhileDeferred {
                    no_longer_deferred.push(check.name.clone());
                }
                if !observed && self.call.refused_late.contains(&check.name) {
                    no_longer_refused.push(check.name.clone());
                }
            }
            let message = match &done.outcome {
                Outcome::Refused(message) => message,
                Outcome::Unavailable {
                    policy: Policy::Refuse | Policy::Defer,
                    words,
                    ..
                } => words,
                _ => continue,
            };
            if observed {
                continue;
            }
            let finding = Finding {
                field: check.field.clone(),
                message: message.clone(),
            };
            match self.deferred(index, &done.outcome) {
                Some(deferred) => postponed.push(DeferredCheck {
                    deferred,
                    otherwise: finding,
                }),
                None => findings.push(finding),
            }
        }
        let verdict = if findings.is_empty() {
            self.admit()
        } else {
            Verdict::Refuse(findings)
        };
        if let Verdict::AdmitWith(changes) = &verdict
            && changes.contains_key("traits")
        {
            let saved = Value::Object(changes.clone());
            for one in &mut postponed {
                if let Some(field) = &one.otherwise.field {
                    one.deferred.value = field.value_in(&saved).cloned();
                }
            }
        }
        Judgement {
            verdict,
            records,
            postponed,
            reservations,
            no_longer_deferred,
            no_longer_refused,
        }
    }

    /// What is asked again, if the check is deferred. Without a question it cannot be.
    fn deferred(&self, index: usize, outcome: &Outcome) -> Option<Deferred> {
        let Outcome::Unavailable {
            policy: Policy::Defer,
            ..
        } = outcome
        else {
            return None;
        };
        let check = &self.checks.all[index].check;
        let request = self.questions[index].clone()?;
        let value = check.field.as_ref();
        Some(Deferred {
            check: check.name.clone(),
            request,
            value: value
                .and_then(|field| field.value_in(self.identity))
                .cloned(),
        })
    }

    fn admit(&self) -> Verdict {
        let mut changes = Changes::to(self.identity);
        for (wired, turn) in self.checks.all.iter().zip(&self.run_decisions) {
            if self.is_stale(&wired.check, *turn) {
                let paths = wired.check.set.iter().flat_map(Set::leaves);
                let public =
                    paths.filter(|path| path.first().is_some_and(|root| root == "metadata_public"));
                public.for_each(|path| changes.remove(&path));
            }
        }
        for (wired, done) in self.checks.all.iter().zip(&self.done) {
            let check = &wired.check;
            let accepted = matches!(
                done,
                Some(Finished {
                    outcome: Outcome::Accepted,
                    ..
                })
            );
            if !accepted || check.mode == Mode::Observe {
                continue;
            }
            let response = self
                .responses
                .get(&check.name)
                .and_then(|reachable| reachable.get("response"));
            let names = self.names(check, response);
            for set in &check.set {
                let value = set.value.render(&names).map_err(|error| error.to_string());
                let done = value.and_then(|value| {
                    changes
                        .set(&set.path, value)
                        .map_err(|unfit| unfit.to_string())
                });
                if let Err(error) = done {
                    let path = set.path.join(".");
                    tracing::warn!(
                        check = check.name,
                        path,
                        error,
                        "A value of `set` was left out"
                    );
                    let label = CheckName {
                        check: check.name.clone(),
                    };
                    self.checks.metrics.set_failures.get_or_create(&label).inc();
                }
            }
        }
        let changes = changes.finish();
        if changes.is_empty() {
            Verdict::Admit
        } else {
            Verdict::AdmitWith(changes)
        }
    }

    /// Whether what the check had `set` is stale: its field has changed or is gone, or its `when` held for the previous identity
    /// and no longer holds. A check that runs at registration only is included.
    fn is_stale(&self, check: &Check, turn: RunDecision) -> bool {
        if self.call.hook.flow != Flow::Settings
            || turn == RunDecision::Unchanged
            || check.set.is_empty()
        {
            return false;
        }
        let previous = self.call.payload.previous.as_ref();
        let has_changed = |field: &Field| {
            previous.is_none_or(|previous| {
                field.present_in(previous) != field.present_in(self.identity)
            })
        };
        check.field.as_ref().is_some_and(has_changed)
            || check.when.as_ref().is_some_and(|when| {
                when.holds(&self.names(check, None)) == Ok(false)
                    && (!when.checks_read().is_empty() || self.may_have_held(check, when))
            })
    }

    /// Whether the condition may have held for the previous identity: it held, or its result is unknown.
    fn may_have_held(&self, check: &Check, when: &Expression) -> bool {
        let Some(previous) = &self.call.payload.previous else {
            return true;
        };
        let mut identity = self.identity.clone();
        for part in ["traits", "metadata_public"] {
            identity[part] = previous.get(part).cloned().unwrap_or_default();
        }
        let field = check.field.as_ref();
        let names = Variables {
            identity: Some(&identity),
            value: field.and_then(|field| field.value_in(&identity)),
            ..self.names(check, None)
        };
        when.holds(&names) != Ok(false)
    }

    fn count(
        &self,
        CompiledCheck {
            check, counters, ..
        }: &CompiledCheck,
        outcome: &Outcome,
    ) {
        let metrics = &self.checks.metrics;
        let observed = check.mode == Mode::Observe;
        if let Some(index) = OUTCOMES.iter().position(|name| *name == outcome.as_str()) {
            counters[index].inc();
        }
        if let Outcome::Unavailable { kind, policy, .. } = outcome {
            let labels = KindLabels {
                check: check.name.clone(),
                kind: kind.as_str(),
            };
            metrics.unavailable.get_or_create(&labels).inc();
            match policy {
                Policy::Accept if !observed => {
                    metrics.fail_open.get_or_create(&labels).inc();
                }
                Policy::Defer if !observed => {
                    metrics.deferred.get_or_create(&labels).inc();
                }
                _ => {}
            }
        }
    }
}

impl Outcome {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused(_) => "refused",
            Self::Unavailable { .. } => "unavailable",
            Self::NotApplicable => "not_applicable",
            Self::Skipped => "skipped",
        }
    }
}

/// The counters of a check, looked up once instead of with every sign-up.
fn counters(check: &Check, metrics: &Metrics) -> [Counter; OUTCOMES.len()] {
    let family = if check.mode == Mode::Observe {
        &metrics.observed_outcomes
    } else {
        &metrics.check_outcomes
    };
    OUTCOMES.map(|outcome| {
        family
            .get_or_create(&CheckLabels {
                check: check.name.clone(),
                outcome,
            })
            .clone()
    })
}

fn record(CompiledCheck { check, name, .. }: &CompiledCheck, done: &Finished) -> CheckRecord {
    let (kind, message_id) = match &done.outcome {
        Outcome::Refused(message) => (None, Some(message.id)),
        Outcome::Unavailable { kind, .. } => (Some(kind.as_str()), None),
        _ => (None, None),
    };
    CheckRecord {
        check: Arc::clone(name),
        outcome: done.outcome.as_str(),
        kind,
        message_id,
        observed: check.mode == Mode::Observe,
        duration_ms: done.duration_ms,
    }
}
