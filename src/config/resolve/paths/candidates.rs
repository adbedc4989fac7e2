//! Finds the parts of a path that may be absent.

use std::sync::Arc;

use super::steps_of;
use super::subject::{Subject, WithoutField};
use crate::config::resolve::Resolver;
use crate::config::tree::{Kind, Node};
use crate::expression::{ReadPath, ReadStep, Variable};
use crate::kratos::Flow;
use crate::kratos::schema::{Schemas, Step, Types};
use crate::kratos::template::FORWARDED;

/// A value that may be absent.
pub(super) struct Candidate {
    pub root: Variable,
    pub path: ReadPath,
    pub reason: Reason,
    pub types: Types,
    /// Whether the value can be missing, and can be null.
    pub is_both: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The identity schema does not require it.
    Optional,
    /// The identity schema allows null.
    Nullable,
    /// There is no identity schema.
    NoSchema,
    /// No schema describes `metadata_public`.
    Metadata,
    /// It is the response of a check that does not always run.
    NotRun,
    /// It is `value`, and the check runs without its field.
    AbsentField,
    /// Kratos has no such value in some flows. Vestibule makes it null.
    NullInKratos,
    /// Kratos does not always send it.
    NotInKratos,
    /// Kratos drops it in settings.
    NotInSettings,
}

impl Reason {
    pub fn is_null(self) -> bool {
        matches!(
            self,
            Self::Nullable | Self::AbsentField | Self::NullInKratos
        )
    }
}

impl Resolver<'_> {
    /// Returns the parts of a path that may be absent, the shortest first.
    pub(super) fn candidates(
        &self,
        subject: &Subject,
        root: Variable,
        path: &ReadPath,
    ) -> Vec<Candidate> {
        let one = |reason, path: ReadPath| {
            vec![Candidate {
                root,
                path,
                reason,
                types: Types::ALL,
                is_both: false,
            }]
        };
        let first = path.first_name().unwrap_or_default();
        match root {
            Variable::Identity | Variable::Previous => self.in_identity(root, path),
            Variable::Value if subject.without_field == WithoutField::Checked => {
                one(Reason::AbsentField, ReadPath::of_names(&[]))
            }
            Variable::Checks if self.may_not_run(subject, first) => {
                one(Reason::NotRun, ReadPath::of_names(&[first]))
            }
            Variable::Flow | Variable::Request => {
                let absent = in_call(subject, root, path);
                absent.map_or_else(Vec::new, |(reason, length)| {
                    one(reason, path.beginning(length))
                })
            }
            _ => Vec::new(),
        }
    }

    fn in_identity(&self, root: Variable, path: &ReadPath) -> Vec<Candidate> {
        let schemas = Arc::clone(&self.schemas);
        let whole = |reason| {
            vec![Candidate {
                root,
                path: path.clone(),
                reason,
                types: Types::ALL,
                is_both: false,
            }]
        };
        match path.first_name() {
            _ if path.steps().count() < 2 => Vec::new(),
            Some("metadata_public") if !self.is_always_set(path) => whole(Reason::Metadata),
            Some("traits") if schemas.is_empty() && !self.lacks_a_schema => whole(Reason::NoSchema),
            Some("traits") if !schemas.is_empty() => in_schemas(&schemas, root, path),
            _ => Vec::new(),
        }
    }

    /// Returns whether a check that runs for every sign-up sets the value. Then subscriptions may rely on it.
    fn is_always_set(&self, path: &ReadPath) -> bool {
        let written: Vec<String> = path
            .steps()
            .map(|step| match step {
                ReadStep::Name(name) => name.to_owned(),
                ReadStep::Index(index) => index.to_string(),
            })
            .collect();
        self.root.key("checks").entries().iter().any(|check| {
            let sets = check.value.get("set").map_or(&[][..], Node::entries);
            let sets_it = sets.iter().any(|set| {
                let names = set.key.split('.');
                names.zip(&written).all(|(one, other)| one == other)
            });
            let flows = self.flows.get(&check.key);
            sets_it
                && check.value.get("when").is_none()
                && flows.is_none_or(|flows| flows.contains(&Flow::Registration))
                && !self.skips_sign_ups(&check.value)
                && !admits_unchecked(&check.value)
        })
    }

    /// Returns whether the check is skipped for an identity that lacks the check's field.
    fn skips_sign_ups(&self, check: &Node) -> bool {
        let text = |key: &str| check.get(key).map(Node::to_value);
        let Some(field) = text("field") else {
            return false;
        };
        let is_required = text("required").is_some_and(|required| required == true)
            || text("absent").is_some_and(|absent| absent != "skip");
        let field = field.as_str().unwrap_or_default();
        let knowledge = self.schemas.look_up(&Step::of_names(field.split('.')));
        !is_required && (self.schemas.is_empty() || knowledge.is_optional())
    }

    /// Returns whether another check may not run where this one does.
    fn may_not_run(&self, subject: &Subject, name: &str) -> bool {
        let Some(other) = self.root.key("checks").key(name).node else {
            return false;
        };
        let own = self.root.key("checks");
        let own = subject
            .path
            .strip_prefix("checks.")
            .and_then(|name| own.key(name).node);
        let when = |check: Option<&Node>| {
            let when = check
                .and_then(|check| check.get("when"))
                .map(Node::to_value);
            when.and_then(|when| when.as_str().map(|when| when.trim().to_owned()))
        };
        let has_other_condition = when(Some(other))
            .is_some_and(|other| when(own).is_none_or(|own| !own.contains(&other)));
        let flows = self.flows.get(name);
        let has_other_flows =
            flows.is_some_and(|flows| subject.flows.iter().any(|flow| !flows.contains(flow)));
        let field = other.get("field").map(Node::to_value);
        let has_same_field = subject
            .present
            .as_ref()
            .is_some_and(|own| field.as_ref().is_some_and(|field| field == own.node_name()));
        // Without a schema, a field may always be there.
        let has_optional_field =
            !self.schemas.is_empty() && !has_same_field && self.skips_sign_ups(other);
        has_other_condition || has_other_flows || has_optional_field
    }
}

fn in_schemas(schemas: &Schemas, root: Variable, path: &ReadPath) -> Vec<Candidate> {
    let knowledge = schemas.look_up(&steps_of(path));
    if knowledge.named_in.is_empty() {
        return Vec::new();
    }
    let parts = knowledge.steps.iter().enumerate().skip(1);
    let candidates = parts.flat_map(|(at, presence)| {
        let candidate = |reason| Candidate {
            root,
            path: path.beginning(at + 1),
            reason,
            types: knowledge.types,
            is_both: presence.may_be_missing && presence.may_be_null,
        };
        let missing = presence.may_be_missing.then(|| candidate(Reason::Optional));
        let null = presence.may_be_null.then(|| candidate(Reason::Nullable));
        missing.into_iter().chain(null)
    });
    candidates.collect()
}

/// Returns why a part of `flow` or `request` can be absent, and the length of its path.
fn in_call(subject: &Subject, root: Variable, path: &ReadPath) -> Option<(Reason, usize)> {
    let is_in_settings = subject.flows.contains(&Flow::Settings);
    let second = match path.steps().nth(1) {
        Some(ReadStep::Name(name)) => Some(name),
        _ => None,
    };
    match (root, path.first_name()?, second) {
        (Variable::Flow, "provider", _) | (Variable::Request, "client_ip", _) => {
            Some((Reason::NullInKratos, 1))
        }
        (Variable::Flow, "request_url", _) if is_in_settings || subject.has_changes => {
            Some((Reason::NullInKratos, 1))
        }
        (Variable::Flow, "return_to", _) => Some((Reason::NotInKratos, 1)),
        (Variable::Flow, "transient_payload", Some(_)) if is_in_settings => {
            Some((Reason::NotInSettings, 2))
        }
        (Variable::Request, "headers", Some(name)) if FORWARDED.contains(&name) => {
            Some((Reason::NotInKratos, 2))
        }
        _ => None,
    }
}

/// Returns whether a check can admit a sign-up without an answer.
fn admits_unchecked(check: &Node) -> bool {
    let is_chosen = |node: &Node| matches!(&node.kind, Kind::Text { text, .. } if text == "accept" || text == "defer");
    check.get("on_unavailable").is_some_and(|node| {
        is_chosen(node) || node.entries().iter().any(|entry| is_chosen(&entry.value))
    })
}
