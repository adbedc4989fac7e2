//! Whether Kratos waits for the answers of Vestibule's hooks.

use super::super::context::Context;
use super::super::finding::Findings;
use super::super::hooks::Hook;
use crate::kratos::{Flow, Stage};

/// Applies the rules.
pub fn check(context: &Context<'_>, findings: &mut Findings) {
    for list in context.lists.iter().filter(|list| !list.is_before) {
        for (hook, call) in list.ours() {
            match call.stage {
                Some(Stage::Pre) => check_pre(list.flow, hook, findings),
                Some(Stage::Post) => check_post(list.flow, hook, findings),
                None => {}
            }
        }
    }
}

fn check_pre(flow: Flow, hook: &Hook<'_>, findings: &mut Findings) {
    let help = "response: {parse: true}".to_owned();
    let can_interrupt = hook.config.bool_at(&["can_interrupt"]) == Some(true);
    if hook.is_ignored() {
        findings.problem(
            "pre-ignored",
            hook.config.nearest(&["response", "ignore"]),
            "Kratos discards the answer, so Vestibule can refuse nothing".to_owned(),
            help,
        );
    } else if can_interrupt {
        findings.problem(
            "pre-can-interrupt",
            hook.config.nearest(&["can_interrupt"]),
            "`can_interrupt` is deprecated; with it alone, Kratos does not read the body of an acceptance, so changes are lost"
                .to_owned(),
            format!("remove `can_interrupt`, and write `{help}`"),
        );
    } else if !hook.is_parsed() {
        findings.problem(
            "pre-without-parse",
            hook.config.nearest(&["response"]),
            if flow.signs_in() {
                "without `response.parse`, the visitor sees an error page in place of Vestibule's refusal".to_owned()
            } else {
                "without `response.parse`, Kratos does not ask Vestibule before it saves the identity".to_owned()
            },
            help,
        );
    }
}

fn check_post(flow: Flow, hook: &Hook<'_>, findings: &mut Findings) {
    if hook.is_blocking() {
        findings.problem(
            "post-with-parse",
            hook.config.nearest(&["response", "parse"]),
            if Flow::CHECKED.contains(&flow) {
                "Kratos calls a hook with `response.parse` or `can_interrupt` before it saves the identity, and not afterwards".to_owned()
            } else {
                "Vestibule's `post` refuses nothing, so Kratos need not read the answer".to_owned()
            },
            "remove `response` and `can_interrupt` from this hook".to_owned(),
        );
    } else if hook.is_ignored() {
        findings.warning(
            "post-ignored",
            hook.config.nearest(&["response", "ignore"]),
            "Kratos calls an ignored hook in the background: the call is lost when Kratos stops"
                .to_owned(),
            "remove `response` from this hook".to_owned(),
        );
    }
}
