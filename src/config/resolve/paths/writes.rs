//! Reports traits that the settings write and that Kratos would refuse.

use std::sync::Arc;

use super::names::{of_schemas, unknown};
use super::{Context, Finding, Write};
use crate::base::diagnostics::listed;
use crate::config::resolve::Resolver;
use crate::expression::JsonTemplate;
use crate::kratos::schema::{Knowledge, Schemas, Step, Types, dotted};

impl Resolver<'_> {
    pub(super) fn review_write(&mut self, context: &Context<'_>, write: &Write) {
        if write.names.first().map(String::as_str) != Some("traits") {
            return;
        }
        let schemas = Arc::clone(&self.schemas);
        if schemas.is_empty() {
            return;
        }
        let steps = Step::of_names(write.names.iter().map(String::as_str));
        let mut findings = Vec::new();
        compare(&schemas, write, &steps, write.value.as_ref(), &mut findings);
        for finding in findings {
            if finding.is_problem || !context.knows_schema(None) {
                self.add(&write.path, write.at, finding);
            }
        }
    }
}

/// Compares a value that is written, and everything in it.
fn compare(
    schemas: &Schemas,
    write: &Write,
    steps: &[Step<'_>],
    value: Option<&JsonTemplate>,
    findings: &mut Vec<Finding>,
) {
    let knowledge = schemas.look_up(steps);
    if let Some(finding) = refused_name(schemas, write, steps, &knowledge) {
        findings.push(finding);
        return;
    }
    match value {
        Some(JsonTemplate::Map(members))
            if !members.is_empty() && knowledge.types.contains(Types::OBJECT) =>
        {
            for (name, member) in members {
                let inner = [steps, &[Step::Name(name)]].concat();
                compare(schemas, write, &inner, Some(member), findings);
            }
        }
        Some(JsonTemplate::List(items)) if knowledge.types.contains(Types::LIST) => {
            for (index, item) in items.iter().enumerate() {
                let inner = [steps, &[Step::Index(index)]].concat();
                compare(schemas, write, &inner, Some(item), findings);
            }
        }
        Some(value) => findings.extend(refused_value(write, steps, &knowledge, value)),
        None => {}
    }
}

fn refused_name(
    schemas: &Schemas,
    write: &Write,
    steps: &[Step<'_>],
    knowledge: &Knowledge<'_>,
) -> Option<Finding> {
    let path = dotted(steps);
    let all = schemas.ids().count();
    let unknown = unknown(schemas, steps, knowledge, None);
    let help = unknown.as_ref().map_or_else(
        || "remove `additionalProperties: false` where the schema names it".to_owned(),
        |unknown| unknown.help.clone(),
    );
    if knowledge.forbidden_in.len() == all && knowledge.known_types.contains(Types::OBJECT) {
        return Some(Finding::problem(
            format!(
                "the identity schema forbids `{path}` (`additionalProperties: false`), so Kratos would refuse {}",
                write.refused()
            ),
            help,
        ));
    }
    if unknown.as_ref().is_some_and(|one| one.is_problem) || knowledge.forbidden_in.is_empty() {
        return unknown;
    }
    let allowed: Vec<&str> = schemas
        .ids()
        .filter(|id| !knowledge.forbidden_in.contains(id))
        .collect();
    Some(Finding::warning(
        format!(
            "{} forbids `{path}`, so Kratos would refuse {} with it",
            listed(knowledge.forbidden_in.iter().copied()),
            write.refused()
        ),
        format!("add `when: \"{}\"`", of_schemas(&allowed)),
    ))
}

fn refused_value(
    write: &Write,
    steps: &[Step<'_>],
    knowledge: &Knowledge<'_>,
    value: &JsonTemplate,
) -> Option<Finding> {
    let path = dotted(steps);
    let (types, constant) = match value {
        JsonTemplate::Null => return None,
        JsonTemplate::Bool(bool) => (Types::BOOLEAN, Some((*bool).into())),
        JsonTemplate::Number(number) => {
            let number = serde_json::Value::Number(number.clone());
            (Types::of(&number), Some(number))
        }
        JsonTemplate::Text(template) => {
            if template.only_expression().is_some() {
                return None;
            }
            (Types::TEXT, template.constant().map(Into::into))
        }
        JsonTemplate::List(_) => (Types::LIST, None),
        JsonTemplate::Map(_) => (Types::OBJECT, None),
    };
    if !knowledge.types.meets(types) {
        let help = match (&constant, knowledge.types.without_null()) {
            (
                Some(serde_json::Value::String(text)),
                Types::NUMBER | Types::WHOLE | Types::BOOLEAN,
            ) if !text.is_empty() && !text.contains(char::is_whitespace) => {
                format!("remove the quotes: {text}")
            }
            (Some(scalar), Types::TEXT) => format!("quote it: \"{scalar}\""),
            (_, wanted) => format!("write {wanted}"),
        };
        return Some(Finding::problem(
            format!(
                "`{path}` is {} in the identity schema, and this is {types}, so Kratos would refuse {}",
                knowledge.types,
                write.refused()
            ),
            help,
        ));
    }
    let values = knowledge.values.as_ref()?;
    let constant = constant?;
    (!values.contains(&constant)).then(|| {
        let known: Vec<String> = values.iter().map(ToString::to_string).collect();
        Finding::problem(
            format!(
                "the identity schema does not allow {constant} as `{path}`, so Kratos would refuse {}",
                write.refused()
            ),
            format!("use {}", known.join(" or ")),
        )
    })
}

impl Write {
    fn refused(&self) -> &'static str {
        if self.is_set {
            "every sign-up"
        } else {
            "the change"
        }
    }
}
