//! The body of a hook call, built by Vestibule's Jsonnet template from Kratos's `ctx`.

use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::template::FORWARDED;
use crate::base::clock::{Timestamp, saturating_add};
use crate::base::json::without_byte_order_mark;

/// The version of the body that the current template builds. This Vestibule also reads version 1.
pub const VERSION: u32 = 2;
/// The oldest version of the body that this Vestibule reads.
const OLDEST_VERSION: u32 = 1;

/// Keys that Kratos does not always send, so that expressions can read them in every call. They are null then.
const NULL_IF_MISSING: [(&str, [&str; 2]); 2] = [
    ("flow", ["request_url", "provider"]),
    ("previous", ["state", "state_changed_at"]),
];

/// The body of one call. Every part has the expected type.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The version of the body.
    pub version: u32,
    /// The request headers that the template sends if the visitor's request has them, in canonical form.
    pub forwarded_headers: Vec<String>,
    /// An object with the flow's id, type, times and `transient_payload`.
    pub flow: Value,
    /// The flow's id, the only id that `pre` and `post` share.
    pub flow_id: Uuid,
    /// The identity that Kratos will save (`pre`) or has saved (`post`). `before` hooks have no identity.
    pub identity: Option<Value>,
    /// The identity's id. The id is all zeros until Kratos has saved the identity.
    pub identity_id: Uuid,
    /// The identity before the change, in settings flows.
    pub previous: Option<Value>,
    /// The form's nodes, or `None` if Kratos sent none.
    pub nodes: Option<Vec<Node>>,
    /// The visitor's request: `headers`, and `client_ip` once Vestibule has added the address.
    pub request: Value,
}

/// One node of the form.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Node {
    /// The node's name: `traits.vat_number`.
    pub name: String,
    /// Whether the visitor cannot see the node (two-step registration).
    #[serde(default)]
    pub hidden: bool,
    /// The node's label.
    #[serde(default)]
    pub title: Option<String>,
}

/// The reason why a body cannot be read. An error never contains a value of the body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The body is empty. Kratos sends an empty body after its Jsonnet worker failed.
    #[error("the body is empty")]
    Empty,
    /// The body is not JSON, or is cut off.
    #[error("the body is not JSON (line {line}, column {column})")]
    NotJson {
        /// The line of the first error, counted from 1.
        line: usize,
        /// The column of the first error, counted from 1.
        column: usize,
    },
    /// The body is JSON, but not the JSON that Vestibule's template builds.
    #[error("`{key}` is missing or not {expected}")]
    WrongType {
        /// The key with the wrong value.
        key: &'static str,
        /// The expected type.
        expected: &'static str,
    },
    /// A template of another version built the body.
    #[error(
        "the body has version {0}, but this Vestibule reads the versions {OLDEST_VERSION} to {VERSION}; print the current template with \
         `vestibule kratos hooks --template`"
    )]
    Version(u64),
}

impl Payload {
    /// Parses a body.
    pub fn parse(body: &[u8]) -> Result<Self, Error> {
        let body = without_byte_order_mark(body);
        if body.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::Empty);
        }
        let mut root: Value = serde_json::from_slice(body).map_err(|error| Error::NotJson {
            line: error.line(),
            column: error.column(),
        })?;
        let wrong = |key, expected| Error::WrongType { key, expected };
        if !root.is_object() {
            return Err(wrong("the body", "an object"));
        }
        let version = version(&root)?;
        let forwarded_headers = forwarded_headers(&root, version);
        set_missing_to_null(&mut root);
        let flow = root["flow"].take();
        if !flow.is_object() {
            return Err(wrong("flow", "an object"));
        }
        let flow_id = uuid_at(&flow, "id").ok_or(wrong("flow.id", "a UUID"))?;
        let identity = optional_object(root["identity"].take(), wrong("identity", "an object"))?;
        let identity_id = match &identity {
            None => Uuid::nil(),
            Some(identity) => {
                if !identity["traits"].is_object() {
                    return Err(wrong("identity.traits", "an object"));
                }
                uuid_at(identity, "id").ok_or(wrong("identity.id", "a UUID"))?
            }
        };
        let previous = optional_object(root["previous"].take(), wrong("previous", "an object"))?;
        let nodes = match root["nodes"].take() {
            Value::Null => None,
            nodes => {
                Some(serde_json::from_value(nodes).map_err(|_| wrong("nodes", "a list of nodes"))?)
            }
        };
        let request = match root["request"].take() {
            Value::Null => serde_json::json!({"headers": {}}),
            request
                if request.is_object()
                    && matches!(request["headers"], Value::Null | Value::Object(_)) =>
            {
                request
            }
            _ => return Err(wrong("request", "an object")),
        };
        Ok(Self {
            version,
            forwarded_headers,
            flow,
            flow_id,
            identity,
            identity_id,
            previous,
            nodes,
            request,
        })
    }

    /// Returns when the flow expires, or an hour after `now` if Kratos did not send that time.
    #[must_use]
    pub fn expires_at(&self, now: Timestamp) -> Timestamp {
        moment_at(&self.flow, "expires_at")
            .unwrap_or_else(|| saturating_add(now, Duration::from_hours(1)))
    }

    /// Returns the last moment, on Kratos's clock, at which the account certainly did not exist.
    #[must_use]
    pub fn last_known_absent_at(&self) -> Option<Timestamp> {
        let identity = self.identity.as_ref();
        identity
            .and_then(|identity| moment_at(identity, "state_changed_at"))
            .or_else(|| moment_at(&self.flow, "issued_at"))
    }

    /// Returns a header of the visitor's request. The case of the header's name does not matter.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.request
            .get("headers")?
            .as_object()?
            .iter()
            .find_map(|(known, value)| {
                known
                    .eq_ignore_ascii_case(name)
                    .then(|| value.as_str())
                    .flatten()
            })
    }
}

fn version(root: &Value) -> Result<u32, Error> {
    let version = root["version"].as_u64().ok_or(Error::WrongType {
        key: "version",
        expected: "a number",
    })?;
    u32::try_from(version)
        .ok()
        .filter(|version| (OLDEST_VERSION..=VERSION).contains(version))
        .ok_or(Error::Version(version))
}

fn forwarded_headers(root: &Value, version: u32) -> Vec<String> {
    if version == OLDEST_VERSION {
        return FORWARDED.map(ToOwned::to_owned).to_vec();
    }
    let names = root["forwarded_headers"].as_array().into_iter().flatten();
    let names = names.filter_map(Value::as_str);
    names.map(ToOwned::to_owned).collect()
}

fn set_missing_to_null(root: &mut Value) {
    for (part, keys) in NULL_IF_MISSING {
        let Some(part) = root.get_mut(part).and_then(Value::as_object_mut) else {
            continue;
        };
        for key in keys {
            part.entry(key).or_insert(Value::Null);
        }
    }
    // The provider is a part of a URL.
    if let Some(Value::String(provider)) = root.pointer_mut("/flow/provider") {
        *provider = percent_decode_str(provider)
            .decode_utf8_lossy()
            .into_owned();
    }
}

fn moment_at(object: &Value, key: &str) -> Option<Timestamp> {
    object[key].as_str().and_then(|text| text.parse().ok())
}

fn uuid_at(object: &Value, key: &str) -> Option<Uuid> {
    object[key]
        .as_str()
        .and_then(|text| Uuid::parse_str(text).ok())
}

fn optional_object(value: Value, error: Error) -> Result<Option<Value>, Error> {
    match value {
        Value::Null => Ok(None),
        Value::Object(_) => Ok(Some(value)),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn good() -> Value {
        json!({
            "version": 2,
            "flow": {"id": "16796416-e4ae-4463-99a6-be78d13a634a"},
            "identity": {"id": Uuid::nil(), "traits": {"email": "a@example.org"}, "metadata_public": null},
            "nodes": [{"name": "traits.email", "hidden": true, "title": "E-mail"}],
            "request": {"headers": {"Accept-Language": "de"}},
        })
    }

    #[test]
    fn a_valid_body_is_parsed() {
        let payload = Payload::parse(good().to_string().as_bytes()).unwrap();
        assert!(payload.identity_id.is_nil());
        assert_eq!(payload.header("accept-language"), Some("de"));
        assert_eq!(payload.nodes.unwrap()[0].title.as_deref(), Some("E-mail"));
    }

    fn parsed(body: &Value) -> Payload {
        Payload::parse(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_byte_order_mark_is_skipped() {
        let body = format!("\u{feff}{}", good());
        assert!(Payload::parse(body.as_bytes()).is_ok());
        let empty = Payload::parse("\u{feff}".as_bytes());
        assert!(matches!(empty, Err(Error::Empty)));
    }

    #[test]
    fn keys_that_a_body_lacks_are_null() {
        let mut body = good();
        body["previous"] = json!({"traits": {}});
        for version in [1, 2] {
            body["version"] = version.into();
            let payload = parsed(&body);
            assert_eq!(payload.flow["provider"], Value::Null);
            assert_eq!(payload.flow.get("request_url"), Some(&Value::Null));
            let previous = payload.previous.unwrap();
            assert_eq!(previous.get("state"), Some(&Value::Null));
            assert_eq!(previous.get("state_changed_at"), Some(&Value::Null));
        }
        assert!(parsed(&good()).previous.is_none());
        body["flow"]["request_url"] = json!("http://kratos/?invite=A%20B");
        body["flow"]["provider"] = json!("my%20directory%FF");
        body["previous"]["state"] = json!("inactive");
        let payload = parsed(&body);
        assert_eq!(payload.flow["request_url"], "http://kratos/?invite=A%20B");
        assert_eq!(payload.flow["provider"], "my directory\u{fffd}");
        assert_eq!(payload.previous.unwrap()["state"], "inactive");
    }

    #[test]
    fn version_1_sends_a_fixed_list_of_headers() {
        let mut body = good();
        body["forwarded_headers"] = json!(["Accept-Language", "X-Forwarded-For", 7]);
        let headers = ["Accept-Language", "X-Forwarded-For"];
        assert_eq!(parsed(&body).forwarded_headers, headers);
        body["version"] = 1.into();
        assert_eq!(parsed(&body).forwarded_headers, FORWARDED);
        for wrong in [json!(null), json!("X-Forwarded-For"), json!({"a": "b"})] {
            body["version"] = 2.into();
            body["forwarded_headers"] = wrong;
            assert!(parsed(&body).forwarded_headers.is_empty());
        }
    }

    #[test]
    fn other_versions_are_refused() {
        for version in [0, 3, u64::MAX] {
            let mut body = good();
            body["version"] = version.into();
            let error = Payload::parse(body.to_string().as_bytes()).unwrap_err();
            assert_eq!(error, Error::Version(version));
        }
    }

    #[test]
    fn errors_name_the_wrong_key_and_contain_no_value() {
        let cases: [(&str, Value, &str); 8] = [
            (
                "/version",
                json!("1"),
                "`version` is missing or not a number",
            ),
            (
                "/flow",
                json!("canary"),
                "`flow` is missing or not an object",
            ),
            (
                "/flow/id",
                json!("canary"),
                "`flow.id` is missing or not a UUID",
            ),
            (
                "/identity",
                json!([]),
                "`identity` is missing or not an object",
            ),
            (
                "/identity/id",
                json!(7),
                "`identity.id` is missing or not a UUID",
            ),
            (
                "/identity/traits",
                json!("canary"),
                "`identity.traits` is missing or not an object",
            ),
            (
                "/nodes",
                json!({"canary": 1}),
                "`nodes` is missing or not a list of nodes",
            ),
            (
                "/request",
                json!("canary"),
                "`request` is missing or not an object",
            ),
        ];
        for (pointer, value, expected) in cases {
            let mut body = good();
            *body.pointer_mut(pointer).unwrap() = value;
            let error = Payload::parse(body.to_string().as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        for (body, expected) in [
            ("", "the body is empty"),
            (" \n", "the body is empty"),
            (
                "{\"version\": 1, \"fl",
                "the body is not JSON (line 1, column 18)",
            ),
            ("[]", "`the body` is missing or not an object"),
        ] {
            assert_eq!(
                Payload::parse(body.as_bytes()).unwrap_err().to_string(),
                expected
            );
        }
    }
}
