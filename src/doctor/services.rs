//! The services: the way to each, its credentials, and its clock.

use futures_util::future::join_all;

use super::Examined;
use super::report::{Finding, Section};
use super::skew::{self, Stakes};
use super::way::{Way, is_blocked};
use crate::outbound::services::client::CallError;
use crate::outbound::services::{Probe, Service};

const SECTION: Section = Section::Services;

/// Examines all services at the same time.
pub(super) async fn examine(examined: &Examined<'_>) -> Vec<Finding> {
    let all = &examined.settings.services;
    if all.is_empty() {
        return vec![SECTION.ok("services", "the settings name none")];
    }
    let each = all.iter().map(|one| service(examined, one));
    join_all(each).await.concat()
}

async fn service(examined: &Examined<'_>, service: &Service) -> Vec<Finding> {
    let name = service.name.as_str();
    // The service of a whole URL has the name of its origin.
    let is_named = !name.contains("://");
    let keys = ["services", name, "url"];
    let way = Way {
        examined,
        section: SECTION,
        subject: Some(name),
        url: &service.url,
        keys: if is_named { &keys } else { &[] },
    };
    let mut findings = way.examine().await;
    // A whole URL has no credentials.
    if !is_named {
        return findings;
    }
    if is_blocked(&findings) {
        let reason = "the service cannot be reached";
        findings.push(SECTION.not_checked("credentials", reason).about(name));
    } else {
        findings.extend(credentials(examined, service).await);
    }
    findings
}

async fn credentials(examined: &Examined<'_>, service: &Service) -> Vec<Finding> {
    let name = service.name.as_str();
    let Some(probe) = &service.probe else {
        let reason = format!("`services.{name}.probe` is not set, so no request was sent");
        let unset = SECTION.not_checked("credentials", reason);
        let help = format!(
            "name a request that changes nothing: services: {{{name}: {{probe: {{get: /path}}}}}}"
        );
        return vec![unset.about(name).help(help)];
    };
    let asked = examined.clock.now();
    let call = examined.get(&examined.services, name, &probe.path);
    let (answer, took) = examined.timed(call).await;
    let answered = examined.clock.now();
    let at = examined.place(&["services", name, "probe"]);
    let answer = match answer.unwrap_or(Err(CallError::Timeout)) {
        Ok(answer) => answer,
        Err(error) => {
            let message = format!("GET {}: {error}", shown(probe));
            let found = SECTION.problem("credentials", message).about(name);
            return vec![found.at(at).took(took)];
        }
    };
    let stakes = if service.signing_keys.is_empty() {
        Stakes::None
    } else {
        Stakes::Signatures
    };
    let clock = skew::of_response(SECTION, &answer.response, (asked, answered), stakes);
    vec![
        judge(service, probe, answer.status)
            .about(name)
            .at(at)
            .took(took),
        clock.about(name),
    ]
}

/// Returns the path without its query, which can hold a secret.
fn shown(probe: &Probe) -> &str {
    probe.path.split('?').next().unwrap_or_default()
}

fn judge(service: &Service, probe: &Probe, status: u16) -> Finding {
    let Service { name, auth, .. } = service;
    let message = format!("GET {} answered {status}", shown(probe));
    let problem = |message: String| SECTION.problem("credentials", message);
    if probe.expects(status) {
        return SECTION.ok("credentials", message);
    }
    match status {
        401 | 403 | 407 if auth.is_some() || !service.headers.is_empty() => {
            let keys = if auth.is_some() { "auth" } else { "headers" };
            problem(format!("the credentials were refused: {message}")).help(format!(
                "correct `services.{name}.{keys}`, or give these credentials their rights at the service"
            ))
        }
        401 | 403 | 407 => problem(format!("the service needs credentials: {message}")).help(
            format!("set `services.{name}.auth`"),
        ),
        429 => SECTION
            .warning("credentials", format!("the service limits calls: {message}"))
            .help("try again later; if it recurs, lower `limit`, or ask for a higher one at the service"),
        500.. => problem(format!("the service does not work: {message}"))
            .help("look into the log of the service"),
        300..=399 => problem(format!("{message}, and Vestibule follows no redirect"))
            .help(format!("set `services.{name}.url` to the address to which it redirects")),
        _ => problem(format!("{message}, which `probe` does not expect")).help(format!(
            "correct `services.{name}.probe.get`, or add the status: expect: [{status}]"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::Secret;
    use crate::doctor::report::Level;
    use crate::outbound::services::Auth;

    #[test]
    fn the_status_of_a_probe_decides() {
        let url: url::Url = "http://crm".parse().unwrap();
        let plain = Service::without_credentials("crm".to_owned(), url);
        let token = Secret::new("t".to_owned());
        let with_token = Service {
            auth: Some(Auth::Bearer { token }),
            ..plain.clone()
        };
        for (service, expected, status, level, part) in [
            (&with_token, &[][..], 200, Level::Ok, "GET /me answered 200"),
            (&with_token, &[], 204, Level::Ok, ""),
            (&with_token, &[405], 405, Level::Ok, ""),
            (&with_token, &[405], 200, Level::Problem, "does not expect"),
            (
                &with_token,
                &[],
                401,
                Level::Problem,
                "credentials were refused",
            ),
            (
                &with_token,
                &[],
                403,
                Level::Problem,
                "credentials were refused",
            ),
            (&with_token, &[403], 403, Level::Ok, ""),
            (&plain, &[], 401, Level::Problem, "needs credentials"),
            (&plain, &[], 429, Level::Warning, "limits"),
            (&plain, &[], 503, Level::Problem, "does not work"),
            (&plain, &[], 302, Level::Problem, "redirect"),
            (&plain, &[], 404, Level::Problem, "does not expect"),
        ] {
            let probe = Probe {
                path: "/me?key=canary".to_owned(),
                expected: expected.to_vec(),
            };
            let found = judge(service, &probe, status);
            assert_eq!(found.level, level, "{status} {expected:?}");
            assert!(found.message.contains(part), "{}", found.message);
            assert!(!found.message.contains("canary"), "{}", found.message);
        }
    }
}
