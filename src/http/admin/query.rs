//! Parses query parameters and the values of a request body.

use std::collections::HashMap;

use serde_json::{Value, json};
use url::form_urlencoded;
use uuid::Uuid;

use super::error::ApiError;
use crate::base::clock::{Timestamp, moment};
use crate::model::delivery::State;
use crate::store::Filter;

/// The default number of entries in a page.
pub(super) const DEFAULT_LIMIT: u32 = 100;
/// The maximum number of entries in a page.
const MAX_LIMIT: u32 = 1000;

/// A query parameter.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) is: &'static str,
    pub(super) schema: fn() -> Value,
}

/// The parameter that limits the number of entries in a page.
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
        is: "Only deliveries of this identity.",
        schema: || json!({"type": "string", "format": "uuid"}),
    },
    Parameter {
        name: "since",
        is: "Only deliveries created at this time or later: a day or a time, `2026-11-01` or `2026-11-01T12:00:00Z`.",
        schema: || json!({"type": "string"}),
    },
    Parameter {
        name: "until",
        is: "Only deliveries created before this time: a day (its beginning, in UTC) or a time.",
        schema: || json!({"type": "string"}),
    },
    LIMIT_PARAMETER,
    Parameter {
        name: "cursor",
        is: "The start of the page: the `next_cursor` of the previous page.",
        schema: || json!({"type": "string", "format": "uuid"}),
    },
];

/// Parses the query of `GET /deliveries` into a filter and the number of entries.
pub(super) fn list_query(query: &str) -> Result<(Filter, u32), ApiError> {
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

/// Returns the query parameters by name. Reports unknown and repeated parameters as errors.
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
                format!("the parameter `{name}` is repeated"),
                format!("use `{name}` once"),
            ));
        }
    }
    Ok(values)
}

/// Parses an id. `parameter` names the value in errors.
pub(super) fn id(parameter: &str, text: &str) -> Result<Uuid, ApiError> {
    Uuid::parse_str(text).map_err(|_| {
        ApiError::bad_request(
            format!("`{parameter}`: `{text}` is not an id"),
            "write an id such as 0198a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b".to_owned(),
        )
    })
}

/// Parses the name of a state.
pub(super) fn state(text: &str) -> Result<State, ApiError> {
    State::named(text).ok_or_else(|| {
        ApiError::bad_request(
            format!("`state`: `{text}` is not a state"),
            format!("use one of {}", State::ALL.map(State::as_str).join(", ")),
        )
    })
}

/// Reads a day or a time; `parameter` names the value in errors.
pub(super) fn time(parameter: &str, text: &str) -> Result<Timestamp, ApiError> {
    moment(text).ok_or_else(|| {
        ApiError::bad_request(
            format!("`{parameter}`: `{text}` is not a day or a time"),
            "write 2026-11-01 or 2026-11-01T12:00:00Z (a `+` in a URL is written %2B)".to_owned(),
        )
    })
}

/// Parses the number of entries in a page.
pub(super) fn limit(text: &str) -> Result<u32, ApiError> {
    let limit = text
        .parse()
        .ok()
        .filter(|limit| (1..=MAX_LIMIT).contains(limit));
    limit.ok_or_else(|| {
        ApiError::bad_request(
            format!("`limit`: `{text}` is not a number from 1 to {MAX_LIMIT}"),
            "get further pages with `cursor`, set to the `next_cursor` of the previous page"
                .to_owned(),
        )
    })
}
