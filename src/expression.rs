//! CEL: compiled once, evaluated over a payload and an answer.

pub mod template;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::clock::Timestamp;

pub use template::{JsonTemplate, Template};

/// The names that exist at one place of the settings file, for checking an expression against.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Of [`Root`], those that exist here.
    pub roots: Vec<Root>,
    /// The checks whose `checks.<name>.response` may be read here.
    pub checks: Vec<String>,
    /// The lists.
    pub lists: Arc<Lists>,
    /// Whether `request.client_ip` exists (a header is configured for it).
    pub client_ip: bool,
}

/// A name at the root of an expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    Identity,
    Previous,
    Value,
    Flow,
    Request,
    Method,
    Now,
    Response,
    Checks,
    Lists,
}

/// The operator's lists, made ready for expressions.
#[derive(Debug, Default)]
pub struct Lists {/* helper: names -> prepared CEL list + HashSet for in_domains */}

impl Lists {
    pub fn new(lists: BTreeMap<String, Vec<String>>) -> Self {
        let _ = lists;
        Self {}
    }
    pub fn names(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// What the names stand for in one evaluation. A `None` is a name without a value here.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    pub identity: Option<&'a Value>,
    pub previous: Option<&'a Value>,
    pub value: Option<&'a Value>,
    pub flow: Option<&'a Value>,
    pub request: Option<&'a Value>,
    pub method: &'a str,
    pub now: Timestamp,
    /// `{"status": 200, "headers": {…}, "body": …}`
    pub response: Option<&'a Value>,
    /// By check name, `{"response": {…}}`; a check without an exchange is missing.
    pub checks: Option<&'a BTreeMap<String, Arc<Value>>>,
    pub lists: &'a Lists,
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Expression {
    source: Arc<str>,
}

/// Why a source is no expression here.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct CompileError {
    pub message: String,
    /// Byte offset in the source at which it went wrong, if known.
    pub offset: Option<usize>,
    /// How to mend it.
    pub hint: Option<String>,
}

/// Why an expression gave no result. Never holds a value of the payload or of an answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct EvaluationError {
    pub message: String,
    /// Whether it is because `checks.<name>.response` is missing (not because of what the person typed).
    pub missing_check: bool,
}

impl EvaluationError {
    pub fn new(message: String) -> Self {
        Self {
            message,
            missing_check: false,
        }
    }
}

impl Expression {
    pub fn compile(source: &str, scope: &Scope) -> Result<Self, CompileError> {
        let _ = scope;
        Ok(Self {
            source: source.into(),
        })
    }
    /// A text without `{}` read as expression keeps its source for logs.
    pub fn source(&self) -> &str {
        &self.source
    }
    pub fn evaluate(&self, names: &Names<'_>) -> Result<Value, EvaluationError> {
        let _ = names;
        unimplemented!()
    }
    /// The result must be a bool.
    pub fn holds(&self, names: &Names<'_>) -> Result<bool, EvaluationError> {
        let _ = names;
        unimplemented!()
    }
    /// The checks whose responses it reads.
    pub fn checks_read(&self) -> &[String] {
        &[]
    }
}
