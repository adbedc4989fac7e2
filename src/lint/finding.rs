//! What a rule finds.

use std::collections::BTreeSet;

use super::document::{Node, Place};
use crate::base::diagnostics::Problem;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A check, an event or a late refusal does not work.
    Problem,
    /// Probably a mistake.
    Warning,
    /// Worth knowing.
    Note,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The stable name of the rule.
    pub rule: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The index of the file in the report.
    pub file: usize,
    /// Keys, position, message and help.
    pub problem: Problem,
}

/// Collects findings.
#[derive(Debug, Default)]
pub struct Findings {
    /// All findings, in the order of the rules.
    pub all: Vec<Finding>,
    /// What could not be checked, and why.
    pub not_checked: BTreeSet<String>,
}

impl Findings {
    /// Adds a problem at a value.
    pub fn problem(&mut self, rule: &'static str, node: &Node, message: String, help: String) {
        self.add(rule, Severity::Problem, node, message, help);
    }

    /// Adds a warning at a value.
    pub fn warning(&mut self, rule: &'static str, node: &Node, message: String, help: String) {
        self.add(rule, Severity::Warning, node, message, help);
    }

    /// Adds a finding at a value.
    pub fn add(
        &mut self,
        rule: &'static str,
        severity: Severity,
        node: &Node,
        message: String,
        help: String,
    ) {
        let Place { file, at } = node.place;
        // Hooks that share an anchor share its mistakes.
        let is_known = |one: &Finding| {
            (one.rule, one.file, one.problem.at) == (rule, file, at)
                && one.problem.message == message
        };
        if self.all.iter().any(is_known) {
            return;
        }
        let problem = Problem::new(node.path.clone(), at, message).with_hint(Some(help));
        self.all.push(Finding {
            rule,
            severity,
            file,
            problem,
        });
    }

    /// Adds what could not be checked.
    pub fn not_checked(&mut self, what: impl Into<String>) {
        self.not_checked.insert(what.into());
    }
}
