//! Compares what the settings read and write with the identity schemas: names, types, and values that may be absent.

mod absence;
mod candidates;
mod comparisons;
mod emptiness;
mod guards;
mod identity_id;
mod names;
mod previous;
mod subject;
mod texts;
mod writes;

use super::{Cursor, Resolver};
use crate::base::diagnostics::{Position, Problem};
use crate::expression::{
    Effect, Expression, Given, JsonTemplate, ReadPath, ReadStep, Template, Variable,
};
use crate::kratos::schema::Step;
use previous::WithoutPrevious;
pub(super) use subject::Subject;

/// What one value of the file reads.
pub(super) struct Use {
    path: String,
    at: Position,
    text: String,
    place: Place,
    expressions: Vec<Expression>,
}

/// What follows if an expression fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A condition fails.
    Condition,
    /// A condition fails, and what it should accept is not accepted.
    Acceptance,
    /// An absent field is refused.
    Required,
    /// A condition counts as false.
    MayFail,
    /// A template in JSON that is nothing but one expression, and can be null.
    Value,
    /// A template in a form or a query that is nothing but one expression. Null has no text.
    Parameter,
    /// A text cannot be built.
    Text,
    /// A path cannot be built, also not with an empty value.
    Path,
    /// Another message is used.
    Message,
}

impl Place {
    fn is_condition(self) -> bool {
        matches!(self, Self::Condition | Self::Acceptance | Self::Required)
    }

    /// Returns whether a failure has no consequence that matters.
    fn tolerates_failures(self) -> bool {
        matches!(self, Self::MayFail | Self::Message)
    }

    fn needs_a_text(self) -> bool {
        matches!(self, Self::Parameter | Self::Text | Self::Path)
    }

    /// Returns whether an expression with this effect can fail here.
    fn fails_by(self, effect: Effect) -> bool {
        let has_no_text = match effect.gives {
            Given::Nothing => self.needs_a_text(),
            Given::EmptyText => self == Self::Path,
            Given::Anything => false,
        };
        effect.may_fail || has_no_text
    }
}

/// A path of the identity that the settings write.
pub(super) struct Write {
    path: String,
    at: Position,
    names: Vec<String>,
    value: Option<JsonTemplate>,
    is_set: bool,
}

/// The section, and its condition.
struct Context<'c> {
    subject: &'c Subject,
    when: Option<&'c Expression>,
    without_previous: Option<&'c WithoutPrevious>,
}

impl Use {
    pub fn new<'e>(
        cursor: &Cursor<'_>,
        text: &str,
        place: Place,
        expressions: impl Iterator<Item = &'e Expression>,
    ) -> Self {
        Self {
            path: cursor.path.clone(),
            at: cursor.at,
            text: text.to_owned(),
            place,
            expressions: expressions.cloned().collect(),
        }
    }
}

impl Write {
    pub fn set(cursor: &Cursor<'_>, names: &[String], value: Option<&JsonTemplate>) -> Self {
        Self {
            path: cursor.path.clone(),
            at: cursor.at,
            names: names.to_vec(),
            value: value.cloned(),
            is_set: true,
        }
    }

    pub fn write_back(cursor: &Cursor<'_>, names: &[String], value: Option<&JsonTemplate>) -> Self {
        Self {
            is_set: false,
            ..Self::set(cursor, names, value)
        }
    }
}

impl Resolver<'_> {
    /// Changes the place of the uses since `since`.
    pub(super) fn place_uses(&mut self, since: usize, place: Place) {
        for one in self.uses.iter_mut().skip(since) {
            one.place = place;
        }
    }

    /// Changes the place of the values since `since`: they are not in JSON, but in a form or a query.
    pub(super) fn place_parameters(&mut self, since: usize) {
        let uses = self.uses.iter_mut().skip(since);
        for one in uses.filter(|one| one.place == Place::Value) {
            one.place = Place::Parameter;
        }
    }

    /// Changes the place of the uses since `since`: they are those of this path. A value behind its `?` can be empty.
    pub(super) fn place_path(&mut self, since: usize, path: Option<&Template>) {
        self.place_uses(since, Place::Path);
        let count = path.map_or(usize::MAX, Template::count_in_segments);
        let Some(last) = self.uses.get_mut(since) else {
            return;
        };
        if last.expressions.len() > count {
            let behind = Use {
                path: last.path.clone(),
                at: last.at,
                text: last.text.clone(),
                place: Place::Text,
                expressions: last.expressions.split_off(count),
            };
            self.uses.push(behind);
        }
    }

    /// Reports problems of everything that the section reads and writes.
    pub(super) fn review(&mut self, subject: &Subject) {
        let uses = std::mem::take(&mut self.uses);
        let writes = std::mem::take(&mut self.writes);
        let when_path = format!("{}.when", subject.path);
        let when = uses.iter().find(|one| one.path == when_path);
        let when = when.and_then(|one| one.expressions.first());
        let is_left_out =
            when.is_some_and(|when| when.reads_of(Variable::Previous).next().is_some());
        let context = Context {
            subject,
            when,
            without_previous: subject
                .without_previous
                .as_ref()
                .filter(|one| one.is_certain || !is_left_out),
        };
        self.review_field(&context);
        for one in &uses {
            // The condition does not protect itself.
            let around = Context {
                when: context.when.filter(|_| one.path != when_path),
                ..context
            };
            for expression in &one.expressions {
                self.review_names(&context, one, expression);
                self.review_comparisons(&context, one, expression);
                self.review_emptiness(&context, one, expression);
                self.review_identity_id(&context, one, expression);
                self.review_failures(&around, one, expression);
            }
        }
        for write in &writes {
            self.review_write(&context, write);
        }
    }

    fn review_failures(&mut self, context: &Context<'_>, one: &Use, expression: &Expression) {
        if one.place.tolerates_failures() {
            return;
        }
        self.review_text(context, one, expression);
        self.review_required(one, expression);
        if !self.review_previous(context, one, expression) {
            self.review_absence(context, one, expression);
        }
    }

    /// Reports problems of messages that no check uses. Whether a path is only in some schemas depends on the check.
    pub(super) fn review_messages(&mut self) {
        let warnings = self.warnings.len();
        self.review(&Subject::default());
        self.warnings.truncate(warnings);
    }

    /// Returns the position of a byte of an expression in the file.
    fn position(&self, one: &Use, expression: &Expression, offset: Option<usize>) -> Position {
        let start = one.text.find(expression.source()).unwrap_or(0);
        let cursor = Cursor {
            node: None,
            at: one.at,
            path: one.path.clone(),
        };
        self.inside(&cursor, &one.text, start + offset.unwrap_or(0))
    }

    fn add(&mut self, path: &str, at: Position, finding: Finding) {
        let problem = Problem::new(path.to_owned(), at, finding.message);
        let problem = problem.with_hint(Some(finding.help));
        // A value that is missing in the environment may be right.
        if self.placeholders.contains(path) {
            return;
        }
        if finding.is_problem {
            self.problems.push(problem);
        } else {
            self.warnings.push(problem);
        }
    }
}

impl Context<'_> {
    /// Returns whether the section's condition reads the schema's id, or the expression itself does.
    fn knows_schema(&self, expression: Option<&Expression>) -> bool {
        self.when.into_iter().chain(expression).any(|one| {
            one.reads_of(Variable::Identity)
                .any(|read| read.path.first_name() == Some("schema_id"))
        })
    }
}

/// A problem or a warning.
struct Finding {
    is_problem: bool,
    message: String,
    help: String,
}

impl Finding {
    fn problem(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            is_problem: true,
            message: message.into(),
            help: help.into(),
        }
    }

    fn warning(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            is_problem: false,
            ..Self::problem(message, help)
        }
    }
}

/// Returns the steps of a path that an expression reads.
fn steps_of(path: &ReadPath) -> Vec<Step<'_>> {
    path.steps()
        .map(|step| match step {
            ReadStep::Name(name) => Step::Name(name),
            ReadStep::Index(index) => Step::Index(usize::try_from(index).unwrap_or(usize::MAX)),
        })
        .collect()
}
