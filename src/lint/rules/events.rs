//! The hooks that report the events of the subscriptions.

use super::super::context::{Context, Enabled};
use super::super::finding::Findings;
use super::super::paste;
use crate::base::diagnostics::listed;
use crate::config::Settings;
use crate::kratos::snippet::Method;
use crate::kratos::{Flow, Stage};
use crate::model::delivery::Event;

/// Applies the rule.
pub fn check(context: &Context<'_>, findings: &mut Findings) {
    let Some(settings) = context.settings().filter(|_| context.has_hooks()) else {
        return;
    };
    for (event, flow) in [
        (Event::IdentityCreated, Flow::Registration),
        (Event::IdentityUpdated, Flow::Settings),
        (Event::CredentialsChanged, Flow::Settings),
        (Event::IdentityVerified, Flow::Verification),
    ] {
        if let Some(subscription) = subscription_to(settings, event) {
            check_event(context, event, flow, subscription, findings);
        }
    }
}

/// Returns the name of the first subscription that wants an event.
fn subscription_to(settings: &Settings, event: Event) -> Option<&str> {
    let mut subscriptions = settings.subscriptions.iter();
    let wanted = subscriptions.find(|one| one.events.contains(&event))?;
    Some(&wanted.name)
}

fn check_event(
    context: &Context<'_>,
    event: Event,
    flow: Flow,
    subscription: &str,
    findings: &mut Findings,
) {
    let name = serde_json::to_value(event).unwrap_or_default();
    let name = name.as_str().unwrap_or_default();
    let missing: Vec<Option<&str>> = lists_for(context, event)
        .into_iter()
        .filter(|method| !is_reported(context, event, flow, *method))
        .collect();
    let Some(first) = missing.first() else {
        return;
    };
    let of_methods = if first.is_some() {
        format!(" for {}", listed(missing.iter().flatten().copied()))
    } else {
        String::new()
    };
    findings.problem(
        "event-not-hooked",
        context.flow_section(&[flow.as_str(), "after"]),
        format!(
            "the subscription `{subscription}` wants `{name}`, but no hook reports it{of_methods}"
        ),
        paste::hooks_in(context, flow, Stage::Post, &missing),
    );
}

/// Returns whether a list reports an event, or has another mistake: `post-missing` reports a lone `pre`.
fn is_reported(context: &Context<'_>, event: Event, flow: Flow, method: Option<&str>) -> bool {
    // Kratos uses the list for all methods where a method has no hooks of its own.
    let own = context.after(flow, method);
    let own = own.filter(|list| !list.hooks.is_empty());
    let Some(list) = own.or_else(|| context.after(flow, None)) else {
        return false;
    };
    if event == Event::CredentialsChanged {
        list.has(Stage::Post)
    } else {
        list.ours().next().is_some()
    }
}

/// Returns the lists that must report an event: of the enabled methods, or the list for all methods.
fn lists_for(context: &Context<'_>, event: Event) -> Vec<Option<&'static str>> {
    let is_enabled = |method: &&'static str| context.enabled(method) == Enabled::Yes;
    match event {
        Event::IdentityCreated => Method::ALL
            .into_iter()
            .map(Method::as_str)
            .filter(|method| context.signs_up(method) == Enabled::Yes)
            // `unhooked-method` reports a method without any hook.
            .filter(|method| {
                !context.checks_registrations()
                    || context.calls(Flow::Registration, Some(method), Stage::Pre)
            })
            .map(Some)
            .collect(),
        Event::IdentityUpdated => vec![Some("profile")],
        Event::CredentialsChanged => super::CREDENTIALS
            .into_iter()
            .filter(is_enabled)
            .map(Some)
            .collect(),
        _ => vec![None],
    }
}
