//! Reports rules about an absent field in a check that does not run without the field.

use super::subject::WithoutField;
use super::{Context, Finding, Place, Use};
use crate::config::resolve::Resolver;
use crate::expression::{Assumption, Expression, ReadPath, Variable};

impl Resolver<'_> {
    pub(super) fn review_emptiness(
        &mut self,
        context: &Context<'_>,
        one: &Use,
        expression: &Expression,
    ) {
        let subject = context.subject;
        let Some(field) = subject
            .present
            .as_ref()
            .filter(|_| subject.without_field == WithoutField::Skipped)
        else {
            return;
        };
        let key = one.path.strip_prefix(&subject.path).unwrap_or_default();
        let is_refusal = key.starts_with(".refuse[");
        if !(key == ".when" || is_refusal) || one.place != Place::Condition {
            return;
        }
        let names: Vec<&str> = field.names().iter().map(String::as_str).collect();
        let present = [
            Assumption::present(Variable::Value, ReadPath::of_names(&[])),
            Assumption::present(Variable::Identity, ReadPath::of_dotted(&names)),
        ];
        if present
            .iter()
            .any(|present| expression.is_partly_excluded(present))
        {
            let at = self.position(one, expression, None);
            let finding = Finding::warning(
                format!(
                    "this is true only if `{field}` is absent, and without its field the check does not run"
                ),
                "write `required: true`, or `required: \"…\"` with a condition; with `absent: check` the check runs, and `value` is null",
            );
            self.add(&one.path, at, finding);
        }
    }
}
