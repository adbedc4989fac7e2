//! Reports values that are read without a guard although they may be absent.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Context, Finding, Place, Use, WithoutPrevious, steps_of};
use crate::config::resolve::Resolver;
use crate::expression::{Absent, Expression, Read, ReadPath, ReadStep, Variable};
use crate::kratos::schema::{Schemas, Types};

/// The maximum length of an expression that a `help:` line repeats.
const MAX_REPEATED: usize = 160;

/// A value that may be absent.
struct Candidate {
    root: Variable,
    path: ReadPath,
    reason: Reason,
    types: Types,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The identity schema does not require it.
    Optional,
    /// The identity schema allows null.
    Nullable,
    /// There is no identity schema.
    NoSchema,
    /// No schema describes `metadata_public`.
    Metadata,
}

impl Resolver<'_> {
    /// Reports `previous` that is read without a guard where it can be absent. Returns whether it was reported.
    pub(super) fn review_previous(
        &mut self,
        context: &Context<'_>,
        one: &Use,
        expression: &Expression,
    ) -> bool {
        let Some(WithoutPrevious {
            reason,
            instead,
            is_certain,
        }) = context.without_previous
        else {
            return false;
        };
        let absent = Absent::missing(Variable::Previous, ReadPath::of_names(&[]));
        let reads: Vec<Read> = expression.reads_of(Variable::Previous).collect();
        let Some(read) = reads.first() else {
            return false;
        };
        if matches!(one.place, Place::Message | Place::MayFail)
            || self.becomes_null(one.place, expression)
            || is_excluded(context, &absent)
            || !expression.without(&absent).may_fail
        {
            return false;
        }
        let longest = reads.iter().max_by_key(|read| read.path.steps().count());
        let path = longest.map_or(&read.path, |read| &read.path);
        let guard = path.guard(Variable::Previous);
        let help = match one.place {
            Place::Condition => format!("write `{}`, or {instead}", guarded(&guard, expression)),
            _ => match expression.single_path() {
                Some((_, path)) if one.place == Place::Value && !path.is_root() => {
                    let mark = path.steps().count() - 1;
                    format!(
                        "write `{{{}}}`, or {instead}",
                        path.written(Variable::Previous, mark)
                    )
                }
                _ => format!("add `when: {guard}`, or {instead}"),
            },
        };
        let at = self.position(one, expression, read.offset);
        let finding = if *is_certain {
            Finding::problem(reason.clone(), help)
        } else {
            Finding::warning(reason.clone(), help)
        };
        self.add(&one.path, at, finding);
        true
    }

    /// Reports values that the expression needs, and that may be absent in a valid identity.
    pub(super) fn review_absence(
        &mut self,
        context: &Context<'_>,
        one: &Use,
        expression: &Expression,
    ) {
        if matches!(one.place, Place::Message | Place::MayFail)
            || self.becomes_null(one.place, expression)
        {
            return;
        }
        let schemas = Arc::clone(&self.schemas);
        let mut seen = BTreeSet::new();
        for root in [Variable::Identity, Variable::Previous] {
            for read in expression.reads_of(root) {
                let fails = self
                    .candidates(&schemas, root, &read.path)
                    .into_iter()
                    .find(|candidate| {
                        let absent = candidate.absent();
                        !context.is_present(candidate)
                            && !is_excluded(context, &absent)
                            && expression.without(&absent).may_fail
                    });
                let Some(candidate) = fails else { continue };
                if !candidate.is_worth_a_warning(one.place)
                    || !seen.insert((root, candidate.path.clone()))
                {
                    continue;
                }
                let at = self.position(one, expression, read.offset);
                let finding = candidate.finding(one.place, &read.path, expression);
                self.add(&one.path, at, finding);
            }
        }
    }

    /// Returns whether a template is null without its value: its path has a `?`, or the schemas know it as optional.
    fn becomes_null(&self, place: Place, expression: &Expression) -> bool {
        place == Place::Value && expression.becomes_null(&self.optional_paths)
    }

    /// Returns the parts of a path that may be absent, the shortest first.
    fn candidates(&self, schemas: &Schemas, root: Variable, path: &ReadPath) -> Vec<Candidate> {
        let steps = steps_of(path);
        let whole = |reason| Candidate {
            root,
            path: path.clone(),
            reason,
            types: Types::ALL,
        };
        if steps.len() < 2 {
            return Vec::new();
        }
        match path.first_name() {
            Some("metadata_public") if !self.is_set_by_a_check(path) => {
                vec![whole(Reason::Metadata)]
            }
            Some("traits") if schemas.is_empty() && !self.lacks_a_schema => {
                vec![whole(Reason::NoSchema)]
            }
            Some("traits") if !schemas.is_empty() => {
                let knowledge = schemas.look_up(&steps);
                if knowledge.named_in.is_empty() {
                    return Vec::new();
                }
                let parts = knowledge.steps.iter().enumerate().skip(1);
                parts
                    .flat_map(|(at, presence)| {
                        let candidate = |reason| Candidate {
                            root,
                            path: path.beginning(at + 1),
                            reason,
                            types: knowledge.types,
                        };
                        let missing = presence.may_be_missing.then(|| candidate(Reason::Optional));
                        let null = presence.may_be_null.then(|| candidate(Reason::Nullable));
                        missing.into_iter().chain(null)
                    })
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns whether a check sets the value. Then its subscriptions may rely on it.
    fn is_set_by_a_check(&self, path: &ReadPath) -> bool {
        let written: Vec<String> = path
            .steps()
            .map(|step| match step {
                ReadStep::Name(name) => name.to_owned(),
                ReadStep::Index(index) => index.to_string(),
            })
            .collect();
        self.root.key("checks").entries().iter().any(|check| {
            let sets = check.value.get("set").map_or(&[][..], |set| set.entries());
            sets.iter().any(|set| {
                let names = set.key.split('.');
                names.zip(&written).all(|(one, other)| one == other)
            })
        })
    }
}

impl Candidate {
    fn absent(&self) -> Absent {
        match self.reason {
            Reason::Nullable => Absent::null(self.root, self.path.clone()),
            _ => Absent::missing(self.root, self.path.clone()),
        }
    }

    /// Without a schema, conditions are not reported: every condition would be.
    fn is_worth_a_warning(&self, place: Place) -> bool {
        self.reason != Reason::NoSchema || place != Place::Condition
    }

    fn finding(&self, place: Place, read: &ReadPath, expression: &Expression) -> Finding {
        let path = &self.path;
        let what = match self.reason {
            Reason::Optional => format!("`{path}` is optional in the identity schema"),
            Reason::Nullable => format!("`{path}` can be null in the identity schema"),
            Reason::NoSchema => {
                format!(
                    "without an identity schema, Vestibule does not know whether `{path}` is always present"
                )
            }
            Reason::Metadata => format!("`{path}` may be absent"),
        };
        let follows = match place {
            Place::Condition => "and this expression fails without it",
            _ => "and this cannot be built without it",
        };
        Finding::warning(
            format!("{what}, {follows}"),
            self.help(place, read, expression),
        )
    }

    fn help(&self, place: Place, read: &ReadPath, expression: &Expression) -> String {
        let guard = match self.reason {
            Reason::Nullable => format!("{} != null", self.path.written(self.root, usize::MAX)),
            _ => self.path.guard(self.root),
        };
        let mark = self.path.steps().count() - 1;
        let optional = read.written(self.root, mark);
        let default = default_of(self.types);
        match place {
            Place::Condition if self.reason == Reason::Nullable => {
                format!("write `{}`", guarded(&guard, expression))
            }
            Place::Condition => format!(
                "write `{}`, or read `{optional}.orValue({default})`",
                guarded(&guard, expression)
            ),
            _ => {
                let schema = match self.reason {
                    Reason::NoSchema => "set `kratos.identity_schema`, ",
                    _ => "",
                };
                match expression.single_path() {
                    Some(_) if place == Place::Value => {
                        format!("{schema}{}write `{{{optional}}}`", or(schema))
                    }
                    Some(_) => format!(
                        "{schema}add `when: {guard}`, or write `{{{optional}.orValue({default})}}`"
                    ),
                    None => format!("{schema}{}add `when: {guard}`", or(schema)),
                }
            }
        }
    }
}

fn or(before: &str) -> &'static str {
    if before.is_empty() { "" } else { "or " }
}

impl Context<'_> {
    /// Returns whether the check runs only if the value is present, because the value is its field or around it.
    fn is_present(&self, candidate: &Candidate) -> bool {
        let Some(field) = &self.subject.present else {
            return false;
        };
        let names = field.names();
        candidate.root == Variable::Identity
            && candidate.path.steps().count() <= names.len()
            && candidate
                .path
                .steps()
                .zip(names)
                .all(|(step, name)| match step {
                    ReadStep::Name(one) => one == name,
                    ReadStep::Index(index) => index.to_string() == *name,
                })
    }
}

/// Returns whether the section's condition is never true without the value.
fn is_excluded(context: &Context<'_>, absent: &Absent) -> bool {
    context
        .when
        .is_some_and(|when| !when.without(absent).may_hold)
}

/// Returns the expression with a guard before it, if it is short enough to be copied.
fn guarded(guard: &str, expression: &Expression) -> String {
    let source = expression.source().trim();
    if source.len() > MAX_REPEATED || source.contains('\n') {
        format!("{guard} && (…)")
    } else if source.contains("||") || source.contains('?') {
        format!("{guard} && ({source})")
    } else {
        format!("{guard} && {source}")
    }
}

/// Returns a value of these types that stands for an absent one.
fn default_of(types: Types) -> &'static str {
    match types.without_null() {
        Types::BOOLEAN => "false",
        Types::NUMBER | Types::WHOLE => "0",
        Types::LIST => "[]",
        Types::OBJECT => "{}",
        _ => "''",
    }
}
