//! Finds the type that an identity schema gives a trait.

use serde_json::Value;

/// The maximum number of references and choices that are followed one inside another. A schema may refer to itself.
const MAX_DEPTH: usize = 16;

/// Whether a schema gives a trait a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraitType {
    /// The schema gives a type, or lists the allowed values.
    Given,
    /// The schema names the trait without a type. So a visitor can send a list or an object.
    NotGiven,
    /// The schema does not name the trait.
    Unknown,
}

/// Returns whether an identity schema gives a type to the trait with these names, `traits` first. In a list, a number
/// is the index of an entry.
#[must_use]
pub fn trait_type(schema: &Value, names: &[&str]) -> TraitType {
    let mut found = vec![schema];
    for name in names {
        let mut inner = Vec::new();
        for one in found {
            members(schema, one, name, MAX_DEPTH, &mut inner);
        }
        found = inner;
    }
    if found.is_empty() {
        TraitType::Unknown
    } else if found.iter().any(|one| gives_type(schema, one, MAX_DEPTH)) {
        TraitType::Given
    } else {
        TraitType::NotGiven
    }
}

/// Collects all schemas that this schema gives a member.
fn members<'s>(
    root: &'s Value,
    schema: &'s Value,
    name: &str,
    depth: usize,
    found: &mut Vec<&'s Value>,
) {
    if let Some(member) = schema["properties"].get(name) {
        found.push(member);
    }
    if let Ok(index) = name.parse::<usize>() {
        let listed = [&schema["prefixItems"], &schema["items"]]
            .into_iter()
            .find_map(|list| list.as_array()?.get(index));
        found.extend(listed.or_else(|| Some(&schema["items"]).filter(|items| items.is_object())));
    }
    if depth == 0 {
        return;
    }
    let referred = schema["$ref"]
        .as_str()
        .and_then(|reference| root.pointer(reference.strip_prefix('#')?));
    let choices = ["allOf", "anyOf", "oneOf"]
        .into_iter()
        .filter_map(|key| schema[key].as_array())
        .flatten();
    let branches = ["then", "else"]
        .into_iter()
        .filter_map(|key| schema.get(key));
    for other in referred.into_iter().chain(choices).chain(branches) {
        members(root, other, name, depth - 1, found);
    }
}

fn gives_type(root: &Value, schema: &Value, depth: usize) -> bool {
    if ["type", "enum", "const"]
        .iter()
        .any(|key| schema.get(key).is_some())
    {
        return true;
    }
    if depth == 0 {
        return false;
    }
    let inner = |other: &Value| gives_type(root, other, depth - 1);
    let by_reference = schema["$ref"].as_str().is_some_and(|reference| {
        match reference.strip_prefix('#') {
            Some(pointer) => root.pointer(pointer).is_some_and(inner),
            // Another file may give the type.
            None => true,
        }
    });
    let all = schema["allOf"].as_array();
    let one_of_several = ["anyOf", "oneOf"].iter().any(|key| {
        let choices = schema[key].as_array();
        choices.is_some_and(|choices| !choices.is_empty() && choices.iter().all(inner))
    });
    by_reference || one_of_several || all.is_some_and(|all| all.iter().any(inner))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn trait_type_follows_references_choices_and_lists() {
        let schema = json!({
            "definitions": {"code": {"type": "string"}, "open": {"title": "Anything"}, "circle": {"$ref": "#/definitions/circle"}},
            "properties": {"traits": {
                "type": "object",
                "properties": {
                    "text": {"type": "string"},
                    "several": {"type": ["string", "null"]},
                    "open": {"title": "Anything"},
                    "anything": true,
                    "values": {"enum": ["a", "b"]},
                    "value": {"const": "a"},
                    "referred": {"$ref": "#/definitions/code"},
                    "referred_open": {"$ref": "#/definitions/open"},
                    "elsewhere": {"$ref": "other.json#/code"},
                    "circle": {"$ref": "#/definitions/circle"},
                    "all": {"allOf": [{"maxLength": 3}, {"type": "string"}]},
                    "any": {"anyOf": [{"type": "string"}, {"type": "number"}]},
                    "any_open": {"anyOf": [{"type": "string"}, {"maxLength": 3}]},
                    "address": {"type": "object", "properties": {"city": {"type": "string"}, "street": {"maxLength": 3}}},
                    "emails": {"type": "array", "items": {"type": "string"}},
                    "open_list": {"type": "array", "items": {"maxLength": 3}},
                    "pair": {"type": "array", "items": [{"type": "string"}, {"maxLength": 3}]},
                },
                "allOf": [{"properties": {"further": {"type": "string"}}}],
                "then": {"properties": {"vat": {"maxLength": 3}}},
            }},
        });
        for (path, expected) in [
            ("text", TraitType::Given),
            ("several", TraitType::Given),
            ("open", TraitType::NotGiven),
            ("anything", TraitType::NotGiven),
            ("values", TraitType::Given),
            ("value", TraitType::Given),
            ("referred", TraitType::Given),
            ("referred_open", TraitType::NotGiven),
            ("elsewhere", TraitType::Given),
            ("circle", TraitType::NotGiven),
            ("all", TraitType::Given),
            ("any", TraitType::Given),
            ("any_open", TraitType::NotGiven),
            ("address", TraitType::Given),
            ("address.city", TraitType::Given),
            ("address.street", TraitType::NotGiven),
            ("address.zip", TraitType::Unknown),
            ("emails.0", TraitType::Given),
            ("open_list.3", TraitType::NotGiven),
            ("pair.0", TraitType::Given),
            ("pair.1", TraitType::NotGiven),
            ("further", TraitType::Given),
            ("vat", TraitType::NotGiven),
            ("other", TraitType::Unknown),
        ] {
            let names: Vec<&str> = ["traits"].into_iter().chain(path.split('.')).collect();
            assert_eq!(trait_type(&schema, &names), expected, "{path}");
        }
    }
}
