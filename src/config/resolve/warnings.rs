//! Warns about settings that are valid, but probably a mistake.

use super::{Cursor, Resolver};
use crate::checks::{Absent, Check, Mode, Policy, Reads};
use crate::expression::Variable;
use crate::kratos::Flow;
use crate::kratos::schema::{TraitType, trait_type};

impl<'a> Resolver<'a> {
    pub(super) fn warn_about_checks(&mut self, checks: &[(Check, Cursor<'a>)]) {
        for (check, cursor) in checks {
            self.warn_about_types(check, cursor);
            self.warn_about_accept(check, cursor);
            self.warn_about_reserve(check, cursor);
            self.warn_about_immutable(check, cursor);
        }
    }

    /// A check that compares a field with the previous one keeps the value only until the visitor empties the field. And
    /// `immutable` keeps it only while `when` is true.
    fn warn_about_immutable(&mut self, check: &Check, cursor: &Cursor<'a>) {
        let Some(field) = &check.field else {
            return;
        };
        let mut when = check
            .when
            .iter()
            .flat_map(|when| when.paths(Variable::Identity));
        let changeable =
            when.find(|path| path.first_name() == Some("traits") && !path.is_within(field.names()));
        if let (true, Some(path)) = (check.immutable, changeable) {
            self.warn(
                &cursor.key("when"),
                format!("`immutable` counts only while `when` is true, and a visitor can change `{path}`, which `when` reads"),
                "remove `when`, or read only what no visitor can change, such as `identity.schema_id`",
            );
        }
        let skips = check.absent == Absent::Skip && check.required_if.is_none();
        let refuses = check.flows.contains(&Flow::Settings) && !check.refuse.is_empty();
        let compares = || {
            let mut read = check
                .conditions()
                .flat_map(|one| one.paths(Variable::Previous));
            read.any(|path| path.meets(field.names()))
        };
        if !check.immutable && skips && refuses && compares() {
            self.warn(
                &cursor.key("refuse"),
                format!("a visitor can empty `{field}`, because an absent field skips the check, and then choose any value"),
                "if the value cannot change once it is there, write `immutable: true` in place of the comparison with `previous`; \
                 if it can, write `required: true`",
            );
        }
    }

    fn warn_about_reserve(&mut self, check: &Check, cursor: &Cursor<'a>) {
        if check.reserve.is_some() && !self.has_admin_url() {
            self.warn(
                &cursor.key("reserve"),
                "without Kratos's admin API, Vestibule cannot look up sign-ups: a client that disconnects at the right moment keeps its \
                 account while what was reserved for it is released, and a form that was refused by Kratos may have to wait until it expires",
                "set `kratos: {admin_url: \"http://kratos:4434\"}`",
            );
        }
    }

    /// In Kratos, a trait without a type can hold anything. A visitor can send a list where the check expects a text.
    fn warn_about_types(&mut self, check: &Check, cursor: &Cursor<'a>) {
        let Some(schema) = self.identity_schema.clone() else {
            return;
        };
        let reads = Reads::of(check);
        let field = check.field.iter().map(|field| {
            let names = field.names().iter().map(String::as_str).collect::<Vec<_>>();
            (cursor.key("field"), names)
        });
        let others = reads.identity.iter().filter_map(|path| {
            let names = path.names()?;
            (names.len() > 1 && names[0] == "traits").then(|| (cursor.clone(), names))
        });
        for (cursor, names) in field.chain(others) {
            let path = names.join(".");
            let is_field = check
                .field
                .as_ref()
                .is_some_and(|field| field.node_name() == path);
            match trait_type(&schema, &names) {
                TraitType::NotGiven => self.warn(
                    &cursor,
                    format!(
                        "the identity schema gives `{path}` no type, so a visitor can send a list or an object"
                    ),
                    "add a type to the identity schema, as in `\"type\": \"string\"`",
                ),
                TraitType::Unknown if is_field => self.warn(
                    &cursor,
                    format!("the identity schema has no `{path}`"),
                    "add it to the identity schema with a type, as in `\"type\": \"string\"`",
                ),
                TraitType::Given | TraitType::Unknown => {}
            }
        }
    }

    fn warn_about_accept(&mut self, check: &Check, cursor: &Cursor<'a>) {
        if check.on_unavailable.default == Policy::Accept
            && check.ask.is_some()
            && check.mode == Mode::Enforce
        {
            self.warn(
                &cursor.key("on_unavailable"),
                "`accept` admits sign-ups unchecked while the service is down or slow, and a visitor may be able to cause that",
                "write `defer` to repeat the question once the account exists, or name the kinds, as in `{timeout: accept}`",
            );
        }
    }
}
