//! What an expression reads, and what it gives without a value that it reads.

use super::path::{Path, ReadPath};
use super::resolve::Slot;
use super::{Absent, Effect, Expression, Variable, absence};

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

    /// Returns what the expression can give if a value is absent.
    #[must_use]
    pub fn without(&self, absent: &Absent) -> Effect {
        absence::effect(&self.compiled, absent)
    }

    /// Returns the variable and the path, if the expression is nothing but one path.
    #[must_use]
    pub fn single_path(&self) -> Option<(Variable, ReadPath)> {
        match self.compiled.only_path()? {
            Slot::Path(path @ Path { root, .. }) => Some((*root, path.constant())),
            _ => None,
        }
    }
}
