//! `vestibule kratos lint`: kratos.yml, identity schemas and Vestibule's settings are checked against each other.
//!
//! What the rules say about Kratos holds for v26.2.0, and is described in docs/kratos.md.

pub mod address;
mod context;
mod document;
mod environment;
mod finding;
mod hooks;
mod paste;
mod report;
pub mod rules;
pub mod version;

use std::path::Path;

use crate::base::diagnostics::Problem;
use crate::config::{self, Environment, interpolation, tree};
use crate::kratos::schema::Schemas;
use address::Mapping;
use context::{Context, SettingsFile};
use document::Node;
use finding::Findings;

pub use finding::{Finding, Severity};
pub use report::Report;

/// A file that was read.
#[derive(Clone, Debug)]
pub struct File {
    /// The path, for the report.
    pub name: String,
    /// The content.
    pub text: String,
}

/// What a running Kratos says about itself.
#[derive(Clone, Debug)]
pub struct Running {
    /// The version.
    pub version: String,
    /// The identity schemas that are in force.
    pub schemas: Schemas,
}

/// What is checked.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The files of kratos.yml, in the order in which Kratos gets them.
    pub layers: Vec<File>,
    /// The environment of Kratos: a line `NAME=value` for each variable.
    pub environment: Option<File>,
    /// Folders of a container that are elsewhere here.
    pub mappings: Vec<Mapping>,
    /// Identity schemas by id. They replace those that kratos.yml names.
    pub schemas: Vec<(String, String)>,
    /// A running Kratos. Its identity schemas replace all others.
    pub running: Option<Running>,
    /// The settings file of Vestibule.
    pub settings: Option<File>,
}

/// Applies every rule.
#[must_use]
pub fn lint(input: &Input) -> Report {
    let mut findings = Findings::default();
    let kratos = layered(&input.layers, &mut findings);
    let settings = input
        .settings
        .as_ref()
        .and_then(|file| read_settings(file, settings_index(input), &mut findings));
    if let Some(mut kratos) = kratos {
        apply_environment(input, &mut kratos, &mut findings);
        if input.settings.is_none() {
            findings.not_checked(
                "rules about checks, events, late refusals and headers: give the settings of Vestibule (--settings FILE)",
            );
        }
        let context = Context::new(&kratos, settings.as_ref(), input, &mut findings);
        rules::apply(&context, &mut findings);
    }
    let has_listed_name = |finding: &Finding| rules::NAMES.contains(&finding.rule);
    debug_assert!(
        findings.all.iter().all(has_listed_name),
        "a rule is missing in NAMES: {:?}",
        findings.all
    );
    Report::new(input, findings)
}

/// Returns the index of the environment in the report.
fn environment_index(input: &Input) -> Option<usize> {
    input.environment.as_ref().map(|_| input.layers.len())
}

/// Returns the index of the settings file in the report.
fn settings_index(input: &Input) -> usize {
    input.layers.len() + usize::from(input.environment.is_some())
}

/// Reads all layers. `None` if one of them has a problem as YAML.
fn layered(layers: &[File], findings: &mut Findings) -> Option<Node> {
    let mut sum = Node::empty();
    let mut is_readable = true;
    for (index, file) in layers.iter().enumerate() {
        let mut problems = Vec::new();
        let root = tree::read(&file.text, &mut problems);
        is_readable &= problems.is_empty();
        if !problems.is_empty() && file.text.contains("{{") {
            findings.not_checked(format!(
                "{}: it looks like a template; render it first, as in `helm template . | vestibule kratos lint -c -`",
                file.name
            ));
        }
        for problem in problems {
            findings.all.push(unreadable(index, problem));
        }
        if let Some(root) = root {
            sum.layer(Node::of_file(index, &root));
        }
    }
    is_readable.then_some(sum)
}

fn unreadable(file: usize, problem: Problem) -> Finding {
    // The hint about an empty file is about settings.
    let hint = problem
        .hint
        .clone()
        .filter(|_| !problem.path.is_empty() || problem.at.line > 0);
    Finding {
        rule: "unreadable",
        severity: Severity::Problem,
        file,
        problem: problem.with_hint(hint),
    }
}

fn apply_environment(input: &Input, kratos: &mut Node, findings: &mut Findings) {
    let Some((file, index)) = input.environment.as_ref().zip(environment_index(input)) else {
        findings.not_checked(
            "environment variables of Kratos, which override kratos.yml (--env-file FILE)",
        );
        return;
    };
    for name in environment::apply(kratos, index, &file.text) {
        findings.not_checked(format!(
            "the environment variable {name}: lint cannot apply it"
        ));
    }
}

/// Reads the settings. Environment variables and secret files of Vestibule may be missing.
fn read_settings(file: &File, index: usize, findings: &mut Findings) -> Option<SettingsFile> {
    let environment = Environment::of_process().allowing_missing();
    let review = config::review_text(&file.text, Path::new(&file.name), &environment);
    for problem in review.problems.iter() {
        findings.all.push(Finding {
            rule: "settings-file",
            severity: Severity::Problem,
            file: index,
            problem: problem.clone(),
        });
    }
    let root = tree::read(&file.text, &mut Vec::new())?;
    let tree = Node::of_file(index, &root);
    let keys = tree.find(&["hooks", "keys"]).map(Node::items);
    let mut keys = keys.unwrap_or_default().iter().filter_map(Node::text);
    Some(SettingsFile {
        settings: review.settings?,
        has_all_keys: keys.all(|key| interpolation::pieces(key, &environment).is_ok()),
        tree,
    })
}
