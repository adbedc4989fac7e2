//! Traits of a submission that its identity schema forbids: Kratos would refuse the form before it calls a hook.

use serde_json::{Map, Value};

use crate::kratos::schema::{Schemas, Step, dotted};

/// The id of the identity schema of a submission that names none.
const DEFAULT_ID: &str = "default";

/// Returns one text for each trait that the identity schema forbids, with the nearest trait as help. Without `schema_id`,
/// the schema is `default`, or any if the settings name no such schema.
#[must_use]
pub fn unknown_traits(
    schemas: &Schemas,
    schema_id: Option<&str>,
    traits: &Map<String, Value>,
) -> Vec<String> {
    let has = |id: &str| schemas.ids().any(|known| known == id);
    let chosen: Vec<&str> = match schema_id {
        Some(id) => vec![id],
        None if has(DEFAULT_ID) => vec![DEFAULT_ID],
        None => schemas.ids().collect(),
    };
    if chosen.is_empty() || !chosen.iter().all(|id| has(id)) {
        return Vec::new();
    }
    let mut search = Search {
        schemas,
        chosen: &chosen,
        found: Vec::new(),
    };
    search.object(&[Step::Name("traits")], traits);
    search.found
}

/// Walks through the traits.
struct Search<'s> {
    schemas: &'s Schemas,
    chosen: &'s [&'s str],
    found: Vec<String>,
}

impl Search<'_> {
    fn object(&mut self, before: &[Step<'_>], members: &Map<String, Value>) {
        for (name, value) in members {
            let path = [before, &[Step::Name(name)]].concat();
            let forbidden = self.schemas.look_up(&path).forbidden_in;
            if self.chosen.iter().all(|id| forbidden.contains(id)) {
                self.report(&path);
            } else {
                self.value(&path, value);
            }
        }
    }

    fn value(&mut self, path: &[Step<'_>], value: &Value) {
        match value {
            Value::Object(members) => self.object(path, members),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(&[path, &[Step::Index(index)]].concat(), item);
                }
            }
            _ => {}
        }
    }

    fn report(&mut self, path: &[Step<'_>]) {
        let mut chosen = Schemas::default();
        for (id, root) in self
            .schemas
            .iter()
            .filter(|(id, _)| self.chosen.contains(id))
        {
            chosen.add(id.to_owned(), root.clone());
        }
        let help = match chosen.nearest(path) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "add the trait to the identity schema, or remove it here".to_owned(),
        };
        self.found.push(format!(
            "the identity schema `{}` allows no `{}`, so Kratos refuses the form; {help}",
            self.chosen.join("`, `"),
            dotted(path)
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schemas() -> Schemas {
        let closed = |traits: Value| json!({"properties": {"traits": {"type": "object", "properties": traits, "additionalProperties": false}}});
        let name = json!({"type": "object", "properties": {"first": {"type": "string"}}, "additionalProperties": false});
        let mut schemas = Schemas::default();
        schemas.add(
            "default".to_owned(),
            closed(json!({"email": {"type": "string"}, "name": name})),
        );
        schemas.add(
            "company".to_owned(),
            closed(json!({"vat_number": {"type": "string"}})),
        );
        schemas.add(
            "open".to_owned(),
            json!({"properties": {"traits": {"type": "object", "properties": {"email": {"type": "string"}}}}}),
        );
        schemas
    }

    #[test]
    fn only_traits_that_the_schema_forbids_are_reported() {
        for (id, traits, expected) in [
            (None, json!({"email": "a", "name": {"first": "b"}}), ""),
            (None, json!({"emial": "a"}), "did you mean `traits.email`?"),
            (
                None,
                json!({"name": {"firs": "b"}}),
                "did you mean `traits.name.first`?",
            ),
            (
                None,
                json!({"vat_number": "a"}),
                "`default` allows no `traits.vat_number`, so Kratos refuses the form; add the trait",
            ),
            (Some("company"), json!({"vat_number": "a"}), ""),
            (
                Some("company"),
                json!({"email": "a"}),
                "`company` allows no `traits.email`",
            ),
            (Some("open"), json!({"emial": "a"}), ""),
            (Some("unknown"), json!({"emial": "a"}), ""),
        ] {
            let found = unknown_traits(&schemas(), id, traits.as_object().expect("traits"));
            assert_eq!(found.is_empty(), expected.is_empty(), "{traits}: {found:?}");
            assert!(found.join("").contains(expected), "{traits}: {found:?}");
        }
        let traits = json!({"emial": "a"});
        let traits = traits.as_object().expect("traits");
        assert!(unknown_traits(&Schemas::default(), None, traits).is_empty());
    }
}
