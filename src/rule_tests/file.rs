//! The test file.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Tests of the rules in a settings file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Tests of Vestibule settings")]
pub struct TestFile {
    /// The settings file, relative to this file; or the settings themselves.
    pub settings: SettingsSource,
    /// Values of environment variables that the settings insert with `${env:NAME}`. A variable without a value gets a
    /// placeholder of the right type.
    #[serde(default)]
    pub env: IndexMap<String, String>,
    /// The cases, in the order in which they are reported.
    pub cases: Vec<Case>,
}

/// The settings of the tests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SettingsSource {
    /// The path of a settings file.
    File(String),
    /// Settings.
    Inline(Map<String, Value>),
}

/// One submission of a form: what the visitor sends, what the services answer, and what is expected.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What the case shows. Each case of a file has another name.
    pub name: String,
    /// `registration` or `settings`. Default: `registration`.
    #[serde(default)]
    pub flow: CaseFlow,
    /// The method. Default: `password` for a registration, `profile` for settings.
    #[serde(default)]
    pub method: Option<String>,
    /// The traits that the visitor sends.
    #[serde(default)]
    pub traits: Map<String, Value>,
    /// `identity.metadata_public` before the checks.
    #[serde(default)]
    pub metadata_public: Option<Value>,
    /// The id of the identity schema.
    #[serde(default)]
    pub schema_id: Option<String>,
    /// The identity before the change, in settings.
    #[serde(default)]
    pub previous: Option<Previous>,
    /// `flow.transient_payload`.
    #[serde(default)]
    pub transient_payload: Option<Value>,
    /// `flow.request_url`: the address with which the visitor opened the form.
    #[serde(default)]
    pub request_url: Option<String>,
    /// `flow.return_to`.
    #[serde(default)]
    pub return_to: Option<String>,
    /// `flow.provider`, in a social sign-up.
    #[serde(default)]
    pub provider: Option<String>,
    /// The language of the visitor, which becomes the header `Accept-Language`.
    #[serde(default)]
    pub language: Option<String>,
    /// Other headers of the visitor's request.
    #[serde(default)]
    pub headers: IndexMap<String, String>,
    /// `request.client_ip`.
    #[serde(default)]
    pub client_ip: Option<String>,
    /// The time of the call. Default: `2026-01-01T00:00:00Z`.
    #[serde(default)]
    pub now: Option<String>,
    /// What services answer, by service. A service without a name in the settings has the name of its origin, such as
    /// `https://api.example.com`. A request without an answer fails the case.
    #[serde(default)]
    pub answers: IndexMap<String, Vec<CannedAnswer>>,
    /// Services that must not be asked.
    #[serde(default)]
    pub not_asked: Vec<String>,
    /// What follows.
    pub expect: Expected,
}

/// The flow of a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CaseFlow {
    /// A sign-up.
    #[default]
    Registration,
    /// A change in settings.
    Settings,
}

/// The identity before a change in settings.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Previous {
    /// The traits.
    #[serde(default)]
    pub traits: Map<String, Value>,
    /// `previous.metadata_public`
    #[serde(default)]
    pub metadata_public: Option<Value>,
}

/// The answer to one request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CannedAnswer {
    /// The path of a GET request, with its query: `/vat/NL1`. Exactly one of `get`, `post`, `put`, `patch`, `delete` is given.
    #[serde(default)]
    pub get: Option<String>,
    /// The path of a POST request.
    #[serde(default)]
    pub post: Option<String>,
    /// The path of a PUT request.
    #[serde(default)]
    pub put: Option<String>,
    /// The path of a PATCH request.
    #[serde(default)]
    pub patch: Option<String>,
    /// The path of a DELETE request.
    #[serde(default)]
    pub delete: Option<String>,
    /// The status. Default: 200.
    #[serde(default)]
    pub status: Option<u16>,
    /// The headers, with names in lower case.
    #[serde(default)]
    pub headers: IndexMap<String, String>,
    /// The body: JSON, or a text. Default: empty.
    #[serde(default)]
    pub body: Value,
    /// How long the answer takes: `5s`. If it is longer than the time limit, the check gets no answer.
    #[serde(default)]
    pub delay: Option<String>,
    /// The request fails without an answer.
    #[serde(default)]
    pub connection: Option<ConnectionFault>,
}

/// How a connection fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionFault {
    /// The service refuses the connection.
    Refused,
}

/// What is expected. What is not given is not compared.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// `admitted`, `changed` (admitted with changes) or `refused`.
    pub verdict: ExpectedVerdict,
    /// The messages, in the order of the checks.
    #[serde(default)]
    pub messages: Option<Vec<ExpectedMessage>>,
    /// What the response changes in the identity: `{traits: {company: Example Ltd}}`. Compared with the complete change.
    #[serde(default)]
    pub changes: Option<Value>,
    /// The outcomes of checks: `accepted`, `refused`, `unavailable`, `not_applicable` or `skipped`.
    #[serde(default)]
    pub checks: IndexMap<String, String>,
    /// All requests to services, in the order in which they are made.
    #[serde(default)]
    pub asked: Option<Vec<ExpectedRequest>>,
    /// All deliveries for the saved identity, in the order of the subscriptions.
    #[serde(default)]
    pub deliveries: Option<Vec<ExpectedDelivery>>,
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names in the file explain them")]
pub enum ExpectedVerdict {
    Admitted,
    Changed,
    Refused,
}

impl ExpectedVerdict {
    /// The name in the file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admitted => "admitted",
            Self::Changed => "changed",
            Self::Refused => "refused",
        }
    }
}

/// One message for the visitor.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedMessage {
    /// The field: `traits.vat_number`. `null`: the message is about the form as a whole. If the key is missing, the field is
    /// not compared.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<String>")]
    pub field: Option<Option<String>>,
    /// The id.
    #[serde(default)]
    pub id: Option<u32>,
    /// The text.
    #[serde(default)]
    pub text: Option<String>,
}

/// Distinguishes null from a missing key.
#[expect(
    clippy::option_option,
    reason = "a missing key, null, and a text differ"
)]
fn given<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// A request to a service.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedRequest {
    /// The service.
    pub service: String,
    /// The method and the path: `GET /vat/NL1`.
    pub request: String,
    /// The body: JSON for `json`, a text for `form`. Not compared if it is missing.
    #[serde(default)]
    pub body: Option<Value>,
}

/// A delivery.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpectedDelivery {
    /// The subscription.
    pub subscription: String,
    /// The method and the path: `POST /contacts`. Not compared if it is missing.
    #[serde(default)]
    pub request: Option<String>,
    /// The body: JSON for `json`, a text for `form`. Not compared if it is missing.
    #[serde(default)]
    pub body: Option<Value>,
    /// Whether the request cannot be built, because an expression fails.
    #[serde(default)]
    pub not_built: bool,
}
