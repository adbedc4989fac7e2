//! Lists of hooks that Kratos does not use, and hooks of other systems beside Vestibule's.

use super::super::context::Context;
use super::super::finding::{Findings, Severity};
use super::super::hooks::{Hook, List};
use crate::base::diagnostics::listed;
use crate::kratos::{Flow, Stage};

/// The flows in which a method's own list replaces the list for all methods.
const WITH_METHODS: [Flow; 3] = [Flow::Registration, Flow::Settings, Flow::Login];

/// Applies the rules.
pub fn check(context: &Context<'_>, findings: &mut Findings) {
    for flow in Flow::CHECKED {
        if let Some(list) = context.after(flow, None) {
            check_never_called(list, findings);
        }
    }
    for flow in WITH_METHODS {
        if let Some(list) = context.after(flow, None) {
            check_shadowed(context, list, findings);
        }
    }
    for list in context.lists.iter().filter(|list| !list.is_before) {
        check_behind(list, findings);
        check_foreign(list, findings);
        check_analytics(list, findings);
    }
}

/// Kratos takes a blocking hook only from the list of a method.
fn check_never_called(list: &List<'_>, findings: &mut Findings) {
    let flow = list.flow;
    for hook in list.hooks.iter().filter(|hook| hook.is_blocking()) {
        findings.problem(
            "never-called",
            hook.node,
            format!("Kratos never calls a blocking hook in `{flow}.after.hooks`, and logs nothing"),
            format!("move the hook to `selfservice.flows.{flow}.after.<method>.hooks` of each enabled method"),
        );
    }
}

/// Kratos uses the list for all methods only where a method has no hooks of its own.
fn check_shadowed(context: &Context<'_>, general: &List<'_>, findings: &mut Findings) {
    let is_called = |hook: &&Hook<'_>| general.flow == Flow::Login || !hook.is_blocking();
    let hooks: Vec<&Hook<'_>> = general.hooks.iter().filter(is_called).collect();
    let is_repeated = |list: &List<'_>, hook: &Hook<'_>| {
        let mut own = list.hooks.iter();
        own.any(|one| one.name == hook.name && one.address() == hook.address())
    };
    let lists = context.lists.iter().filter(|list| {
        list.flow == general.flow
            && !list.is_before
            && list.method.is_some()
            && !list.hooks.is_empty()
    });
    let shadowing: Vec<&str> = lists
        .filter(|list| !hooks.iter().all(|hook| is_repeated(list, hook)))
        .filter_map(|list| list.method)
        .collect();
    if shadowing.is_empty() {
        return;
    }
    findings.warning(
        "shadowed-list",
        general.node,
        format!(
            "Kratos does not call these hooks where a method has a list of its own, even a lone `session`: {}",
            listed(shadowing.iter().copied())
        ),
        format!("repeat the hooks under `selfservice.flows.{}.after.<method>.hooks`", general.flow),
    );
}

/// A later blocking hook can change traits and `external_id` after Vestibule's answer.
fn check_behind(list: &List<'_>, findings: &mut Findings) {
    if !Flow::CHECKED.contains(&list.flow) {
        return;
    }
    let Some(ours) = list
        .hooks
        .iter()
        .position(|hook| hook.is(list.flow, Stage::Pre))
    else {
        return;
    };
    let behind = list.hooks.iter().skip(ours + 1);
    for hook in behind.filter(|hook| hook.call.is_none() && hook.is_blocking()) {
        findings.warning(
            "blocking-hook-behind",
            hook.node,
            "Kratos calls this blocking hook after Vestibule, so it can change the traits and `external_id` that Vestibule has checked"
                .to_owned(),
            "move this hook before Vestibule's `pre`".to_owned(),
        );
    }
}

/// A hook of another system that is called after the identity was saved.
fn check_foreign(list: &List<'_>, findings: &mut Findings) {
    if !(Flow::CHECKED.contains(&list.flow) || list.flow == Flow::Verification) {
        return;
    }
    let foreign =
        |hook: &&Hook<'_>| hook.name == "web_hook" && hook.call.is_none() && !hook.is_blocking();
    for hook in list.hooks.iter().filter(foreign) {
        let message = if hook.is_ignored() {
            "Kratos calls this hook in the background: the call is lost when Kratos stops, and failures are only logged"
        } else {
            "the visitor waits for this hook, and sees an error if it fails although the identity is saved"
        };
        findings.add(
            "foreign-post",
            Severity::Note,
            hook.node,
            message.to_owned(),
            "a subscription of Vestibule can send this event, with retries (docs/deliveries.md)"
                .to_owned(),
        );
    }
}

/// Without the analytics event, Kratos does not send the id of a call.
fn check_analytics(list: &List<'_>, findings: &mut Findings) {
    for (hook, _) in list.ours() {
        if hook.config.bool_at(&["emit_analytics_event"]) == Some(false) {
            findings.warning(
                "analytics-off",
                hook.config.nearest(&["emit_analytics_event"]),
                "without it, Kratos sends no `Ory-Webhook-Trigger-ID`, by which Vestibule recognises a repeated call".to_owned(),
                "remove `emit_analytics_event`".to_owned(),
            );
        }
    }
}
