//! Reports values that are read without a guard although they may be absent.

use std::collections::BTreeSet;

use super::candidates::{Candidate, Reason};
use super::guards::{Guard, guarded};
use super::subject::WithoutField;
use super::{Context, Finding, Place, Use};
use crate::config::resolve::Resolver;
use crate::expression::{Assumption, Expression, ReadPath, ReadStep, Variable};
use crate::kratos::schema::Types;

/// The variables that can have absent values.
const ROOTS: [Variable; 6] = [
    Variable::Identity,
    Variable::Previous,
    Variable::Value,
    Variable::Flow,
    Variable::Request,
    Variable::Checks,
];

impl Resolver<'_> {
    /// Reports values that the expression needs, and that may be absent.
    pub(super) fn review_absence(
        &mut self,
        context: &Context<'_>,
        one: &Use,
        expression: &Expression,
    ) {
        if self.becomes_null(one.place, expression) {
            return;
        }
        let mut seen = BTreeSet::new();
        for root in ROOTS {
            for read in expression.reads_of(root) {
                let candidates = self.candidates(context.subject, root, &read.path);
                let fails = candidates.into_iter().find(|candidate| {
                    let assumed = candidate.assumption();
                    !context.is_present(candidate, one.place)
                        && !is_excluded(context, &assumed)
                        && one.place.fails_by(expression.under(&assumed))
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

    /// Reports an expression of `required` that reads `value`, which is null wherever it is evaluated.
    pub(super) fn review_required(&mut self, one: &Use, expression: &Expression) {
        let Some(read) = expression.reads_of(Variable::Value).next() else {
            return;
        };
        if one.place != Place::Required {
            return;
        }
        let absent = Assumption::null(Variable::Value, ReadPath::of_names(&[]));
        let effect = expression.under(&absent);
        let follows = match (effect.may_fail, effect.may_hold) {
            (true, _) => "so this expression fails, and the field is always required",
            (false, false) => "so this expression is never true",
            (false, true) => return,
        };
        let at = self.position(one, expression, read.offset);
        let finding = Finding::warning(
            format!(
                "`required` is evaluated where the field is absent and `value` is null, {follows}"
            ),
            "read other values, as in `required: \"identity.traits.kind == 'company'\"`; write a condition about the value as `refuse: [{when: …}]`",
        );
        self.add(&one.path, at, finding);
    }

    /// Returns whether a template is null without its value: its path has a `?`, or the schemas know it as optional.
    pub(super) fn becomes_null(&self, place: Place, expression: &Expression) -> bool {
        matches!(place, Place::Value | Place::Parameter)
            && expression.becomes_null(&self.optional_paths)
    }
}

impl Candidate {
    fn assumption(&self) -> Assumption {
        match self.reason {
            Reason::Nullable | Reason::AbsentField | Reason::NullInKratos => {
                Assumption::null(self.root, self.path.clone())
            }
            _ => Assumption::missing(self.root, self.path.clone()),
        }
    }

    /// Without a schema, conditions are not reported: every condition would be.
    fn is_worth_a_warning(&self, place: Place) -> bool {
        self.reason != Reason::NoSchema || !place.is_condition()
    }

    fn finding(&self, place: Place, read: &ReadPath, expression: &Expression) -> Finding {
        let follows = match place {
            Place::Required => "and without it this expression fails, so the field is required",
            _ if place.is_condition() => "and this expression fails without it",
            _ => "and this cannot be built without it",
        };
        Finding::warning(
            format!("{}, {follows}", self.what()),
            self.help(place, read, expression),
        )
    }

    fn what(&self) -> String {
        let path = &self.path;
        let written = path.written(self.root, usize::MAX);
        match self.reason {
            Reason::Optional => format!("`{path}` is optional in the identity schema"),
            Reason::Nullable => format!("`{path}` can be null in the identity schema"),
            Reason::NoSchema => format!(
                "without an identity schema, Vestibule does not know whether `{path}` is always present"
            ),
            Reason::Metadata => format!("`{path}` may be absent"),
            Reason::NotRun => {
                format!(
                    "`{written}.response` is missing for a sign-up for which `{path}` does not run"
                )
            }
            Reason::AbsentField => {
                "with `absent: check`, `value` is null if the field is absent".to_owned()
            }
            Reason::NullInKratos => format!("`{written}` can be null"),
            Reason::NotInKratos => format!("`{written}` may be absent"),
            Reason::NotInSettings => format!("Kratos drops `{written}` in settings"),
        }
    }

    fn guard(&self) -> Guard {
        let written = self.path.written(self.root, usize::MAX);
        match self.reason {
            Reason::NotRun => Guard::of(format!("has({written}.response)")),
            _ if self.is_both => {
                let mark = self.path.steps().count() - 1;
                Guard::not_null(&format!(
                    "{}.orValue(null)",
                    self.path.written(self.root, mark)
                ))
            }
            _ if self.reason.is_null() => Guard::not_null(&written),
            _ => Guard::has(&self.path, self.root),
        }
    }

    /// Returns whether the value can have a mark in place of a guard.
    fn can_be_marked(&self) -> bool {
        !matches!(self.reason, Reason::NotRun | Reason::AbsentField)
    }

    fn help(&self, place: Place, read: &ReadPath, expression: &Expression) -> String {
        let guard = self.guard();
        let mark = self.path.steps().count().saturating_sub(1);
        let optional = read.written(self.root, mark);
        let is_null = self.is_both || self.reason.is_null();
        let default = (self.can_be_marked() && !is_null)
            .then(|| format!("{optional}.orValue({})", default_of(self.types)));
        if place.is_condition() {
            let name = self.name();
            let written = guarded(&guard, place, expression, &name);
            return match default {
                Some(default) => format!("write `{written}`, or read `{default}`"),
                None => format!("write `{written}`"),
            };
        }
        let schema = match self.reason {
            Reason::NoSchema => "set `kratos.identity_schema`, ",
            _ => "",
        };
        let or = if schema.is_empty() { "" } else { "or " };
        let holds = guard.holds;
        match (place, expression.single_path(), default) {
            (Place::Value | Place::Parameter, Some(_), _) if self.can_be_marked() => {
                format!("{schema}{or}write `{{{optional}}}`")
            }
            (Place::Text, Some(_), Some(default)) => {
                format!("{schema}add `when: {holds}`, or write `{{{default}}}`")
            }
            _ => format!("{schema}{or}add `when: {holds}`"),
        }
    }

    /// Returns the last name of the path.
    fn name(&self) -> String {
        let last = self.path.steps().last();
        match last {
            Some(ReadStep::Name(name)) => name.to_owned(),
            Some(ReadStep::Index(index)) => format!("[{index}]"),
            None => self.root.name().to_owned(),
        }
    }
}

impl Context<'_> {
    /// Returns whether the check runs only if the value is present, because the value is its field or around it.
    fn is_present(&self, candidate: &Candidate, place: Place) -> bool {
        let is_unknown = self.subject.without_field == WithoutField::Unknown;
        if is_unknown && candidate.root == Variable::Identity {
            return true;
        }
        let Some(field) = self.subject.present.as_ref() else {
            return false;
        };
        let names = field.names();
        let length = candidate.path.steps().count();
        candidate.root == Variable::Identity
            && length <= names.len()
            // `required` is about an absent field.
            && !(place == Place::Required && length == names.len())
            && candidate.path.meets(names)
    }
}

/// Returns whether the section's condition is never true under the assumption.
pub(super) fn is_excluded(context: &Context<'_>, assumed: &Assumption) -> bool {
    context
        .when
        .is_some_and(|when| !when.under(assumed).may_hold)
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
