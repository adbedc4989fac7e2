//! One submission against the settings and the real services: `vestibule try`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::canned::locked;
use super::compare::{body_of, changed_members, line};
use super::explain::{TriedExpression, expressions, why_not};
use super::hidden::Hidden;
use super::reservation::taking;
use super::submission::{deliveries, saved};
use crate::base::clock::{Clock, Deadline, Timestamp};
use crate::base::telemetry::Trace;
use crate::checks::observe::CheckObserver;
use crate::checks::reserver::{ReserveOutcome, ReserveRequest, ReserveResult, TakeReservation};
use crate::checks::{
    AskService, Check, CheckInput, Evaluator, Kind, OpenDeferrals, Policy, Rules, reserve,
    response_in,
};
use crate::config::Settings;
use crate::expression::Variables;
use crate::kratos::{Hook, Payload, Stage};
use crate::model::decision::CheckRecord;
use crate::model::delivery::{Action, NewDelivery};
use crate::model::request::Request;
use crate::model::reservation::Reservation;
use crate::model::verdict::Verdict;
use crate::outbound::services::client::CallError;

/// Headers whose values are not shown contain one of these words in their name.
const SECRET: [&str; 6] = ["auth", "cookie", "key", "token", "secret", "password"];

/// What a submission leads to.
#[derive(Debug, Serialize)]
pub struct Trial {
    /// `admitted`, `changed` or `refused`.
    pub verdict: &'static str,
    /// The checks of the flow, in the order of the settings.
    pub checks: Vec<TriedCheck>,
    /// The messages that the visitor sees.
    pub messages: Vec<ShownMessage>,
    /// What the response changes in the identity.
    pub changes: Value,
    /// What the subscriptions would send for the saved identity.
    pub deliveries: Vec<Value>,
    /// The reservations that may still be held, because they could not be released.
    pub unreleased: Vec<Unreleased>,
}

/// A reservation that could not be released.
#[derive(Debug, Serialize)]
pub struct Unreleased {
    /// The check.
    pub check: String,
    /// The `Idempotency-Key` with which it was taken.
    pub key: Uuid,
    /// Why it could not be released.
    pub reason: String,
}

/// One check.
#[derive(Debug, Serialize)]
pub struct TriedCheck {
    /// The name.
    pub check: String,
    /// The outcome.
    pub outcome: &'static str,
    /// Why the check did not run, or refused without a question.
    pub why: Option<&'static str>,
    /// Why there was no usable answer.
    pub kind: Option<&'static str>,
    /// Whether the outcome has no effect.
    pub observed: bool,
    /// How long the check took.
    pub duration_ms: u64,
    /// What it sent to its service; values of headers with secrets are hidden.
    pub question: Option<Value>,
    /// What the service answered, or why there is no answer.
    pub answer: Option<Value>,
    /// What each expression of the check came to.
    pub expressions: Vec<TriedExpression>,
}

/// One message.
#[derive(Debug, Serialize)]
pub struct ShownMessage {
    /// The field; null for a message about the form as a whole.
    pub field: Option<String>,
    /// The id.
    pub id: u32,
    /// The text, in the language of the visitor.
    pub text: String,
}

/// What is needed for a trial.
pub struct Trials {
    /// The settings.
    pub settings: Settings,
    /// The services.
    pub services: Arc<dyn AskService>,
    /// The clock.
    pub clock: Clock,
    /// Whether reservations are taken, and released again.
    pub takes: bool,
}

impl Trial {
    /// Hides values of the environment and of secret files wherever they are printed, and shortens very long answers.
    pub fn hide(&mut self, hidden: &Hidden) {
        for check in &mut self.checks {
            check.question.iter_mut().for_each(|one| hidden.hide(one));
            if let Some(answer) = &mut check.answer {
                hidden.hide(answer);
                shorten(answer);
            }
            for one in &mut check.expressions {
                hidden.hide_in(&mut one.result);
            }
        }
        for message in &mut self.messages {
            hidden.hide_in(&mut message.text);
        }
        hidden.hide(&mut self.changes);
        self.deliveries.iter_mut().for_each(|one| hidden.hide(one));
        for held in &mut self.unreleased {
            hidden.hide_in(&mut held.reason);
        }
    }
}

impl Trials {
    /// Evaluates the checks, and returns what followed.
    pub async fn run(&self, hook: &Hook, payload: &Payload) -> Trial {
        let rules = Arc::new(self.settings.rules());
        let seen = Arc::new(Seen::default());
        let reservations = Arc::new(TriedReservations {
            services: self.takes.then(|| Arc::clone(&self.services)),
            clock: self.clock.clone(),
            taken: Mutex::default(),
        });
        let evaluator = Evaluator {
            rules: Arc::clone(&rules),
            services: Arc::clone(&self.services),
            reservations: Arc::clone(&reservations) as _,
            observer: Arc::clone(&seen) as _,
            clock: self.clock.clone(),
        };
        let now = self.clock.now();
        let (deferrals, refused_late) = (OpenDeferrals::default(), BTreeSet::new());
        let evaluated = evaluator
            .evaluate(CheckInput {
                hook,
                payload,
                until: self.clock.deadline(self.settings.hooks.deadline),
                trace: Trace::begin(),
                submission: "try",
                is_guarded: false,
                deferrals: &deferrals,
                refused_late: &refused_late,
            })
            .await;
        let unreleased = self.release(&rules, &reservations).await;
        let before = payload.identity.clone().unwrap_or_default();
        let post = Hook {
            stage: Stage::Post,
            ..hook.clone()
        };
        let sent = deliveries(&rules, &post, payload, &evaluated.verdict, now);
        Trial {
            verdict: evaluated.verdict.as_str(),
            checks: evaluated
                .records
                .iter()
                .map(|record| seen.describe(&rules, record, hook, payload, now))
                .collect(),
            messages: messages(&evaluated.verdict),
            changes: changed_members(&before, &saved(&before, &evaluated.verdict)),
            deliveries: sent.iter().map(delivery).collect(),
            unreleased,
        }
    }

    /// Releases what was taken. Returns what may still be held.
    async fn release(&self, rules: &Rules, reservations: &TriedReservations) -> Vec<Unreleased> {
        let taken = std::mem::take(&mut *locked(&reservations.taken));
        let mut unreleased = Vec::new();
        for reservation in taken {
            if let Err(reason) = self.release_one(rules, &reservation).await {
                unreleased.push(Unreleased {
                    check: reservation.check,
                    key: reservation.id,
                    reason,
                });
            }
        }
        unreleased
    }

    async fn release_one(&self, rules: &Rules, reservation: &Reservation) -> Result<(), String> {
        let Some(reserve) = rules.reserve(&reservation.check) else {
            return Ok(());
        };
        let now = self.clock.now();
        let Ok(Action::Send(request)) =
            reserve::release(reserve, reservation, rules.lists(), now).action
        else {
            return Err("`release` cannot be built without the answer to `take`".to_owned());
        };
        let until = self.clock.deadline(self.settings.hooks.deadline);
        let service = &reserve.release.service;
        match self.services.ask(service, &request, &[], until).await {
            Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
            Ok(answer) => Err(format!(
                "`release` was answered with status {}",
                answer.status
            )),
            Err(error) => Err(format!("`release`: {error}")),
        }
    }
}

/// Takes reservations at the services, or none.
struct TriedReservations {
    services: Option<Arc<dyn AskService>>,
    clock: Clock,
    taken: Mutex<Vec<Reservation>>,
}

#[async_trait]
impl TakeReservation for TriedReservations {
    async fn take(&self, request: ReserveRequest<'_>) -> ReserveResult {
        let Some(services) = &self.services else {
            return ReserveResult::NotStored(
                "reservations are not taken without `--take`".to_owned(),
            );
        };
        let id = Uuid::new_v4();
        let headers = [("idempotency-key", id.to_string())];
        let service = &request.reserve.take.service;
        let answer = services
            .ask(service, &request.take, &headers, request.until)
            .await;
        ReserveResult::Now {
            reservation: taking(request, id, self.clock.now()),
            is_ours: true,
            answer,
        }
    }

    async fn store_reservation(
        &self,
        _: &Check,
        mut reservation: Reservation,
        answer: Option<&Value>,
        outcome: ReserveOutcome,
        _: Deadline,
    ) -> bool {
        if outcome != ReserveOutcome::Refused {
            if let Some(details) = &mut reservation.details {
                details.context.taken = Some(reserve::taken(reservation.id, answer));
            }
            locked(&self.taken).push(reservation);
        }
        true
    }
}

/// What the checks sent and got.
#[derive(Default)]
struct Seen {
    questions: Mutex<BTreeMap<String, Request>>,
    answers: Mutex<BTreeMap<String, Result<Arc<Value>, CallError>>>,
}

impl CheckObserver for Seen {
    fn asks(&self, check: &str, request: &Request) {
        locked(&self.questions).insert(check.to_owned(), request.clone());
    }

    fn answered(&self, check: &str, answer: Result<&Arc<Value>, CallError>) {
        locked(&self.answers).insert(check.to_owned(), answer.map(Arc::clone));
    }

    fn finished(&self, _: usize, _: &'static str, _: Option<(Kind, Policy)>) {}
    fn rejected_credentials(&self, _: &str) {}
    fn set_failed(&self, _: &str) {}
    fn reservation(&self, _: &'static str) {}
}

impl Seen {
    fn describe(
        &self,
        rules: &Rules,
        record: &CheckRecord,
        hook: &Hook,
        payload: &Payload,
        now: Timestamp,
    ) -> TriedCheck {
        let name = &*record.check;
        let answers = locked(&self.answers);
        let responses: BTreeMap<String, Arc<Value>> = answers
            .iter()
            .filter_map(|(check, answer)| Some((check.clone(), Arc::clone(answer.as_ref().ok()?))))
            .collect();
        let own = responses
            .get(name)
            .and_then(|readable| response_in(readable));
        let identity = payload.identity.as_ref().unwrap_or(&Value::Null);
        let variables = |check: &Check| Variables {
            identity: Some(identity),
            previous: payload.previous.as_ref(),
            value: check.value_in(identity),
            flow: Some(&payload.flow),
            request: Some(&payload.request),
            method: &hook.method,
            now,
            response: own,
            checks: Some(&responses),
            taken: None,
            lists: rules.lists(),
        };
        let check = rules.check(name);
        let why =
            check.and_then(|check| why_not(record.outcome, check, hook.flow, &variables(check)));
        let has_run =
            why.is_none() && matches!(record.outcome, "accepted" | "refused" | "unavailable");
        let expressions = check.map_or_else(Vec::new, |check| {
            expressions(check, &variables(check), has_run)
        });
        TriedCheck {
            check: name.to_owned(),
            outcome: record.outcome,
            why,
            kind: record.kind,
            observed: record.observed,
            duration_ms: record.duration_ms,
            question: locked(&self.questions).get(name).map(question),
            answer: answers.get(name).map(|answer| match answer {
                Ok(readable) => response_in(readable).cloned().unwrap_or_default(),
                Err(error) => json!({"none": error.to_string()}),
            }),
            expressions,
        }
    }
}

fn question(request: &Request) -> Value {
    let headers: Map<String, Value> = request
        .headers
        .iter()
        .map(|(name, value)| {
            let lower = name.to_lowercase();
            let is_secret = SECRET.iter().any(|word| lower.contains(word));
            let value = if is_secret { "(hidden)" } else { value };
            (name.clone(), value.into())
        })
        .collect();
    json!({"request": line(request), "headers": headers, "body": body_of(request.body.as_ref())})
}

/// The longest body of an answer that is kept whole, in bytes of JSON.
const MAX_BODY: usize = 64 * 1024;

/// Replaces a very long body by the beginning of its text.
fn shorten(response: &mut Value) {
    let text = match &response["body"] {
        Value::String(text) => text.clone(),
        body => body.to_string(),
    };
    if text.len() > MAX_BODY {
        let beginning: String = text.chars().take(MAX_BODY / 4).collect();
        response["body"] = format!("{beginning}… ({} bytes)", text.len()).into();
    }
}

fn messages(verdict: &Verdict) -> Vec<ShownMessage> {
    let Verdict::Refuse(findings) = verdict else {
        return Vec::new();
    };
    let shown = findings.iter().map(|finding| ShownMessage {
        field: finding.field.as_ref().map(ToString::to_string),
        id: finding.message.id,
        text: finding.message.text.clone(),
    });
    shown.collect()
}

fn delivery(delivery: &NewDelivery) -> Value {
    let name = &delivery.subscription;
    match &delivery.action {
        Ok(Action::Send(request)) => {
            let mut shown = question(request);
            shown["subscription"] = name.as_str().into();
            shown
        }
        _ => json!({"subscription": name, "not_built": delivery.unbuilt_reason()}),
    }
}
