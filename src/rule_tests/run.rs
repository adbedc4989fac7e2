//! Runs the cases of a test file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use chrono::TimeDelta;
use futures_util::FutureExt as _;
use regex::Regex;
use serde_json::{Value, json};
use uuid::Uuid;

use super::RuleTests;
use super::canned::{CannedReservations, CannedServices, locked};
use super::compare::{Actual, changed_members, differences};
use super::coverage::{Coverage, Observer, Reached};
use super::file::{Case, CaseFlow};
use crate::base::clock::{Clock, Timestamp, moment, saturating_add};
use crate::base::telemetry::Trace;
use crate::checks::follow_up::event;
use crate::checks::{CheckInput, Evaluator, OpenDeferrals};
use crate::config::parse_duration;
use crate::expression::Variables;
use crate::kratos::template::FORWARDED;
use crate::kratos::{Flow, Hook, Payload, Stage};
use crate::model::delivery::NewDelivery;
use crate::model::delivery::subscription::{Trigger, deliveries_for};
use crate::model::verdict::Verdict;

/// The id of the identity that was changed, or that a sign-up becomes.
const IDENTITY: Uuid = Uuid::from_u128(0x0198_a1b2_c3d4_7e5f_8a6b_7c8d_9e0f_1a2b);
/// The id of the flow.
const FLOW: Uuid = Uuid::from_u128(0x0198_a1b2_c3d4_4e5f_8a6b_7c8d_9e0f_0001);
/// The time of a case that names none.
const NOW: &str = "2026-01-01T00:00:00Z";

/// The result of one case.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// The name of the case.
    pub name: String,
    /// What is different from what the case expects. Empty: the case passed.
    pub problems: Vec<String>,
}

/// Runs the cases whose names match, and returns their results and the coverage.
#[must_use]
pub fn run(tests: &RuleTests, only: Option<&Regex>) -> (Vec<CaseResult>, Coverage) {
    let mut coverage = Coverage::of(&tests.rules);
    let cases = tests.file.cases.iter();
    let chosen = cases.filter(|case| only.is_none_or(|only| only.is_match(&case.name)));
    let results = chosen.map(|case| CaseResult {
        name: case.name.clone(),
        problems: tests.run_case(case, &mut coverage),
    });
    (results.collect(), coverage)
}

impl RuleTests {
    fn run_case(&self, case: &Case, coverage: &mut Coverage) -> Vec<String> {
        let now = match check(case) {
            Ok(now) => now,
            Err(problem) => return vec![problem],
        };
        let payload = match self.payload(case, now) {
            Ok(payload) => payload,
            Err(problem) => return vec![problem],
        };
        let (clock, _) = Clock::manual(now);
        let services = Arc::new(self.services(case, clock.clone()));
        let reached = Arc::new(Reached::default());
        let hook = hook(case, Stage::Pre);
        let evaluator = Evaluator {
            rules: Arc::clone(&self.rules),
            services: Arc::clone(&services) as _,
            reservations: Arc::new(CannedReservations(Arc::clone(&services))),
            observer: Arc::new(Observer {
                rules: Arc::clone(&self.rules),
                reached: Arc::clone(&reached),
            }),
            clock,
        };
        let (deferrals, refused_late) = (OpenDeferrals::default(), BTreeSet::new());
        let evaluated = evaluator.evaluate(CheckInput {
            hook: &hook,
            payload: &payload,
            until: saturating_add(now, self.settings.hooks.deadline),
            trace: Trace::begin(),
            submission: "test",
            is_guarded: false,
            deferrals: &deferrals,
            refused_late: &refused_late,
        });
        let Some(evaluated) = evaluated.now_or_never() else {
            return vec!["the checks did not end".to_owned()];
        };
        coverage.add(&reached);
        let before = payload.identity.clone().unwrap_or_default();
        let after = with_changes(&before, &evaluated.verdict);
        let actual = Actual {
            deliveries: self.deliveries(case, &payload, &after, &evaluated.verdict, now),
            changes: changed_members(&before, &after),
            verdict: evaluated.verdict,
            records: evaluated.records,
            asked: locked(&services.asked).clone(),
        };
        let mut problems = locked(&services.problems).clone();
        problems.extend(differences(&case.expect, &actual));
        problems
    }

    fn services(&self, case: &Case, clock: Clock) -> CannedServices {
        let timeouts: BTreeMap<_, _> = self
            .settings
            .services
            .iter()
            .filter_map(|service| Some((service.name.clone(), service.timeout?)))
            .collect();
        CannedServices {
            answers: case.answers.clone(),
            not_asked: case.not_asked.clone(),
            timeouts,
            clock,
            asked: Mutex::default(),
            problems: Mutex::default(),
        }
    }

    /// The call of Kratos, as its template would build it.
    fn payload(&self, case: &Case, now: Timestamp) -> Result<Payload, String> {
        let mut headers = case.headers.clone();
        if let Some(language) = &case.language {
            headers.insert("Accept-Language".to_owned(), language.clone());
        }
        let needed = self.settings.hooks.body_needs.headers.iter();
        let forwarded: Vec<&str> = FORWARDED
            .into_iter()
            .chain(needed.map(String::as_str))
            .collect();
        let previous = case.previous.as_ref().map(|previous| {
            json!({
                "id": IDENTITY, "traits": previous.traits, "metadata_public": previous.metadata_public, "state": "active",
                "updated_at": now - TimeDelta::days(1),
            })
        });
        let id = match case.flow {
            CaseFlow::Registration => Uuid::nil(),
            CaseFlow::Settings => IDENTITY,
        };
        let body = json!({
            "version": 2,
            "forwarded_headers": forwarded,
            "flow": {
                "id": FLOW, "type": "browser", "issued_at": now - TimeDelta::minutes(1), "expires_at": now + TimeDelta::hours(1),
                "transient_payload": case.transient_payload.clone().unwrap_or_else(|| json!({})),
                "request_url": case.request_url, "return_to": case.return_to, "provider": case.provider,
            },
            "identity": {
                "id": id, "schema_id": case.schema_id.as_deref().unwrap_or("default"), "traits": case.traits,
                "metadata_public": case.metadata_public, "state": "active", "created_at": now, "updated_at": now,
            },
            "previous": previous,
            "request": {"headers": headers},
        });
        let mut payload = Payload::parse(body.to_string().as_bytes())
            .map_err(|error| format!("the case cannot be sent: {error}"))?;
        if self.settings.hooks.client_ip.is_some() {
            payload.request["client_ip"] = json!(case.client_ip);
        }
        Ok(payload)
    }

    /// What the subscriptions would send for the saved identity.
    fn deliveries(
        &self,
        case: &Case,
        payload: &Payload,
        saved: &Value,
        verdict: &Verdict,
        now: Timestamp,
    ) -> Vec<NewDelivery> {
        if matches!(verdict, Verdict::Refuse(_)) {
            return Vec::new();
        }
        let mut saved = saved.clone();
        saved["id"] = json!(IDENTITY);
        let hook = hook(case, Stage::Post);
        let variables = Variables {
            identity: Some(&saved),
            previous: payload.previous.as_ref(),
            value: None,
            flow: Some(&payload.flow),
            request: Some(&payload.request),
            method: &hook.method,
            now,
            response: None,
            checks: None,
            taken: None,
            lists: self.rules.lists(),
        };
        let trigger = Trigger {
            event: event(&hook),
            identity_id: IDENTITY,
            trigger_id: "test",
            check: None,
        };
        deliveries_for(self.rules.subscriptions(), &trigger, &variables)
    }
}

/// Checks what the schema of the file cannot express. Returns the time of the case.
fn check(case: &Case) -> Result<Timestamp, String> {
    for (service, answers) in &case.answers {
        for answer in answers {
            if answer.target().is_none() {
                return Err(format!(
                    "an answer of `{service}` needs exactly one of `get`, `post`, `put`, `patch` and `delete`"
                ));
            }
            if let Some(delay) = &answer.delay {
                parse_duration(delay)
                    .map_err(|error| format!("`delay` of an answer of `{service}`: {error}"))?;
            }
        }
    }
    let now = case.now.as_deref().unwrap_or(NOW);
    moment(now).ok_or_else(|| {
        format!("`now`: `{now}` is not a time; write 2026-11-01 or 2026-11-01T12:00:00Z")
    })
}

fn hook(case: &Case, stage: Stage) -> Hook {
    let (flow, method) = match case.flow {
        CaseFlow::Registration => (Flow::Registration, "password"),
        CaseFlow::Settings => (Flow::Settings, "profile"),
    };
    Hook {
        flow,
        stage,
        method: case.method.as_deref().unwrap_or(method).to_owned(),
    }
}

/// The identity as Kratos saves it after the response.
fn with_changes(identity: &Value, verdict: &Verdict) -> Value {
    let mut saved = identity.clone();
    if let Verdict::AdmitWith(changes) = verdict {
        for (key, value) in changes {
            saved[key] = value.clone();
        }
    }
    saved
}
