//! Reports comparisons that are never true, whatever a visitor enters.

use std::sync::Arc;

use serde_json::Value;

use super::names::steps_from_identity;
use super::{Context, Finding, Use};
use crate::base::diagnostics::{did_you_mean, listed};
use crate::config::resolve::Resolver;
use crate::expression::{Compared, Comparison, Expression, Variable};
use crate::kratos::schema::Types;

impl Resolver<'_> {
    pub(super) fn review_comparisons(
        &mut self,
        context: &Context<'_>,
        one: &Use,
        expression: &Expression,
    ) {
        for comparison in expression.comparisons() {
            let finding = of_optional(&comparison)
                .or_else(|| of_status(&comparison))
                .or_else(|| self.of_schema_id(&comparison))
                .or_else(|| self.of_trait(context, &comparison));
            if let Some(finding) = finding {
                let at = self.position(one, expression, comparison.offset);
                self.add(&one.path, at, finding);
            }
        }
    }

    /// A schema that the settings do not name.
    fn of_schema_id(&self, comparison: &Comparison) -> Option<Finding> {
        let Comparison {
            root, path, with, ..
        } = comparison;
        let Compared::Constant(Value::String(id)) = with else {
            return None;
        };
        let is_id =
            *root == Variable::Identity && path.names().is_some_and(|names| names == ["schema_id"]);
        let names_ids = self
            .root
            .key("kratos")
            .key("identity_schemas")
            .node
            .is_some();
        let ids = || self.schemas.ids();
        if !is_id || !names_ids || self.schemas.is_empty() || ids().any(|known| known == id) {
            return None;
        }
        let help = did_you_mean(id, ids()).unwrap_or_else(|| {
            format!(
                "the schemas in `kratos.identity_schemas` are {}",
                listed(ids())
            )
        });
        let message = format!("no identity schema has the id `{id}`, so this is never equal");
        Some(Finding::warning(message, help))
    }

    /// A value of another type than the trait has, or none of its values.
    fn of_trait(&self, context: &Context<'_>, comparison: &Comparison) -> Option<Finding> {
        let Compared::Constant(constant) = &comparison.with else {
            return None;
        };
        let schemas = Arc::clone(&self.schemas);
        // Null and an empty text are compared to find absent values.
        if constant.is_null() || constant == "" || schemas.is_empty() {
            return None;
        }
        let steps = steps_from_identity(context, comparison.root, &comparison.path)?;
        let knowledge = schemas.look_up(&steps);
        let path = comparison.path.written(comparison.root, usize::MAX);
        if knowledge.named_in.is_empty() || !knowledge.allowed_in.is_empty() {
            return None;
        }
        let kind = Types::of(constant);
        if knowledge.types.is_given() && !knowledge.types.meets(kind) {
            let types = knowledge.types;
            return Some(Finding::warning(
                format!("`{path}` is {types} in the identity schema, and never equals {kind}"),
                format!("compare it with {types}"),
            ));
        }
        let values = knowledge
            .values
            .filter(|values| !values.contains(constant))?;
        let known: Vec<String> = values.iter().map(written).collect();
        let near = constant
            .as_str()
            .and_then(|text| did_you_mean(text, values.iter().filter_map(Value::as_str)));
        Some(Finding::warning(
            format!(
                "the identity schema does not allow {} as `{path}`, so this is never equal",
                written(constant)
            ),
            near.unwrap_or_else(|| format!("use {}", known.join(" or "))),
        ))
    }
}

/// An optional, which equals only another optional.
fn of_optional(comparison: &Comparison) -> Option<Finding> {
    let Comparison {
        root,
        path,
        is_optional,
        with,
        ..
    } = comparison;
    let constant = match with {
        Compared::Constant(constant) => Some(constant),
        Compared::Read => None,
        Compared::Other => return None,
    };
    if !is_optional {
        return None;
    }
    let default = match constant {
        Some(Value::Bool(_)) => "false",
        Some(Value::Number(_)) => "0",
        Some(Value::Null) | None => "null",
        Some(_) => "''",
    };
    let optional = path.written(*root, path.steps().count() - 1);
    Some(Finding::warning(
        format!("`{optional}` is an optional value, which never equals another value"),
        format!("write `{optional}.orValue({default})`"),
    ))
}

/// A status is a number.
fn of_status(comparison: &Comparison) -> Option<Finding> {
    let Comparison {
        root, path, with, ..
    } = comparison;
    let Compared::Constant(Value::String(text)) = with else {
        return None;
    };
    let is_status = path.names().is_some_and(|names| is_status(*root, &names));
    let written = path.written(*root, usize::MAX);
    is_status.then(|| {
        Finding::warning(
            format!("`{written}` is a number, and never equals a text"),
            format!("remove the quotes: `{written} == {text}`"),
        )
    })
}

fn is_status(root: Variable, names: &[&str]) -> bool {
    match root {
        Variable::Response | Variable::Taken => names == ["status"],
        Variable::Checks => matches!(names, [_, "response", "status"]),
        _ => false,
    }
}

/// Returns a value as an expression writes it.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{text}'"),
        other => other.to_string(),
    }
}
