//! CEL: compiled once, evaluated over a payload and an answer.
//!
//! The only module that knows the library `cel`. An expression is checked when it is compiled: its
//! length, its depth, its loops, and every name and function in it; so that a hostile source is an
//! error and a misspelt name is told with the settings, not in a sign-up. An evaluation is bounded
//! in time, and its errors hold no value of what it was evaluated over.

mod compile;
mod convert;
mod explain;
mod functions;
mod lists;
mod path;
mod resolve;
mod scan;
pub mod template;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use cel::{Context, Env};
use serde_json::Value;

use crate::base::clock::Timestamp;

pub use lists::Lists;
pub use path::ReadPath;
pub use template::{JsonTemplate, Piece, Template};

/// The names that exist at one place of the settings file, for checking an expression against.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Of [`Variable`], those that exist here.
    pub roots: Vec<Variable>,
    /// The checks whose `checks.<name>.response` may be read here.
    pub checks: Vec<String>,
    /// The lists.
    pub lists: Arc<Lists>,
    /// Whether `request.client_ip` exists (a header is configured for it).
    pub client_ip: bool,
}

/// A name at the root of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variable {
    /// The identity that signs up or changes.
    Identity,
    /// The identity before the change.
    Previous,
    /// The value of the check's field.
    Value,
    /// The flow, with `transient_payload`.
    Flow,
    /// The person's request: `headers`, `client_ip`.
    Request,
    /// `password`, `oidc`, `code`, …
    Method,
    /// The present moment.
    Now,
    /// What the service answered: `status`, `headers`, `body`.
    Response,
    /// What services answered to other checks: `checks.<name>.response`.
    Checks,
    /// What a service answered when something was taken from it: `status`, `headers`, `body`, and the `key`.
    Taken,
    /// The operator's lists: `lists.<name>`.
    Lists,
}

/// What the names stand for in one evaluation. A `None` is a name without a value here.
#[derive(Clone, Copy, Debug)]
pub struct Variables<'a> {
    /// `identity`
    pub identity: Option<&'a Value>,
    /// `previous`
    pub previous: Option<&'a Value>,
    /// `value`
    pub value: Option<&'a Value>,
    /// `flow`
    pub flow: Option<&'a Value>,
    /// `request`
    pub request: Option<&'a Value>,
    /// `method`
    pub method: &'a str,
    /// `now`
    pub now: Timestamp,
    /// `{"status": 200, "headers": {…}, "body": …}`
    pub response: Option<&'a Value>,
    /// By check name, `{"response": {…}}`; a check without an exchange is missing.
    pub checks: Option<&'a BTreeMap<String, Arc<Value>>>,
    /// `{"status": 200, "headers": {…}, "body": …, "key": "…"}`; only the key if there was no answer.
    pub taken: Option<&'a Value>,
    /// `lists`
    pub lists: &'a Lists,
}

/// A compiled expression. A clone is the same one.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    compiled: Arc<compile::Compiled>,
    env: Arc<Env>,
}

/// Why a source is no expression here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CompileError {
    /// What is wrong.
    pub message: String,
    /// The byte in the source at which it went wrong, if known. Of a template: in the text of its
    /// [`piece`](Self::piece).
    pub offset: Option<usize>,
    /// How to mend it.
    pub hint: Option<String>,
    /// Of a template, the piece that is wrong, counted from 0; of an expression always 0.
    pub piece: usize,
}

/// Why an expression gave no result. Never holds a value of the payload or of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvaluationError {
    /// What went wrong and, where it is known, at which name.
    pub message: String,
    /// Whether it is because `checks.<name>.response` is missing (not because of what the person typed).
    pub missing_check: bool,
}

impl Variable {
    /// Every one of them.
    pub const ALL: [Self; 11] = [
        Self::Identity,
        Self::Previous,
        Self::Value,
        Self::Flow,
        Self::Request,
        Self::Method,
        Self::Now,
        Self::Response,
        Self::Checks,
        Self::Taken,
        Self::Lists,
    ];

    /// As it is written in an expression.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Previous => "previous",
            Self::Value => "value",
            Self::Flow => "flow",
            Self::Request => "request",
            Self::Method => "method",
            Self::Now => "now",
            Self::Response => "response",
            Self::Checks => "checks",
            Self::Taken => "taken",
            Self::Lists => "lists",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|root| root.name() == name)
    }

    fn where_it_exists(self) -> &'static str {
        match self {
            Self::Previous => "`previous` exists only in the flow `settings`",
            Self::Value => "`value` exists only in a check with `field`",
            Self::Response => "`response` exists only after an `ask`",
            Self::Taken => "`taken` exists only in `confirm` and `release` of a reservation",
            Self::Checks => "the response of another check cannot be read at this place",
            _ => "it has no value at this place",
        }
    }
}

impl CompileError {
    fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl EvaluationError {
    /// An error that is not about a check's missing response.
    #[must_use]
    pub fn new(message: String) -> Self {
        Self {
            message,
            missing_check: false,
        }
    }
}

impl Expression {
    /// Reads the source and checks its names against those that exist.
    ///
    /// The pattern of `matches` must be written out, so that it is compiled here.
    pub fn compile(source: &str, scope: &Scope) -> Result<Self, CompileError> {
        let env = functions::environment().map_err(|cause| CompileError {
            message: cause.to_string(),
            offset: None,
            hint: None,
            piece: 0,
        })?;
        Ok(Self {
            source: source.into(),
            compiled: Arc::new(compile::compile(source, scope)?),
            env: Arc::clone(env),
        })
    }

    /// As it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The result. An optional gives its value or null, a timestamp RFC 3339, a duration `90s`,
    /// bytes base64; the keys of a map become texts, in order.
    pub fn evaluate(&self, names: &Variables<'_>) -> Result<Value, EvaluationError> {
        self.with_result(names, convert::to_json)
    }

    /// Whether the condition holds. The result must be a bool.
    pub fn holds(&self, names: &Variables<'_>) -> Result<bool, EvaluationError> {
        self.with_result(names, |result| match result {
            cel::Value::Bool(bool) => Ok(*bool),
            _ => Err(EvaluationError::new(format!(
                "gave {}, not true or false",
                convert::kind(result)
            ))),
        })
    }

    /// The checks whose responses it reads.
    #[must_use]
    pub fn checks_read(&self) -> &[String] {
        &self.compiled.checks
    }

    /// Whether it reads a name that begins with this root.
    #[must_use]
    pub fn reads(&self, root: Variable) -> bool {
        self.compiled.roots.contains(&root)
    }

    /// The constant beginnings of all paths that it reads behind this root. What an expression computes (`x[i]`, a loop) is
    /// covered by what stands before it.
    pub fn paths(&self, root: Variable) -> impl Iterator<Item = ReadPath> {
        self.compiled
            .slots
            .iter()
            .filter_map(move |slot| match slot {
                resolve::Slot::Path(path) | resolve::Slot::Has(path) if path.root == root => {
                    Some(path.constant())
                }
                _ => None,
            })
    }

    /// An error if something that it uses as a text (`x.startsWith(…)`, `x in lists.name`) is a list or an object: a visitor can
    /// send these wherever the identity schema gives a trait no type.
    pub fn expects_texts(&self, names: &Variables<'_>) -> Result<(), EvaluationError> {
        let used = self.compiled.texts.iter();
        used.filter_map(|index| self.compiled.slots.get(*index))
            .try_for_each(|slot| slot.expects_text(names))
    }

    /// The same of an expression that is nothing but a path, where its value is put into a text.
    pub(crate) fn expects_text_result(&self, names: &Variables<'_>) -> Result<(), EvaluationError> {
        self.compiled
            .only_path()
            .map_or(Ok(()), |slot| slot.expects_text(names))
    }

    /// Whether it goes through a list or a map (`all`, `exists`, `map`, `filter`), and so may take long.
    #[must_use]
    pub fn loops(&self) -> bool {
        self.compiled.loops
    }

    fn with_result<T>(
        &self,
        names: &Variables<'_>,
        then: impl FnOnce(&cel::Value) -> Result<T, EvaluationError>,
    ) -> Result<T, EvaluationError> {
        let resolver = resolve::Resolver::new(*names, &self.compiled.slots);
        let mut context = Context::with_env(Arc::clone(&self.env));
        context.set_variable_resolver(&resolver);
        // Not `resolve_val`, which would be compiled into this crate, and unoptimised with it.
        match cel::Value::resolve(&self.compiled.tree, &context) {
            Ok(result) => then(&result),
            Err(error) => Err(explain::explain(&error, &resolver, |key| {
                self.compiled.keys.contains(key)
            })),
        }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}
