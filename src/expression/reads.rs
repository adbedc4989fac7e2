//! What an expression reads, and what it gives without a value that it reads.

use std::collections::BTreeSet;

use super::path::ReadPath;
use super::resolve::Slot;
use super::{Assumption, Effect, Expression, Variable, absence};

/// A path that an expression reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The constant beginning of the path, behind the variable.
    pub path: ReadPath,
    /// The byte of the source at which the path first begins.
    pub offset: Option<usize>,
}

impl Expression {
    /// Returns the paths of this variable that the expression reads or tests, in order.
    pub fn reads_of(&self, root: Variable) -> impl Iterator<Item = Read> {
        let slots = self.compiled.slots.iter().zip(&self.compiled.starts);
        slots.filter_map(move |(slot, offset)| match slot {
            Slot::Path(path) | Slot::Has(path) if path.root == root => Some(Read {
                path: path.constant(),
                offset: *offset,
            }),
            _ => None,
        })
    }

    /// Returns the paths of this variable whose value the expression reads, and does not only test by `has(…)`.
    pub fn values_of(&self, root: Variable) -> impl Iterator<Item = ReadPath> {
        self.compiled
            .slots
            .iter()
            .filter_map(move |slot| match slot {
                Slot::Path(path) if path.root == root => Some(path.constant()),
                _ => None,
            })
    }

    /// Returns what the expression can give under an assumption about a value.
    #[must_use]
    pub fn under(&self, assumed: &Assumption) -> Effect {
        absence::effect(&self.compiled, assumed)
    }

    /// Returns whether the expression, or an operand of its `||`, is never true under the assumption, and without it can
    /// be.
    #[must_use]
    pub fn is_partly_excluded(&self, assumed: &Assumption) -> bool {
        absence::is_partly_excluded(&self.compiled, assumed)
    }

    /// Returns whether a template that is nothing but this expression is null where its path is absent.
    #[must_use]
    pub fn becomes_null(&self, optional_paths: &BTreeSet<ReadPath>) -> bool {
        self.only_path()
            .is_some_and(|path| path.may_be_absent(optional_paths))
    }

    /// Returns the variable and the path, if the expression is nothing but one path.
    #[must_use]
    pub fn single_path(&self) -> Option<(Variable, ReadPath)> {
        let path = self.only_path()?;
        Some((path.root, path.constant()))
    }
}
