//! Runs the cases of a test file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use regex::Regex;

use super::RuleTests;
use super::canned::{CannedReservations, CannedServices, locked};
use super::compare::{Actual, changed_members, differences};
use super::coverage::{Coverage, Observer, Reached};
use super::file::{Case, CaseFlow};
use super::submission::{Submission, deliveries, saved};
use super::unknown_traits::unknown_traits;
use crate::base::clock::{Clock, Timestamp, moment};
use crate::base::diagnostics::did_you_mean;
use crate::base::telemetry::Trace;
use crate::checks::{CheckInput, Evaluator, OpenDeferrals};
use crate::config::parse_duration;
use crate::kratos::{Flow, Payload, Stage};

/// The time of a case that names none.
const NOW: &str = "2026-01-01T00:00:00Z";

/// The result of one case.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// The name of the case.
    pub name: String,
    /// What is different from what the case expects. Empty: the case passed.
    pub problems: Vec<String>,
    /// What is worth knowing, and fails nothing.
    pub notes: Vec<String>,
}

/// Runs the cases whose names match, and returns their results and the coverage.
#[must_use]
pub fn run(tests: &RuleTests, only: Option<&Regex>) -> (Vec<CaseResult>, Coverage) {
    let mut coverage = Coverage::of(&tests.rules);
    let cases = tests.file.cases.iter();
    let chosen = cases.filter(|case| only.is_none_or(|only| only.is_match(&case.name)));
    let results = chosen.map(|case| {
        let mut notes = Vec::new();
        CaseResult {
            name: case.name.clone(),
            problems: tests.run_case(case, &mut coverage, &mut notes),
            notes,
        }
    });
    (results.collect(), coverage)
}

impl RuleTests {
    fn run_case(
        &self,
        case: &Case,
        coverage: &mut Coverage,
        notes: &mut Vec<String>,
    ) -> Vec<String> {
        let submission = case.submission();
        let (now, payload) = match self.call(case, &submission) {
            Ok(call) => call,
            Err(problems) => return problems,
        };
        let (clock, _) = Clock::manual(now);
        let services = Arc::new(self.services(case, clock.clone()));
        let reached = Arc::new(Reached::default());
        let hook = submission.hook(Stage::Pre);
        let evaluator = Evaluator {
            rules: Arc::clone(&self.rules),
            services: Arc::clone(&services) as _,
            reservations: Arc::new(CannedReservations(Arc::clone(&services))),
            observer: Arc::new(Observer {
                rules: Arc::clone(&self.rules),
                reached: Arc::clone(&reached),
            }),
            clock: clock.clone(),
        };
        let (deferrals, refused_late) = (OpenDeferrals::default(), BTreeSet::new());
        let evaluated = evaluator.evaluate(CheckInput {
            hook: &hook,
            payload: &payload,
            until: clock.deadline(self.settings.hooks.deadline),
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
        let after = saved(&before, &evaluated.verdict);
        let post = submission.hook(Stage::Post);
        let actual = Actual {
            deliveries: deliveries(&self.rules, &post, &payload, &evaluated.verdict, now),
            changes: changed_members(&before, &after),
            verdict: evaluated.verdict,
            records: evaluated.records,
            asked: locked(&services.asked).clone(),
        };
        notes.extend(services.unused());
        let mut problems = locked(&services.problems).clone();
        problems.extend(differences(&case.expect, &actual));
        problems
    }

    /// Returns the time of the case and the call of Kratos. An error has what is wrong with the case.
    fn call(
        &self,
        case: &Case,
        submission: &Submission,
    ) -> Result<(Timestamp, Payload), Vec<String>> {
        let now = self.check_names(case).and_then(|()| check(case));
        let now = now.map_err(|problem| vec![problem])?;
        let schemas = &self.settings.kratos.schemas;
        let unknown = unknown_traits(schemas, case.schema_id.as_deref(), &case.traits);
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let payload = submission.payload(&self.settings, now);
        Ok((now, payload.map_err(|problem| vec![problem])?))
    }

    /// Checks the names in a case. A wrong name would make an expectation hold whatever happens.
    fn check_names(&self, case: &Case) -> Result<(), String> {
        let cases = self.file.cases.iter();
        if cases.filter(|other| other.name == case.name).count() > 1 {
            return Err("another case has the same name".to_owned());
        }
        let services = self.settings.services.iter();
        let known: Vec<&str> = services.map(|service| service.name.as_str()).collect();
        for name in case.answers.keys().chain(&case.not_asked) {
            if !known.contains(&name.as_str()) {
                return Err(unknown("service", name, &known));
            }
        }
        let known: Vec<&str> = self.rules.checks().map(|check| &*check.name).collect();
        let mut names = case.expect.checks.keys();
        names.try_for_each(|name| {
            if known.contains(&name.as_str()) {
                Ok(())
            } else {
                Err(unknown("check", name, &known))
            }
        })
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
            used: Mutex::default(),
            problems: Mutex::default(),
        }
    }
}

fn unknown(kind: &str, name: &str, known: &[&str]) -> String {
    let nearest = did_you_mean(name, known.iter().copied());
    let help = nearest.unwrap_or_else(|| format!("they have {}", known.join(", ")));
    format!("the settings have no {kind} `{name}`; {help}")
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

impl Case {
    fn submission(&self) -> Submission {
        let flow = match self.flow {
            CaseFlow::Registration => Flow::Registration,
            CaseFlow::Settings => Flow::Settings,
        };
        let mut headers = self.headers.clone();
        if let Some(language) = &self.language {
            headers.insert("Accept-Language".to_owned(), language.clone());
        }
        let previous = self.previous.as_ref();
        Submission {
            metadata_public: self.metadata_public.clone(),
            schema_id: self.schema_id.clone(),
            previous: previous.map(|one| (one.traits.clone(), one.metadata_public.clone())),
            transient_payload: self.transient_payload.clone(),
            request_url: self.request_url.clone(),
            return_to: self.return_to.clone(),
            provider: self.provider.clone(),
            headers,
            client_ip: self.client_ip.clone(),
            ..Submission::of(flow, self.method.clone(), self.traits.clone())
        }
    }
}
