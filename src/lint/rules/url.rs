//! The URLs of Vestibule's hooks: path, flow, stage and `?method=`.

use url::Url;

use super::super::context::Context;
use super::super::finding::Findings;
use super::super::hooks::{Call, Hook, List};
use super::super::paste;
use crate::base::diagnostics::nearest;
use crate::kratos::{Flow, Stage};

/// Applies the rules.
pub fn check(context: &Context<'_>, findings: &mut Findings) {
    if !context.has_hooks() {
        findings.problem(
            "no-hooks",
            context.flow_section(&[]),
            "no hook calls Vestibule, so Vestibule checks no sign-up".to_owned(),
            "if the hooks are in a file of their own, give it too: `-c kratos.yml -c vestibule-hooks.yml`. If there are none, \
             print them: vestibule kratos hooks --config vestibule.yaml --inline --url http://vestibule:4480"
                .to_owned(),
        );
    }
    for list in &context.lists {
        for (hook, call) in list.ours() {
            check_hook(context, list, hook, call, findings);
        }
    }
}

fn check_hook(
    context: &Context<'_>,
    list: &List<'_>,
    hook: &Hook<'_>,
    call: &Call,
    findings: &mut Findings,
) {
    let at = hook.config.nearest(&["url"]);
    let method = list.method;
    let (Some(flow), Some(stage)) = (call.flow, call.stage) else {
        return wrong_path(context, list, hook, findings);
    };
    if list.is_before {
        let message = format!(
            "Kratos calls this hook when a {} form is opened, without an identity, and a refusal shows the visitor no message",
            list.flow
        );
        let help = format!("move the hook to `selfservice.flows.{flow}.after`");
        findings.problem("before-hook", hook.node, message, help);
    } else if flow != list.flow {
        let message = format!(
            "the URL names the flow `{flow}`, but Kratos calls this hook in the flow `{}`",
            list.flow
        );
        let help = expected_url(context, list.flow, stage, method);
        findings.problem("wrong-flow", at, message, help);
    } else if call.method.as_deref() != method {
        let message = match (&call.method, method) {
            (None, Some(method)) => format!("the URL lacks `?method={method}`"),
            (Some(wrong), Some(method)) => {
                format!("the URL has `?method={wrong}` in the list of `{method}`")
            }
            (_, None) => "the URL has `?method=` in the list for all methods".to_owned(),
        };
        let help = expected_url(context, flow, stage, method);
        findings.problem("method-parameter", at, message, help);
    }
    check_http_method(hook, findings);
    check_port(context, hook, findings);
}

/// The admin port of the settings has no hooks.
fn check_port(context: &Context<'_>, hook: &Hook<'_>, findings: &mut Findings) {
    let Some(settings) = context.settings() else {
        return;
    };
    let (hooks, admin) = (settings.hooks_address.port, settings.admin_address.port);
    let url = Url::parse(hook.address()).ok();
    let port = url.and_then(|url| url.port_or_known_default());
    if admin == 0 || admin == hooks || port != Some(admin) {
        return;
    }
    findings.warning(
        "admin-port",
        hook.config.nearest(&["url"]),
        format!(
            "the port {admin} is `serve.admin.port` of the settings, where Vestibule has no hooks"
        ),
        format!("use `serve.hooks.port`, {hooks}"),
    );
}

fn expected_url(context: &Context<'_>, flow: Flow, stage: Stage, method: Option<&str>) -> String {
    format!("url: \"{}\"", paste::url(context, flow, stage, method))
}

fn wrong_path(context: &Context<'_>, list: &List<'_>, hook: &Hook<'_>, findings: &mut Findings) {
    let stages = list.flow.stages();
    let wanted = stage_in(hook.address()).unwrap_or(if hook.is_blocking() {
        Stage::Pre
    } else {
        Stage::Post
    });
    let stage = if stages.contains(&wanted) {
        wanted
    } else {
        stages[0]
    };
    let path = hook.address().split_once("://").map_or("", |(_, rest)| {
        rest.find('/').map_or("/", |slash| &rest[slash..])
    });
    findings.problem(
        "wrong-path",
        hook.config.nearest(&["url"]),
        format!("Vestibule has no hook at `{path}`, and answers 404"),
        expected_url(context, list.flow, stage, list.method),
    );
}

/// Returns the stage at the end of a path, also if it is misspelt.
fn stage_in(address: &str) -> Option<Stage> {
    let (_, last) = address.rsplit_once('/')?;
    let stages = [Stage::Pre, Stage::Post];
    let name = nearest(last, stages.map(Stage::as_str))?;
    stages.into_iter().find(|stage| stage.as_str() == name)
}

fn check_http_method(hook: &Hook<'_>, findings: &mut Findings) {
    let Some(method) = hook.config.text_at(&["method"]) else {
        return;
    };
    if method != "POST" {
        findings.problem(
            "http-method",
            hook.config.nearest(&["method"]),
            format!("Vestibule accepts only POST, not {method}"),
            "method: POST".to_owned(),
        );
    }
}
