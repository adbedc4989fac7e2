//! Generates the OpenAPI 3.1 document of the admin API from the table of operations.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::error::ApiError;
use super::routes::{Answer, OPERATIONS, Operation, Verb};

const SCHEMAS: &str = "/components/schemas";

/// The description of the whole API.
const DESCRIPTION: &str = "For operators and monitoring: deliveries, late refusals, health, version, metrics. Keep the port (`serve.admin`) on \
    a private network. Requests need a token if `serve.admin.token` is set. The `Host` must be an IP address, localhost or in \
    `serve.admin.allowed_hosts`, and an `Origin` must be that host. Health, version, metrics and this document are open. The API never returns \
    payloads of deliveries, messages of refusals or texts of receivers, which can hold personal data.";

/// The other responses of an operation that is not open.
const FORBIDDEN: [(u16, &str); 2] = [
    (
        401,
        "The request does not have the token of `serve.admin.token`.",
    ),
    (
        403,
        "The `Host` is not an allowed one, or the `Origin` is another site.",
    ),
];

/// Generates the OpenAPI document.
#[must_use]
pub fn document() -> Value {
    let mut answers = generator(SchemaSettings::draft2020_12().for_serialize());
    let mut bodies = generator(SchemaSettings::draft2020_12().for_deserialize());
    let failure = answers.subschema_for::<ApiError>().to_value();
    let mut paths = Map::new();
    for operation in &OPERATIONS {
        let described = described(operation, &mut answers, &mut bodies, &failure);
        let verb = operation.verb.as_str().to_ascii_lowercase();
        let verbs = paths.entry(operation.path).or_insert_with(|| json!({}));
        verbs[verb] = described;
    }
    let mut schemas = bodies.take_definitions(true);
    schemas.extend(answers.take_definitions(true));
    schemas.sort_keys();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Vestibule's admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:4481"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

/// Returns the document as text, as in docs/openapi.json.
#[must_use]
pub fn text() -> String {
    format!("{:#}\n", document())
}

fn generator(settings: SchemaSettings) -> SchemaGenerator {
    let settings = settings.with(|settings| {
        settings.definitions_path = SCHEMAS.into();
        settings.meta_schema = None;
    });
    settings.into_generator()
}

fn described(
    operation: &Operation,
    answers: &mut SchemaGenerator,
    bodies: &mut SchemaGenerator,
    failure: &Value,
) -> Value {
    let mut described = json!({"operationId": operation.name, "summary": operation.is});
    let parameters = parameters(operation);
    if !parameters.is_empty() {
        described["parameters"] = parameters.into();
    }
    if let Some(body) = operation.body.map(|body| body(bodies)) {
        described["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": body}}});
    }
    let (kind, schema) = match operation.answer {
        Answer::Json(schema) => ("application/json", schema(answers)),
        Answer::Text(kind) => (kind, json!({"type": "string"})),
    };
    let mut responses =
        json!({"200": {"description": "Success.", "content": {kind: {"schema": schema}}}});
    let forbidden: &[_] = if operation.is_open() { &[] } else { &FORBIDDEN };
    for (status, description) in forbidden.iter().chain(operation.otherwise) {
        let schema = match (operation.path, operation.verb) {
            // A probe reads the same schema for every status.
            ("/health/ready", Verb::Get) => &responses["200"]["content"][kind]["schema"],
            _ => failure,
        };
        let content = json!({"application/json": {"schema": schema}});
        responses[status.to_string()] = json!({"description": description, "content": content});
    }
    described["responses"] = responses;
    if !operation.is_open() {
        // An empty object: without credentials, if the settings have no token.
        described["security"] = json!([{"token": []}, {}]);
    }
    described
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let in_path = operation.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?.strip_suffix('}')?;
        let schema = json!({"type": "string", "format": "uuid"});
        Some(json!({"name": name, "in": "path", "required": true, "schema": schema}))
    });
    let in_query = operation.query.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "in": "query",
            "description": parameter.is,
            "schema": (parameter.schema)(),
        })
    });
    in_path.chain(in_query).collect()
}
