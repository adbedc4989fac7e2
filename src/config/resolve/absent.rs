//! Resolves what an absent field means for a check: `absent`, `required` and `immutable`.

use super::paths::Place;
use super::{Cursor, Resolver};
use crate::checks::Absent;
use crate::config::file;
use crate::expression::{Expression, Scope};
use crate::kratos::Flow;

/// What an absent field means, and whether a present one can change.
#[derive(Default)]
pub(super) struct AbsentField {
    pub absent: Absent,
    pub required_if: Option<Expression>,
    pub immutable: bool,
}

impl<'a> Resolver<'a> {
    /// Resolves the three keys, with the variables `before` a request.
    pub(super) fn absent_field(
        &mut self,
        cursor: &Cursor<'a>,
        file: &file::Check,
        flows: &[Flow],
        before: &Scope,
    ) -> AbsentField {
        let absent = file.absent.map(|absent| match absent {
            file::Absent::Skip => Absent::Skip,
            file::Absent::Refuse => Absent::Refuse,
            file::Absent::Check => Absent::Check,
        });
        let is_required = !matches!(file.required, None | Some(file::Required::Always(false)));
        for (key, is_used) in [
            ("required", is_required),
            ("absent", absent.is_some()),
            ("immutable", file.immutable),
        ] {
            if is_used && file.field.is_none() {
                self.report(&cursor.key(key), format!("`{key}` needs a `field`"), None);
            }
        }
        if file.immutable && !flows.contains(&Flow::Settings) {
            let name = cursor.path.strip_prefix("checks.").unwrap_or_default();
            self.immutable_outside_settings(name, &cursor.key("immutable"), file);
        }
        if file.field.is_some() {
            self.contradiction(&cursor.key("absent"), absent, file.required.as_ref());
        }
        let (is_always, required_if) = match &file.required {
            Some(file::Required::Always(always)) => (*always, None),
            Some(file::Required::If(source)) => {
                let cursor = cursor.key("required");
                let since = self.uses.len();
                let expression = self.expression(&cursor, source, before);
                self.place_uses(since, Place::Required);
                (false, expression)
            }
            None => (false, None),
        };
        let if_not_named = if is_always {
            Absent::Refuse
        } else {
            Absent::default()
        };
        AbsentField {
            absent: absent.unwrap_or(if_not_named),
            required_if,
            immutable: file.immutable,
        }
    }

    /// Reports `absent` and `required` that do not agree.
    fn contradiction(
        &mut self,
        cursor: &Cursor<'a>,
        absent: Option<Absent>,
        required: Option<&file::Required>,
    ) {
        let message = match (absent, required) {
            (Some(Absent::Skip), Some(file::Required::Always(true))) => {
                "`absent: skip` and `required: true` contradict each other"
            }
            (Some(Absent::Check), Some(file::Required::Always(true))) => {
                "`absent: check` and `required: true` contradict each other"
            }
            (Some(Absent::Refuse), Some(file::Required::Always(false))) => {
                "`absent: refuse` and `required: false` contradict each other"
            }
            (Some(Absent::Refuse), Some(file::Required::If(_))) => {
                "`absent: refuse` refuses every absent field, so the expression of `required` has no effect"
            }
            _ => return,
        };
        let hint = "remove one of the two; `required: true` is short for `absent: refuse`";
        self.report(cursor, message, Some(hint.to_owned()));
    }

    fn immutable_outside_settings(&mut self, name: &str, cursor: &Cursor<'a>, file: &file::Check) {
        let hint = match self.registration_data.get(name) {
            _ if file.flows.is_some() => "write `flows: [registration, settings]`".to_owned(),
            Some(data) => format!(
                "move `immutable` to a check of its own, with the same `field`; this check reads `flow.{data}`, which settings lack"
            ),
            None => "write `flows: [registration, settings]`".to_owned(),
        };
        let message =
            "`immutable` has an effect in settings only, and this check does not run there";
        self.report(cursor, message, Some(hint));
    }
}
