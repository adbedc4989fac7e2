//! Compares what the settings read and write with the identity schemas: names, types, and values that may be absent.

mod absence;
mod names;
mod writes;

use super::{Cursor, Resolver};
use crate::base::diagnostics::{Position, Problem};
use crate::config::file;
use crate::expression::{Expression, JsonTemplate, ReadPath, ReadStep, Variable};
use crate::kratos::schema::Step;
use crate::kratos::{Field, Flow};

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
    /// A condition counts as false.
    MayFail,
    /// A template that is nothing but one expression, and can be null.
    Value,
    /// A text, a path or a header cannot be built.
    Text,
    /// Another message is used.
    Message,
}

/// A path of the identity that the settings write.
pub(super) struct Write {
    path: String,
    at: Position,
    names: Vec<String>,
    value: Option<JsonTemplate>,
    is_set: bool,
}

/// The section that reads and writes: a check or a subscription.
pub(super) struct Subject {
    path: String,
    /// The field of a check that does not run without it.
    present: Option<Field>,
    /// The field of a check, and its position.
    field: Option<(Field, Position)>,
    without_previous: Option<WithoutPrevious>,
}

/// Why `previous` can be absent, and what excludes that.
struct WithoutPrevious {
    reason: String,
    instead: String,
    /// Whether the section is used without `previous` for sure. Otherwise only reconciliation does, and it leaves out a
    /// subscription whose `when` reads `previous`.
    is_certain: bool,
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

impl Subject {
    pub fn check(cursor: &Cursor<'_>, file: &file::Check, flows: &[Flow]) -> Self {
        let field = file
            .field
            .as_ref()
            .and_then(|field| Field::parse(&field.0).ok());
        let at = cursor.key("field").at;
        let checks_absent = cursor
            .key("absent")
            .node
            .is_some_and(|node| node.to_value() == "check");
        let both = flows.contains(&Flow::Registration) && flows.contains(&Flow::Settings);
        Self {
            path: cursor.path.clone(),
            present: field.clone().filter(|_| !checks_absent),
            field: field.map(|field| (field, at)),
            without_previous: both.then(|| WithoutPrevious {
                reason: "a registration has no `previous`, so this fails for every sign-up"
                    .to_owned(),
                instead: "`flows: [settings]`".to_owned(),
                is_certain: true,
            }),
        }
    }

    /// `reconciles` says whether reconciliation runs on a schedule.
    pub fn subscription(cursor: &Cursor<'_>, file: &file::Subscription, reconciles: bool) -> Self {
        let has_previous = |event: &file::Event| {
            matches!(
                event,
                file::Event::IdentityUpdated | file::Event::CredentialsChanged
            )
        };
        let names = cursor.key("events");
        let without = file.events.iter().position(|event| !has_previous(event));
        let without = without.and_then(|index| {
            let name = names.item(index).node?.to_value();
            name.as_str().map(ToOwned::to_owned)
        });
        Self {
            path: cursor.path.clone(),
            present: None,
            field: None,
            without_previous: match without {
                Some(name) => Some(WithoutPrevious {
                    reason: format!(
                        "`{name}` has no `previous`, so this fails for every such event"
                    ),
                    instead: "`events: [identity.updated]`".to_owned(),
                    is_certain: true,
                }),
                None => found_by_reconciliation(file, reconciles),
            },
        }
    }
}

/// A change through the admin API has no `previous`.
fn found_by_reconciliation(file: &file::Subscription, reconciles: bool) -> Option<WithoutPrevious> {
    let updates = file
        .events
        .iter()
        .any(|event| matches!(event, file::Event::IdentityUpdated));
    (reconciles && updates).then(|| WithoutPrevious {
        reason:
            "a change that reconciliation finds has no `previous`, so its delivery cannot be built"
                .to_owned(),
        instead:
            "`when: has(previous.traits)`, with which reconciliation leaves out this subscription"
                .to_owned(),
        is_certain: false,
    })
}

impl Resolver<'_> {
    /// Changes the place of the uses since `since`.
    pub(super) fn place_uses(&mut self, since: usize, place: Place) {
        for one in self.uses.iter_mut().skip(since) {
            one.place = place;
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
            let is_when = one.path == when_path;
            // If the expression of `required` fails, the field is required.
            let may_fail = one.path == format!("{}.required", subject.path);
            // The condition does not protect itself.
            let around = Context {
                when: context.when.filter(|_| !is_when),
                ..context
            };
            for expression in &one.expressions {
                self.review_names(&context, one, expression);
                if !may_fail && !self.review_previous(&around, one, expression) {
                    self.review_absence(&around, one, expression);
                }
            }
        }
        for write in &writes {
            self.review_write(&context, write);
        }
    }

    /// Reports problems of messages that no check uses. Whether a path is only in some schemas depends on the check.
    pub(super) fn review_messages(&mut self) {
        let warnings = self.warnings.len();
        self.review(&Subject {
            path: String::new(),
            present: None,
            field: None,
            without_previous: None,
        });
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
