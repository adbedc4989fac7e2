//! Reads which deliveries a URL or a body asks for, value by value.

use std::collections::HashMap;

use serde_json::{Value, json};
use url::form_urlencoded;
use uuid::Uuid;

use super::error::ApiError;
use crate::base::clock::{Timestamp, moment};
use crate::model::delivery::State;
use crate::store::Filter;

/// How many entries are listed by default.
pub(super) const DEFAULT_LIMIT: u32 = 100;
/// How many entries are listed at most.
const MAX_LIMIT: u32 = 1000;

/// A query parameter.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) is: &'static str,
    pub(super) schema: fn() -> Value,
}

/// The parameter that limits how many entries are listed.
pub(super) const LIMIT_PARAMETER: Parameter = Parameter {
    name: "limit",
    is: "The maximum number of entries.",
    schema: || json!({"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT}),
};

/// All query parameters of `GET /deliveries`.
pub(super) const PARAMETERS: [Parameter; 7] = [
    Parameter {
        name: "subscription",
        is: "Only deliveries of this subscription; or `write-back:…`, `deferred-check:…`, `late-refusal:…`, `take:…`, `confirm:…`, `release:…`.",
        schema: || json!({"type": "string"}),
    },
    Parameter {
        name: "state",
        is: "Only deliveries in this state.",
        schema: || json!({"$ref": "#/components/schemas/State"}),
    },
    Parameter {
        name: "identity",
        is: "Only deliveries about this identity.",
        schema: || json!({"type": "string", "format": "uuid"}),
    },
    Parameter {
        name: "since",
        is: "Only deliveries created then or later: a day or a time, `2026-11-01` or `2026-11-01T12:00:00Z`.",
        schema: || json!({"type": "string"}),
    },
    Parameter {
        name: "until",
        is: "Only deliveries created before then: a day (its first moment, in UTC) or a time.",
        schema: || json!({"type": "string"}),
    },
    LIMIT_PARAMETER,
    Parameter {
        name: "cursor",
        is: "The next page: the `next_cursor` of the page before.",
        schema: || json!({"type": "string", "format": "uuid"}),
    },
];

/// Reads the query of `GET /deliveries`: which deliveries, and how many.
pub(super) fn read(query: &str) -> Result<(Filter, u32), ApiError> {
    let values = values(query, &PARAMETERS)?;
    let value = |name: &str| values.get(name).map(String::as_str);
    let filter = Filter {
        subscription: value("subscription").map(ToOwned::to_owned),
        state: value("state").map(state).transpose()?,
        identity: value("identity")
            .map(|text| id("identity", text))
            .transpose()?,
        since: value("since").map(|text| time("since", text)).transpose()?,
        until: value("until").map(|text| time("until", text)).transpose()?,
        cursor: value("cursor").map(|text| id("cursor", text)).transpose()?,
        ..Filter::default()
    };
    filter.check()?;
    Ok((filter, value("limit").map_or(Ok(DEFAULT_LIMIT), limit)?))
}

/// The query parameters by name. Each must be known and written once.
pub(super) fn values(
    query: &str,
    parameters: &[Parameter],
) -> Result<HashMap<String, String>, ApiError> {
    let mut values: HashMap<String, String> = HashMap::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let known = || parameters.iter().map(|known| known.name);
        if !known().any(|known| known == name) {
            return Err(ApiError::bad_request(
                format!("unknown parameter `{name}`"),
                format!(
                    "known parameters: {}",
                    known().collect::<Vec<_>>().join(", ")
                ),
            ));
        }
        if values
            .insert(name.to_string(), value.into_owned())
            .is_some()
        {
            return Err(ApiError::bad_request(
                format!("`{name}` is given twice"),
                "give it once".to_owned(),
            ));
        }
    }
    Ok(values)
}

/// Reads an id; `position` names the value in errors.
pub(super) fn id(position: &str, text: &str) -> Result<Uuid, ApiError> {
    Uuid::parse_str(text).map_err(|_| {
        ApiError::bad_request(
            format!("`{position}`: `{text}` is not an id"),
            "an id looks like 0198a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b".to_owned(),
        )
    })
}

/// Reads the name of a state.
pub(super) fn state(text: &str) -> Result<State, ApiError> {
    State::named(text).ok_or_else(|| {
        ApiError::bad_request(
            format!("`state`: `{text}` is not a state"),
            format!("use one of {}", State::ALL.map(State::as_str).join(", ")),
        )
    })
}

/// Reads a day or a time; `position` names the value in errors.
pub(super) fn time(position: &str, text: &str) -> Result<Timestamp, ApiError> {
    moment(text).ok_or_else(|| {
        ApiError::bad_request(
            format!("`{position}`: `{text}` is not a day or a time"),
            "write 2026-11-01 or 2026-11-01T12:00:00Z (a `+` in a URL is written %2B)".to_owned(),
        )
    })
}

/// Reads how many entries are listed.
pub(super) fn limit(text: &str) -> Result<u32, ApiError> {
    let limit = text
        .parse()
        .ok()
        .filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| {
        ApiError::bad_request(
            format!("`limit`: `{text}` is not a number from 1 to {MAX_LIMIT}"),
            "get more page by page: give the `next_cursor` of one response as `cursor`".to_owned(),
        )
    })
}
