//! Random checks and random identities, compared with a plain evaluation of the same checks.
//!
//! The plain evaluation knows nothing of requests, order or tasks. It reads the settings as an operator does: a condition is
//! true, false, or fails.

use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestRunner};
use serde_json::{Map, Value, json};
use vestibule::config::{self, Environment};
use vestibule::kratos::Flow;
use vestibule::model::verdict::Verdict;

use crate::support::cases::cases;
use crate::support::direct::Direct;
use crate::support::payload;
use crate::support::payload::Payload;

/// The traits that checks read.
const PATHS: [&str; 5] = ["a", "b", "c.x", "c.y", "list.0"];

/// A condition.
#[derive(Clone, Debug)]
enum Condition {
    Constant(bool),
    /// The trait has this value; fails if it is missing.
    Is(usize, &'static str),
    /// The trait exists and is not null.
    Has(usize),
    /// The trait is a text that begins so; fails if it is no text.
    StartsWith(usize, &'static str),
    /// As `Is`, and false if the trait is missing.
    IsIfThere(usize, &'static str),
    /// `value` is null.
    ValueIsNull,
    /// `value` has this value.
    ValueIs(&'static str),
    /// A part of the response has this value; fails if it is missing.
    Response(&'static str),
    Not(Box<Condition>),
    And(Box<Condition>, Box<Condition>),
    Or(Box<Condition>, Box<Condition>),
}

/// An entry of `refuse`, or `accept`.
#[derive(Clone, Debug)]
enum When {
    Status(u16),
    Holds(Condition),
}

#[expect(clippy::struct_excessive_bools, reason = "each is a key of a check")]
#[derive(Clone, Debug)]
struct Check {
    field: Option<usize>,
    absent: &'static str,
    required: Option<Condition>,
    immutable: bool,
    when: Option<Condition>,
    asks: bool,
    refuse: Vec<When>,
    accept: Option<When>,
    on_unavailable: &'static str,
    after_first: bool,
    is_observed: bool,
    in_settings: bool,
}

/// One call: the traits, those before the change, and the response of the service.
#[derive(Clone, Debug)]
struct Call {
    traits: Value,
    previous: Option<Value>,
    status: u16,
    body: Value,
}

/// What an expression reads.
struct Scene<'a> {
    call: &'a Call,
    value: Option<&'a Value>,
    has_response: bool,
}

fn keys(path: usize) -> impl Iterator<Item = &'static str> {
    PATHS[path].split('.')
}

/// The value of a trait. An index into something that is not a list has no value.
fn trait_at(traits: &Value, path: usize) -> Option<&Value> {
    keys(path).try_fold(traits, |value, key| match (value, key.parse::<usize>()) {
        (Value::Array(list), Ok(index)) => list.get(index),
        (_, Ok(_)) => None,
        (value, Err(_)) => value.get(key),
    })
}

fn is_absent(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.trim().is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(members)) => members.is_empty(),
        Some(_) => false,
    }
}

impl Condition {
    /// Evaluates the condition. `None`: it fails.
    fn plainly(&self, scene: &Scene<'_>) -> Option<bool> {
        let at = |path: usize| trait_at(&scene.call.traits, path);
        match self {
            Self::Constant(constant) => Some(*constant),
            Self::Is(path, text) => Some(at(*path)? == text),
            // A part of null or of nothing is not there. A part of a text is a mistake.
            Self::Has(path) => match at(*path) {
                None if !self.has_parent(&scene.call.traits) => None,
                found => Some(found.is_some()),
            },
            Self::StartsWith(path, text) => Some(at(*path)?.as_str()?.starts_with(text)),
            Self::IsIfThere(path, text) => Some(at(*path).is_some_and(|value| value == text)),
            Self::ValueIsNull => Some(scene.value?.is_null()),
            Self::ValueIs(text) => Some(scene.value? == text),
            Self::Response(text) if scene.has_response => Some(scene.call.body.get("x")? == text),
            Self::Response(_) => None,
            Self::Not(one) => one.plainly(scene).map(|one| !one),
            Self::And(one, other) => match (one.plainly(scene), other.plainly(scene)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (one, other) => Some(one? && other?),
            },
            Self::Or(one, other) => match (one.plainly(scene), other.plainly(scene)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (one, other) => Some(one? || other?),
            },
        }
    }

    /// Returns whether the value around the trait of `Has` is an object, null or missing. In a list, all is optional.
    fn has_parent(&self, traits: &Value) -> bool {
        let Self::Has(path) = self else {
            return true;
        };
        let parent = traits.get(keys(*path).next().unwrap_or_default());
        let is_nested = PATHS[*path].starts_with("c.");
        !is_nested || parent.is_none_or(|parent| parent.is_null() || parent.is_object())
    }

    /// Returns whether the condition uses a list or an object as a text.
    fn misuses_a_text(&self, traits: &Value) -> bool {
        match self {
            Self::StartsWith(path, _) => {
                trait_at(traits, *path).is_some_and(|value| value.is_array() || value.is_object())
            }
            Self::Not(one) => one.misuses_a_text(traits),
            Self::And(one, other) | Self::Or(one, other) => {
                one.misuses_a_text(traits) || other.misuses_a_text(traits)
            }
            _ => false,
        }
    }

    fn source(&self) -> String {
        let path = |path: usize| {
            keys(path).fold("identity.traits".to_owned(), |text, key| match key {
                "0" => format!("{text}[0]"),
                key => format!("{text}.{key}"),
            })
        };
        match self {
            Self::Constant(constant) => constant.to_string(),
            Self::Is(at, text) => format!("{} == '{text}'", path(*at)),
            Self::Has(at) if PATHS[*at] == "list.0" => {
                "identity.traits.?list[?0].hasValue()".to_owned()
            }
            Self::Has(at) => format!("has({})", path(*at)),
            Self::StartsWith(at, text) => format!("{}.startsWith('{text}')", path(*at)),
            Self::IsIfThere(at, text) => {
                let optional =
                    keys(*at).fold("identity.traits".to_owned(), |path, key| match key {
                        "0" => format!("{path}[?0]"),
                        key => format!("{path}.?{key}"),
                    });
                format!("{optional}.orValue('none') == '{text}'")
            }
            Self::ValueIsNull => "value == null".to_owned(),
            Self::ValueIs(text) => format!("value == '{text}'"),
            Self::Response(text) => format!("response.body.x == '{text}'"),
            Self::Not(one) => format!("!({})", one.source()),
            Self::And(one, other) => format!("({} && {})", one.source(), other.source()),
            Self::Or(one, other) => format!("({} || {})", one.source(), other.source()),
        }
    }

    /// The traits that the condition reads.
    fn reads(&self, found: &mut Vec<usize>) {
        match self {
            Self::Is(path, _)
            | Self::Has(path)
            | Self::StartsWith(path, _)
            | Self::IsIfThere(path, _) => found.push(*path),
            Self::Not(one) => one.reads(found),
            Self::And(one, other) | Self::Or(one, other) => {
                one.reads(found);
                other.reads(found);
            }
            Self::Constant(_) | Self::ValueIsNull | Self::ValueIs(_) | Self::Response(_) => {}
        }
    }
}

impl When {
    fn plainly(&self, scene: &Scene<'_>) -> Option<bool> {
        match self {
            Self::Status(status) => Some(*status == scene.call.status),
            Self::Holds(condition) => condition.plainly(scene),
        }
    }

    fn yaml(&self) -> String {
        match self {
            Self::Status(status) => status.to_string(),
            Self::Holds(condition) => format!("{:?}", condition.source()),
        }
    }
}

impl Check {
    /// Returns whether a sign-up or a change must be refused because of this check alone.
    fn refuses(&self, call: &Call) -> bool {
        if self.is_observed || !self.runs(call) {
            return false;
        }
        let field = self.field.map(|path| trait_at(&call.traits, path));
        let absent = field.is_some_and(is_absent);
        let null = Value::Null;
        let value = field.map(|value| value.filter(|_| !absent).unwrap_or(&null));
        let before = Scene {
            call,
            value,
            has_response: false,
        };
        if self.immutable && self.is_changed(call) {
            let stored = self.with_stored_value(call);
            let stored_value = self.field.and_then(|path| trait_at(&stored.traits, path));
            let scene = Scene {
                call: &stored,
                value: stored_value,
                has_response: false,
            };
            if self
                .when
                .as_ref()
                .is_none_or(|when| when.plainly(&scene) != Some(false))
            {
                return true;
            }
        }
        let when = self
            .when
            .as_ref()
            .map_or(Some(true), |when| when.plainly(&before));
        if when == Some(false) {
            return false;
        }
        let required = self.required.as_ref();
        if absent
            && (self.absent == "refuse"
                || required.is_some_and(|one| one.plainly(&before) != Some(false)))
        {
            return true;
        }
        if absent && self.absent == "skip" {
            return false;
        }
        if when.is_none() {
            return self.on_unavailable != "{expression: accept}";
        }
        let used = self.refuse.iter().chain(&self.accept);
        let mut conditions = used.filter_map(|one| match one {
            When::Holds(condition) => Some(condition),
            When::Status(_) => None,
        });
        if conditions.any(|one| one.misuses_a_text(&call.traits)) {
            return self.on_unavailable != "{expression: accept}";
        }
        self.refuses_the_answer(&Scene {
            has_response: self.asks,
            ..before
        })
    }

    /// The table of the design, §3.
    fn refuses_the_answer(&self, scene: &Scene<'_>) -> bool {
        let status = if self.asks { scene.call.status } else { 200 };
        let results: Vec<Option<bool>> = self.refuse.iter().map(|one| one.plainly(scene)).collect();
        if results.contains(&Some(true)) {
            return true;
        }
        let accepts = self.on_unavailable == "accept";
        if self.asks && (matches!(status, 401 | 408) || status >= 500) {
            return !accepts;
        }
        let failed = results.contains(&None);
        let accepted = self.accept.as_ref().map(|one| one.plainly(scene));
        if !self.asks && (failed || accepted == Some(None)) {
            return self.on_unavailable != "{expression: accept}";
        }
        if accepted == Some(Some(true)) && !failed {
            return false;
        }
        // Everything else is refused: another 4xx, or an unexpected answer.
        accepted.is_some() || failed || status >= 300
    }

    fn is_changed(&self, call: &Call) -> bool {
        let Some((path, previous)) = self.field.zip(call.previous.as_ref()) else {
            return false;
        };
        let before = trait_at(previous, path);
        !is_absent(before) && before != trait_at(&call.traits, path)
    }

    fn with_stored_value(&self, call: &Call) -> Call {
        let mut stored = call.clone();
        let (Some(path), Some(previous)) = (self.field, &call.previous) else {
            return stored;
        };
        let value = trait_at(previous, path).cloned().unwrap_or_default();
        let names: Vec<&str> = keys(path).collect();
        let outer = &mut stored.traits[names[0]];
        match (names.get(1), &outer) {
            (None, _) => *outer = value,
            (Some(name), Value::Object(_)) => outer[*name] = value,
            (Some(_), Value::Array(list)) if !list.is_empty() => outer[0] = value,
            (Some(name), Value::Null) if *name != "0" => *outer = json!({ *name: value }),
            _ => *outer = previous[names[0]].clone(),
        }
        stored
    }

    /// Returns whether the check runs: at registration, or in settings if something that it reads has changed.
    fn runs(&self, call: &Call) -> bool {
        let Some(previous) = &call.previous else {
            return true;
        };
        let field = self.field.iter().copied();
        let mut read = Vec::new();
        let conditions = self.when.iter().chain(&self.required);
        conditions.for_each(|one| one.reads(&mut read));
        for one in self.refuse.iter().chain(&self.accept) {
            if let When::Holds(condition) = one {
                condition.reads(&mut read);
            }
        }
        if self.field.is_none() && read.is_empty() {
            return self.in_settings;
        }
        let shown = |traits| {
            move |path: usize| trait_at(traits, path).filter(|value| !is_absent(Some(value)))
        };
        let mut fields = field.clone();
        let is_field_changed =
            fields.any(|path| shown(previous)(path) != shown(&call.traits)(path));
        let mut others = read.into_iter().filter(|path| Some(*path) != self.field);
        is_field_changed
            || others.any(|path| trait_at(previous, path) != trait_at(&call.traits, path))
    }

    fn yaml(&self, name: usize) -> String {
        let mut keys = vec![format!("absent: {}", self.absent)];
        if self.field.is_none() {
            keys.clear();
        }
        keys.extend(
            self.field
                .map(|path| format!("field: traits.{}", PATHS[path])),
        );
        if self.field.is_some() {
            keys.extend(
                self.required
                    .iter()
                    .map(|one| format!("required: {:?}", one.source())),
            );
            keys.extend(self.immutable.then(|| "immutable: true".to_owned()));
        }
        keys.extend(
            self.when
                .iter()
                .map(|one| format!("when: {:?}", one.source())),
        );
        keys.extend(
            self.asks
                .then(|| "ask: {get: \"http://service.test/a\"}".to_owned()),
        );
        let refuse: Vec<String> = self
            .refuse
            .iter()
            .map(|one| format!("{{when: {}}}", one.yaml()))
            .collect();
        keys.push(format!("refuse: [{}]", refuse.join(", ")));
        keys.extend(
            self.accept
                .iter()
                .map(|one| format!("accept: {}", one.yaml())),
        );
        keys.push(format!("on_unavailable: {}", self.on_unavailable));
        keys.extend((self.after_first && name > 0).then(|| "after: [c0]".to_owned()));
        keys.extend(self.is_observed.then(|| "mode: observe".to_owned()));
        keys.extend(
            self.in_settings
                .then(|| "flows: [registration, settings]".to_owned()),
        );
        format!("  c{name}: {{{}}}\n", keys.join(", "))
    }

    /// Removes what the settings do not permit.
    fn tidied(mut self) -> Self {
        if self.field.is_none() {
            self.required = None;
            self.immutable = false;
            self.absent = "skip";
        }
        if self.absent == "refuse" {
            self.required = None;
        }
        if !self.asks {
            self.refuse.retain(|one| matches!(one, When::Holds(_)));
            self.accept = None;
        } else if self.on_unavailable == "{expression: accept}" {
            self.on_unavailable = "refuse";
        }
        self
    }
}

/// A condition. `value` exists with a field, and `response` with a request.
fn condition(has_value: bool, has_response: bool) -> impl Strategy<Value = Condition> {
    let text = || prop::sample::select(vec!["x", "y", "xy"]);
    let path = || 0..PATHS.len();
    let mut leaves = vec![
        any::<bool>().prop_map(Condition::Constant).boxed(),
        (path(), text())
            .prop_map(|(path, text)| Condition::Is(path, text))
            .boxed(),
        path().prop_map(Condition::Has).boxed(),
        (path(), text())
            .prop_map(|(path, text)| Condition::StartsWith(path, text))
            .boxed(),
        (path(), text())
            .prop_map(|(path, text)| Condition::IsIfThere(path, text))
            .boxed(),
    ];
    if has_value {
        leaves.push(Just(Condition::ValueIsNull).boxed());
        leaves.push(text().prop_map(Condition::ValueIs).boxed());
    }
    if has_response {
        leaves.push(text().prop_map(Condition::Response).boxed());
    }
    prop::strategy::Union::new(leaves).prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| Condition::Not(Box::new(one))),
            (inner.clone(), inner.clone())
                .prop_map(|(one, other)| Condition::And(Box::new(one), Box::new(other))),
            (inner.clone(), inner)
                .prop_map(|(one, other)| Condition::Or(Box::new(one), Box::new(other))),
        ]
    })
}

fn check() -> impl Strategy<Value = Check> {
    (prop::option::weighted(0.7, 0..PATHS.len()), any::<bool>()).prop_flat_map(|(field, asks)| {
        let before = || condition(field.is_some(), false);
        let when = || {
            let status = prop::sample::select(vec![200_u16, 404, 503]).prop_map(When::Status);
            prop_oneof![1 => status, 3 => condition(field.is_some(), asks).prop_map(When::Holds)]
        };
        let absent = prop::sample::select(vec!["skip", "skip", "refuse", "check"]);
        let on_unavailable = prop::sample::select(vec!["refuse", "accept", "{expression: accept}"]);
        let switches = (
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.2),
            prop::bool::weighted(0.1),
            any::<bool>(),
        );
        (
            (
                absent,
                prop::option::weighted(0.3, before()),
                prop::option::of(before()),
            ),
            (
                prop::collection::vec(when(), 0..3),
                prop::option::weighted(0.3, when()),
                on_unavailable,
            ),
            switches,
        )
            .prop_map(
                move |((absent, required, when), (refuse, accept, on_unavailable), switches)| {
                    let (immutable, after_first, is_observed, in_settings) = switches;
                    Check {
                        field,
                        absent,
                        required,
                        // `immutable` needs settings, which checks with a field have.
                        immutable,
                        when,
                        asks,
                        refuse,
                        accept,
                        on_unavailable,
                        after_first,
                        is_observed,
                        in_settings,
                    }
                    .tidied()
                },
            )
    })
}

fn value() -> impl Strategy<Value = Value> {
    let values = ["x", "y", "xyz", "", " "].map(Value::from);
    let others = [json!(null), json!(7), json!(true)];
    prop::sample::select(values.into_iter().chain(others).collect::<Vec<_>>())
}

fn traits() -> impl Strategy<Value = Value> {
    let some = |strategy: BoxedStrategy<Value>| prop::option::weighted(0.75, strategy);
    let list = prop::collection::vec(value(), 0..2).prop_map(Value::from);
    let object = (some(value().boxed()), some(value().boxed()))
        .prop_map(|(x, y)| members([("x", x), ("y", y)]));
    (
        some(value().boxed()),
        some(prop_oneof![4 => value(), 1 => Just(json!(["x"]))].boxed()),
        some(prop_oneof![4 => object, 1 => value()].boxed()),
        some(prop_oneof![4 => list, 1 => value()].boxed()),
    )
        .prop_map(|(a, b, c, list)| members([("a", a), ("b", b), ("c", c), ("list", list)]))
}

fn members<const N: usize>(all: [(&str, Option<Value>); N]) -> Value {
    let there = all
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(there.collect::<Map<_, _>>())
}

fn call() -> impl Strategy<Value = Call> {
    let body = prop_oneof![
        Just(json!({})),
        Just(json!({"x": "x"})),
        Just(json!({"x": "y"})),
        Just(json!("<html>"))
    ];
    let status = prop::sample::select(vec![200_u16, 200, 204, 302, 400, 401, 404, 408, 500, 503]);
    (traits(), prop::option::of(traits()), status, body).prop_map(
        |(traits, previous, status, body)| Call {
            traits,
            previous,
            status,
            body,
        },
    )
}

fn payload_of(call: &Call) -> Payload {
    let payload = payload().with("/identity/traits", call.traits.clone());
    match &call.previous {
        Some(previous) => payload.changed_from(previous),
        None => payload,
    }
}

/// Runs random settings with random calls. Neither a sign-up nor a change is admitted that a check refuses plainly, and none is
/// refused that no check refuses.
#[test]
fn checks_decide_as_a_plain_reading_of_their_settings_does() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let mut runner = TestRunner::new(Config {
        cases: cases(CASES),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("seeds"))),
        source_file: Some(file!()),
        ..Config::default()
    });
    let random = (
        prop::collection::vec(check(), 1..4),
        prop::collection::vec(call(), 1..12),
    );
    let result = runner.run(&random, |(checks, calls)| {
        let all: String = checks
            .iter()
            .enumerate()
            .map(|(name, check)| check.yaml(name))
            .collect();
        let yaml = format!("checks:\n{all}");
        let environment = Environment::of([(
            "VESTIBULE_KEY".to_owned(),
            "a-key-for-tests-only".to_owned(),
        )]);
        let settings = config::read(&yaml, std::path::Path::new("vestibule.yaml"), &environment);
        let settings = settings.map_err(|problems| TestCaseError::fail(problems.to_string()))?;
        for call in &calls {
            let (status, body) = (call.status, call.body.clone());
            let direct = Direct::new(&settings, move |_| (status, body.clone()));
            let flow = if call.previous.is_some() {
                Flow::Settings
            } else {
                Flow::Registration
            };
            let evaluated = runtime.block_on(direct.evaluate(flow, &payload_of(call)));
            let is_refused = matches!(evaluated.verdict, Verdict::Refuse(_));
            let refusing: Vec<usize> = checks
                .iter()
                .enumerate()
                .filter(|(_, check)| check.refuses(call))
                .map(|(index, _)| index)
                .collect();
            // A check that waits for a refused one does not run, and the call is refused anyway.
            prop_assert_eq!(
                is_refused,
                !refusing.is_empty(),
                "{}{:?} {:?}\nrefused by {:?}",
                yaml,
                call,
                evaluated.records,
                refusing
            );
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}

/// `PROPTEST_CASES=20000 cargo test --test it plain_model` runs more cases.
const CASES: u32 = 256;
