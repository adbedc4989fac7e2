//! Kratos: its admin API, its version and clock, and the identity schemas in force.

use std::sync::Arc;

use serde_json::Value;

use super::report::{Finding, Level, Section};
use super::skew::{self, Stakes};
use super::way::{Way, is_blocked};
use super::{Examined, NO_CLIENT, of_problem};
use crate::base::diagnostics::listed;
use crate::base::telemetry::error_chain;
use crate::config;
use crate::kratos::schema::Schemas;
use crate::lint::rules::{UncheckedRight, unchecked_rights};
use crate::lint::version::{KratosVersion, kratos_version};
use crate::outbound::kratos_admin::in_force::SchemasError;
use crate::outbound::kratos_admin::{Error, KratosAdmin};
use crate::outbound::services::client::CallError;

const SECTION: Section = Section::Kratos;
const ADMIN_URL: [&str; 2] = ["kratos", "admin_url"];

/// Examines Kratos's admin API.
pub(super) async fn examine(examined: &Examined<'_>) -> Vec<Finding> {
    let Some(admin) = &examined.settings.kratos.admin else {
        let reason = "`kratos.admin_url` is not set";
        let help = "set `kratos: {admin_url: \"http://kratos:4434\"}`";
        return vec![SECTION.not_checked("reach", reason).help(help)];
    };
    let way = Way {
        examined,
        section: SECTION,
        subject: None,
        url: &admin.url,
        at: Some(examined.place(&ADMIN_URL)),
    };
    let mut findings = way.examine().await;
    let client = match &examined.client {
        _ if is_blocked(&findings) => Err("the admin API cannot be reached"),
        Ok(client) => Ok(client),
        Err(_) => Err(NO_CLIENT),
    };
    let client = match client {
        Ok(client) => client,
        Err(reason) => {
            let names = ["version", "access", "schemas"];
            findings.extend(names.map(|name| SECTION.not_checked(name, reason)));
            return findings;
        }
    };
    let kratos = KratosAdmin::new(Arc::clone(client), examined.clock.clone());
    let kratos = kratos.with_timeout(examined.timeout);
    findings.extend(version(examined, &kratos).await);
    findings.push(access(examined, &kratos).await);
    findings.extend(schemas(examined, &kratos).await);
    findings
}

async fn version(examined: &Examined<'_>, kratos: &KratosAdmin) -> Vec<Finding> {
    let asked = examined.clock.now();
    let (found, took) = examined.timed(kratos.version()).await;
    let answered = examined.clock.now();
    let (version, answer) = match found.unwrap_or(Err(CallError::Timeout.into())) {
        Ok(found) => found,
        Err(error) => return vec![failed(examined, "version", error).took(took)],
    };
    let stakes = Stakes::Kratos;
    vec![
        judge_version(examined, &version).took(took),
        skew::of_response(SECTION, &answer.response, (asked, answered), stakes),
    ]
}

fn judge_version(examined: &Examined<'_>, version: &str) -> Finding {
    match kratos_version(examined.settings, version) {
        KratosVersion::Sufficient => SECTION.ok("version", version),
        KratosVersion::TooOld(reason) => SECTION
            .problem("version", format!("{version}: {reason}"))
            .at(examined.place(&ADMIN_URL))
            .help("update Kratos"),
        KratosVersion::Unknown => {
            let reason =
                format!("`{version}` is not a version, so it is not known what Kratos can do");
            SECTION.not_checked("version", reason)
        }
    }
}

async fn access(examined: &Examined<'_>, kratos: &KratosAdmin) -> Finding {
    let (done, took) = examined.timed(kratos.check_access()).await;
    match done.unwrap_or(Err(CallError::Timeout.into())) {
        Ok(()) => SECTION.ok("access", "the admin API lists identities"),
        Err(error) => failed(examined, "access", error),
    }
    .took(took)
}

fn failed(examined: &Examined<'_>, name: &'static str, error: Error) -> Finding {
    let found = SECTION.problem(name, error_chain(&error));
    let found = found.at(examined.place(&ADMIN_URL));
    match error {
        Error::Status(401 | 403 | 407) => {
            found.help("correct `kratos.auth`; Kratos itself needs none, but a proxy before it may")
        }
        Error::NotUnderstood | Error::Status(404) => found.help(
            "`kratos.admin_url` is the address of the admin API, by default port 4434; 4433 is the public API",
        ),
        Error::Status(500..) => found.help("look into the log of Kratos"),
        _ => found,
    }
}

async fn schemas(examined: &Examined<'_>, kratos: &KratosAdmin) -> Vec<Finding> {
    // The client limits each of the two calls, so that its error names the API that did not answer.
    let started = examined.clock.monotonic();
    let found = kratos.identity_schemas(examined.kratos_public).await;
    let took = examined.clock.monotonic().saturating_sub(started);
    let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    match found {
        Ok(schemas) => judge_schemas(examined, schemas, took),
        Err(SchemasError::Admin(error)) => vec![failed(examined, "schemas", error).took(took)],
        Err(error @ SchemasError::None) => {
            let help = "set `identity.schemas` in kratos.yml";
            vec![SECTION.problem("schemas", error.to_string()).help(help)]
        }
        Err(error @ SchemasError::Public { .. }) => {
            let reason = error.to_string();
            let help = "if that address cannot be used from here, give another: --kratos-public http://kratos:4433";
            vec![SECTION.not_checked("schemas", reason).help(help)]
        }
    }
}

/// Compares the settings with the identity schemas in force, by the rules of `validate` and `kratos lint`.
fn judge_schemas(examined: &Examined<'_>, schemas: Schemas, took: u64) -> Vec<Finding> {
    let in_force = format!("in force: {}", listed(schemas.ids()));
    let mut findings = vec![SECTION.ok("schemas", in_force).took(took)];
    findings.extend(outdated(examined, &schemas));
    for UncheckedRight { message, help } in unchecked_rights(examined.settings, &schemas) {
        let at = examined.place(&["checks"]);
        findings.push(SECTION.warning("schemas", message).at(at).help(help));
    }
    let environment = examined.environment.clone().with_identity_schemas(schemas);
    let review = config::review_text(examined.text, examined.file, &environment);
    let problems = review.problems.iter();
    findings.extend(problems.map(|one| of_problem(SECTION, "schemas", Level::Problem, one)));
    let known = &examined.settings.warnings;
    let warnings = review.warnings.iter();
    let warnings = warnings.filter(|one| known.iter().all(|other| other != *one));
    findings.extend(warnings.map(|one| of_problem(SECTION, "schemas", Level::Warning, one)));
    findings
}

/// Reports the schemas of the settings that are not those of Kratos.
fn outdated(examined: &Examined<'_>, in_force: &Schemas) -> Vec<Finding> {
    let written = &examined.settings.kratos.schemas;
    let kratos = examined.tree().and_then(|tree| tree.get("kratos"));
    let has_one = kratos.is_some_and(|kratos| kratos.get("identity_schema").is_some());
    let place = |id: &str| {
        if has_one {
            examined.place(&["kratos", "identity_schema"])
        } else {
            examined.place(&["kratos", "identity_schemas", id])
        }
    };
    let differs = |id: &str, schema: &Value| {
        let mut known = in_force.iter();
        // A single schema has no id in the settings.
        if written.ids().count() == 1 {
            return known.all(|(_, other)| other != schema);
        }
        known.all(|(other_id, other)| other_id != id || other != schema)
    };
    let different = written.iter().filter(|(id, schema)| differs(id, schema));
    different
        .map(|(id, _)| {
            let message = format!("the identity schema `{id}` of the settings is none of those that Kratos uses");
            SECTION
                .warning("schemas", message)
                .at(place(id))
                .help("copy the file that `identity.schemas` in kratos.yml names, or restart Kratos with the new one")
        })
        .collect()
}
