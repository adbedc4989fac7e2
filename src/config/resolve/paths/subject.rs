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
    pub(super) without_field: WithoutField,
    /// The flows of a check.
    pub(super) flows: Vec<Flow>,
    /// Whether a subscription has events other than a registration.
    pub(super) has_changes: bool,
    pub(super) without_previous: Option<WithoutPrevious>,
}

/// What a check does without its field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum WithoutField {
    /// There is no field.
    #[default]
    NoField,
    /// The name of the field is missing in the environment.
    Unknown,
    /// The check is skipped.
    Skipped,
    /// The check refuses, always or under a condition.
    Refused,
    /// The check runs, with null as `value`.
    Checked,
}

impl Resolver<'_> {
    pub(in crate::config::resolve) fn subject_of_check(
        &self,
        cursor: &Cursor<'_>,
        file: &file::Check,
        flows: &[Flow],
    ) -> Subject {
        let at = cursor.key("field");
        let is_unknown = self.placeholders.contains(&at.path);
        let field = file
            .field
            .as_ref()
            .filter(|_| !is_unknown)
            .and_then(|field| Field::parse(&field.0).ok());
        let is_required = !matches!(file.required, None | Some(file::Required::Always(false)));
        let without_field = match file.absent {
            _ if file.field.is_none() => WithoutField::NoField,
            Some(file::Absent::Check) => WithoutField::Checked,
            _ if is_unknown => WithoutField::Unknown,
            None | Some(file::Absent::Skip) if !is_required => WithoutField::Skipped,
            _ => WithoutField::Refused,
        };
        let is_present = without_field != WithoutField::Checked;
        Subject {
            path: cursor.path.clone(),
            present: field.clone().filter(|_| is_present),
            field: field.map(|field| (field, at.at)),
            without_field,
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
