//! CEL expressions: compiled once, evaluated over a payload and an answer.
//!
//! Only this module uses the library `cel`. The compiler checks the length, the depth and the loops of an expression,
//! and every name and function in the expression. So a hostile source is an error, and a misspelt name is reported
//! with the settings and not in a sign-up. An evaluation has a budget of steps, and of bytes that it reads and makes. The
//! errors of an evaluation contain no value of its input.

mod absence;
mod bounded;
mod budget;
mod comparisons;
mod compile;
mod convert;
mod documented;
mod explain;
mod foreign;
mod functions;
mod lists;
mod metering;
mod path;
mod reads;
mod resolve;
mod roots;
mod scan;
pub mod template;
mod texts;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use cel::{Context, Env};
use serde_json::Value;

use crate::base::clock::Timestamp;
use crate::base::cpu;
use crate::base::telemetry::metrics::EXPRESSIONS_OVER_BUDGET;

pub use absence::{Assumption, Effect, Given};
use budget::QUICK_STEPS;
pub use budget::{BYTES_PER_STEP, ELEMENT_BYTES, MAX_RESULT, MAX_STEPS};
pub use comparisons::{Compared, Comparison};
pub use documented::{FUNCTION_REFERENCE, FunctionReference};
pub use lists::Lists;
pub use path::{ReadPath, ReadStep};
pub use reads::Read;
pub use template::{JsonTemplate, Piece, Template};

/// The names that an expression may use at one place of the settings file.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// The variables that exist at this place.
    pub roots: Vec<Variable>,
    /// The checks whose `checks.<name>.response` may be read at this place.
    pub checks: Vec<String>,
    /// The operator's lists.
    pub lists: Arc<Lists>,
    /// Whether `request.client_ip` exists, which needs a header in the settings.
    pub client_ip: bool,
    /// Paths in `identity` and `previous` that may be absent, as the identity schema says: `traits.phone`. A template
    /// that is one of these paths, or a path that leads into one, is null where the path is absent.
    pub optional_paths: Arc<BTreeSet<ReadPath>>,
    /// The names in `request.headers`.
    pub headers: Vec<String>,
    /// Whether `request.headers` has other names too, which are not known where the settings are checked.
    pub has_other_headers: bool,
}

/// A name at the root of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variable {
    /// The identity of the sign-up or change.
    Identity,
    /// The identity before the change.
    Previous,
    /// The value of the check's field.
    Value,
    /// The flow, with `transient_payload`.
    Flow,
    /// The visitor's request: `headers`, `client_ip`.
    Request,
    /// `password`, `oidc`, `code`, …
    Method,
    /// The current time.
    Now,
    /// The service's answer: `status`, `headers`, `body`.
    Response,
    /// The answers of services to other checks: `checks.<name>.response`.
    Checks,
    /// The service's answer to `take`: `status`, `headers`, `body`, and the `key`.
    Taken,
    /// The operator's lists: `lists.<name>`.
    Lists,
}

/// The values of all variables in one evaluation. `None` means that a variable has no value.
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
    /// By check name, `{"response": {…}}`. A check without a call to a service is missing.
    pub checks: Option<&'a BTreeMap<String, Arc<Value>>>,
    /// `{"status": 200, "headers": {…}, "body": …, "key": "…"}`, or only the key if there was no answer.
    pub taken: Option<&'a Value>,
    /// `lists`
    pub lists: &'a Lists,
}

/// A compiled expression. Clones share the compiled form.
#[derive(Clone)]
pub struct Expression {
    source: Arc<str>,
    compiled: Arc<compile::Compiled>,
    env: Arc<Env>,
}

/// The reason why a source cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CompileError {
    /// The description of the problem.
    pub message: String,
    /// The byte of the problem in the source, if known. In a template, the byte counts from the start of the
    /// [`piece`](Self::piece).
    pub offset: Option<usize>,
    /// What to do about the problem, printed after `help:`.
    pub hint: Option<String>,
    /// The template's piece with the problem, counted from 0. In an expression the value is always 0.
    pub piece: usize,
}

/// The reason why an evaluation has no result. The error never contains a value of the payload or of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvaluationError {
    /// The description of the error and, where it is known, the name that caused it.
    pub message: String,
    /// Whether the cause is a missing `checks.<name>.response`, and not the visitor's input.
    pub missing_check: bool,
    /// Whether the cause is that what the visitor sent has no such part, or one of another type: `identity`, `previous`,
    /// `value`, `flow` or `request`.
    pub missing_input: bool,
    /// Whether the evaluation exceeded its budget.
    pub is_over_budget: bool,
}

impl Variable {
    /// All variables.
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

    /// Returns the variable's name in an expression.
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

    /// Returns whether a visitor decides which parts the variable has.
    fn is_input(self) -> bool {
        matches!(
            self,
            Self::Identity | Self::Previous | Self::Value | Self::Flow | Self::Request
        )
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
    /// Creates an error whose cause is neither a missing response of a check nor a missing part of the input.
    #[must_use]
    pub fn new(message: String) -> Self {
        Self {
            message,
            missing_check: false,
            missing_input: false,
            is_over_budget: false,
        }
    }

    fn over_budget(message: &str) -> Self {
        Self {
            is_over_budget: true,
            ..Self::new(message.to_owned())
        }
    }
}

impl Expression {
    /// Compiles the source, and checks its names against those of the scope.
    ///
    /// The pattern of `matches` must be a constant, because the pattern is compiled here.
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

    /// Returns the source.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Evaluates the expression and returns the result as JSON.
    ///
    /// An optional becomes its value or null, a timestamp RFC 3339, a duration `90s`, bytes base64. The keys of a map
    /// become texts, in order.
    pub fn evaluate(&self, variables: &Variables<'_>) -> Result<Value, EvaluationError> {
        self.with_result(variables, convert::to_json)
    }

    /// Evaluates the expression as a condition. The result must be a bool.
    pub fn holds(&self, variables: &Variables<'_>) -> Result<bool, EvaluationError> {
        self.with_result(variables, |result| match result {
            cel::Value::Bool(bool) => Ok(*bool),
            _ => Err(EvaluationError::new(format!(
                "gave {}, not true or false",
                convert::kind(result)
            ))),
        })
    }

    /// Returns the checks whose responses the expression reads.
    #[must_use]
    pub fn checks_read(&self) -> &[String] {
        &self.compiled.checks
    }

    /// Returns whether the expression reads this variable.
    #[must_use]
    pub fn reads(&self, root: Variable) -> bool {
        self.compiled.roots.contains(&root)
    }

    /// Returns the constant beginnings of all paths of this variable that the expression reads.
    ///
    /// A constant beginning covers all parts that the expression computes behind that beginning (`x[i]`, a loop).
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

    /// Returns an error if the expression uses a list or an object as a text (`x.startsWith(…)`, `x in lists.name`).
    ///
    /// A visitor can send a list or an object wherever the identity schema gives a trait no type.
    pub fn expects_texts(&self, variables: &Variables<'_>) -> Result<(), EvaluationError> {
        let used = self.compiled.texts.iter();
        used.filter_map(|index| self.compiled.slots.get(*index))
            .try_for_each(|slot| slot.expects_text(variables))
    }

    /// Returns an error if the expression is a single path to a list or an object. Callers put the result into a
    /// text.
    pub(crate) fn expects_text_result(
        &self,
        variables: &Variables<'_>,
    ) -> Result<(), EvaluationError> {
        self.compiled
            .only_path()
            .map_or(Ok(()), |slot| slot.expects_text(variables))
    }

    /// Returns the path, if the expression is a single path.
    fn only_path(&self) -> Option<&path::Path> {
        match self.compiled.only_path()? {
            resolve::Slot::Path(path) => Some(path),
            _ => None,
        }
    }

    /// Returns whether the expression has a loop (`all`, `exists`, `map`, `filter`), and so may take long.
    #[must_use]
    pub fn loops(&self) -> bool {
        self.compiled.loops
    }

    /// Evaluates the expression with a small part of the budget first. If that is not enough, the evaluation is repeated
    /// with all of it, where it delays no other task.
    fn with_result<T: Send>(
        &self,
        variables: &Variables<'_>,
        then: impl Fn(&cel::Value) -> Result<T, EvaluationError> + Sync,
    ) -> Result<T, EvaluationError> {
        match self.evaluate_within(QUICK_STEPS, variables, &then) {
            Err(error) if error.is_over_budget => {
                let result = cpu::compute(|| self.evaluate_within(MAX_STEPS, variables, &then));
                if result.as_ref().is_err_and(|error| error.is_over_budget) {
                    EXPRESSIONS_OVER_BUDGET.inc();
                }
                result
            }
            result => result,
        }
    }

    fn evaluate_within<T>(
        &self,
        steps: usize,
        variables: &Variables<'_>,
        then: impl Fn(&cel::Value) -> Result<T, EvaluationError>,
    ) -> Result<T, EvaluationError> {
        let resolver = resolve::Resolver::new(*variables, &self.compiled.slots, steps);
        let mut context = Context::with_env(Arc::clone(&self.env));
        context.set_variable_resolver(&resolver);
        // The function `resolve_val` is not used, because it would be compiled into this crate, without optimisation.
        let result = cel::Value::resolve(&self.compiled.metered, &context);
        // `||` and `&&` may have ignored the error, but what they decide must not depend on the budget.
        if let Some(message) = resolver.exceeded() {
            return Err(EvaluationError::over_budget(message));
        }
        match result {
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
