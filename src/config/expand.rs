//! Expands `${…}` where a keyword, a number or a boolean is expected: `level: ${env:LEVEL:-info}`. This happens before
//! validation. In texts, values are inserted later, piece by piece.

use serde_json::Value;

use super::interpolation::{Environment, joined, pieces};
use super::schema::resolved;
use super::tree::{Kind, Node, join, plain};
use super::validate::{enum_values, flat, types};

/// Inserts values where the schema does not expect a text.
pub struct Expander<'a> {
    /// The whole schema, for references.
    pub root: &'a Value,
    /// The environment for lookups.
    pub environment: &'a Environment,
    /// The paths of failed lookups.
    pub unknown: Vec<String>,
}

impl Expander<'_> {
    /// Expands the node and everything in it.
    pub fn fill(&mut self, node: &mut Node, schema: &Value, path: &str) {
        let root = self.root;
        let choices = choices(root, schema);
        match &mut node.kind {
            Kind::Text { text, .. } if text.contains("${") && !expect_text(&choices) => {
                match pieces(text, self.environment) {
                    Ok(pieces) => {
                        node.written = Some(std::mem::take(text));
                        node.kind = plain(&joined(&pieces));
                    }
                    Err(_) => self.unknown.push(path.to_owned()),
                }
            }
            Kind::List(items) => {
                if let Some(choice) = choices.iter().find(|choice| choice["items"].is_object()) {
                    for (index, item) in items.iter_mut().enumerate() {
                        self.fill(item, &choice["items"], &format!("{path}[{index}]"));
                    }
                }
            }
            Kind::Map(entries) => {
                let tag = entries
                    .iter()
                    .find(|entry| entry.key == "type")
                    .and_then(|entry| match &entry.value.kind {
                        Kind::Text { text, .. } => pieces(text, self.environment).ok(),
                        _ => None,
                    })
                    .map(|pieces| joined(&pieces));
                // If there are several kinds of section, `type` chooses one.
                let of_the_tag = |choice: &&&Value| match &choice["properties"]["type"]["const"] {
                    Value::String(name) => tag.as_ref() == Some(name),
                    _ => choice["type"] == "object",
                };
                let Some(choice) = choices.iter().find(of_the_tag) else {
                    return;
                };
                for entry in entries {
                    let property = match &choice["properties"][&entry.key] {
                        Value::Null => &choice["additionalProperties"],
                        property => property,
                    };
                    self.fill(&mut entry.value, property, &join(path, &entry.key));
                }
            }
            _ => {}
        }
    }
}

/// Returns the alternatives of a schema.
pub(super) fn choices<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    flat(root, std::slice::from_ref(resolved(root, schema)))
}

/// Returns whether a text with `${…}` can be one of these. An expression cannot contain `${…}`, so next to `true` and
/// `false` no text is expected.
pub(super) fn expect_text(choices: &[&Value]) -> bool {
    let is_truth = choices.iter().any(|choice| choice["type"] == "boolean");
    choices.iter().any(|choice| {
        let types = types(choice);
        enum_values(choice).is_none()
            && (types.is_empty() || types.contains(&"string"))
            && !(is_truth && choice["format"] == "expression")
    })
}
