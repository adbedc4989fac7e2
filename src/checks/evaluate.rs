//! Runs the checks of one sign-up. A check starts when the checks that it waits for are finished. At the deadline,
//! every unfinished check becomes unavailable.

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
    CheckLabels, CheckName, KindLabels, ServiceName, StateLabels,
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
    reserver: Reserver,
    services: Arc<Services>,
    lists: Arc<Lists>,
    builtin: BuiltinMessages,
    default_language: String,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// A check, and the indexes of the checks that it waits for.
#[derive(Debug)]
struct CompiledCheck {
    check: Check,
    /// The check's name, for records.
    name: Arc<str>,
    /// One counter for each of [`OUTCOMES`], for enforced and observed checks.
    counters: [Counter; OUTCOMES.len()],
    after: Vec<usize>,
    waits_for: Vec<usize>,
    /// The checks whose response this check reads.
    reads_checks: Vec<usize>,
    /// What the check reads, also through other checks.
    reads: Reads,
}

/// One call whose checks are evaluated.
#[derive(Clone, Copy, Debug)]
pub struct CheckInput<'a> {
    /// The hook that Kratos called.
    pub hook: &'a Hook,
    /// The payload of the call; it has an identity.
    pub payload: &'a Payload,
    /// The deadline for the verdict.
    pub until: Timestamp,
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
    /// The names of the checks.
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

/// All outcomes of a check, as named by [`Outcome::as_str`].
const OUTCOMES: [&str; 5] = [
    "accepted",
    "refused",
    "unavailable",
    "not_applicable",
    "skipped",
];

/// The outcome of a check.
#[derive(Debug)]
enum Outcome {
    Accepted,
    Refused(Message),
    Unavailable {
        kind: Kind,
        policy: Policy,
        message: Message,
    },
    NotApplicable,
    Skipped,
}

#[derive(Debug)]
struct Finished {
    outcome: Outcome,
    duration_ms: u64,
}

/// How a check starts.
enum Start {
    Finished(Outcome),
    Asks(Request),
    Takes(Box<(Request, EvaluationContext)>),
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

/// The time before the deadline that is kept free to store the result of `take`.
const STORE_MARGIN: Duration = Duration::from_millis(200);

impl Checks {
    /// Compiles the checks. The settings contain no circle of checks that wait for each other.
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
        let reserver = Reserver {
            deps,
            services: Arc::clone(&services),
            lists: Arc::clone(&lists),
            clock: clock.clone(),
        };
        let quick = checks.iter().all(Check::is_quick);
        let indexes: BTreeMap<String, usize> = checks
            .iter()
            .enumerate()
            .map(|(index, check)| (check.name.clone(), index))
            .collect();
        let indexes_of = |names: &[String]| {
            names
                .iter()
                .filter_map(|name| indexes.get(name).copied())
                .collect()
        };
        let reads = Reads::of_all(&checks);
        let all = checks
            .into_iter()
            .zip(reads)
            .map(|(check, reads)| CompiledCheck {
                name: check.name.as_str().into(),
                counters: counters(&check, &metrics),
                after: indexes_of(&check.after),
                waits_for: indexes_of(&check.waits_for()),
                reads_checks: indexes_of(&check.checks_read()),
                reads,
                check,
            })
            .collect();
        Self {
            all,
            quick,
            reserver,
            services,
            lists,
            builtin: messages.builtin,
            default_language: messages.default_language,
            clock,
            metrics,
        }
    }

    /// Returns whether all checks need only microseconds for any input.
    #[must_use]
    pub fn are_quick(&self) -> bool {
        self.quick
    }

    /// Runs the checks of the call's flow in parallel, and returns the verdict.
    pub async fn evaluate(&self, call: CheckInput<'_>) -> Evaluated {
        let identity = call.payload.identity.as_ref().unwrap_or(&Value::Null);
        let mut evaluation = Evaluation {
            checks: self,
            call,
            identity,
            started: self.clock.now(),
            slots: self
                .run_decisions(call, identity)
                .into_iter()
                .map(Slot::new)
                .collect(),
            responses: BTreeMap::new(),
        };
        evaluation.run().await;
        evaluation.into_result()
    }

    /// Decides which checks run in this call. In settings, these are the checks that read a changed value, and the
    /// checks whose response such a check reads.
    fn run_decisions(&self, call: CheckInput<'_>, identity: &Value) -> Vec<RunDecision> {
        let flow = call.hook.flow;
        let previous = call.payload.previous.as_ref();
        let reads_a_change = |compiled: &CompiledCheck| {
            previous.is_none_or(|previous| compiled.reads.differ(previous, identity))
        };
        let is_concerned = |compiled: &CompiledCheck| {
            flow != Flow::Settings
                || compiled.reads.nothing_of_the_identity()
                || reads_a_change(compiled)
        };
        let mut run_decisions: Vec<RunDecision> = self
            .all
            .iter()
            .map(|compiled| {
                // A change must not evade a deferred check, even if `flows` excludes settings. A check that has refused
                // late runs again.
                let is_deferred = flow == Flow::Settings && call.deferrals.has(&compiled.check);
                let is_refused_late =
                    flow == Flow::Settings && call.refused_late.contains(&compiled.check.name);
                match compiled.check.flows.contains(&flow) || is_deferred {
                    false if is_refused_late && reads_a_change(compiled) => RunDecision::Runs,
                    false => RunDecision::NotInThisFlow,
                    true if is_concerned(compiled) && is_deferred => RunDecision::RunsWhileDeferred,
                    true if is_concerned(compiled) => RunDecision::Runs,
                    true => RunDecision::Unchanged,
                }
            })
            .collect();
        if flow == Flow::Settings {
            let runs = |(index, decision): (usize, &RunDecision)| decision.runs().then_some(index);
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
    /// The check is deferred for this identity, so the change needs an acceptance.
    RunsWhileDeferred,
    /// Nothing that the check reads has changed.
    Unchanged,
    NotInThisFlow,
}

impl RunDecision {
    fn runs(self) -> bool {
        matches!(self, Self::Runs | Self::RunsWhileDeferred)
    }
}

/// The evaluation of one call.
struct Evaluation<'a> {
    checks: &'a Checks,
    call: CheckInput<'a>,
    identity: &'a Value,
    started: Timestamp,
    /// The state of each check, in the order of [`Checks`].
    slots: Vec<Slot>,
    responses: BTreeMap<String, Arc<Value>>,
}

/// The state of one check in an evaluation.
struct Slot {
    run_decision: RunDecision,
    has_started: bool,
    finished: Option<Finished>,
    /// The question, if the check can be deferred.
    question: Option<Request>,
    reservation: Option<Uuid>,
}

impl Slot {
    fn new(run_decision: RunDecision) -> Self {
        Self {
            run_decision,
            has_started: false,
            finished: None,
            question: None,
            reservation: None,
        }
    }
}

impl<'a> Evaluation<'a> {
    async fn run(&mut self) {
        let mut running: FuturesUnordered<BoxFuture<'a, Completion>> = FuturesUnordered::new();
        loop {
            while let Some(index) = self.next_ready() {
                self.slots[index].has_started = true;
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
                Some(Completion::Asked(index, answer_result)) => {
                    let (outcome, _) = self.interpret_answer(index, answer_result);
                    self.finish(index, outcome);
                }
                Some(Completion::Reserved(index, taken)) => {
                    running.extend(self.interpret_reservation(index, taken));
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

    fn ask(&mut self, index: usize, request: Request) -> BoxFuture<'a, Completion> {
        let (checks, call) = (self.checks, self.call);
        let check = &checks.all[index].check;
        if check.defers() {
            self.slots[index].question = Some(request.clone());
        }
        async move {
            let service = check.ask.as_ref().map(|request| request.service.as_str());
            let extra = [("traceparent", call.trace.child())];
            let answer_result =
                checks
                    .services
                    .call(service.unwrap_or_default(), &request, &extra, call.until);
            Completion::Asked(index, answer_result.await)
        }
        .boxed()
    }

    fn take(
        &self,
        index: usize,
        take: Request,
        context: EvaluationContext,
    ) -> Option<BoxFuture<'a, Completion>> {
        let (checks, call) = (self.checks, self.call);
        let check = &checks.all[index].check;
        let reserve: &Reserve = check.reserve.as_ref()?;
        let request = ReserveRequest {
            check,
            reserve,
            flow_id: call.payload.flow_id,
            submission: call.submission,
            is_guarded: call.is_guarded,
            take,
            context,
            expires_at: call.payload.expires_at(self.started),
            until: call.until - STORE_MARGIN,
            in_use_until: call.until,
            traceparent: call.trace.child(),
        };
        Some(
            async move { Completion::Reserved(index, checks.reserver.take(request).await) }.boxed(),
        )
    }

    /// Interprets the result of a reservation. If the service was asked, the result must be stored.
    fn interpret_reservation(
        &mut self,
        index: usize,
        taken: ReserveResult,
    ) -> Option<BoxFuture<'a, Completion>> {
        let (reservation, is_ours, answer_result) = match taken {
            ReserveResult::NotStored(error) => {
                let outcome = self.not_stored(index, &error);
                self.finish(index, outcome);
                return None;
            }
            ReserveResult::InUse => {
                let check = &self.checks.all[index].check;
                tracing::info!(
                    check = check.name, flow.id = %self.call.payload.flow_id, trace.id = %self.call.trace,
                    "Refused a submission: another submission of the flow has the same reservation, and may still create an identity"
                );
                let message = self.message(check, &self.checks.builtin.try_again, None);
                self.finish(index, Outcome::Refused(message));
                return None;
            }
            ReserveResult::Before(id, response) => {
                self.slots[index].reservation = Some(id);
                let answer = Answer {
                    status: response["status"]
                        .as_u64()
                        .and_then(|status| u16::try_from(status).ok())
                        .unwrap_or_default(),
                    response,
                    retry_after: None,
                };
                let (outcome, _) = self.interpret_answer(index, Ok(answer));
                self.finish(index, outcome);
                return None;
            }
            ReserveResult::Now {
                reservation,
                is_ours,
                answer,
            } => (*reservation, is_ours, answer),
        };
        self.slots[index].reservation = Some(reservation.id);
        let (outcome, response) = self.interpret_answer(index, answer_result);
        let reserve_outcome = match &outcome {
            Outcome::Accepted => ReserveOutcome::Reserved,
            Outcome::Refused(_) => ReserveOutcome::Refused,
            _ => ReserveOutcome::Unclear,
        };
        if !is_ours && reserve_outcome != ReserveOutcome::Reserved {
            self.finish(index, outcome);
            return None;
        }
        Some(self.store_reservation(index, reservation, response, reserve_outcome, outcome))
    }

    fn store_reservation(
        &self,
        index: usize,
        reservation: Reservation,
        response: Option<Arc<Value>>,
        reserve_outcome: ReserveOutcome,
        outcome: Outcome,
    ) -> BoxFuture<'a, Completion> {
        let (checks, until) = (self.checks, self.call.until);
        let check = &checks.all[index].check;
        let metrics = &checks.metrics.reservations;
        let state = match reserve_outcome {
            ReserveOutcome::Reserved => "taken",
            ReserveOutcome::Refused => "refused",
            ReserveOutcome::Unclear => "unclear",
        };
        metrics.get_or_create(&StateLabels { state }).inc();
        async move {
            let is_stored = checks
                .reserver
                .store_reservation(
                    check,
                    reservation,
                    response.as_deref(),
                    reserve_outcome,
                    until,
                )
                .await;
            Completion::Stored {
                index,
                outcome,
                is_stored,
            }
        }
        .boxed()
    }

    /// Returns the outcome if a reservation cannot be stored. A reservation that cannot be stored could not be released
    /// later, so it is not taken.
    fn not_stored(&self, index: usize, because: &str) -> Outcome {
        let check = &self.checks.all[index].check;
        self.unavailable(check, Kind::NotStored, because)
    }

    /// Returns the next check that has not started and waits for no unfinished check.
    fn next_ready(&self) -> Option<usize> {
        let checks = &self.checks.all;
        (0..checks.len()).find(|index| {
            !self.slots[*index].has_started
                && checks[*index]
                    .waits_for
                    .iter()
                    .all(|other| self.slots[*other].finished.is_some())
        })
    }

    fn start(&mut self, index: usize) -> Start {
        let CompiledCheck { check, after, .. } = &self.checks.all[index];
        if !self.slots[index].run_decision.runs() {
            return Start::Finished(Outcome::NotApplicable);
        }
        let lets_pass = |other: &usize| {
            let observed = self.checks.all[*other].check.mode == Mode::Observe;
            let outcome = self.slots[*other]
                .finished
                .as_ref()
                .map(|finished| &finished.outcome);
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
        if !after.iter().all(lets_pass) {
            return Start::Finished(Outcome::Skipped);
        }
        let field = check.field.as_ref();
        let is_absent = field.is_some_and(|field| field.present_in(self.identity).is_none());
        if is_absent && !check.required {
            return Start::Finished(Outcome::NotApplicable);
        }
        let variables = self.variables(check, None);
        match check.when.as_ref().map(|when| when.holds(&variables)) {
            Some(Ok(false)) => return Start::Finished(Outcome::NotApplicable),
            // If any expression fails on an absent field, the visitor sees that the field is required.
            Some(Err(error)) if !is_absent || error.missing_check => {
                return Start::Finished(self.failed(check, "when", &error));
            }
            Some(Ok(true) | Err(_)) | None => {}
        }
        if is_absent {
            let message = self.message(check, &self.checks.builtin.required, None);
            return Start::Finished(Outcome::Refused(message));
        }
        if let Err(error) = check.expects_texts(&variables) {
            return Start::Finished(self.failed(check, "a text", &error));
        }
        match check.asks().map(|request| request.build(&variables)) {
            Some(Ok(request)) if check.reserve.is_some() => {
                Start::Takes(Box::new((request, EvaluationContext::of(&variables))))
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
            None => Start::Finished(self.without_question(check, &variables)),
        }
    }

    /// Returns the outcome of a check that asks no service: the first `refuse` entry that is true, else `accept`.
    fn without_question(&self, check: &Check, variables: &Variables<'_>) -> Outcome {
        let holds = |condition: &Condition| match condition {
            Condition::Expression(expression) => expression.holds(variables),
            Condition::Status(_) => Ok(false),
        };
        let mut failed = None;
        if let Some(when) = &check.on_unavailable.when {
            match when.holds(variables) {
                Ok(false) => {}
                Ok(true) => {
                    return self.unavailable(
                        check,
                        Kind::Declared,
                        "`on_unavailable.when` is true",
                    );
                }
                Err(error) => failed = Some(("on_unavailable.when".to_owned(), error)),
            }
        }
        // An entry that fails does not hide another entry that refuses.
        for (index, refusal) in check.refuse.iter().enumerate() {
            match holds(&refusal.when) {
                Ok(true) => return Outcome::Refused(self.refusal_message(check, index, None)),
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

    /// Interprets an answer. Returns the outcome, and the answer.
    fn interpret_answer(
        &mut self,
        index: usize,
        answer_result: Result<Answer, CallError>,
    ) -> (Outcome, Option<Arc<Value>>) {
        let check = &self.checks.all[index].check;
        let mut response = None;
        let interpretation = match answer_result {
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
                interpret(check, answer.status, &self.variables(check, Some(&own)))
            }
        };
        let outcome = match interpretation {
            Interpretation::Accepted => Outcome::Accepted,
            Interpretation::Refused(index) => {
                Outcome::Refused(self.refusal_message(check, index, response.as_deref()))
            }
            Interpretation::Unavailable(kind, because) => self.unavailable(check, kind, &because),
        };
        (outcome, response)
    }

    /// Returns the outcome if an expression failed before the check had its answer. The visitor chose the value on
    /// which the expression failed, so the message is that the value is not valid. If the expression read the missing
    /// response of another check, the check is unavailable instead.
    fn failed(&self, check: &Check, index: &str, error: &EvaluationError) -> Outcome {
        let policy = check.on_unavailable.policy(Kind::Expression);
        if error.missing_check || policy != Policy::Refuse {
            return self.unavailable(check, Kind::Expression, &format!("`{index}`: {error}"));
        }
        tracing::info!(
            check = check.name, index, %error, trace.id = %self.call.trace, flow.id = %self.call.payload.flow_id,
            "Refused a value: an expression of the check failed on it"
        );
        Outcome::Refused(self.message(check, self.invalid(check), None))
    }

    /// Returns the message for a value that is not valid.
    fn invalid<'n>(&'n self, check: &'n Check) -> &'n MessageTemplate {
        let own = check.invalid_message.as_ref();
        own.unwrap_or(&self.checks.builtin.not_valid)
    }

    fn unavailable(&self, check: &Check, kind: Kind, because: &str) -> Outcome {
        let policy = check.on_unavailable.policy(kind);
        let observed = check.mode == Mode::Observe;
        if kind == Kind::RejectedCredentials {
            self.report_rejected_credentials(check, because);
        }
        tracing::warn!(
            check = check.name, kind = kind.as_str(), because, trace.id = %self.call.trace, flow.id = %self.call.payload.flow_id,
            policy = policy.as_str(), observed,
            "Check `{}` has no usable answer", check.name
        );
        let template = match kind {
            Kind::RejectedQuestion => self.invalid(check),
            _ => &self.checks.builtin.try_again,
        };
        Outcome::Unavailable {
            kind,
            policy,
            message: self.message(check, template, None),
        }
    }

    /// Alerts the operator, because neither the visitor nor a later attempt can fix rejected credentials.
    fn report_rejected_credentials(&self, check: &Check, because: &str) {
        let service = check.asks().map_or("", |request| request.service.as_str());
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

    fn refusal_message(&self, check: &Check, index: usize, response: Option<&Value>) -> Message {
        let template = check
            .refuse
            .get(index)
            .and_then(|refusal| refusal.message.as_ref());
        self.message(
            check,
            template.unwrap_or(&self.checks.builtin.not_valid),
            response,
        )
    }

    fn message(
        &self,
        check: &Check,
        template: &MessageTemplate,
        response: Option<&Value>,
    ) -> Message {
        let renderer = MessageRenderer {
            accept_language: self.call.payload.header("Accept-Language"),
            default_language: &self.checks.default_language,
        };
        let variables = self.variables(check, response);
        renderer.message(
            template,
            &self.checks.builtin.not_valid,
            &variables,
            Some(&check.name),
            check.field.as_ref(),
        )
    }

    fn variables<'n>(&'n self, check: &Check, response: Option<&'n Value>) -> Variables<'n> {
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
            other if self.slots[index].run_decision == RunDecision::RunsWhileDeferred => {
                let check = &self.checks.all[index].check;
                tracing::info!(
                    check = check.name, outcome = other.as_str(), trace.id = %self.call.trace, flow.id = %self.call.payload.flow_id,
                    "Refused a change: check `{}` is deferred and did not accept the change", check.name
                );
                Outcome::Refused(self.message(check, &self.checks.builtin.try_again, None))
            }
            other => other,
        };
        self.slots[index].finished = Some(Finished {
            outcome,
            duration_ms,
        });
    }

    fn into_result(self) -> Evaluated {
        let mut findings = Vec::new();
        let mut records = Vec::new();
        let mut deferred_checks = Vec::new();
        let mut reservations = Vec::new();
        let mut no_longer_deferred = Vec::new();
        let mut no_longer_refused = Vec::new();
        for (index, (compiled, slot)) in self.checks.all.iter().zip(&self.slots).enumerate() {
            let check = &compiled.check;
            // Every check is finished: no checks wait for each other in a circle, and each call to a service ends at
            // the deadline.
            let Some(finished) = &slot.finished else {
                continue;
            };
            if slot.run_decision == RunDecision::NotInThisFlow {
                continue;
            }
            let observed = check.mode == Mode::Observe;
            records.push(record(compiled, finished));
            self.count(compiled, &finished.outcome);
            if matches!(finished.outcome, Outcome::Accepted) {
                reservations.extend(slot.reservation);
                if slot.run_decision == RunDecision::RunsWhileDeferred {
                    no_longer_deferred.push(check.name.clone());
                }
                if !observed && self.call.refused_late.contains(&check.name) {
                    no_longer_refused.push(check.name.clone());
                }
            }
            let (Outcome::Refused(message)
            | Outcome::Unavailable {
                policy: Policy::Refuse | Policy::Defer,
                message,
                ..
            }) = &finished.outcome
            else {
                continue;
            };
            if observed {
                continue;
            }
            let finding = Finding {
                field: check.field.clone(),
                message: message.clone(),
            };
            match self.deferred(index, &finished.outcome) {
                Some(deferred) => deferred_checks.push(DeferredCheck {
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
            for one in &mut deferred_checks {
                if let Some(field) = &one.otherwise.field {
                    one.deferred.value = field.value_in(&saved).cloned();
                }
            }
        }
        Evaluated {
            verdict,
            records,
            deferred_checks,
            reservations,
            no_longer_deferred,
            no_longer_refused,
        }
    }

    /// Returns the question to repeat if the check is deferred. A check without a question cannot be deferred.
    fn deferred(&self, index: usize, outcome: &Outcome) -> Option<Deferred> {
        let Outcome::Unavailable {
            policy: Policy::Defer,
            ..
        } = outcome
        else {
            return None;
        };
        let check = &self.checks.all[index].check;
        let request = self.slots[index].question.clone()?;
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
        for (compiled, slot) in self.checks.all.iter().zip(&self.slots) {
            if self.is_stale(&compiled.check, slot.run_decision) {
                let paths = compiled.check.set.iter().flat_map(Set::leaves);
                let public =
                    paths.filter(|path| path.first().is_some_and(|root| root == "metadata_public"));
                public.for_each(|path| changes.remove(&path));
            }
        }
        for (compiled, slot) in self.checks.all.iter().zip(&self.slots) {
            let check = &compiled.check;
            let accepted = matches!(
                slot.finished,
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
            let variables = self.variables(check, response);
            for set in &check.set {
                let value = set
                    .value
                    .render(&variables)
                    .map_err(|error| error.to_string());
                let written = value.and_then(|value| {
                    changes
                        .set(&set.path, value)
                        .map_err(|unfit| unfit.to_string())
                });
                if let Err(error) = written {
                    let path = set.path.join(".");
                    tracing::warn!(check = check.name, path, error, "Skipped a value of `set`");
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

    /// Returns whether the value that the check wrote with `set` is stale. The value is stale if the check's field has
    /// changed or was removed. The value is also stale if the check's `when` was true for the previous identity and is
    /// no longer true. Checks that run at registration only are included.
    fn is_stale(&self, check: &Check, decision: RunDecision) -> bool {
        if self.call.hook.flow != Flow::Settings
            || decision == RunDecision::Unchanged
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
                when.holds(&self.variables(check, None)) == Ok(false)
                    && (!when.checks_read().is_empty() || self.may_have_held(check, when))
            })
    }

    /// Returns whether the condition may have been true for the previous identity: it was true, or its result is
    /// unknown.
    fn may_have_held(&self, check: &Check, when: &Expression) -> bool {
        let Some(previous) = &self.call.payload.previous else {
            return true;
        };
        let mut identity = self.identity.clone();
        for part in ["traits", "metadata_public"] {
            identity[part] = previous.get(part).cloned().unwrap_or_default();
        }
        let field = check.field.as_ref();
        let variables = Variables {
            identity: Some(&identity),
            value: field.and_then(|field| field.value_in(&identity)),
            ..self.variables(check, None)
        };
        when.holds(&variables) != Ok(false)
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

/// Returns the counters of a check, looked up once instead of with every sign-up.
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

fn record(CompiledCheck { check, name, .. }: &CompiledCheck, finished: &Finished) -> CheckRecord {
    let (kind, message_id) = match &finished.outcome {
        Outcome::Refused(message) => (None, Some(message.id)),
        Outcome::Unavailable { kind, .. } => (Some(kind.as_str()), None),
        _ => (None, None),
    };
    CheckRecord {
        check: Arc::clone(name),
        outcome: finished.outcome.as_str(),
        kind,
        message_id,
        observed: check.mode == Mode::Observe,
        duration_ms: finished.duration_ms,
    }
}
