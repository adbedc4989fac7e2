//! The members of the variables that Vestibule's body template makes, and hints for names that they lack.

use super::Variable;

/// Members of an identity that Kratos does not show to hooks.
pub(super) const HIDDEN: [&str; 2] = ["credentials", "metadata_admin"];

/// Returns the members of a variable, or `None` if they are not known.
pub(super) fn members(root: Variable) -> Option<&'static [&'static str]> {
    match root {
        Variable::Identity => Some(&[
            "traits",
            "metadata_public",
            "id",
            "schema_id",
            "external_id",
            "state",
            "state_changed_at",
            "created_at",
            "updated_at",
            "verifiable_addresses",
            "recovery_addresses",
        ]),
        Variable::Previous => Some(&["traits", "metadata_public"]),
        Variable::Flow => Some(&[
            "id",
            "type",
            "issued_at",
            "expires_at",
            "return_to",
            "transient_payload",
        ]),
        Variable::Request => Some(&["headers", "client_ip"]),
        Variable::Response => Some(&["status", "headers", "body"]),
        Variable::Taken => Some(&["status", "headers", "body", "key"]),
        Variable::Value | Variable::Method | Variable::Now | Variable::Checks | Variable::Lists => {
            None
        }
    }
}

/// Returns what to write for a name that the variable lacks, if it is neither one of its members nor near to one.
pub(super) fn instead(root: Variable, name: &str) -> Option<String> {
    match (root, name) {
        (Variable::Identity | Variable::Previous, _) if HIDDEN.contains(&name) => Some(format!(
            "Kratos does not show `{name}` to hooks; use `metadata_public`"
        )),
        (Variable::Identity | Variable::Previous, "metadata") => {
            Some(format!("write `{}.metadata_public`", root.name()))
        }
        (Variable::Identity | Variable::Previous, _) => {
            Some(format!("write `{}.traits.{name}`", root.name()))
        }
        (Variable::Flow, _) => Some(format!("write `flow.transient_payload.{name}`")),
        _ => None,
    }
}
