//! The body of Vestibule's hooks, and the request headers that it can send.

use std::collections::BTreeMap;

use super::super::address;
use super::super::context::Context;
use super::super::document::Node;
use super::super::finding::Findings;
use super::super::hooks::List;
use crate::config::Settings;
use crate::kratos::payload::VERSION;
use crate::kratos::template::{KRATOS_ALLOWLIST, TEMPLATE, header_allowlist};

/// The line of the template that lists the request headers.
const FORWARDED_LINE: &str = "local forwarded = ";

/// Applies the rules. Each template is reported once.
pub fn check(context: &Context<'_>, findings: &mut Findings) {
    let mut bodies: BTreeMap<&str, &Node> = BTreeMap::new();
    for (hook, _) in context.lists.iter().flat_map(List::ours) {
        let body = hook.config.get("body");
        match body.and_then(|body| Some((body.text()?, body))) {
            None => findings.problem(
                "body-missing",
                hook.config,
                "without `body`, every call of this hook fails".to_owned(),
                "body: \"file:///etc/config/kratos/vestibule.jsonnet\" # vestibule kratos hooks --template".to_owned(),
            ),
            Some((address, node)) => {
                bodies.entry(address).or_insert(node);
            }
        }
    }
    for (address, node) in bodies {
        match address::read(address, context.mappings) {
            Ok(text) => check_template(context, &text, node, findings),
            Err(reason) => findings.not_checked(format!(
                "the template at {}: {reason} (--map its folder)",
                address::shown(address)
            )),
        }
    }
    check_allowlist(context, findings);
    check_language(context, findings);
}

/// The key of the request headers that Kratos passes to hooks.
const ALLOWLIST: [&str; 3] = ["clients", "web_hook", "header_allowlist"];
/// The header with the visitor's languages.
const LANGUAGE: &str = "Accept-Language";

const PRINT: &str = "vestibule kratos hooks --template --config vestibule.yaml > vestibule.jsonnet";

fn check_template(context: &Context<'_>, text: &str, node: &Node, findings: &mut Findings) {
    let help = PRINT.to_owned();
    let Some(version) = version(text) else {
        let message = "this is not Vestibule's template, and Vestibule refuses other bodies";
        return findings.problem("body-not-ours", node, message.to_owned(), help);
    };
    if version < VERSION {
        return check_old(context, version, node, findings);
    }
    if without_headers(text) != without_headers(TEMPLATE) {
        let message = "this template is not the one that this version of Vestibule prints";
        return findings.warning("body-changed", node, message.to_owned(), help);
    }
    let Some(settings) = context.settings() else {
        return;
    };
    let sent = forwarded(text);
    let needed = &settings.hooks.body_needs.headers;
    let missing: Vec<&String> = needed.iter().filter(|name| !sent.contains(name)).collect();
    if let Some(header) = missing.first() {
        let message = format!(
            "the settings read the request header `{header}`, which this template does not send"
        );
        findings.problem("body-headers", node, message, help);
    }
}

fn check_old(context: &Context<'_>, version: u32, node: &Node, findings: &mut Findings) {
    let help = PRINT.to_owned();
    if let Some(needs) = context.settings().and_then(lacking_in_old) {
        let message = format!(
            "this template is of version {version}, and lacks {needs}, which the settings read; Vestibule refuses every sign-up"
        );
        findings.problem("body-outdated", node, message, help);
    } else {
        let message = format!("this template is of version {version}, not {VERSION}");
        findings.warning("body-outdated", node, message, help);
    }
}

/// Returns what the settings read that an old template does not send.
fn lacking_in_old(settings: &Settings) -> Option<String> {
    let needs = &settings.hooks.body_needs;
    let header = needs.headers.first();
    let header = header.map(|header| format!("the request header `{header}`"));
    needs.key.as_ref().map(|key| format!("`{key}`")).or(header)
}

/// Returns the version that a template sends.
fn version(text: &str) -> Option<u32> {
    let mut lines = text.lines().map(str::trim);
    let value = lines.find_map(|line| line.strip_prefix("version:"))?;
    value.trim().trim_end_matches(',').parse().ok()
}

/// Returns the lines of a template, without the line that lists the headers.
fn without_headers(text: &str) -> Vec<&str> {
    let lines = text.lines().map(str::trim_end);
    lines
        .filter(|line| !line.trim_start().starts_with(FORWARDED_LINE) && !line.is_empty())
        .collect()
}

/// Returns the headers that a template sends.
fn forwarded(text: &str) -> Vec<String> {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(FORWARDED_LINE))
        .unwrap_or_default();
    serde_json::from_str(line.trim_end_matches(';')).unwrap_or_default()
}

fn check_allowlist(context: &Context<'_>, findings: &mut Findings) {
    let Some(settings) = context.settings().filter(|_| context.has_hooks()) else {
        return;
    };
    let list = context.kratos.find(&ALLOWLIST);
    let allowed: Vec<&str> = match list {
        Some(list) => list.items().iter().filter_map(Node::text).collect(),
        None => KRATOS_ALLOWLIST.to_vec(),
    };
    let needed = &settings.hooks.body_needs.headers;
    let is_allowed = |name: &String| allowed.iter().any(|one| one.eq_ignore_ascii_case(name));
    let Some(missing) = needed.iter().find(|name| !is_allowed(name)) else {
        return;
    };
    let own: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
    let together = [own, needed.clone()].concat();
    let all = header_allowlist(&together).unwrap_or_default();
    let entries: Vec<String> = all
        .iter()
        .map(|name| format!("      - \"{name}\""))
        .collect();
    findings.problem(
        "header-allowlist",
        context.kratos.nearest(&ALLOWLIST),
        format!(
            "the settings read the request header `{missing}`, which Kratos does not pass to hooks"
        ),
        format!(
            "clients:\n  web_hook:\n    header_allowlist:\n{}",
            entries.join("\n")
        ),
    );
}

/// The list of kratos.yml replaces Kratos's default, so a short list can lose the visitor's language.
fn check_language(context: &Context<'_>, findings: &mut Findings) {
    let list = context.kratos.find(&ALLOWLIST);
    let Some(list) = list.filter(|_| context.has_hooks()) else {
        return;
    };
    let mut names = list.items().iter().map(Node::text);
    if names.any(|name| name.is_none_or(|name| name.eq_ignore_ascii_case(LANGUAGE))) {
        return;
    }
    findings.warning(
        "language-header",
        list,
        "Kratos does not pass `Accept-Language` to hooks, because this list replaces its default; so every message of \
         Vestibule is in `hooks.default_language`"
            .to_owned(),
        format!("add \"{LANGUAGE}\" to the list"),
    );
}
