//! Reports traits that the identity schemas do not name.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Context, Finding, Use, steps_of};
use crate::base::diagnostics::listed;
use crate::config::resolve::Resolver;
use crate::expression::{Expression, ReadPath, Variable};
use crate::kratos::schema::{Knowledge, Schemas, Step, Types, dotted};

/// The maximum number of traits in a `help:` line.
const MAX_LISTED: usize = 12;
/// Names for the length of a text in other languages.
const LENGTHS: [&str; 3] = ["length", "len", "size"];

impl Resolver<'_> {
    pub(super) fn review_field(&mut self, context: &Context<'_>) {
        let Some((field, at)) = &context.subject.field else {
            return;
        };
        let schemas = Arc::clone(&self.schemas);
        let steps = Step::of_names(field.names().iter().map(String::as_str));
        let knowledge = schemas.look_up(&steps);
        let found = unknown(&schemas, &steps, &knowledge, None).filter(|finding| {
            finding.is_problem || knowledge.named_in.is_empty() || !context.knows_schema(None)
        });
        if let Some(finding) = found {
            let path = format!("{}.field", context.subject.path);
            self.add(&path, *at, finding);
        }
    }

    /// Reports the traits that an expression reads or tests, and that no schema has.
    pub(super) fn review_names(
        &mut self,
        context: &Context<'_>,
        one: &Use,
        expression: &Expression,
    ) {
        let schemas = Arc::clone(&self.schemas);
        let knows_schema = context.knows_schema(Some(expression));
        let mut seen = BTreeSet::new();
        for root in [Variable::Identity, Variable::Previous, Variable::Value] {
            for read in expression.reads_of(root) {
                let Some(steps) = steps_from_identity(context, root, &read.path) else {
                    continue;
                };
                // The field itself is reported at the field.
                if root == Variable::Value && read.path.is_root() {
                    continue;
                }
                let knowledge = schemas.look_up(&steps);
                let written = (root, read.path.clone());
                let finding = unknown(&schemas, &steps, &knowledge, Some((root, &read.path)));
                let Some(finding) = finding else { continue };
                let is_partial = !finding.is_problem && !knowledge.named_in.is_empty();
                if (is_partial && knows_schema) || !seen.insert(written) {
                    continue;
                }
                let at = self.position(one, expression, read.offset);
                self.add(&one.path, at, finding);
            }
        }
    }
}

/// Returns the path from the identity on, if the path leads to a trait.
pub(super) fn steps_from_identity<'p>(
    context: &'p Context<'_>,
    root: Variable,
    path: &'p ReadPath,
) -> Option<Vec<Step<'p>>> {
    let steps = steps_of(path);
    if root != Variable::Value {
        return (path.first_name() == Some("traits") && steps.len() > 1).then_some(steps);
    }
    let (field, _) = context.subject.field.as_ref()?;
    let names = Step::of_names(field.names().iter().map(String::as_str));
    Some(names.into_iter().chain(steps).collect())
}

/// Returns a problem if no schema names the path, and a warning if only some do.
pub(super) fn unknown(
    schemas: &Schemas,
    steps: &[Step<'_>],
    knowledge: &Knowledge<'_>,
    written: Option<(Variable, &ReadPath)>,
) -> Option<Finding> {
    if schemas.is_empty() {
        return None;
    }
    let path = dotted(steps);
    if knowledge.is_unknown() {
        return Some(in_no_schema(schemas, steps, knowledge, written));
    }
    if knowledge.named_in.is_empty() {
        return Some(Finding::warning(
            format!(
                "the identity schema does not name `{path}`, and allows every name (`additionalProperties: true`)"
            ),
            correction(schemas, steps),
        ));
    }
    let without: Vec<&str> = [&knowledge.unknown_in[..], &knowledge.allowed_in].concat();
    (!without.is_empty()).then(|| {
        let plural = if without.len() == 1 {
            ("schema", "has")
        } else {
            ("schemas", "have")
        };
        Finding::warning(
            format!(
                "the identity {} {} {} no `{path}`",
                plural.0,
                listed(without.iter().copied()),
                plural.1
            ),
            format!("add `when: \"{}\"`", of_schemas(&knowledge.named_in)),
        )
    })
}

/// Returns the condition that an identity has one of these schemas.
pub(super) fn of_schemas(ids: &[&str]) -> String {
    match ids {
        [one] => format!("identity.schema_id == '{one}'"),
        several => {
            let quoted: Vec<String> = several.iter().map(|id| format!("'{id}'")).collect();
            format!("identity.schema_id in [{}]", quoted.join(", "))
        }
    }
}

fn in_no_schema(
    schemas: &Schemas,
    steps: &[Step<'_>],
    knowledge: &Knowledge<'_>,
    written: Option<(Variable, &ReadPath)>,
) -> Finding {
    let path = dotted(steps);
    let parent = &steps[..knowledge.known_steps.clamp(1, steps.len())];
    let next = steps.get(parent.len());
    let types = knowledge.known_types;
    let holds_next = match next {
        Some(Step::Index(_)) => types.contains(Types::LIST),
        _ => types.contains(Types::OBJECT),
    };
    if types == Types::NONE || holds_next {
        let message = match schemas.ids().count() {
            1 => format!("the identity schema has no `{path}`"),
            _ => format!("no identity schema has `{path}`"),
        };
        return Finding::problem(message, correction(schemas, steps));
    }
    let before = dotted(parent);
    let step = next.map(|step| dotted(&[*step])).unwrap_or_default();
    let help = match (written, next) {
        (Some((root, read)), Some(Step::Name(name))) if LENGTHS.contains(name) => {
            let taken = read.steps().count() - (steps.len() - parent.len());
            let value = read.beginning(taken).written(root, usize::MAX);
            format!("write `size({value})`")
        }
        (_, Some(Step::Name(_))) if types.contains(Types::LIST) => {
            format!(
                "name an entry, as in `{before}.0.{step}` in a field, or loop: `list.exists(x, x.{step} == \"…\")`"
            )
        }
        _ => format!("read `{before}`"),
    };
    Finding::problem(
        format!("`{before}` is {types} in the identity schema, so it has no `{step}`"),
        help,
    )
}

/// Returns the nearest trait, or the traits that exist.
fn correction(schemas: &Schemas, steps: &[Step<'_>]) -> String {
    if let Some(near) = schemas.nearest(steps) {
        return format!("did you mean `{near}`?");
    }
    let paths = schemas.paths();
    let more = if paths.len() > MAX_LISTED {
        ", …"
    } else {
        ""
    };
    let shown = paths.iter().map(String::as_str).take(MAX_LISTED);
    if more.is_empty() {
        format!(
            "add it to the identity schema, or use one of its traits: {}",
            listed(shown)
        )
    } else {
        let names: Vec<String> = shown.map(|path| format!("`{path}`")).collect();
        format!(
            "add it to the identity schema, or use one of its traits: {}{more}",
            names.join(", ")
        )
    }
}
