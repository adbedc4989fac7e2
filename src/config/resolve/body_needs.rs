//! Finds what the settings need of the body of a call.

use super::Resolver;
use crate::expression::{Expression, Variable};

/// The keys that a body of version 1 lacks.
const KEYS: [(Variable, [&str; 2]); 2] = [
    (Variable::Flow, ["request_url", "provider"]),
    (Variable::Previous, ["state", "state_changed_at"]),
];

impl Resolver<'_> {
    /// Records a key that the expression reads and that a body of version 1 lacks.
    pub(super) fn note_body_key(&mut self, expression: &Expression) {
        if self.body_key.is_some() {
            return;
        }
        self.body_key = KEYS.into_iter().find_map(|(root, keys)| {
            let read = expression.paths(root).find_map(|path| {
                let first = path.first_name()?;
                keys.contains(&first).then(|| first.to_owned())
            })?;
            Some(format!("{}.{read}", root.name()))
        });
    }
}
