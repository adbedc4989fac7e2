//! Finds the parts of an identity that a check reads, to decide whether a change concerns the check.

use serde_json::Value;

use super::Check;
use crate::expression::{Expression, ReadPath, Variable};
use crate::kratos::Field;
use crate::model::identity_write::same_option;

/// The parts of an identity that Vestibule can compare before and after a change. Hooks see both states of both
/// parts.
const COMPARED: [&str; 2] = ["traits", "metadata_public"];

/// The parts of `flow` that only a registration has.
const REGISTRATION_DATA: [&str; 3] = ["transient_payload", "request_url", "provider"];

/// What a check reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// The fields of checks. Two absent values of a field are the same value.
    pub fields: Vec<Field>,
    /// Paths in `identity`, each in `traits` or `metadata_public`.
    pub identity: Vec<ReadPath>,
    /// A part of `flow` that the check reads, and that Kratos sends at registration only.
    pub registration_data: Option<&'static str>,
    /// The checks whose response is read.
    pub checks: Vec<String>,
}

impl Reads {
    /// Returns what the check itself reads, without the reads of other checks.
    #[must_use]
    pub fn of(check: &Check) -> Self {
        let mut reads = Self {
            fields: check.field.iter().cloned().collect(),
            ..Self::default()
        };
        for expression in check.everything_read() {
            reads.add(expression);
        }
        // A path to exactly the field is compared like the field.
        if let Some(field) = &check.field {
            reads.identity.retain(|path| !path.is_at(field.names()));
        }
        reads.tidy();
        reads
    }

    /// Returns what each check reads, in the same order, including the reads through `checks.<name>.response`.
    #[must_use]
    pub fn of_all<'c>(checks: impl IntoIterator<Item = &'c Check>) -> Vec<Self> {
        let checks: Vec<&Check> = checks.into_iter().collect();
        let own: Vec<Self> = checks.iter().map(|check| Self::of(check)).collect();
        (0..own.len())
            .map(|start| {
                let mut sum = Self::default();
                for index in reachable(start, &checks, &own) {
                    sum.fields.extend(own[index].fields.iter().cloned());
                    sum.identity.extend(own[index].identity.iter().cloned());
                    sum.registration_data = sum.registration_data.or(own[index].registration_data);
                    sum.checks.extend(own[index].checks.iter().cloned());
                }
                sum.tidy();
                sum
            })
            .collect()
    }

    /// Returns whether the check reads nothing that a settings change can change.
    #[must_use]
    pub fn nothing_of_the_identity(&self) -> bool {
        self.fields.is_empty() && self.identity.is_empty()
    }

    /// Returns whether a value that the check reads differs between the previous identity and the new one. A removal is
    /// a change.
    #[must_use]
    pub fn differ(&self, previous: &Value, identity: &Value) -> bool {
        let field_differs =
            |field: &Field| !same_option(field.present_in(previous), field.present_in(identity));
        let path_differs =
            |path: &ReadPath| !same_option(path.value_in(previous), path.value_in(identity));
        self.fields.iter().any(field_differs) || self.identity.iter().any(path_differs)
    }

    fn add(&mut self, expression: &Expression) {
        for path in expression.paths(Variable::Identity) {
            if path.is_root() {
                let whole = COMPARED.map(|name| ReadPath::of_names(&[name]));
                self.identity.extend(whole);
            } else if path
                .first_name()
                .is_some_and(|name| COMPARED.contains(&name))
            {
                self.identity.push(path);
            }
        }
        let data = expression.paths(Variable::Flow).find_map(|path| {
            let first = path.first_name()?;
            REGISTRATION_DATA.into_iter().find(|name| *name == first)
        });
        self.registration_data = self.registration_data.or(data);
        self.checks.extend(expression.checks_read().iter().cloned());
    }

    fn tidy(&mut self) {
        self.fields.sort();
        self.fields.dedup();
        self.identity.sort();
        self.identity.dedup();
        self.checks.sort();
        self.checks.dedup();
    }
}

/// Returns the check, and the checks that it reads, directly and through others.
fn reachable(start: usize, checks: &[&Check], own: &[Reads]) -> Vec<usize> {
    let mut found = vec![start];
    let mut next = 0;
    while let Some(index) = found.get(next).copied() {
        next += 1;
        for name in &own[index].checks {
            let other = checks.iter().position(|check| check.name == *name);
            if let Some(other) = other
                && !found.contains(&other)
            {
                found.push(other);
            }
        }
    }
    found
}
