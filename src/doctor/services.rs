//! The services: the way to each, its credentials, and its clock.

use futures_util::future::join_all;

use super::report::{Finding, Section};
use super::skew::{self, Stakes};
use super::way::{Way, is_blocked};
use super::{Examined, NO_CLIENT};
use crate::base::diagnostics::Position;
use crate::config::interpolation::{Part, parts};
use crate::config::tree::{Kind, Node, join};
use crate::outbound::services::client::CallError;
use crate::outbound::services::{Probe, Service};

const SECTION: Section = Section::Services;
/// The keys of a request that hold its path or its whole URL.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

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
    let way = Way {
        examined,
        section: SECTION,
        subject: Some(name),
        url: &service.url,
        at: if is_named {
            Some(examined.place(&["services", name, "url"]))
        } else {
            place_of_whole_url(examined, name)
        },
    };
    let mut findings = way.examine().await;
    if !is_named {
        findings.extend(without_probe_of_whole_url(name));
    } else if is_blocked(&findings) {
        let reason = "the service cannot be reached";
        findings.push(SECTION.not_checked("credentials", reason).about(name));
    } else {
        findings.extend(credentials(examined, service).await);
    }
    findings
}

/// A whole URL has no `probe`.
fn without_probe_of_whole_url(name: &str) -> [Finding; 2] {
    let reason = "a request with a whole URL has no `probe`, so no request was sent";
    let not_checked = |what| SECTION.not_checked(what, reason).about(name);
    let help = format!(
        "name a service with a probe, and use it in the request: services: {{crm: {{url: \"{name}\", probe: {{get: /path}}}}}}"
    );
    [not_checked("credentials").help(help), not_checked("clock")]
}

/// Returns the keys and the position of the first request of a check or a subscription with this address.
fn place_of_whole_url(examined: &Examined<'_>, address: &str) -> Option<(String, Position)> {
    let root = examined.tree()?;
    ["checks", "subscriptions"]
        .into_iter()
        .find_map(|section| request_to(examined, root.get(section)?, section, address))
}

fn request_to(
    examined: &Examined<'_>,
    node: &Node,
    path: &str,
    address: &str,
) -> Option<(String, Position)> {
    node.entries().iter().find_map(|entry| {
        let path = join(path, &entry.key);
        match &entry.value.kind {
            Kind::Text { text, .. } if METHODS.contains(&entry.key.as_str()) => {
                let target = examined.expanded(text)?;
                begins_with(&target, address).then_some((path, entry.value.at))
            }
            _ => request_to(examined, &entry.value, &path, address),
        }
    })
}

/// Returns whether the URL has this address, and not that of a host or port with a longer name.
fn begins_with(url: &str, address: &str) -> bool {
    let rest = url.strip_prefix(address);
    let goes_on = |next: char| next.is_alphanumeric() || ".-:".contains(next);
    rest.is_some_and(|rest| !rest.starts_with(goes_on))
}

fn without_probe(name: &str) -> Finding {
    let reason = format!("`services.{name}.probe` is not set, so no request was sent");
    let unset = SECTION.not_checked("credentials", reason);
    let help = format!(
        "name a request that changes nothing: services: {{{name}: {{probe: {{get: /path}}}}}}"
    );
    unset.about(name).help(help)
}

async fn credentials(examined: &Examined<'_>, service: &Service) -> Vec<Finding> {
    let name = service.name.as_str();
    let Some(probe) = &service.probe else {
        return vec![without_probe(name)];
    };
    let Ok(client) = &examined.client else {
        return vec![SECTION.not_checked("credentials", NO_CLIENT).about(name)];
    };
    let path = shown_path(examined, name);
    let asked = examined.clock.now();
    let call = examined.get(client, name, &probe.path);
    let (answer, took) = examined.timed(call).await;
    let answered = examined.clock.now();
    let at = examined.place(&["services", name, "probe"]);
    let answer = match answer.unwrap_or(Err(CallError::Timeout)) {
        Ok(answer) => answer,
        Err(error) => {
            let message = format!("GET {path}: {error}");
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
        judge(service, probe, &path, answer.status)
            .about(name)
            .at(at)
            .took(took),
        clock.about(name),
    ]
}

/// Returns the path of the probe as the settings have it: without inserted values, which can be secrets.
fn shown_path(examined: &Examined<'_>, name: &str) -> String {
    let keys = ["services", name, "probe", "get"];
    let node = keys
        .into_iter()
        .try_fold(examined.tree(), |node, key| Some(node?.get(key)));
    match node.flatten().map(|node| &node.kind) {
        Some(Kind::Text { text, .. }) => without_values(text),
        _ => "the path of `probe`".to_owned(),
    }
}

/// Removes the query and the defaults of variables, which can be secrets.
fn without_values(written: &str) -> String {
    let mut shown = String::new();
    for part in parts(written) {
        match part {
            Part::Text(text) => match text.split_once('?') {
                Some((path, _)) => return shown + path,
                None => shown.push_str(&text),
            },
            Part::Variable(inside, _) => {
                let name = inside.split(":-").next().unwrap_or_default();
                shown.extend(["${", name, "}"]);
            }
            Part::Unclosed(_) => {}
        }
    }
    shown
}

fn judge(service: &Service, probe: &Probe, path: &str, status: u16) -> Finding {
    let Service { name, auth, .. } = service;
    let message = format!("GET {path} answered {status}");
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
            let found = judge(service, &probe, "/me", status);
            assert_eq!(found.level, level, "{status} {expected:?}");
            assert!(found.message.contains(part), "{}", found.message);
            assert!(!found.message.contains("canary"), "{}", found.message);
        }
    }

    #[test]
    fn a_path_is_shown_without_inserted_values_and_query() {
        for (written, expected) in [
            ("/me", "/me"),
            ("/me?key=canary", "/me"),
            ("/bot${env:TG}/getMe", "/bot${env:TG}/getMe"),
            ("/bot${env:TG:-canary?}/getMe?a=b", "/bot${env:TG}/getMe"),
            ("${file:/run/path}", "${file:/run/path}"),
            ("/a$${b}?key=canary", "/a${b}"),
        ] {
            assert_eq!(without_values(written), expected, "{written}");
        }
    }

    #[test]
    fn an_address_does_not_begin_with_a_shorter_one() {
        for (url, expected) in [
            ("http://a.test/path", true),
            ("http://a.test?q", true),
            ("http://a.test", true),
            ("http://a.test:8080/", false),
            ("http://a.test.example/", false),
        ] {
            assert_eq!(begins_with(url, "http://a.test"), expected, "{url}");
        }
    }
}
