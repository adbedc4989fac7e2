//! Reports lists and objects that are inserted into a text.

use super::{Context, Finding, Use};
use crate::config::resolve::Resolver;
use crate::expression::{Expression, ReadPath, Variable};
use crate::kratos::schema::Types;

use super::names::steps_from_identity;

impl Resolver<'_> {
    pub(super) fn review_text(
        &mut self,
        context: &Context<'_>,
        one: &Use,
        expression: &Expression,
    ) {
        let Some((root, path)) = expression.single_path() else {
            return;
        };
        if !one.place.needs_a_text() {
            return;
        }
        let types = self.types_at(context, root, &path).without_null();
        let help = match types {
            Types::LIST => {
                let written = path.written(root, usize::MAX);
                format!("write `{{{written}.join(',')}}`, or insert one entry: `{{{written}[0]}}`")
            }
            Types::OBJECT => "insert one value of it, or send it in `json`".to_owned(),
            _ => return,
        };
        let at = self.position(one, expression, Some(0));
        let written = path.written(root, usize::MAX);
        let finding = Finding::warning(
            format!("`{written}` is {types}, and cannot be inserted into a text"),
            help,
        );
        self.add(&one.path, at, finding);
    }

    fn types_at(&self, context: &Context<'_>, root: Variable, path: &ReadPath) -> Types {
        let whole = path.names().is_some_and(|names| match root {
            Variable::Identity | Variable::Previous => {
                matches!(names.as_slice(), [] | ["traits" | "metadata_public"])
            }
            Variable::Flow => matches!(names.as_slice(), [] | ["transient_payload"]),
            Variable::Request => matches!(names.as_slice(), [] | ["headers"]),
            Variable::Response | Variable::Taken => {
                matches!(names.as_slice(), [] | ["headers"])
            }
            _ => false,
        });
        if whole {
            return Types::OBJECT;
        }
        let steps = steps_from_identity(context, root, path).unwrap_or_default();
        let knowledge = self.schemas.look_up(&steps);
        if steps.is_empty() || knowledge.named_in.is_empty() {
            return Types::ALL;
        }
        knowledge.types
    }
}
