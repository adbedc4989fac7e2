//! `${…}` where a word, a number or a truth is expected: `level: ${env:LEVEL:-info}`. It is put in before the shape is
//! looked at; in texts it is put in later, piece by piece.

use serde_json::Value;

use super::interpolation::{Environment, joined, pieces};
use super::schema::resolved;
use super::tree::{Kind, Node, join, plain};
use super::validate::{flat, types, words};

/// Puts values in where the schema expects no text.
pub struct Expander<'a> {
    /// The whole schema, for references.
    pub root: &'a Value,
    /// Where names are looked up.
    pub environment: &'a Environment,
    /// The paths at which something could not be looked up.
    pub unknown: Vec<String>,
}

impl Expander<'_> {
    /// Fills the node and all that is in it.
    pub fn fill(&mut self, node: &mut Node, schema: &Value, path: &str) {
        let root = self.root;
        let choices = choices(root, schema);
        match &mut node.kind {
            Kind::Text { text, .. }
                if text.contains("${") && !choices.iter().copied().any(takes_text) =>
            {
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
                // Of several kinds of section, the one that `type` names.
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

fn choices<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    flat(root, std::slice::from_ref(resolved(root, schema)))
}

fn takes_text(choice: &Value) -> bool {
    let types = types(choice);
    words(choice).is_none() && (types.is_empty() || types.contains(&"string"))
}
