//! Defines every operation of the admin port. The routes and the OpenAPI document are generated from this table.

use actix_web::Route;
use actix_web::web::{get, post};
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::jobs::{self, Jobs};
use super::late_refusals::{self, LateRefusalLift, LateRefusalPage};
use super::query::{PARAMETERS, Parameter};
use super::selection::Selection;
use super::{decisions, deliveries, document};
use crate::base::telemetry::metrics::CONTENT_TYPE;
use crate::checks::deferred::Lifted;
use crate::http::health;
use crate::store::DeliveryDetails;
use crate::store::admin::{ActionResult, Page};
use crate::store::decisions::{DecisionPage, FlowDecisions};

/// A function that generates a schema, and the schemas to which it refers.
pub(super) type Schema = fn(&mut SchemaGenerator) -> Value;

/// An operation of the admin API.
pub(super) struct Operation {
    /// The path of the URL.
    pub(super) path: &'static str,
    /// The HTTP method.
    pub(super) verb: Verb,
    /// The operation id, from which client generators name their functions.
    pub(super) name: &'static str,
    /// What the operation does, in one line.
    pub(super) is: &'static str,
    /// The query parameters.
    pub(super) query: &'static [Parameter],
    /// The schema of the body; `None` without a body.
    pub(super) body: Option<Schema>,
    /// The answer with status 200.
    pub(super) answer: Answer,
    /// The other statuses of this operation, in addition to those of every operation.
    pub(super) otherwise: &'static [(u16, &'static str)],
    /// The route to the handler.
    pub(super) route: fn() -> Route,
}

/// The HTTP methods of the admin port. An operation that changes data is a POST, whose body selects the data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
}

/// The kind of an answer.
pub(super) enum Answer {
    /// JSON with this schema.
    Json(Schema),
    /// Text of this content type.
    Text(&'static str),
}

impl Operation {
    /// Whether every client that reaches the port may call the operation: it serves monitoring, and shows no data.
    pub(super) fn is_open(&self) -> bool {
        const OPEN: [&str; 4] = ["/health/", "/metrics", "/version", "/openapi.json"];
        OPEN.iter().any(|open| self.path.starts_with(open))
    }
}

impl Verb {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}

const UNAVAILABLE: (u16, &str) = (503, "The database cannot be reached.");
const BAD_REQUEST: (u16, &str) = (400, "The request is invalid.");
const TOO_LONG: (u16, &str) = (413, "The body is too long.");
const NOT_JSON: (u16, &str) = (415, "The request has no `Content-Type: application/json`.");
const CHANGE: [(u16, &str); 4] = [BAD_REQUEST, TOO_LONG, NOT_JSON, UNAVAILABLE];

const LIFT: [(u16, &str); 5] = [
    BAD_REQUEST,
    (404, "The identity has no such late refusal in force."),
    TOO_LONG,
    NOT_JSON,
    UNAVAILABLE,
];

/// All operations. Paths without parameters come first, because a path with parameters would match them too.
pub(super) const OPERATIONS: [Operation; 15] = [
    Operation {
        path: "/deliveries",
        verb: Verb::Get,
        name: "listDeliveries",
        is: "Lists deliveries, newest first",
        query: &PARAMETERS,
        body: None,
        answer: Answer::Json(|schemas| schemas.subschema_for::<Page>().to_value()),
        otherwise: &[BAD_REQUEST, UNAVAILABLE],
        route: || get().to(deliveries::list),
    },
    Operation {
        path: "/deliveries/retry",
        verb: Verb::Post,
        name: "retryDeliveries",
        is: "Makes pending and abandoned deliveries due now; abandoned deliveries are retried for the `retry.max_elapsed` of their subscription again",
        query: &[],
        body: Some(|schemas| schemas.subschema_for::<Selection>().to_value()),
        answer: Answer::Json(|schemas| schemas.subschema_for::<ActionResult>().to_value()),
        otherwise: &CHANGE,
        route: || post().to(deliveries::retry),
    },
    Operation {
        path: "/deliveries/discard",
        verb: Verb::Post,
        name: "discardDeliveries",
        is: "Discards pending and abandoned deliveries and erases their payloads",
        query: &[],
        body: Some(|schemas| schemas.subschema_for::<Selection>().to_value()),
        answer: Answer::Json(|schemas| schemas.subschema_for::<ActionResult>().to_value()),
        otherwise: &CHANGE,
        route: || post().to(deliveries::discard),
    },
    Operation {
        path: "/deliveries/{id}",
        verb: Verb::Get,
        name: "showDelivery",
        is: "Shows one delivery with its attempts, without its payload",
        query: &[],
        body: None,
        answer: Answer::Json(|schemas| schemas.subschema_for::<DeliveryDetails>().to_value()),
        otherwise: &[
            BAD_REQUEST,
            (404, "There is no such delivery."),
            UNAVAILABLE,
        ],
        route: || get().to(deliveries::show),
    },
    Operation {
        path: "/decisions",
        verb: Verb::Get,
        name: "listDecisions",
        is: "Lists decisions about sign-ups and changes, newest first",
        query: &decisions::PARAMETERS,
        body: None,
        answer: Answer::Json(|schemas| schemas.subschema_for::<DecisionPage>().to_value()),
        otherwise: &[BAD_REQUEST, UNAVAILABLE],
        route: || get().to(decisions::list),
    },
    Operation {
        path: "/decisions/{flow_id}",
        verb: Verb::Get,
        name: "showDecisions",
        is: "Shows the decisions about one flow, oldest first, with the result of each check",
        query: &[],
        body: None,
        answer: Answer::Json(|schemas| schemas.subschema_for::<FlowDecisions>().to_value()),
        otherwise: &[
            BAD_REQUEST,
            (404, "There is no decision about this flow."),
            UNAVAILABLE,
        ],
        route: || get().to(decisions::show),
    },
    Operation {
        path: "/late-refusals",
        verb: Verb::Get,
        name: "listLateRefusals",
        is: "Lists the late refusals in force",
        query: &late_refusals::PARAMETERS,
        body: None,
        answer: Answer::Json(|schemas| schemas.subschema_for::<LateRefusalPage>().to_value()),
        otherwise: &[BAD_REQUEST, UNAVAILABLE],
        route: || get().to(late_refusals::list),
    },
    Operation {
        path: "/late-refusals/lift",
        verb: Verb::Post,
        name: "liftLateRefusals",
        is: "Lifts the late refusals of an identity, by all checks or by one; removes marks, and activates the identity if no other refusal deactivates it",
        query: &[],
        body: Some(|schemas| schemas.subschema_for::<LateRefusalLift>().to_value()),
        answer: Answer::Json(|schemas| schemas.subschema_for::<Lifted>().to_value()),
        otherwise: &LIFT,
        route: || post().to(late_refusals::lift),
    },
    Operation {
        path: "/jobs",
        verb: Verb::Get,
        name: "listJobs",
        is: "Lists the background jobs with the result of their last run",
        query: &[],
        body: None,
        answer: Answer::Json(|schemas| schemas.subschema_for::<Jobs>().to_value()),
        otherwise: &[],
        route: || get().to(jobs::list),
    },
    Operation {
        path: "/health/alive",
        verb: Verb::Get,
        name: "isAlive",
        is: "Reports that the process runs",
        query: &[],
        body: None,
        answer: Answer::Json(|_| status(&["ok"])),
        otherwise: &[],
        route: || get().to(health::alive),
    },
    Operation {
        path: "/health/ready",
        verb: Verb::Get,
        name: "isReady",
        is: "Reports whether hooks are answered, and whether the database can be reached",
        query: &[],
        body: None,
        answer: Answer::Json(|_| {
            let mut schema = status(&["ok", "shutting down"]);
            schema["properties"]["database"] = json!({"type": "string", "enum": ["ok", "down"]});
            schema
        }),
        otherwise: &[(503, "Vestibule is shutting down.")],
        route: || get().to(health::ready),
    },
    Operation {
        path: "/version",
        verb: Verb::Get,
        name: "getVersion",
        is: "Reports the version",
        query: &[],
        body: None,
        answer: Answer::Json(
            |_| json!({"type": "object", "properties": {"version": {"type": "string"}}, "required": ["version"]}),
        ),
        otherwise: &[],
        route: || get().to(health::version),
    },
    Operation {
        path: "/metrics",
        verb: Verb::Get,
        name: "getMetrics",
        is: "Exports all metrics for Prometheus",
        query: &[],
        body: None,
        answer: Answer::Text(CONTENT_TYPE),
        otherwise: &[],
        route: || get().to(health::metrics),
    },
    Operation {
        path: "/metrics/prometheus",
        verb: Verb::Get,
        name: "getMetricsAsInKratos",
        is: "Exports all metrics, under Kratos's path",
        query: &[],
        body: None,
        answer: Answer::Text(CONTENT_TYPE),
        otherwise: &[],
        route: || get().to(health::metrics),
    },
    Operation {
        path: "/openapi.json",
        verb: Verb::Get,
        name: "getDocument",
        is: "Returns this document",
        query: &[],
        body: None,
        answer: Answer::Json(|_| json!({"type": "object"})),
        otherwise: &[],
        route: || get().to(document),
    },
];

fn status(values: &[&str]) -> Value {
    json!({
        "type": "object",
        "properties": {"status": {"type": "string", "enum": values}},
        "required": ["status"],
    })
}
