//! The structure of the settings file, section by section, before names and expressions are resolved. The comments
//! become the descriptions in the JSON Schema and in docs/configuration.md.

pub mod text;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

pub use text::{Decimal, Duration, Expression, Number, Template, Text};

/// The settings of Vestibule.
///
/// The settings are one YAML file. Every text can contain `${env:NAME}`, `${env:NAME:-default}` and `${file:/path}`,
/// quoted or not; `$${` produces `${`. Durations have a unit: `500ms`, `5s`, `2m`, `24h`, `8d`. Conditions are CEL
/// expressions. In a template the value of `{expression}` is inserted, and `{{` and `}}` produce braces. A template that
/// consists of one expression keeps the type of its value. A template that is nothing but one path with a `?`, such as
/// `{identity.traits.?phone}`, is null where the path is absent, and is left out of `form` and `query`. In a path, a header
/// or a longer text, an absent value is an error. Quote a value that begins with `{`, `!`, `*` or `&`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Vestibule settings")]
pub struct File {
    /// The addresses on which Vestibule listens.
    pub serve: Serve,
    /// Settings of the hooks that Kratos calls.
    pub hooks: Hooks,
    /// The database: `sqlite:///absolute/path.db`, or `sqlite://path.db` relative to the working directory. For
    /// several instances `postgres://user:password@host:5432/database`, with `?sslmode=verify-full` and similar
    /// parameters. Default: `sqlite://vestibule.db`.
    pub dsn: Option<Text>,
    /// Logging.
    pub log: Log,
    /// The Kratos that calls Vestibule.
    pub kratos: Kratos,
    /// External systems by name. Needed where a request needs more than a URL.
    pub services: IndexMap<String, Service>,
    /// Messages for visitors, by name. A message with the name of a built-in message (`try_again`, `not_valid`,
    /// `required`, `immutable`, `not_possible`, `form_used`, `account_refused`) replaces it.
    pub messages: IndexMap<String, NamedMessage>,
    /// Lists by name. Expressions read a list as `lists.<name>`.
    pub lists: IndexMap<String, List>,
    /// Checks of sign-ups, by name. Checks run in parallel, and one response returns all findings.
    pub checks: IndexMap<String, Check>,
    /// Subscriptions by name: which systems are notified of new and changed identities.
    pub subscriptions: IndexMap<String, Subscription>,
    /// Delivers identities that Vestibule missed, and erases the data of identities that were deleted in Kratos.
    pub reconcile: Reconcile,
    /// How long finished records are kept.
    pub retention: Retention,
    /// Which decisions are recorded, for `vestibule decisions` and the admin API.
    pub decisions: Decisions,
}

/// Delivers identities that Vestibule missed (created by the admin API, by an import, or by a method without hooks),
/// and erases the data of identities that were deleted in Kratos. Delivers changes and deletions that no hook reports to
/// subscriptions of `identity.updated` and `identity.deleted`. `vestibule reconcile` does the same once.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reconcile {
    /// The interval between two runs. Default: no automatic runs. From `1m` to `30d`; needs `kratos.admin_url`.
    pub every: Option<Duration>,
    /// Identities created before this time are skipped: `2026-11-01` or `2026-11-01T12:00:00Z`. Default: the time at
    /// which this database was created. For a subscription that was added later: the time at which it was added.
    pub since: Option<Text>,
    /// The maximum number of identities that are compared per second. Default: 500. From 1 to 100000.
    pub per_second: Option<Number>,
}

/// How long finished records are kept. Pending and abandoned deliveries are kept until they are delivered, retried or
/// discarded.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Delivered, superseded and discarded deliveries, with their attempts. Their payload is erased immediately. Identities older
    /// than this are not reconciled. Default: `90d`. From `1d` to `3650d`.
    pub deliveries: Option<Duration>,
    /// Decisions about sign-ups. Default: `30d`. From `1h` to `3650d`.
    pub decisions: Option<Duration>,
}

/// Which decisions are recorded, for `vestibule decisions` and the admin API. A record holds the results of the checks, and
/// never a value.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Decisions {
    /// `all`, or `refused`: only refused sign-ups and changes. Default: `all`. `retention.decisions` says how long they are
    /// kept.
    pub keep: KeptDecisions,
}

/// Which decisions are recorded.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeptDecisions {
    /// All decisions.
    #[default]
    All,
    /// Only refusals.
    Refused,
}

/// The addresses on which Vestibule listens.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Serve {
    /// The address for Kratos's calls. Default: `0.0.0.0`, port 4480. Keep it on a private network.
    pub hooks: Address,
    /// The address for operators and monitoring: deliveries, health, version, metrics. Keep it on a private network.
    /// Default: `127.0.0.1`, port 4481.
    pub admin: Admin,
    /// The time between SIGTERM and the stop. Vestibule continues to answer, but reports that it is not ready, so
    /// that a load balancer can remove it. Default: `0s`. At most `5m`.
    pub shutdown_delay: Option<Duration>,
}

/// The address for operators and monitoring, and who may call it. Health, version, metrics and the API description
/// need no permission; everything else does.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// The IP address of a network interface.
    pub host: Option<Text>,
    /// The port. With 0 the operating system chooses a free port.
    pub port: Option<Number>,
    /// Host names by which operators call this port, besides IP addresses and `localhost`. A request with another name
    /// in `Host`, or with the `Origin` of another site, gets a 403. Default: none.
    pub allowed_hosts: Vec<Text>,
    /// A token that requests must have: `Authorization: Bearer …`. At least 16 characters. Default: no token.
    pub token: Option<Text>,
}

/// A network address.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Address {
    /// The IP address of a network interface.
    pub host: Option<Text>,
    /// The port. With 0 the operating system chooses a free port.
    pub port: Option<Number>,
}

/// Settings of the hooks that Kratos calls.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hooks {
    /// The keys that Vestibule accepts in the header `X-Vestibule-Key`. Each key has at least 16 characters. Use two
    /// keys during a rotation. Default: the environment variable `VESTIBULE_KEY`.
    pub keys: Option<Vec<Text>>,
    /// The maximum time until `pre` responds, even if services are slow. Default: `5s`. From `100ms` to `20s`.
    pub deadline: Option<Duration>,
    /// The language for visitors without a text in their own language: a BCP 47 tag. Default: `en`.
    pub default_language: Option<Text>,
    /// Headers of the visitor's request that expressions read as `request.headers["X-Country"]`, besides
    /// `Accept-Language`, `User-Agent` and `True-Client-Ip`. Names are written as Kratos writes them: `X-Country`,
    /// `Dnt`. After a change, print the hooks again: `vestibule kratos hooks --config FILE`. Default: none.
    pub headers: Option<Vec<Text>>,
    /// The header with the visitor's address, for `request.client_ip`. It need not be listed under `headers`. Default:
    /// none.
    pub client_ip: Option<ClientIp>,
}

/// The header with the visitor's address. Each proxy before Kratos appends the address of its client to
/// `X-Forwarded-For`, so the address is counted from the right. What stands further left may be forged.
/// `request.client_ip` is null if the request has no such address.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientIp {
    /// The header: `X-Forwarded-For`, or one with a single address that your proxy sets, such as `True-Client-Ip`.
    pub header: Text,
    /// The number of your proxies before Kratos, each of which appends an entry. Default: 1. From 1 to 10.
    pub trusted_proxies: Option<Number>,
}

/// Logging.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The log level. Default: `info`.
    pub level: Option<Level>,
    /// `json` (one object per line) or `text`. Default: `json`.
    pub format: Option<Format>,
}

/// A log level.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names in the file explain them")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// A log format.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names in the file explain them")]
pub enum Format {
    Json,
    Text,
}

/// The Kratos that calls Vestibule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Kratos {
    /// The address of Kratos's admin API, `http://kratos:4434`. With it Vestibule looks up sign-ups without a `post`,
    /// writes values into identities (`write_back`), and can defer checks.
    pub admin_url: Option<Text>,
    /// The identity schema: `file://identity.schema.json` relative to the settings file, `file:///absolute/path`, or
    /// `base64://…`. Every trait that the settings read or write is checked against it, and a trait that it does not
    /// name is a problem ([details](#identity-schemas)). It names the traits with which visitors sign in, so that a
    /// sign-up can be looked up by its user name. Default: the traits are not checked, and only addresses are known.
    pub identity_schema: Option<Text>,
    /// Several identity schemas, by their id in kratos.yml: `{default: file://default.schema.json, customer: …}`.
    /// Instead of `identity_schema`.
    pub identity_schemas: IndexMap<String, Text>,
    /// Whether `pre` sets an `external_id` (`vestibule:` and a hash of the flow's id) for sign-ups that have none.
    /// Kratos keeps external ids unique, so a form creates at most one account, even if it is submitted often or in
    /// parallel. `auto`: only if a check reserves or defers, or if `admin_url` is set. The other values are `always`
    /// and `never`. Needs Kratos v25.4.0. The visitor sees the id in `whoami`. A tokenizer with `subject_source:
    /// external_id` needs `never`. Default: `auto`.
    pub use_external_id: UseExternalId,
    /// Credentials for the admin API. Default: none, because Kratos itself requires none.
    pub auth: Option<Auth>,
}

/// For which sign-ups `pre` sets an `external_id`.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names in the file explain them")]
pub enum UseExternalId {
    #[default]
    Auto,
    Always,
    Never,
}

/// An external system.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// The address, `http` or `https`. The paths of requests are appended to it.
    pub url: Text,
    /// The maximum time of one call. Default: `3s` for questions before the identity is saved, which `hooks.deadline`
    /// limits too, and `15s` for deliveries. At most `60s`.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// Headers of every request.
    #[serde(default)]
    pub headers: IndexMap<String, Text>,
    /// Credentials.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// Limits for deliveries to the service. Default: 8 at the same time.
    #[serde(default)]
    pub limit: Option<Limit>,
    /// Signs deliveries to the service as defined by Standard Webhooks. Calls before the identity is saved are not
    /// signed.
    #[serde(default)]
    pub sign: Option<Sign>,
    /// A harmless request, with which `vestibule doctor` checks that the service accepts the credentials. Nothing else
    /// sends it. Default: none, and the credentials are not checked.
    #[serde(default)]
    pub probe: Option<Probe>,
}

/// A harmless request of `vestibule doctor`, sent with the headers and the credentials of the service.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// GET this path of the service. It must change nothing, and need credentials: `/me`.
    pub get: Text,
    /// The statuses that show that the service works and accepts the credentials. A service that has only POST at this
    /// path may answer 405. Default: any 2xx status.
    #[serde(default)]
    pub expect: Vec<Number>,
}

/// Limits for deliveries to a service. Calls before the identity is saved are not limited.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limit {
    /// The maximum number of deliveries at the same time, per instance. Default: 8. From 1 to 1000.
    pub concurrent: Option<Number>,
    /// The maximum number of deliveries that start per second, per instance; `0.5` is one every two seconds. Default:
    /// no limit.
    pub per_second: Option<Decimal>,
}

/// Signatures of deliveries, with one `secret`, or with several `secrets` during a rotation.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sign {
    /// The signing secret, `whsec_…`. `vestibule keygen --signing` generates one.
    pub secret: Option<Text>,
    /// Several secrets instead of `secret`. Each of them signs, and the receiver accepts one that it knows.
    pub secrets: Option<Vec<Text>>,
}

/// Credentials.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    tag = "type",
    content = "config",
    rename_all = "snake_case",
    deny_unknown_fields
)]
pub enum Auth {
    /// `Authorization: Bearer …`
    Bearer(Bearer),
    /// `Authorization: Basic …`
    BasicAuth(BasicAuth),
    /// An API key in a header, a query parameter or a cookie.
    ApiKey(ApiKey),
}

/// `type: bearer`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bearer {
    /// The token.
    pub token: Text,
}

/// `type: basic_auth`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// The user.
    pub user: Text,
    /// The password.
    pub password: Text,
}

/// `type: api_key`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// The name of the header, parameter or cookie.
    pub name: Text,
    /// The key.
    pub value: Text,
    /// Where the key is sent.
    #[serde(rename = "in")]
    pub location: ApiKeyLocation,
}

/// Where an API key is sent.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names in the file explain them")]
pub enum ApiKeyLocation {
    Header,
    Query,
    Cookie,
}

/// A message for visitors: an id, and a text for each language.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct NamedMessage {
    /// A number of your own from 4900100 to 4999999, with which a front-end can find its own translation. Required,
    /// unless the message replaces a built-in message.
    #[serde(default)]
    pub id: Option<u32>,
    /// One text for every language, instead of a text for each language. In a check, `message: {text: "Refused"}` is
    /// a text of one word; `message: refused` names a message.
    #[serde(default)]
    pub text: Option<Template>,
    /// A text for each language, with its BCP 47 tag as key. The values of `{expression}` are inserted.
    #[serde(flatten)]
    #[schemars(with = "IndexMap<String, Template>")]
    pub texts: IndexMap<String, Value>,
}

/// A list, in the settings file or in a file of its own.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum List {
    /// The entries.
    Inline(Vec<Text>),
    /// A file with the entries.
    File(ListFile),
}

/// A list in a file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListFile {
    /// The path, relative to the settings file. The file has one entry per line. Empty lines and lines that begin
    /// with `#` are ignored.
    pub file: Text,
}

/// A rule about a sign-up, evaluated before the identity is saved.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Check {
    /// The flows in which the check runs. In `settings` it runs only if a value of `traits` or `metadata_public` has
    /// changed that the check reads, itself or through the response of another check; with `flows: [settings]` and
    /// nothing of them read, at every change. A check whose response it reads runs too. Default: `[registration, settings]`. The default is `[registration]` if the check reads neither of
    /// them, or if it reads `flow.transient_payload`, `flow.request_url` or `flow.provider`, which settings lack.
    pub flows: Option<Vec<Flow>>,
    /// The trait that the check is about, `traits.vat_number`, or an entry of a list, `traits.emails.0`. Expressions
    /// read it as `value`, not trimmed, and null if it is absent. Messages are shown at this field, or at the nearest field above it that the form
    /// has. An index into something that is not a list is absent.
    pub field: Option<Text>,
    /// Runs the check only if this is true. Everything below applies only then, `absent`, `required` and `immutable`
    /// included. If the expression fails, the value is refused with `invalid_message`.
    pub when: Option<Expression>,
    /// What an absent field means. `skip`: the check does not run. `refuse`: it is refused with the message `required`.
    /// `check`: the check runs, and `value` is null. Absent is: missing, null, an empty list or object, or a text of
    /// nothing but white space and zero-width characters. Default: `skip`.
    pub absent: Option<Absent>,
    /// `true` is short for `absent: refuse`. An expression refuses an absent field if it is true or fails:
    /// `identity.traits.kind == 'company'`. It is evaluated only where the field is absent. Default: `false`.
    pub required: Option<Required>,
    /// In settings, a value that was present can be neither changed nor removed. It is refused with the message
    /// `immutable`. The value that Kratos would store is compared with the stored one, after the `set` of all checks.
    /// Default: `false`.
    pub immutable: bool,
    /// The request to a service. A check without `ask` evaluates only expressions.
    pub ask: Option<Request>,
    /// What the check reserves at a service for this sign-up, instead of `ask`: an invite, a seat, a number.
    pub reserve: Option<Reserve>,
    /// What the check does without a usable response: `refuse` ("please try again later"), `accept` (admit the
    /// sign-up, and count it), `defer` (admit the sign-up, and repeat the question once the account exists), or a section with
    /// a choice per kind. `accept` covers only the kinds `timeout`, `connection`, `status_5xx`,
    /// `rejected_credentials` and `declared`. `defer` covers every kind except `rejected_question` and `expression`.
    /// The other kinds refuse. Default: `refuse`.
    pub on_unavailable: Option<OnUnavailable>,
    /// What the check does if it refuses an existing account. This can be a deferred check, or a reservation that
    /// is taken again for an account that was found after the release. `deactivate`: deactivate the identity, mark
    /// it, and refuse its logins until an operator lifts the refusal. `mark`: mark it in
    /// `metadata_admin.vestibule.refused`. `notify`: only create the deliveries of `check.refused`, which the other
    /// two create too. After `mark` and `notify` the check runs again in settings until it accepts
    /// ([details](nothing-is-lost.md#a-service-that-cannot-answer-now)). Default: `deactivate` for a sign-up, `mark`
    /// for a change in settings.
    pub on_late_refusal: Option<OnLateRefusal>,
    /// What a deferred check does if it has no response after eight days. `keep`: keep the question as an abandoned
    /// delivery, and the mark in the identity. The other values are `refuse` and `accept`. Default: `keep`.
    pub on_expiry: Option<OnExpiry>,
    /// Reasons to refuse. Entries with the status of the response are evaluated first, then expressions in order. An
    /// entry that fails does not hide another entry.
    pub refuse: Vec<Refusal>,
    /// Which response is accepted: an expression, or a status, such as 404 for a name that must be free. Needs `ask` or
    /// `reserve`. A response that is neither refused nor accepted counts as unavailable (`unexpected_answer`), so write
    /// `refuse` for a response that means "no". Default: any 2xx status; without a request, always.
    pub accept: Option<Condition>,
    /// The message for a value that cannot be put into the request, on which an expression fails, or to which the
    /// service responds with a 4xx that the settings do not name (`rejected_question`). It is also shown if a part of
    /// the sign-up is missing that an expression reads. Default: `not_valid`.
    pub invalid_message: Option<Message>,
    /// Values that are written into the identity if the check accepts, by path: `traits.company`,
    /// `metadata_public.company`. Objects are merged, and nulls are ignored. In a list, a number is the index of an
    /// entry, which must exist: `traits.emails.0`. In settings, Vestibule removes a value
    /// that the check set in `metadata_public` if the field has changed or is absent, or if `when` is no longer true.
    /// Then it writes what the check sets for the new value. Traits are never removed.
    #[schemars(with = "IndexMap<String, Value>")]
    pub set: IndexMap<String, Value>,
    /// `enforce`, or `observe`: run the check and count its outcome, but do not decide. Default: `enforce`.
    pub mode: Mode,
    /// Checks that must accept before this check runs.
    pub after: Vec<Text>,
}

/// What an absent field means.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names in the file explain them")]
pub enum Absent {
    Skip,
    Refuse,
    Check,
}

/// Whether an absent field is refused: always, or under a condition.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Required {
    /// Always, or never.
    Always(bool),
    /// If the expression is true or fails.
    If(Expression),
}

/// A reservation at a service. Kratos can fail after Vestibule accepted the sign-up, so the reservation is confirmed
/// once the account exists, and released if no account was created. Each request carries an `Idempotency-Key`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// Takes the reservation. The response is interpreted as that of `ask`. The requests `confirm` and `release` read
    /// the response as `taken`: `{taken.body.hold_id}`. They read the idempotency key of this request as
    /// `{taken.key}`.
    pub take: Request,
    /// Confirms the reservation once the account exists. Default: no request.
    #[serde(default)]
    pub confirm: Option<Request>,
    /// Releases the reservation if the values were changed, if no account was created, or if it is unknown whether
    /// the reservation was taken.
    pub release: Request,
}

/// What a check does if it refuses an existing account.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names in the file explain them")]
pub enum OnLateRefusal {
    Deactivate,
    Mark,
    Notify,
}

/// What a deferred check does if it has no response in time.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names in the file explain them")]
pub enum OnExpiry {
    Keep,
    Refuse,
    Accept,
}

/// A flow of Kratos.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names in the file explain them")]
pub enum Flow {
    Registration,
    Settings,
}

/// Whether a check decides.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names in the file explain them")]
pub enum Mode {
    #[default]
    Enforce,
    Observe,
}

/// A reason to refuse.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// An expression, or a status of the response.
    pub when: Condition,
    /// The message. Default: `not_valid`.
    #[serde(default)]
    pub message: Option<Message>,
}

/// An expression, or a status of the response.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Condition {
    /// The response has this status.
    Status(u16),
    /// The expression is true.
    Expression(Expression),
}

/// A message: a name under `messages` (one word in lower case), a text, `{text: …}`, or an id and a text for each
/// language.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Message {
    /// A name under `messages`, or the text itself.
    Text(Template),
    /// An id and a text for each language.
    Inline(NamedMessage),
}

/// What a check does without a usable response.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OnUnavailable {
    /// The same for every kind.
    Always(Policy),
    /// A choice per kind.
    PerKind(PerKind),
}

/// What a check does without a usable response.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names in the file explain them")]
pub enum Policy {
    Refuse,
    Accept,
    Defer,
}

/// What a check does without a usable response, per kind. A status that `refuse` names, or a response for which one
/// of its expressions is true, is refused in any case.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PerKind {
    /// Treat a response as unavailable if this is true (`declared`). Evaluated before `refuse`. An expression that
    /// fails is not true.
    pub when: Option<Expression>,
    /// No response in time, or a 408.
    pub timeout: Option<Policy>,
    /// No connection, a broken connection, or a 425.
    pub connection: Option<Policy>,
    /// A status of 500 or more.
    pub status_5xx: Option<Policy>,
    /// The status 429.
    pub rate_limited: Option<Policy>,
    /// A 401 or 407: the service rejects Vestibule's credentials. Each one raises an alarm.
    pub rejected_credentials: Option<Policy>,
    /// `when` is true.
    pub declared: Option<Policy>,
    /// Any other 4xx, 403 included. A gateway or a firewall can respond with it to a value that the visitor chose, so
    /// it is refused with `invalid_message` unless it is named here.
    pub rejected_question: Option<Policy>,
    /// A response that is neither refused nor accepted, or an expression that fails on a response that would be
    /// accepted.
    pub unexpected_answer: Option<Policy>,
    /// The request could not be built, or an expression failed without a response, or on a part of the sign-up that is
    /// missing. A visitor can cause that, so it is refused unless it is named here: with `invalid_message`, or with
    /// `try_again` if the response of another check is missing.
    pub expression: Option<Policy>,
    /// The choice for all kinds that are not named. `accept` covers `timeout`, `connection`, `status_5xx`,
    /// `rejected_credentials` and `declared`; `defer` covers every kind except `rejected_question` and `expression`.
    /// Default: `refuse`.
    pub default: Option<Policy>,
}

/// A request: one of `get`, `post`, `put`, `patch` and `delete`, with its parameters, headers and body.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// The name of the service to which the path belongs. Without `service`, the path is a whole URL.
    pub service: Option<Text>,
    /// GET this path of the service, `/members/{value}`, or this whole URL. Inserted values are percent-encoded. The
    /// host cannot hold an expression.
    pub get: Option<Template>,
    /// POST, in the same way.
    pub post: Option<Template>,
    /// PUT, in the same way.
    pub put: Option<Template>,
    /// PATCH, in the same way.
    pub patch: Option<Template>,
    /// DELETE, in the same way.
    pub delete: Option<Template>,
    /// Query parameters.
    pub query: IndexMap<String, Template>,
    /// Headers, in addition to those of the service.
    pub headers: IndexMap<String, Template>,
    /// A JSON body. Its texts are templates.
    #[schemars(with = "Value")]
    pub json: Option<Value>,
    /// A form body (`application/x-www-form-urlencoded`).
    pub form: Option<IndexMap<String, Template>>,
}

/// A subscription: which events are sent to which system.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// The events: `identity.created` (a registration), `identity.updated` (a change of the profile),
    /// `credentials.changed` (a change of the password, of social sign-in, of a second factor), `identity.verified`
    /// (an address was verified), `registration.failed` (an accepted sign-up without an account; needs
    /// `kratos.admin_url`), `check.refused` (a check refused an existing account), `identity.deleted` (Kratos does not
    /// have the identity any more; needs `kratos.admin_url`; expressions can read only `identity.id`).
    /// `credentials.changed` and `identity.verified` need hooks of their own: `vestibule kratos hooks --event …`
    /// prints them. Reconciliation finds deletions, and with `reconcile.every` also changes that no hook reports.
    pub events: Vec<Event>,
    /// Creates a delivery only if this is true.
    #[serde(default)]
    pub when: Option<Expression>,
    /// The request. Without `json` and `form` the body is `{type, timestamp, data: {identity, previous}}`.
    pub send: Send,
    /// When a delivery is retried.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// Which response is a success. Default: any 2xx status.
    #[serde(default)]
    pub success_when: Option<Expression>,
    /// For which response the delivery is abandoned immediately: `response.status == 422`. After a 410 it always is.
    #[serde(default)]
    pub abandon_when: Option<Expression>,
    /// Values that are written into the identity after a success, by path: `metadata_admin.crm_id`,
    /// `metadata_public.…`, `traits.…`, and in an entry of a list `traits.projects.0.id`. The entry is changed only if it
    /// is still the entry of the event; otherwise the write is abandoned. Nulls are ignored. Needs `kratos.admin_url`.
    #[serde(default)]
    #[schemars(with = "IndexMap<String, Value>")]
    pub write_back: IndexMap<String, Value>,
    /// Whether the subscription sends once per identity, over all its events: a welcome mail after the first of several
    /// verifications. An event for which `when` is false does not count. Vestibule remembers the identities until they
    /// are erased; those from before `once` was set do not count. Default: `false`.
    #[serde(default)]
    pub once: bool,
    /// Whether a newer `identity.updated` replaces a delivery of `identity.updated` that is still pending. The replaced
    /// delivery is `superseded`, and is not sent. Deliveries of one subscription about one identity always go one at a
    /// time, oldest first. Default: `true` if `when` and `send` read nothing but `identity`, else `false`. The default
    /// body also has `previous`.
    #[serde(default)]
    pub supersede: Option<bool>,
}

/// The request of a subscription, with the maximum time of one attempt.
#[derive(Debug, Deserialize, JsonSchema)]
// `deny_unknown_fields` does not work with `flatten`, so the schema says it, and the validator reports unknown keys.
#[schemars(extend("additionalProperties" = false))]
pub struct Send {
    /// The request.
    #[serde(flatten)]
    pub request: Request,
    /// The maximum time of one attempt. A receiver that answers later gets the delivery again. Default: the `timeout` of
    /// the service, or else `15s`. At most `60s`.
    #[serde(default)]
    pub timeout: Option<Duration>,
}

/// When a delivery is retried: each interval is twice as long as the one before, plus or minus a fifth.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// The interval after the first attempt. Default: `5s`. From `1s` to `1h`.
    pub initial_interval: Option<Duration>,
    /// The maximum interval. Default: `1h`. From `1s` to `1d`.
    pub max_interval: Option<Duration>,
    /// How long a delivery is retried before it is abandoned. Default: `8d`. From `1m` to `30d`.
    pub max_elapsed: Option<Duration>,
}

/// An event of an identity.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names in the file explain them")]
pub enum Event {
    #[serde(rename = "identity.created")]
    IdentityCreated,
    #[serde(rename = "identity.updated")]
    IdentityUpdated,
    #[serde(rename = "credentials.changed")]
    CredentialsChanged,
    #[serde(rename = "identity.verified")]
    IdentityVerified,
    #[serde(rename = "registration.failed")]
    RegistrationFailed,
    #[serde(rename = "check.refused")]
    CheckRefused,
    #[serde(rename = "identity.deleted")]
    IdentityDeleted,
}
