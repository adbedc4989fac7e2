//! Warns about settings that have no effect.

use super::{Cursor, Resolver};
use crate::checks::{Check, Condition, Kind, Policy};
use crate::config::file;

/// Headers that Vestibule adds to each delivery, and that replace others of the same name.
const OF_DELIVERIES: [&str; 2] = ["idempotency-key", "webhook-id"];

impl<'a> Resolver<'a> {
    /// A check without a request always has an answer, and `refuse` is evaluated before `accept`.
    pub(super) fn warn_about_no_effect(&mut self, check: &Check, cursor: &Cursor<'a>) {
        let asks = check.ask.is_some() || check.reserve.is_some();
        let is_chosen = check.on_unavailable.default == Policy::Accept
            || check
                .on_unavailable
                .chosen
                .iter()
                .any(|(kind, policy)| *kind != Kind::Expression && *policy == Policy::Accept);
        if !asks && is_chosen && !check.on_unavailable.chosen.contains_key(&Kind::Expression) {
            self.warn(
                &cursor.key("on_unavailable"),
                "a check without a request is never without an answer, and `accept` does not cover an expression that fails",
                "remove `on_unavailable`, or write `{expression: accept}`",
            );
        }
        let Some(Condition::Status(accepted)) = &check.accept else {
            return;
        };
        let refuses = |condition: &Condition| matches!(condition, Condition::Status(status) if status == accepted);
        if check.refuse.iter().any(|refusal| refuses(&refusal.when)) {
            self.warn(
                &cursor.key("accept"),
                format!("`refuse` has the status {accepted} too, and is evaluated first"),
                "remove one of the two",
            );
        }
    }

    /// Vestibule adds these headers to each request itself.
    pub(super) fn warn_about_own_headers(&mut self, cursor: &Cursor<'_>, name: &str) {
        let has_own =
            cursor.path.starts_with("subscriptions.") || cursor.path.contains(".reserve.");
        if has_own
            && OF_DELIVERIES
                .iter()
                .any(|own| own.eq_ignore_ascii_case(name))
        {
            self.warn(
                cursor,
                format!("Vestibule adds its own `{name}`, so this one is not sent"),
                "remove it, or choose another name",
            );
        }
    }

    /// A sign-up that failed has no identity into which something can be written.
    pub(super) fn warn_about_write_back(&mut self, cursor: &Cursor<'a>, file: &file::Subscription) {
        let has_identity = |event: &file::Event| !matches!(event, file::Event::RegistrationFailed);
        if !file.write_back.is_empty() && !file.events.iter().any(has_identity) {
            self.warn(
                &cursor.key("write_back"),
                "`registration.failed` has no identity, so nothing is written",
                "remove `write_back`, or add `identity.created` to `events`",
            );
        }
    }
}
