//! Text that an operator can paste into kratos.yml.

use std::collections::BTreeSet;

use super::context::Context;
use super::document::Place;
use super::hooks::{Hook, List};
use crate::base::diagnostics::listed;
use crate::kratos::snippet::{EXAMPLE_URL, KEY_HEADER};
use crate::kratos::{Flow, Stage};

/// Returns the list entry of a hook of Vestibule. URL and body are those of another hook, where there is one.
#[must_use]
pub fn hook(context: &Context<'_>, flow: Flow, stage: Stage, method: Option<&str>) -> String {
    let mut lines = vec![
        "- hook: web_hook".to_owned(),
        "  config:".to_owned(),
        format!("    url: \"{}\"", url(context, flow, stage, method)),
        "    method: POST".to_owned(),
        format!("    body: \"{}\"", body(context)),
        format!(
            "    auth: {{type: api_key, config: {{in: header, name: {KEY_HEADER}, value: \"PUT-YOUR-KEY-HERE\"}}}}"
        ),
    ];
    if stage == Stage::Pre {
        lines.push("    response: {parse: true}".to_owned());
    }
    lines.join("\n")
}

/// Returns the URL of a hook.
#[must_use]
pub fn url(context: &Context<'_>, flow: Flow, stage: Stage, method: Option<&str>) -> String {
    let query = method.map_or_else(String::new, |method| format!("?method={method}"));
    format!("{}/hooks/{flow}/{stage}{query}", base(context))
}

/// Returns Vestibule's address, as the first hook names it.
fn base<'k>(context: &Context<'k>) -> &'k str {
    let lists = context.lists.iter();
    let mut addresses = lists
        .flat_map(List::ours)
        .filter_map(|(hook, _)| hook.address().rsplit_once("/hooks/"));
    addresses.next().map_or(EXAMPLE_URL, |(base, _)| base)
}

/// Returns the address of the template, as the first hook with a file names it.
fn body<'k>(context: &Context<'k>) -> &'k str {
    let lists = context.lists.iter();
    let mut addresses = lists
        .flat_map(List::ours)
        .filter_map(|(hook, _)| hook.config.text_at(&["body"]))
        .filter(|address| !address.starts_with("base64://"));
    addresses
        .next()
        .unwrap_or("file:///etc/config/kratos/vestibule.jsonnet")
}

/// Returns whether Vestibule's hooks look printed: their template is inline, or they share parts by YAML anchors.
#[must_use]
pub fn is_printed(context: &Context<'_>) -> bool {
    let lists = context.lists.iter();
    let hooks: Vec<&Hook<'_>> = lists.flat_map(List::ours).map(|(hook, _)| hook).collect();
    let body = |hook: &&Hook<'_>| {
        hook.config
            .text_at(&["body"])
            .unwrap_or_default()
            .to_owned()
    };
    let has_inline_body = hooks
        .iter()
        .map(body)
        .any(|body| body.starts_with("base64://"));
    let name = |hook: &&Hook<'_>| Some(hook.config.find(&["auth", "config", "name"])?.place);
    let places: Vec<Place> = hooks.iter().filter_map(name).collect();
    let distinct: BTreeSet<Place> = places.iter().copied().collect();
    has_inline_body || distinct.len() < places.len()
}

/// Returns a hook and the list to which it belongs.
#[must_use]
pub fn hook_in(context: &Context<'_>, flow: Flow, stage: Stage, method: Option<&str>) -> String {
    let keys = method.map_or_else(
        || format!("selfservice.flows.{flow}.after.hooks"),
        |method| format!("selfservice.flows.{flow}.after.{method}.hooks"),
    );
    let hook = hook(context, flow, stage, method);
    format!("add to `{keys}`:\n{hook}")
}

/// Returns the hook of the first list, and which lists need the same hook.
#[must_use]
pub fn hooks_in(
    context: &Context<'_>,
    flow: Flow,
    stage: Stage,
    methods: &[Option<&str>],
) -> String {
    let Some((first, others)) = methods.split_first() else {
        return String::new();
    };
    let hook = hook_in(context, flow, stage, *first);
    let others: Vec<&str> = others.iter().flatten().copied().collect();
    if others.is_empty() {
        return hook;
    }
    format!(
        "{hook}\nand the same for {}, each with its own `?method=`",
        listed(others)
    )
}
