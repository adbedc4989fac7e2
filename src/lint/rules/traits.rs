//! The identity schemas against the checks.

use super::super::context::{Context, SettingsFile};
use super::super::finding::Findings;
use crate::base::diagnostics::listed;
use crate::config::Settings;
use crate::kratos::schema::{Schemas, Step};

/// Names of traits that grant rights.
const RIGHTS: [&str; 12] = [
    "role",
    "roles",
    "admin",
    "is_admin",
    "isadmin",
    "is_staff",
    "is_superuser",
    "superuser",
    "permission",
    "permissions",
    "groups",
    "scopes",
];

/// Applies the rules.
pub fn check(context: &Context<'_>, findings: &mut Findings) {
    let (Some(file), Some(schemas)) = (context.settings, &context.schemas) else {
        return;
    };
    check_ids(context, file, schemas, findings);
    check_fields(context, file, schemas, findings);
    check_rights(context, file, schemas, findings);
}

/// Returns what the report calls the source of the identity schemas.
fn source(context: &Context<'_>) -> &'static str {
    match context.version {
        Some(_) => "the running Kratos",
        None => "kratos.yml",
    }
}

/// The settings name each identity schema by the id that Kratos gives it.
fn check_ids(
    context: &Context<'_>,
    file: &SettingsFile,
    schemas: &Schemas,
    findings: &mut Findings,
) {
    let Some(place) = file.tree.find(&["kratos", "identity_schemas"]) else {
        return;
    };
    let named: Vec<&str> = place.entries().iter().map(|(id, _)| id.as_str()).collect();
    let known: Vec<&str> = schemas.ids().collect();
    let lacks = |all: &[&str], id: &&str| !all.contains(id);
    let unknown = named.iter().copied().filter(|id| lacks(&known, id));
    let unnamed = known.iter().copied().filter(|id| lacks(&named, id));
    let (unknown, unnamed): (Vec<&str>, Vec<&str>) = (unknown.collect(), unnamed.collect());
    if named.is_empty() || unknown.is_empty() && unnamed.is_empty() {
        return;
    }
    let source = source(context);
    findings.warning(
        "schema-ids",
        place,
        format!(
            "the ids differ from those of {source}; only in `identity_schemas`: {}; only in {source}: {}",
            listed(unknown),
            listed(unnamed)
        ),
        format!("use the ids of {source}: {}", listed(known)),
    );
}

fn check_fields(
    context: &Context<'_>,
    file: &SettingsFile,
    schemas: &Schemas,
    findings: &mut Findings,
) {
    let source = source(context);
    for check in &file.settings.checks {
        let Some(field) = &check.field else {
            continue;
        };
        let path = field.node_name();
        let steps = Step::of_names(path.split('.'));
        if !schemas.look_up(&steps).is_unknown() {
            continue;
        }
        let near = schemas.nearest(&steps);
        findings.problem(
            "unknown-field",
            file.tree.nearest(&["checks", &check.name, "field"]),
            format!("no identity schema of {source} has `{path}`"),
            near.map_or_else(
                || "add the trait to the identity schema, or correct the field".to_owned(),
                |near| format!("did you mean `{near}`?"),
            ),
        );
    }
}

fn check_rights(
    context: &Context<'_>,
    file: &SettingsFile,
    schemas: &Schemas,
    findings: &mut Findings,
) {
    for UncheckedRight { message, help } in unchecked_rights(&file.settings, schemas) {
        let place = context.kratos.nearest(&["identity", "schemas"]);
        findings.warning("unchecked-right", place, message, help);
    }
}

/// A trait that grants rights, and that no check is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UncheckedRight {
    /// What every visitor can do.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

/// Returns the traits that grant rights by their name, and that no check is about.
#[must_use]
pub fn unchecked_rights(settings: &Settings, schemas: &Schemas) -> Vec<UncheckedRight> {
    let mut unchecked = Vec::new();
    for path in schemas.paths() {
        let names: Vec<String> = path.split('.').map(ToOwned::to_owned).collect();
        let last = names
            .last()
            .map(|name| name.to_lowercase())
            .unwrap_or_default();
        let checks = settings.checks.iter();
        let mut fields = checks.filter_map(|check| check.field.as_ref());
        if !RIGHTS.contains(&last.as_str()) || fields.any(|field| field.meets(&names)) {
            continue;
        }
        unchecked.push(UncheckedRight {
            message: format!("every visitor can set `{path}` at sign-up and in settings, and no check is about it"),
            help: format!("add a check in vestibule.yaml: {last}: {{field: {path}, refuse: [{{when: \"…\"}}]}}; or keep the value in `metadata_public`"),
        });
    }
    unchecked
}
