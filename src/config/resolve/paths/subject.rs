//! The section that reads and writes: a check or a subscription.

use super::previous::WithoutPrevious;
use crate::base::diagnostics::Position;
use crate::config::file;
use crate::config::resolve::{Cursor, Resolver};
use crate::kratos::{Field, Flow};

/// The section that reads and writes.
#[derive(Default)]
pub(in crate::config::resolve) struct Subject {
    pub(super) path: String,
    /// The field of a check that does not run without it.
    pub(super) present: Option<Field>,
    /// The field of a check, and its position.
    pub(super) field: Option<(Field, Position)>,
    /// Whether the check has a field whose name is missing in the environment.
    pub(super) has_unknown_field: bool,
    /// Whether the check runs without its field, with null as `value`.
    pub(super) checks_absent: bool,
    /// Whether the check is skipped without its field.
    pub(super) skips_absent: bool,
    /// The flows of a check.
    pub(super) flows: Vec<Flow>,
    /// Whether a subscription has events other than a registration.
    pub(super) has_changes: bool,
    pub(super) without_previous: Option<WithoutPrevious>,
}

impl Resolver<'_> {
    pub(in crate::config::resolve) fn subject_of_check(
        &self,
        cursor: &Cursor<'_>,
        file: &file::Check,
        flows: &[Flow],
    ) -> Subject {
        let at = cursor.key("field");
        let has_unknown_field = self.placeholders.contains(&at.path);
        let field = file
            .field
            .as_ref()
            .filter(|_| !has_unknown_field)
            .and_then(|field| Field::parse(&field.0).ok());
        let absent = cursor.key("absent").node.map(|node| node.to_value());
        let checks_absent = absent.as_ref().is_some_and(|absent| absent == "check");
        let is_optional = matches!(file.required, None | Some(file::Required::Always(false)));
        Subject {
            path: cursor.path.clone(),
            present: field.clone().filter(|_| !checks_absent),
            field: field.map(|field| (field, at.at)),
            has_unknown_field,
            checks_absent: checks_absent && file.field.is_some(),
            skips_absent: is_optional && absent.is_none_or(|absent| absent == "skip"),
            flows: flows.to_vec(),
            has_changes: false,
            without_previous: WithoutPrevious::of_flows(flows),
        }
    }

    /// `reconciles` says whether reconciliation runs on a schedule.
    pub(in crate::config::resolve) fn subject_of_subscription(
        cursor: &Cursor<'_>,
        file: &file::Subscription,
        reconciles: bool,
    ) -> Subject {
        let is_change = |event: &file::Event| !matches!(event, file::Event::IdentityCreated);
        Subject {
            path: cursor.path.clone(),
            has_changes: file.events.iter().any(is_change),
            without_previous: WithoutPrevious::of_events(cursor, file, reconciles),
            ..Subject::default()
        }
    }
}
