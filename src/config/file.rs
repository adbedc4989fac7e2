//! What an operator may write, section by section, nothing resolved yet. The comments become the descriptions in the
//! JSON Schema and in docs/configuration.md.

pub mod text;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

pub use text::{Decimal, Duration, Expression, Number, Template, Text};

/// The settings of Vestibule.
///
/// One YAML file. Every text may hold `${env:NAME}`, `${env:NAME:-default}` and `${file:/path}`, quoted or not; `$${` stands
/// for `${`. Durations carry a unit: `500ms`, `5s`, `2m`, `24h`, `8d`. Conditions are CEL expressions. In templates
/// `{expression}` is filled in and `{{` and `}}` are braces; a template that is nothing but one expression keeps the
/// expression's type. Quote a value that begins with `{`, `!`, `*` or `&`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Vestibule settings")]
pub struct File {
    /// Where Vestibule listens.
    pub serve: Serve,
    /// How Kratos's hooks are answered.
    pub hooks: Hooks,
    /// The database. `sqlite:///absolute/path.db`, or `sqlite://path.db` beside the working directory; for several instances
    /// `postgres://user:password@host:5432/database`, with `?sslmode=verify-full` and the like. Default: `sqlite://vestibule.db`.
    pub dsn: Option<Text>,
    /// What is logged.
    pub log: Log,
    /// The Kratos beside Vestibule.
    pub kratos: Kratos,
    /// External systems by name, where they need more than an address.
    pub services: IndexMap<String, Service>,
    /// What people read, by name. A name of Vestibule's own words (`try_again`, `not_valid`, `required`, `not_possible`, `form_used`,
    /// `account_refused`) replaces those.
    pub messages: IndexMap<String, NamedMessage>,
    /// Lists by name, read in expressions as `lists.<name>`.
    pub lists: IndexMap<String, List>,
    /// What a sign-up must pass, by name. All run side by side; all findings come back in one answer.
    pub checks: IndexMap<String, Check>,
    /// Who is told of new and changed identities, by name.
    pub deliveries: IndexMap<String, Delivery>,
    /// Looking for accounts that nobody told Vestibule of, and for those that are gone.
    pub reconcile: Reconcile,
    /// How long is kept what is settled.
    pub retention: Retention,
}

/// Looking for accounts that nobody told Vestibule of (made by the admin API, imported, made by a method without hooks), and
/// for those that are gone from Kratos. `vestibule reconcile` does the same once.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Reconcile {
    /// How often. Default: never by itself. From `1m` to `30d`; needs `kratos.admin_url`.
    pub every: Option<Duration>,
    /// Accounts made before that moment are left alone: `2026-11-01` or `2026-11-01T12:00:00Z`. Default: the moment at which
    /// this database was made, and for a delivery that was added later, the moment at which it was added.
    pub since: Option<Text>,
    /// So many identities are looked at in a second, at most. Default: 500. From 1 to 100000.
    pub per_second: Option<Number>,
}

/// How long is kept what is settled. What is pending or abandoned is kept until it is settled, retried or discarded.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Deliveries that arrived or were discarded, with their attempts; their payload is forgotten at once. Accounts older than
    /// this are not reconciled. Default: `90d`. From `1d` to `3650d`.
    pub deliveries: Option<Duration>,
    /// Decisions about sign-ups. Default: `30d`. From `1h` to `3650d`.
    pub decisions: Option<Duration>,
}

/// Where Vestibule listens.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Serve {
    /// Where Kratos calls. Default: `0.0.0.0`, port 4480. Keep it on a private network.
    pub hooks: Address,
    /// Where operators and their monitoring call: deliveries, health, version, metrics. It asks nobody who they are: keep it on a
    /// private network. Default: `127.0.0.1`, port 4481.
    pub admin: Address,
    /// How long to go on after SIGTERM, not ready any more, before stopping: time for a load balancer to notice.
    /// Default: `0s`. At most `5m`.
    pub shutdown_delay: Option<Duration>,
}

/// A network address.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Address {
    /// The IP address of a network interface.
    pub host: Option<Text>,
    /// The port; 0 takes a free one.
    pub port: Option<Number>,
}

/// How Kratos's hooks are answered.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hooks {
    /// The keys that Kratos may call with, in the header `X-Vestibule-Key`; each has at least 16 characters, any of them
    /// opens. Two at once are for rotation. Default: the environment variable `VESTIBULE_KEY`.
    pub keys: Option<Vec<Text>>,
    /// By when `pre` has answered, however services behave. Default: `5s`. From `100ms` to `20s`.
    pub deadline: Option<Duration>,
    /// The language for visitors whose own is not there: a BCP 47 tag. Default: `en`.
    pub default_language: Option<Text>,
    /// The header of the visitor's request that holds their address, for `request.client_ip`; Kratos must pass it on
    /// (`True-Client-Ip` it does by itself) and your proxy must set it. Default: none.
    pub client_ip_header: Option<Text>,
}

/// What is logged.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How much. Default: `info`.
    pub level: Option<Level>,
    /// `json`, one object a line, or `human`. Default: `json`.
    pub format: Option<Format>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names in the file say it")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names in the file say it")]
pub enum Format {
    Json,
    Human,
}

/// The Kratos beside Vestibule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Kratos {
    /// The address of its admin API, `http://kratos:4434`. With it, sign-ups of which `post` never told are looked up, answers
    /// are written back (`save`), and checks may be deferred.
    pub admin_url: Option<Text>,
    /// The identity schema, `file://identity.schema.json` beside the settings file or `file:///absolute/path`: tells by which
    /// traits people sign in, so that a sign-up can be looked up by its user name. `vestibule validate` warns about each checked
    /// trait to which it gives no type, because a visitor can send a list or an object there. Default: only addresses are known.
    pub identity_schema: Option<Text>,
    /// Whether `pre` answers an `external_id`, `vestibule:` and a hash of the flow's id, for sign-ups that have none. Kratos keeps
    /// external ids unique, so at most one account comes of a form, however often and in parallel it is sent. `auto`: where a
    /// check reserves or defers, or `admin_url` is set. `always`, `never`. Needs Kratos v25.4.0. The person sees the id in
    /// `whoami`; a tokenizer with `subject_source: external_id` needs `never`. Default: `auto`.
    pub use_external_id: UseExternalId,
    /// How Vestibule proves who it is to the admin API. Default: not at all, as Kratos itself asks for nothing.
    pub auth: Option<Auth>,
}

/// For which sign-ups `pre` answers an `external_id`.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names in the file say it")]
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
    /// Its address, `http` or `https`; the paths of requests are put behind it.
    pub url: Text,
    /// The longest that one exchange may take. Default: `3s`. At most `60s`; before saving, `hooks.deadline` ends it too.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// Headers sent with every request.
    #[serde(default)]
    pub headers: IndexMap<String, Text>,
    /// How Vestibule proves who it is.
    #[serde(default)]
    pub auth: Option<Auth>,
    /// How many deliveries it takes. Default: 8 at once.
    #[serde(default)]
    pub limit: Option<Limit>,
    /// How deliveries to it are signed, by Standard Webhooks. What is asked before saving is not signed.
    #[serde(default)]
    pub sign: Option<Sign>,
}

/// How many deliveries a service takes. What is asked before saving is not limited by it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limit {
    /// So many are under way at once, from each instance. Default: 8. From 1 to 1000.
    pub concurrent: Option<Number>,
    /// So many begin in a second, from each instance; `0.5` is one every two seconds. Default: no limit.
    pub per_second: Option<Decimal>,
}

/// How deliveries are signed: with `secret`, or during a rotation with several `secrets`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sign {
    /// The signing secret, `whsec_…`. `vestibule keygen --signing` makes one.
    pub secret: Option<Text>,
    /// Several at once, in place of `secret`: each signs, and the receiver takes what it knows.
    pub secrets: Option<Vec<Text>>,
}

/// How Vestibule proves who it is.
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
    /// A header, query parameter or cookie of the service's own.
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
    /// Where it goes.
    #[serde(rename = "in")]
    pub place: ApiKeyPlace,
}

/// Where an API key goes.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names in the file say it")]
pub enum ApiKeyPlace {
    Header,
    Query,
    Cookie,
}

/// What people read: an id, and a text for each language.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct NamedMessage {
    /// A number of your own from 4900100 to 4999999, by which a front-end may find its own translation. Needed, unless
    /// the message replaces words of Vestibule's own.
    #[serde(default)]
    pub id: Option<u32>,
    /// A text for each language, under its BCP 47 tag; `{expression}` is filled in.
    #[serde(flatten)]
    #[schemars(with = "IndexMap<String, Template>")]
    pub texts: IndexMap<String, Value>,
}

/// A list, written down here or in a file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum List {
    /// The entries.
    Inline(Vec<Text>),
    /// The file they stand in.
    File(ListFile),
}

/// A list in a file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListFile {
    /// The file, beside the settings file if the path is not absolute. One entry a line; empty lines and those that begin
    /// with `#` are passed over.
    pub file: Text,
}

/// One question about a sign-up, settled before the identity is saved.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Check {
    /// The flows in which it runs. In `settings` it runs only if something has changed that it reads of `traits` or
    /// `metadata_public`, itself or through the response of another check; a check whose response it reads runs with it.
    /// Default: `[registration, settings]`; `[registration]` if it reads nothing of the two, or reads
    /// `flow.transient_payload`, which Kratos drops in settings.
    pub flows: Option<Vec<Flow>>,
    /// The trait it is about, `traits.vat_number`, or an entry of a list, `traits.emails.0`. If it is absent, the check is not
    /// run: missing, null, an empty list or object, or a text of nothing but white space and zero-width characters. Its value is
    /// `value`, not trimmed; messages stand beside it.
    pub field: Option<Text>,
    /// Whether an absent field is refused, if `when` holds. Default: `false`.
    pub required: bool,
    /// Runs only if this holds. If it fails, the value is not valid (`invalid`).
    pub when: Option<Expression>,
    /// The question that is put to a service. Without it the check is pure expression.
    pub ask: Option<Request>,
    /// What is taken from a service for this sign-up, in place of `ask`: an invite, a seat, a number.
    pub reserve: Option<Reserve>,
    /// What it means when the service gives no usable answer: `refuse` ("please try again later"), `accept` (pass, and
    /// count it), `defer` (pass, and ask again once the account exists), or a section with a choice per kind. `accept` covers
    /// only the kinds `timeout`, `connection`, `status_5xx`, `rejected_credentials` and `declared`; `defer` every kind except
    /// `rejected_question` and `expression`; the others refuse. Default: `refuse`.
    pub unavailable: Option<Unavailable>,
    /// What a check does if it refuses an account that exists: a deferred check, or a reservation that is taken again for an
    /// account that was found after the release. `deactivate` the identity, mark it, and refuse its logins until the refusal is
    /// lifted; `mark` it in `metadata_admin.vestibule.refused`; or only `notify` by the deliveries of `check.refused`, which are
    /// made in any case. Under `mark` and `notify` the check runs again in settings until it accepts
    /// ([details](nothing-is-lost.md#a-service-that-cannot-tell-now)). Default: `deactivate` for a sign-up, `mark` for a change
    /// in settings.
    pub late_refusal: Option<LateRefusal>,
    /// What a deferred check does if it has no answer after eight days: `keep` the question as an abandoned delivery and the
    /// mark in the identity, `refuse`, or `accept`. Default: `keep`.
    pub on_expiry: Option<OnExpiry>,
    /// Reasons to refuse: first those that name the status of the answer, then expressions in order. One that fails does not
    /// hide another one.
    pub refuse: Vec<Refusal>,
    /// What makes an answer a yes: an expression, or a status, such as 404 for a name that must be free. Default: a status 2xx;
    /// without `ask`, always.
    pub accept: Option<Condition>,
    /// The message for a value that no question can be made of, on which an expression fails, or to which the service answers with
    /// a 4xx that nothing names (`rejected_question`). Default: `not_valid`.
    pub invalid: Option<Message>,
    /// What is written into the identity when the check accepts, by path: `traits.company`, `metadata_public.company`.
    /// Objects are merged, nulls skipped. In settings, what was set in `metadata_public` is removed when the field has changed
    /// or is gone, or `when` no longer holds; what the check sets for the new value takes its place. Traits are never removed.
    #[schemars(with = "IndexMap<String, Value>")]
    pub set: IndexMap<String, Value>,
    /// `enforce`, or `observe`: run for real, decide nothing, count what it would have done. Default: `enforce`.
    pub mode: Mode,
    /// Checks that must have accepted before this one runs.
    pub after: Vec<Text>,
}

/// What is taken from a service for a sign-up. Kratos may fail after our yes, so it is confirmed when the account exists, and
/// released when none came of it. Each request carries an `Idempotency-Key`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// Takes it. The answer is judged as that of `ask`, and is `taken` in the other two: `{taken.body.hold_id}`; the key of
    /// this request is `{taken.key}`.
    pub take: Request,
    /// Tells the service that the account exists. Default: it is not told.
    #[serde(default)]
    pub confirm: Option<Request>,
    /// Gives it back: the values were changed, no account came of the sign-up, or it is not clear whether it was taken.
    pub release: Request,
}

/// What a check does if it refuses an account that exists.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names in the file say it")]
pub enum LateRefusal {
    Deactivate,
    Mark,
    Notify,
}

/// What a deferred check does if it has no answer in time.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names in the file say it")]
pub enum OnExpiry {
    Keep,
    Refuse,
    Accept,
}

/// A flow of Kratos.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names in the file say it")]
pub enum Flow {
    Registration,
    Settings,
}

/// Whether a check decides.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names in the file say it")]
pub enum Mode {
    #[default]
    Enforce,
    Observe,
}

/// One reason to refuse.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// When it holds: an expression, or a status of the answer.
    pub when: Condition,
    /// The words. Default: `not_valid`.
    #[serde(default)]
    pub message: Option<Message>,
}

/// An expression, or a status of the answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Condition {
    /// The answer has this status.
    Status(u16),
    /// This holds.
    Expression(Expression),
}

/// Words: a name under `messages` (one word in lower case), a text, or an id and a text for each language.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Message {
    /// A name under `messages`, or the text itself.
    Text(Template),
    /// An id and a text for each language.
    Inline(NamedMessage),
}

/// What it means when there is no usable answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Unavailable {
    /// The same for every kind.
    Always(Policy),
    /// A choice per kind.
    PerKind(PerKind),
}

/// What is done without a usable answer.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names in the file say it")]
pub enum Policy {
    Refuse,
    Accept,
    Defer,
}

/// What is done without a usable answer, per kind. A status that `refuse` names, or an answer for which one of its expressions
/// holds, is refused whatever its kind would be.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PerKind {
    /// Treat an answer as unavailable if this is true (`declared`). Read before `refuse`; if it fails, it is not true.
    pub when: Option<Expression>,
    /// No answer in time, or a 408.
    pub timeout: Option<Policy>,
    /// The service was not reached, the connection broke, or a 425.
    pub connection: Option<Policy>,
    /// A status of 500 or more.
    pub status_5xx: Option<Policy>,
    /// The status 429.
    pub rate_limited: Option<Policy>,
    /// A 401 or 407: the service rejects Vestibule's credentials. Each raises an alarm.
    pub rejected_credentials: Option<Policy>,
    /// `when` holds.
    pub declared: Option<Policy>,
    /// Any other 4xx, 403 included. A gateway or a firewall answers so to a value that the visitor chose, so it is refused with
    /// the message `invalid` unless it is named here.
    pub rejected_question: Option<Policy>,
    /// Neither refused nor accepted, or an expression failed on an answer that would be accepted.
    pub unexpected_answer: Option<Policy>,
    /// The question could not be built, or an expression failed without an answer. A visitor can bring that about, so it is
    /// refused unless it is named here: with the message `invalid`, or `try_again` if the response of another check is missing.
    pub expression: Option<Policy>,
    /// For the kinds that are not named. `accept` covers `timeout`, `connection`, `status_5xx`, `rejected_credentials` and
    /// `declared`; `defer` every kind except `rejected_question` and `expression`. Default: `refuse`.
    pub default: Option<Policy>,
}

/// A request: one of `get`, `post`, `put`, `patch` and `delete`, and what goes with it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// The name of the service that the path belongs to. Without it the path is a whole URL.
    pub service: Option<Text>,
    /// GET this path of the service, `/members/{value}`, or this whole URL. What is filled in is percent-encoded; the host is
    /// never an expression.
    pub get: Option<Template>,
    /// POST, likewise.
    pub post: Option<Template>,
    /// PUT, likewise.
    pub put: Option<Template>,
    /// PATCH, likewise.
    pub patch: Option<Template>,
    /// DELETE, likewise.
    pub delete: Option<Template>,
    /// Query parameters.
    pub query: IndexMap<String, Template>,
    /// Headers, beside the service's own.
    pub headers: IndexMap<String, Template>,
    /// A JSON body; its texts are templates.
    #[schemars(with = "Value")]
    pub json: Option<Value>,
    /// A form body (`application/x-www-form-urlencoded`).
    pub form: Option<IndexMap<String, Template>>,
}

/// Who is told of which identities, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    /// What calls for it: `identity.created` (a registration), `identity.updated` (a change of the profile),
    /// `credentials.changed` (a change of the password, of social sign-in, of a second factor), `identity.verified` (an
    /// address was proved), `registration.failed` (a sign-up that passed, and no account came of it; needs
    /// `kratos.admin_url`), `check.refused` (a check has refused an account that exists). `credentials.changed` and `identity.verified` need
    /// hooks of their own: `vestibule kratos hooks --event …` prints them.
    pub events: Vec<Event>,
    /// Only for identities for which this holds.
    #[serde(default)]
    pub when: Option<Expression>,
    /// The request. Without `json` and `form` the body is `{type, timestamp, data: {identity, previous}}`.
    pub send: Request,
    /// When it is tried again.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// How long it is tried before it is set aside as abandoned. Default: `8d`. From `1m` to `30d`.
    #[serde(default)]
    pub keep_trying_for: Option<Duration>,
    /// What makes an answer an arrival. Default: any status 2xx.
    #[serde(default)]
    pub delivered: Option<Expression>,
    /// After which answers it is not tried again, but abandoned at once: `response.status == 422`. A 410 always is one.
    #[serde(default)]
    pub give_up: Option<Expression>,
    /// What of the answer is written into the identity, by path: `metadata_admin.crm_id`, `metadata_public.…`, `traits.…`.
    /// Nulls are skipped. Needs `kratos.admin_url`.
    #[serde(default)]
    #[schemars(with = "IndexMap<String, Value>")]
    pub save: IndexMap<String, Value>,
}

/// When a delivery is tried again: each pause is twice as long as the one before, give or take a fifth.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// The pause after the first try. Default: `5s`. From `1s` to `1h`.
    pub first_pause: Option<Duration>,
    /// The longest pause. Default: `1h`. From `1s` to `1d`.
    pub longest_pause: Option<Duration>,
}

/// What happened to an identity.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "their names in the file say it")]
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
}
