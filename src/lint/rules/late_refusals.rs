//! The hooks that keep out the owners of accounts that were refused late, and what late refusals need of Kratos.

use super::super::context::{Context, Enabled};
use super::super::document::{Kind, Node};
use super::super::finding::Findings;
use super::super::paste;
use super::super::version::{KratosVersion, kratos_version};
use crate::base::diagnostics::listed;
use crate::checks::Check;
use crate::config::Settings;
use crate::kratos::{Flow, Stage};
use crate::model::pending::ExternalId;

/// The login methods that can have lists of their own.
const LOGINS: [&str; 7] = [
    "password",
    "oidc",
    "code",
    "passkey",
    "webauthn",
    "totp",
    "lookup_secret",
];

/// Applies the rules.
pub fn check(context: &Context<'_>, findings: &mut Findings) {
    check_tokenizer(context, findings);
    let Some(settings) = context.settings().filter(|_| context.has_hooks()) else {
        return;
    };
    if let Some(check) = settings.checks.iter().find(|check| check.can_deactivate()) {
        check_login(context, check, findings);
        check_recovery(context, check, findings);
        check_settings(context, check, findings);
    }
    if settings.checks.iter().any(Check::can_refuse_late) {
        check_version(context, settings, findings);
    }
}

fn why(check: &Check) -> String {
    format!("the check `{}` can deactivate an account", check.name)
}

fn some<'m>(methods: &[&'m str]) -> Vec<Option<&'m str>> {
    methods.iter().copied().map(Some).collect()
}

fn check_login(context: &Context<'_>, check: &Check, findings: &mut Findings) {
    let is_covered = |method: &str| {
        let own = context.after(Flow::Login, Some(method));
        match own.filter(|list| !list.hooks.is_empty()) {
            Some(own) => own.has(Stage::Pre),
            None => context.calls(Flow::Login, None, Stage::Pre),
        }
    };
    let open: Vec<&str> = LOGINS
        .into_iter()
        .filter(|method| !is_covered(method))
        .collect();
    let missing: Vec<&str> = enabled(context, &open, Flow::Login, findings);
    if !missing.is_empty() {
        findings.problem(
            "late-refusals",
            context.flow_section(&["login", "after"]),
            format!(
                "{}, but its owner can sign in by {}: no `pre` of Vestibule",
                why(check),
                listed(missing.iter().copied())
            ),
            format!(
                "before other hooks, {}",
                paste::hooks_in(context, Flow::Login, Stage::Pre, &some(&missing))
            ),
        );
    }
}

fn check_recovery(context: &Context<'_>, check: &Check, findings: &mut Findings) {
    if context.calls(Flow::Recovery, None, Stage::Pre) {
        return;
    }
    let key = ["selfservice", "flows", "recovery", "enabled"];
    match context.truth(&key, false) {
        Enabled::Yes => findings.problem(
            "late-refusals",
            context.flow_section(&["recovery", "after"]),
            format!("{}, but recovery signs its owner in without a login hook", why(check)),
            format!(
                "before other hooks, {}",
                paste::hook_in(context, Flow::Recovery, Stage::Pre, None)
            ),
        ),
        Enabled::No => {}
        Enabled::Unknown => findings.not_checked(
            "recoveries without a hook: `selfservice.flows.recovery.enabled` is neither true nor false",
        ),
    }
}

fn check_settings(context: &Context<'_>, check: &Check, findings: &mut Findings) {
    let is_open = |method: &&str| !context.calls(Flow::Settings, Some(method), Stage::Pre);
    let open: Vec<&str> = super::CREDENTIALS.into_iter().filter(is_open).collect();
    let mut missing = enabled(context, &open, Flow::Settings, findings);
    // `unhooked-profile` reports a trait that a check guards.
    let is_guarded = |check: &Check| check.field.is_some() && check.flows.contains(&Flow::Settings);
    let is_reported = context
        .settings()
        .is_some_and(|settings| settings.checks.iter().any(is_guarded));
    if is_open(&"profile") && !is_reported {
        missing.insert(0, "profile");
    }
    if !missing.is_empty() {
        findings.problem(
            "late-refusals",
            context.flow_section(&["settings", "after"]),
            format!(
                "{}, but its owner can change settings by {}: no `pre` of Vestibule",
                why(check),
                listed(missing.iter().copied())
            ),
            paste::hooks_in(context, Flow::Settings, Stage::Pre, &some(&missing)),
        );
    }
}

/// Returns the enabled methods. Those whose `enabled` is neither true nor false are not checked.
fn enabled<'m>(
    context: &Context<'_>,
    methods: &[&'m str],
    flow: Flow,
    findings: &mut Findings,
) -> Vec<&'m str> {
    let mut yes = Vec::new();
    for method in methods {
        match context.enabled(method) {
            Enabled::Yes => yes.push(*method),
            Enabled::No => {}
            Enabled::Unknown => findings.not_checked(format!(
                "late refusals at {flow} by `{method}`: `selfservice.methods.{method}.enabled` is neither true nor false"
            )),
        }
    }
    yes
}

/// The version of a running Kratos replaces that of kratos.yml, if it is one.
fn check_version(context: &Context<'_>, settings: &Settings, findings: &mut Findings) {
    let written = context.kratos.text_at(&["version"]);
    let running = context
        .version
        .filter(|version| kratos_version(settings, version) != KratosVersion::Unknown);
    if let (Some(version), None) = (context.version, running) {
        findings.not_checked(format!(
            "the version of the running Kratos: `{version}` is not a version"
        ));
    }
    let Some(version) = running.or(written) else {
        if context.version.is_none() {
            findings.not_checked("the version of Kratos: kratos.yml has no `version`".to_owned());
        }
        return;
    };
    match kratos_version(settings, version) {
        KratosVersion::Sufficient => {}
        KratosVersion::Unknown => findings.not_checked(format!(
            "the version of Kratos: `{version}` is not a version"
        )),
        KratosVersion::TooOld(reason) => findings.problem(
            "old-kratos",
            context.kratos.nearest(&["version"]),
            format!("Kratos {version}: {reason}"),
            "update Kratos, and set `version` to its version".to_owned(),
        ),
    }
}

/// The `external_id` that Vestibule sets becomes the subject of tokens.
fn check_tokenizer(context: &Context<'_>, findings: &mut Findings) {
    let Some(tokenizer) = context.kratos.find(&["session", "whoami", "tokenizer"]) else {
        return;
    };
    let Some(source) = subject_source(tokenizer) else {
        return;
    };
    let Some(settings) = context.settings() else {
        findings.not_checked(
            "`subject_source: external_id`: with settings whose `kratos.use_external_id` is not `never`, the subject of tokens can be a hash of Vestibule",
        );
        return;
    };
    if settings.kratos.external_id != ExternalId::Never {
        findings.problem(
            "tokenizer-subject",
            source,
            "the subject of tokens is `external_id`, which Vestibule can set to a hash of the flow"
                .to_owned(),
            "set `kratos: {use_external_id: never}` in vestibule.yaml".to_owned(),
        );
    }
}

fn subject_source(node: &Node) -> Option<&Node> {
    match &node.kind {
        Kind::Map(entries) => entries.iter().find_map(|(key, value)| {
            if key == "subject_source" && value.text() == Some("external_id") {
                Some(value)
            } else {
                subject_source(value)
            }
        }),
        _ => None,
    }
}
