//! Identity schemas: shapes that are common in real ones, each with a table of paths.

use std::fs;
use std::path::Path;

use vestibule::config::{self, Environment};
use vestibule::kratos::schema::{Schemas, Step};

use crate::{environment, file};

/// Returns what the schema of this shape says about a path: `required a text`, `optional a number`, `unknown`.
fn look_up(shape: &str, path: &str) -> String {
    let text = fs::read_to_string(file(&format!(
        "tests/fixtures/identity-schemas/{shape}.json"
    )));
    let text = text.unwrap_or_else(|_| panic!("the schema {shape}"));
    let mut schemas = Schemas::default();
    schemas.add(
        "default".to_owned(),
        serde_json::from_str(&text).expect("JSON"),
    );
    let names = ["traits"].into_iter().chain(path.split('.'));
    let knowledge = schemas.look_up(&Step::of_names(names));
    if knowledge.is_unknown() {
        let forbidden = !knowledge.forbidden_in.is_empty();
        return if forbidden {
            "unknown, forbidden"
        } else {
            "unknown"
        }
        .to_owned();
    }
    let presence = if knowledge.is_optional() {
        "optional"
    } else {
        "required"
    };
    if knowledge.types.is_given() {
        format!("{presence}, {}", knowledge.types)
    } else {
        presence.to_owned()
    }
}

const TEXT: &str = "required, a text";
const OPTIONAL_TEXT: &str = "optional, a text";
const FORBIDDEN: &str = "unknown, forbidden";

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_shape_has_its_known_unknown_and_optional_paths() {
    let tables: [(&str, &[(&str, &str)]); 13] = [
        (
            "flat",
            &[
                ("email", TEXT),
                ("user_name", OPTIONAL_TEXT),
                ("vat_number", OPTIONAL_TEXT),
                ("vat_nubmer", FORBIDDEN),
                ("email.local", FORBIDDEN),
                ("email.0", FORBIDDEN),
            ],
        ),
        (
            "nested",
            &[
                ("name", "required, an object"),
                ("name.last", TEXT),
                ("name.first", OPTIONAL_TEXT),
                ("name.middle", "unknown"),
                ("address.city", OPTIONAL_TEXT),
                ("address.geo.lat", "optional, a number"),
                ("address.geo.lon", "unknown"),
                ("city", FORBIDDEN),
            ],
        ),
        (
            "enum",
            &[
                ("kind", TEXT),
                ("plan", OPTIONAL_TEXT),
                ("kinds", FORBIDDEN),
            ],
        ),
        (
            "const",
            &[
                ("terms", "required, `true` or `false`"),
                ("region", OPTIONAL_TEXT),
                ("term", FORBIDDEN),
            ],
        ),
        (
            "pattern",
            &[
                ("phone", OPTIONAL_TEXT),
                ("labels.x_colour", OPTIONAL_TEXT),
                ("labels.colour", FORBIDDEN),
                ("scores.any_name", "optional, a number"),
                ("telephone", FORBIDDEN),
            ],
        ),
        (
            "boolean",
            &[
                ("newsletter", "optional, `true` or `false`"),
                ("consents.terms", "required, `true` or `false`"),
                ("consents.ads", "optional, `true` or `false`"),
                ("consents.other", "unknown"),
            ],
        ),
        (
            "number",
            &[
                ("age", "required, a whole number"),
                ("height", "optional, a number"),
                ("either", "optional, a text or a whole number"),
                ("weight", FORBIDDEN),
            ],
        ),
        (
            "default",
            &[
                ("locale", OPTIONAL_TEXT),
                ("newsletter", "optional, `true` or `false`"),
                ("language", "unknown"),
            ],
        ),
        (
            "nullable",
            &[
                ("phone", OPTIONAL_TEXT),
                ("company", OPTIONAL_TEXT),
                ("address", "optional, an object"),
                ("address.city", OPTIONAL_TEXT),
                ("address.street", "unknown"),
            ],
        ),
        (
            "if-then",
            &[
                ("kind", TEXT),
                ("vat_number", OPTIONAL_TEXT),
                ("company", OPTIONAL_TEXT),
                ("birthday", OPTIONAL_TEXT),
                ("birth_date", "unknown"),
            ],
        ),
        (
            "texts",
            &[
                ("emails", "required, a list"),
                ("emails.0", TEXT),
                ("emails.1", OPTIONAL_TEXT),
                ("emails.first", FORBIDDEN),
                ("tags.0", OPTIONAL_TEXT),
                ("pair.1", "required, a number"),
                ("pair.2", "unknown"),
                ("emails.0.local", FORBIDDEN),
            ],
        ),
        (
            "objects",
            &[
                ("projects", "optional, a list"),
                ("projects.0", "optional, an object"),
                ("projects.0.name", OPTIONAL_TEXT),
                ("projects.0.owners.2", OPTIONAL_TEXT),
                ("projects.0.title", "unknown"),
                ("projects.name", FORBIDDEN),
            ],
        ),
        (
            "references",
            &[
                ("email", TEXT),
                ("name.last", OPTIONAL_TEXT),
                ("name.first", "unknown"),
                ("member_no", "optional, a whole number"),
                ("photo", "optional"),
                ("photo.url", "optional"),
                ("parent.email", OPTIONAL_TEXT),
                ("parent.parent", "unknown"),
                ("e_mail", "unknown"),
            ],
        ),
    ];
    for (shape, table) in tables {
        for (path, expected) in table {
            assert_eq!(look_up(shape, path), *expected, "{shape}: {path}");
        }
    }
}

#[test]
fn a_schema_that_names_no_members_allows_every_path() {
    for (schema, path, expected) in [
        (
            r#"{"properties": {"traits": {"type": "object"}}}"#,
            "a.b",
            "optional",
        ),
        (r#"{"properties": {"traits": {}}}"#, "a", "optional"),
        (
            r#"{"properties": {"traits": {"properties": {"a": {}}}}}"#,
            "a.b.0",
            "optional",
        ),
        (
            r#"{"properties": {"traits": {"properties": {"a": {"type": "array"}}}}}"#,
            "a.0.b",
            "optional",
        ),
        (
            r#"{"properties": {"traits": {"properties": {"a": {}}, "additionalProperties": true}}}"#,
            "b",
            "allowed",
        ),
        (
            r#"{"properties": {"traits": {"properties": {"a": {}}}}}"#,
            "b",
            "unknown",
        ),
        (
            r#"{"properties": {"traits": {"properties": {"a": false}}}}"#,
            "a",
            "unknown",
        ),
        (
            r#"{"properties": {"traits": {"properties": {"a": {}}, "dependencies": {"a": {"properties": {"b": {}}, "required": ["b"]}, "b": ["a"]}}}}"#,
            "b",
            "optional",
        ),
        (
            r#"{"properties": {"traits": {"properties": {"a": {}}, "dependentSchemas": {"a": {"oneOf": [{"properties": {"b": {}}}]}}}}}"#,
            "b",
            "optional",
        ),
        (
            r#"{"properties": {"traits": {"properties": {"a": {}}, "oneOf": [{"properties": {"b": {}}, "required": ["b"]}, {"properties": {"b": {}, "c": {}}, "required": ["b"]}]}}}"#,
            "b",
            "required",
        ),
    ] {
        let mut schemas = Schemas::default();
        schemas.add("default".to_owned(), serde_json::from_str(schema).unwrap());
        let names = ["traits"].into_iter().chain(path.split('.'));
        let knowledge = schemas.look_up(&Step::of_names(names));
        let found = match (knowledge.named_in.len(), knowledge.allowed_in.len()) {
            (1, 0) if knowledge.is_optional() => "optional",
            (0, 1) => "allowed",
            (0, 0) => "unknown",
            _ => "required",
        };
        assert_eq!(found, expected, "{schema}: {path}");
    }
}

#[test]
fn a_schema_that_refers_to_itself_is_read() {
    let schema = serde_json::json!({
        "definitions": {
            "person": {"properties": {"name": {"type": "string"}, "parent": {"$ref": "#/definitions/person"}}},
            "circle": {"$ref": "#/definitions/circle"},
            "twice": {"allOf": [{"$ref": "#/definitions/twice"}, {"$ref": "#/definitions/twice"}]},
        },
        "properties": {"traits": {"properties": {
            "person": {"$ref": "#/definitions/person"},
            "circle": {"$ref": "#/definitions/circle"},
            "twice": {"$ref": "#/definitions/twice"},
        }}},
    });
    let mut schemas = Schemas::default();
    schemas.add("default".to_owned(), schema);
    for (path, is_known) in [
        ("traits.person.parent.parent.name", true),
        ("traits.person.parent.parent.title", false),
        ("traits.circle", true),
        ("traits.twice", true),
    ] {
        let knowledge = schemas.look_up(&Step::of_names(path.split('.')));
        assert_eq!(!knowledge.is_unknown(), is_known, "{path}");
    }
    assert!(
        schemas
            .paths()
            .contains(&"traits.person.parent.name".to_owned())
    );
}

#[test]
fn the_nearest_trait_is_found_at_every_depth() {
    let mut schemas = Schemas::default();
    for shape in ["nested", "objects"] {
        let path = file(&format!("tests/fixtures/identity-schemas/{shape}.json"));
        let text = fs::read_to_string(path).unwrap();
        schemas.add(shape.to_owned(), serde_json::from_str(&text).unwrap());
    }
    for (path, expected) in [
        ("traits.emial", Some("traits.email")),
        ("traits.adress.city", Some("traits.address.city")),
        ("traits.address.cty", Some("traits.address.city")),
        ("traits.address.geo.lta", Some("traits.address.geo.lat")),
        ("traits.projects.0.nmae", Some("traits.projects.0.name")),
        ("traits.Email", Some("traits.email")),
        ("traits.something_else", None),
    ] {
        let found = schemas.nearest(&Step::of_names(path.split('.')));
        assert_eq!(found.as_deref(), expected, "{path}");
    }
}

#[test]
fn a_schema_is_read_from_a_file_or_from_base64() {
    let folder = tempfile::tempdir().unwrap();
    let schema = fs::read(file("tests/fixtures/identity-schemas/flat.json")).unwrap();
    fs::write(folder.path().join("flat.json"), &schema).unwrap();
    fs::write(folder.path().join("list.json"), "[1]").unwrap();
    fs::write(
        folder.path().join("other.json"),
        r#"{"properties": {"a": {}}}"#,
    )
    .unwrap();
    fs::write(folder.path().join("broken.json"), "{").unwrap();
    let absolute = format!("file://{}", folder.path().join("flat.json").display());
    let encoded = base64_of(&schema);
    let unpadded = encoded.trim_end_matches('=').to_owned();
    let base64 = |text: &str| format!("base64://{text}");
    for (kratos, expected) in [
        (one("file://flat.json"), "no `traits.nubmer`"),
        (one(&absolute), "no `traits.nubmer`"),
        (one(&base64(&encoded)), "no `traits.nubmer`"),
        (one(&base64(&unpadded)), "no `traits.nubmer`"),
        (
            r#"identity_schemas: {default: "file://flat.json"}"#.to_owned(),
            "no `traits.nubmer`",
        ),
        (
            r#"identity_schemas: {a: "file://flat.json", b: "file://flat.json"}"#.to_owned(),
            "no identity schema has `traits.nubmer`",
        ),
        (one("flat.json"), "help: write `file://flat.json`"),
        (one("/etc/flat.json"), "help: write `file:///etc/flat.json`"),
        (
            one("https://example.com/flat.json"),
            "help: save it with `curl -o identity.schema.json https://example.com/flat.json`",
        ),
        (
            one("base64://%%%"),
            "help: encode the schema with `base64 -w0",
        ),
        (one("base64://e30="), "it has no `traits`"),
        (one("base64://ew=="), "the schema is not JSON"),
        (one("file://broken.json"), "broken.json is not JSON"),
        (one("file://list.json"), "it has no `traits`"),
        (one("file://other.json"), "it has no `traits`"),
        (one("file://nowhere.json"), "cannot read the file"),
        (
            r#"identity_schema: "file://flat.json", identity_schemas: {a: "file://flat.json"}"#
                .to_owned(),
            "help: move it into `identity_schemas`, as `default`",
        ),
    ] {
        let text = format!(
            "kratos: {{{kratos}}}\nchecks: {{a: {{field: traits.nubmer, required: true}}}}"
        );
        let path = folder.path().join("vestibule.yaml");
        let report = config::read(&text, &path, &environment())
            .unwrap_err()
            .to_string();
        assert!(report.contains(expected), "{kratos}\n{report}");
        assert!(
            report.contains("has 1 problem\n")
                || kratos.contains("identity_schema:") && kratos.contains("identity_schemas"),
            "{kratos}\n{report}"
        );
    }
}

fn one(address: &str) -> String {
    format!("identity_schema: \"{address}\"")
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn traits_are_identifiers_in_every_schema() {
    let text = r#"kratos: {identity_schemas: {flat: "file://flat.json", references: "file://nested.json"}}"#;
    let path = file("tests/fixtures/identity-schemas/vestibule.yaml");
    let settings = config::read(text, Path::new(&path), &Environment::of([])).unwrap();
    let identity = serde_json::json!({"traits": {"email": "ada@example.org"}});
    assert_eq!(
        settings.kratos.identifiers.in_identity(&identity),
        ["ada@example.org"]
    );
}
