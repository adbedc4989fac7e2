//! Ways to sign up, or to change traits, that no check sees.

use super::super::context::{Context, Enabled};
use super::super::finding::{Findings, Severity};
use super::super::paste;
use crate::checks::Check;
use crate::kratos::snippet::Method;
use crate::kratos::{Flow, Stage};

/// Applies the rules.
pub fn check(context: &Context<'_>, findings: &mut Findings) {
    if !context.has_hooks() {
        return;
    }
    if context.has_registration() && expects_registrations(context) {
        for method in Method::ALL {
            check_method(context, method.as_str(), findings);
        }
        check_style(context, findings);
    }
    check_profile(context, findings);
    check_pairs(context, findings);
}

/// Returns whether `pre` hooks at registration are needed: one method has one, or a check runs there.
fn expects_registrations(context: &Context<'_>) -> bool {
    let checks = context
        .settings()
        .map(|settings| settings.checks.as_slice());
    context.checks_registrations()
        || checks
            .unwrap_or_default()
            .iter()
            .any(|check| check.flows.contains(&Flow::Registration))
}

fn check_method(context: &Context<'_>, method: &str, findings: &mut Findings) {
    let has_pre = context
        .after(Flow::Registration, Some(method))
        .is_some_and(|list| list.ours().any(|(_, call)| call.stage != Some(Stage::Post)));
    if has_pre {
        return;
    }
    let enabled = context.enabled(method);
    match context.signs_up(method) {
        Enabled::Yes => {
            let why = if method == "code" {
                "`code` accepts sign-ups, even with `passwordless_enabled: false`, because an identity schema names a `code` identifier"
            } else {
                "the method is enabled"
            };
            findings.problem(
                "unhooked-method",
                context.flow_section(&["registration", "after", method]),
                format!("sign-ups by `{method}` bypass every check: {why}, and has no `pre` of Vestibule"),
                format!(
                    "set {}, or {}",
                    switched_off(context, method),
                    added(context, method)
                ),
            );
        }
        Enabled::Unknown if method == "code" && enabled == Enabled::Yes => findings.not_checked(
            "sign-ups by `code` without a hook: they are possible if an identity schema names a `code` identifier",
        ),
        Enabled::Unknown => findings.not_checked(format!(
            "sign-ups by `{method}` without a hook: `selfservice.methods.{method}.enabled` is neither true nor false"
        )),
        Enabled::No if method == "webauthn" && enabled != Enabled::No => findings.not_checked(
            "sign-ups by `webauthn` without a hook: expected only with `selfservice.methods.webauthn.config.passwordless: true`",
        ),
        Enabled::No => {}
    }
}

/// Returns how to add hooks for the method. Hooks with an inline template or with anchors are not for copying.
fn added(context: &Context<'_>, method: &str) -> String {
    if !paste::is_printed(context) {
        return paste::hook_in(context, Flow::Registration, Stage::Pre, Some(method));
    }
    let hooked = |known: &Method| {
        known.as_str() == method
            || context.signs_up(known.as_str()) == Enabled::Yes
            || context.calls(Flow::Registration, Some(known.as_str()), Stage::Pre)
    };
    let methods: Vec<&str> = Method::ALL
        .into_iter()
        .filter(hooked)
        .map(Method::as_str)
        .collect();
    format!(
        "print the hooks again, with the other options as before: vestibule kratos hooks --method {}",
        methods.join(",")
    )
}

/// Returns the keys of kratos.yml that prevent sign-ups by the method. With `passwordless_enabled: true`, Kratos
/// enables `code` whatever `enabled` is.
fn switched_off(context: &Context<'_>, method: &str) -> String {
    let enabled = format!("`selfservice.methods.{method}.enabled: false`");
    let passwordless = ["selfservice", "methods", method, "passwordless_enabled"];
    if method == "code" && context.truth(&passwordless, false) != Enabled::No {
        return format!("{enabled} and `selfservice.methods.{method}.passwordless_enabled: false`");
    }
    enabled
}

/// In the second of two steps, the fields are hidden. The default of Kratos is two steps.
fn check_style(context: &Context<'_>, findings: &mut Findings) {
    let keys = ["registration", "style"];
    let section = context.flow_section(&["registration"]);
    if section.get("style").is_none() && section.get("enable_legacy_one_step").is_none() {
        findings.add(
            "two-step",
            Severity::Note,
            context.flow_section(&keys),
            "Kratos asks for the traits first and calls Vestibule in the second step, where the fields are hidden; Vestibule sends each message at form level too"
                .to_owned(),
            "set `style: unified` for one form, or `style: profile_first` to keep two steps".to_owned(),
        );
    }
}

/// Without a hook, a trait that was checked at sign-up can be changed to anything.
fn check_profile(context: &Context<'_>, findings: &mut Findings) {
    let is_guarded =
        |check: &&Check| check.field.is_some() && check.flows.contains(&Flow::Settings);
    let guard = match context.settings() {
        Some(settings) => settings.checks.iter().find(is_guarded).map(|check| {
            let field = check.field.as_ref().map_or("", |field| field.node_name());
            format!("the check `{}` guards `{field}`", check.name)
        }),
        None => context
            .checks_registrations()
            .then(|| "traits are checked at registration".to_owned()),
    };
    let has_pre = context
        .after(Flow::Settings, Some("profile"))
        .is_some_and(|list| list.ours().any(|(_, call)| call.stage != Some(Stage::Post)));
    let Some(guard) = guard.filter(|_| !has_pre) else {
        return;
    };
    let severity = if context.settings().is_some() {
        Severity::Problem
    } else {
        Severity::Warning
    };
    findings.add(
        "unhooked-profile",
        severity,
        context.flow_section(&["settings", "after", "profile"]),
        format!("{guard}, but changes of the profile have no `pre` of Vestibule, so a visitor can change traits to anything"),
        paste::hook_in(context, Flow::Settings, Stage::Pre, Some("profile")),
    );
}

/// Without `post`, Vestibule is not notified of what Kratos has saved.
fn check_pairs(context: &Context<'_>, findings: &mut Findings) {
    let lists = context.lists.iter();
    for list in lists.filter(|list| !list.is_before && Flow::CHECKED.contains(&list.flow)) {
        let has_post = list.ours().any(|(_, call)| call.stage != Some(Stage::Pre));
        if list.method.is_some() && list.has(Stage::Pre) && !has_post {
            findings.warning(
                "post-missing",
                list.node,
                "this list has Vestibule's `pre`, but no `post`, so Kratos does not report what it has saved".to_owned(),
                paste::hook_in(context, list.flow, Stage::Post, list.method),
            );
        }
    }
}
