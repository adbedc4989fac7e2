//! Texts with `{expression}` in them.

use super::{CompileError, EvaluationError, Names, Scope};
use serde_json::Value;

/// One piece of a text as the operator wrote it: read as a template, or put in from the environment as it is.
#[derive(Clone, Debug)]
pub enum Piece {
    Written(String),
    Inserted(String),
}

/// A text with `{expression}` filled in; `{{` and `}}` are braces.
#[derive(Clone, Debug)]
pub struct Template {}

impl Template {
    pub fn compile(pieces: &[Piece], scope: &Scope) -> Result<Self, CompileError> {
        let _ = (pieces, scope);
        unimplemented!()
    }
    /// A template that is nothing but one expression keeps the expression's type; else a string.
    pub fn render(&self, names: &Names<'_>) -> Result<Value, EvaluationError> {
        let _ = names;
        unimplemented!()
    }
    /// Always text: strings as they are, numbers and bools as written, null/lists/maps are an error.
    pub fn render_text(&self, names: &Names<'_>) -> Result<String, EvaluationError> {
        let _ = names;
        unimplemented!()
    }
    /// As a URL path: what the operator wrote stays, each filled-in value is percent-encoded as one segment part;
    /// a *path segment* that comes out as empty (because of a filled-in value), `.` or `..` is an error.
    pub fn render_path(&self, names: &Names<'_>) -> Result<String, EvaluationError> {
        let _ = names;
        unimplemented!()
    }
    /// The text if it holds no expression at all.
    pub fn constant(&self) -> Option<&str> {
        None
    }
    pub fn checks_read(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A JSON value with templates in its strings.
#[derive(Clone, Debug)]
pub enum JsonTemplate {
    Null,
    Bool(bool),
    Number(serde_json::Number),
    Text(Template),
    List(Vec<JsonTemplate>),
    Map(Vec<(String, JsonTemplate)>),
}

impl JsonTemplate {
    pub fn render(&self, names: &Names<'_>) -> Result<Value, EvaluationError> {
        let _ = names;
        unimplemented!()
    }
    pub fn checks_read(&self) -> Vec<String> {
        Vec::new()
    }
}
