//! Generates the JSON Schema of the settings file, and the reference in docs/configuration.md.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::file::File;

/// Returns the schema (draft 2020-12) for editors.
#[must_use]
pub fn schema() -> Value {
    let mut schema = of_the_reference();
    with_inserted(&mut schema);
    schema
}

/// Returns the schema for the check of a file. An optional value is also null.
#[must_use]
pub fn of_the_file() -> Value {
    schemars::schema_for!(File).to_value()
}

/// Returns the schema for the reference, without the alternatives that every key has.
fn of_the_reference() -> Value {
    let mut schema = of_the_file();
    without_null(&mut schema);
    with_kinds_described(&mut schema);
    schema
}

/// Permits `${env:NAME}` in place of a keyword, a number or a boolean.
fn with_inserted(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(with_inserted),
        Value::Object(members) => {
            members.values_mut().for_each(with_inserted);
            let kind = members.get("type").and_then(Value::as_str);
            if kind == Some("boolean") || kind == Some("integer") || members.contains_key("enum") {
                let description = members.remove("description");
                let inserted = json!({"type": "string", "pattern": r"^\$\{(env|file):"});
                let choices = json!([std::mem::take(members), inserted]);
                members.insert("anyOf".to_owned(), choices);
                members.extend(description.map(|text| ("description".to_owned(), text)));
            }
        }
        _ => {}
    }
}

/// `type` and `config` of `{type, config}` come from an enumeration, which has no comments for them.
fn with_kinds_described(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(with_kinds_described),
        Value::Object(members) => {
            let kind = members
                .get("properties")
                .and_then(|properties| properties["type"]["const"].as_str())
                .map(ToOwned::to_owned);
            if let Some(kind) = kind {
                let meaning = members.get("description").cloned().unwrap_or_default();
                members["properties"]["type"]["description"] = meaning;
                members["properties"]["config"]["description"] =
                    format!("The settings of `{kind}`.").into();
            }
            members.values_mut().for_each(with_kinds_described);
        }
        _ => {}
    }
}

/// An optional key cannot be empty: with `ask:` and no value, a check would ask no service.
fn without_null(schema: &mut Value) {
    let members = match schema {
        Value::Array(items) => return items.iter_mut().for_each(without_null),
        Value::Object(members) => members,
        _ => return,
    };
    if members.get("default").is_some_and(Value::is_null) {
        members.remove("default");
    }
    if let Some(Value::Array(types)) = members.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            members.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = members.get_mut("anyOf") {
        choices.retain(|choice| choice["type"] != "null");
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            members.remove("anyOf");
            for (key, value) in only {
                members.entry(key).or_insert(value);
            }
        }
    }
    members.values_mut().for_each(without_null);
}

/// Generates docs/configuration.md.
#[must_use]
pub fn markdown() -> String {
    let schema = of_the_reference();
    let mut text = String::from("# The settings file\n\n");
    text.push_str(
        "<!-- Generated from src/config/file.rs by `vestibule schema --markdown`; a test fails when it is stale. -->\n\n",
    );
    text.push_str(&described(&schema));
    text.push_str("\n\n[vestibule.example.yaml](../vestibule.example.yaml) shows every key. [`vestibule validate`](#checking-a-file) reports every problem of a file; `vestibule schema` prints the JSON Schema for editors.\n");
    section(&mut text, &schema, &schema, "");
    text.push_str(NAMES);
    text.push_str(CHAPTERS);
    text
}

/// The variables of expressions, which the schema does not contain.
const NAMES: &str = "
## Variables in expressions

| variable | value | where |
|---|---|---|
| `identity` | the identity before it is saved, or as it was saved: `identity.traits`, `identity.metadata_public`, … | everywhere |
| `previous` | the identity before the change: `traits`, `metadata_public` | settings |
| `value` | the value of the check's `field` | checks with a `field` |
| `flow` | `id`, `type`, `issued_at`, `expires_at`, `return_to`, `transient_payload` | everywhere |
| `request` | the visitor's request: `headers`, and `client_ip` with `hooks.client_ip_header` | everywhere |
| `method` | `password`, `oidc`, `code`, `passkey`, `webauthn`, `profile`, … | everywhere |
| `now` | the time of the call | everywhere |
| `lists.<name>` | a list | everywhere |
| `response` | the response: `status`, `headers` (names in lower case), `body` (JSON, or else a text; null if empty) | after an `ask` |
| `checks.<name>.response` | the response of another check, for which the check waits | checks |

Besides CEL's functions and the functions of its string extension there are `domain(address)`, the part after the `@` in lower
case and ASCII, and `in_domains(address, list)`, true if that domain or one above it is in the list.
";

/// What the keys and variables do not explain.
const CHAPTERS: &str = include_str!("schema/chapters.md");

fn section(text: &mut String, root: &Value, schema: &Value, path: &str) {
    let schema = resolved(root, schema);
    let Some(properties) = schema["properties"].as_object() else {
        return;
    };
    if !path.is_empty() {
        let _ = write!(text, "\n## `{path}`\n\n{}\n", described(schema));
    }
    text.push_str("\n| key | type | description |\n|---|---|---|\n");
    let required = |key: &str| {
        schema["required"]
            .as_array()
            .is_some_and(|keys| keys.iter().any(|known| known == key))
    };
    for (key, property) in properties {
        let needed = if required(key) { " **Required.**" } else { "" };
        let description = described(property).replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(
            text,
            "| `{key}` | {} | {description}{needed} |",
            kind(root, property)
        );
    }
    for (key, property) in properties {
        for (suffix, inner) in sections(root, property) {
            section(
                text,
                root,
                inner,
                &format!("{}{suffix}", super::tree::join(path, key)),
            );
        }
    }
}

/// Returns the sections in a property, with the path from its key to theirs.
fn sections<'a>(root: &'a Value, property: &'a Value) -> Vec<(&'static str, &'a Value)> {
    let property = resolved(root, property);
    if let Some(choices) = property["oneOf"]
        .as_array()
        .or_else(|| property["anyOf"].as_array())
    {
        return choices
            .iter()
            .flat_map(|choice| sections(root, choice))
            .collect();
    }
    if property["properties"].is_object() {
        return vec![("", property)];
    }
    if property["additionalProperties"].is_object() {
        let inner = &property["additionalProperties"];
        return sections(root, inner)
            .into_iter()
            .map(|(_, inner)| (".<name>", inner))
            .collect();
    }
    if property["items"].is_object() {
        return sections(root, &property["items"])
            .into_iter()
            .map(|(_, inner)| ("[]", inner))
            .collect();
    }
    Vec::new()
}

/// Returns the type of a property, in one or two words.
fn kind(root: &Value, property: &Value) -> String {
    let property = resolved(root, property);
    if let Some(names) = property["enum"].as_array() {
        return names
            .iter()
            .filter_map(Value::as_str)
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ");
    }
    if let Some(name) = property["const"].as_str() {
        return format!("`{name}`");
    }
    if let Some(choices) = property["oneOf"]
        .as_array()
        .or_else(|| property["anyOf"].as_array())
    {
        let mut kinds: Vec<String> = choices.iter().map(|choice| kind(root, choice)).collect();
        kinds.dedup();
        return kinds.join(" or ");
    }
    let types: Vec<&str> = match &property["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return "anything".to_owned(),
    };
    let of = |inner: &Value| kind(root, inner);
    match types.first().copied() {
        Some("object")
            if property["additionalProperties"].is_object()
                && !property["properties"].is_object() =>
        {
            format!("names, each {}", of(&property["additionalProperties"]))
        }
        Some("object") => "section".to_owned(),
        Some("array") => format!("list of {}", of(&property["items"])),
        Some("boolean") => "`true`, `false`".to_owned(),
        Some("integer") => "number".to_owned(),
        _ => match property["format"].as_str() {
            Some("duration-with-unit") => "duration".to_owned(),
            Some(format) => format.to_owned(),
            None => "text".to_owned(),
        },
    }
}

fn described(schema: &Value) -> String {
    schema["description"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Follows a `$ref`.
#[must_use]
pub fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"]
        .as_str()
        .and_then(|reference| reference.strip_prefix('#'))
    {
        Some(pointer) => root.pointer(pointer).unwrap_or(schema),
        None => schema,
    }
}
