//! Resolves subscriptions.

use indexmap::IndexMap;
use serde_json::Value;

use super::paths::{Place, Write};
use super::{Cursor, Resolver};
use crate::base::diagnostics::{Problem, did_you_mean};
use crate::config::file;
use crate::expression::{Scope, Variable};
use crate::kratos::field::has_leading_zero;
use crate::model::delivery::backoff::Schedule;
use crate::model::delivery::{Event, Subscription, WriteBack};

/// The parts of an identity that `write_back` can change.
const WRITABLE: [&str; 3] = ["metadata_admin", "metadata_public", "traits"];

/// The variables of a subscription's expressions. Events of changes also have `previous`.
const ROOTS: [Variable; 6] = [
    Variable::Identity,
    Variable::Flow,
    Variable::Request,
    Variable::Method,
    Variable::Now,
    Variable::Lists,
];

impl<'a> Resolver<'a> {
    pub(super) fn subscriptions(&mut self) -> Vec<Subscription> {
        let cursor = self.root.key("subscriptions");
        let mut subscriptions = Vec::new();
        let reconciles = self.root.key("reconcile").key("every").node.is_some();
        for entry in cursor.entries() {
            let cursor = cursor.key(&entry.key);
            self.name(&cursor, entry, "a subscription");
            let Some(file) = self.decode::<file::Subscription>(&cursor) else {
                continue;
            };
            subscriptions.extend(self.subscription(&entry.key, &cursor, &file));
            self.review(&Self::subject_of_subscription(&cursor, &file, reconciles));
        }
        subscriptions
    }

    fn subscription(
        &mut self,
        name: &str,
        cursor: &Cursor<'a>,
        file: &file::Subscription,
    ) -> Option<Subscription> {
        let before = self.problems.len();
        let updates = |event: &file::Event| {
            matches!(
                event,
                file::Event::IdentityUpdated | file::Event::CredentialsChanged
            )
        };
        let previous = file
            .events
            .iter()
            .any(updates)
            .then_some(Variable::Previous);
        let roots: Vec<Variable> = ROOTS.into_iter().chain(previous).collect();
        let scope = self.scope(&roots, Vec::new());
        if file.events.is_empty() {
            let hint = "add `identity.created`, `identity.updated` or both".to_owned();
            self.report(
                &cursor.key("events"),
                "a subscription without events never creates a delivery",
                Some(hint),
            );
        }
        let events = file.events.iter().map(|event| match event {
            file::Event::IdentityCreated => Event::IdentityCreated,
            file::Event::IdentityUpdated => Event::IdentityUpdated,
            file::Event::CredentialsChanged => Event::CredentialsChanged,
            file::Event::IdentityVerified => Event::IdentityVerified,
            file::Event::RegistrationFailed => Event::RegistrationFailed,
            file::Event::CheckRefused => Event::CheckRefused,
            file::Event::IdentityDeleted => Event::IdentityDeleted,
        });
        let failed = file
            .events
            .iter()
            .position(|event| matches!(event, file::Event::RegistrationFailed));
        if let Some(index) = failed.filter(|_| !self.has_admin_url()) {
            let cursor = cursor.key("events").item(index);
            self.needs_admin_url(&cursor, "`registration.failed`");
        }
        let when = file
            .when
            .as_ref()
            .and_then(|when| self.expression(&cursor.key("when"), when, &scope));
        let send = self.request(&cursor.key("send"), &file.send.request, &scope);
        let timeout = self.timeout(&cursor.key("send"), file.send.timeout.as_ref());
        let retry = cursor.key("retry");
        let schedule = self.schedule(&retry, file.retry.as_ref());
        let max_elapsed = self.duration(
            &retry.key("max_elapsed"),
            file.retry
                .as_ref()
                .and_then(|retry| retry.max_elapsed.as_ref()),
            "8d",
            ("1m", "30d"),
        );
        let answered: Vec<Variable> = roots.iter().copied().chain([Variable::Response]).collect();
        let after = self.scope(&answered, Vec::new());
        let since = self.uses.len();
        let success_when = file
            .success_when
            .as_ref()
            .and_then(|source| self.expression(&cursor.key("success_when"), source, &after));
        self.place_uses(since, Place::Acceptance);
        let abandon_when = file
            .abandon_when
            .as_ref()
            .and_then(|source| self.expression(&cursor.key("abandon_when"), source, &after));
        let write_back = self.write_backs(&cursor.key("write_back"), &file.write_back, &after);
        self.warn_about_write_back(cursor, file);
        self.once(cursor, file);
        self.supersede(cursor, file);
        let send = send?;
        let reads_only_the_identity = Subscription::reads_only_the_identity(when.as_ref(), &send);
        let subscription = Subscription {
            name: name.to_owned(),
            events: events.collect(),
            when,
            send,
            schedule,
            max_elapsed,
            success_when,
            abandon_when,
            write_back,
            timeout,
            once: file.once,
            supersede: file.supersede.unwrap_or(reads_only_the_identity),
        };
        self.identity_deleted(cursor, &subscription);
        (self.problems.len() == before).then_some(subscription)
    }

    /// Checks that each event has an identity to which the subscription can send once.
    fn once(&mut self, cursor: &Cursor<'a>, file: &file::Subscription) {
        let has_failures = file
            .events
            .iter()
            .any(|event| matches!(event, file::Event::RegistrationFailed));
        if file.once && has_failures {
            self.report(
                &cursor.key("once"),
                "`registration.failed` has no identity, so it cannot be sent once per identity",
                Some("move `registration.failed` to a subscription of its own".to_owned()),
            );
        }
    }

    /// Checks that the subscription has the event that can be superseded.
    fn supersede(&mut self, cursor: &Cursor<'a>, file: &file::Subscription) {
        let has_updates = file
            .events
            .iter()
            .any(|event| matches!(event, file::Event::IdentityUpdated));
        if file.supersede == Some(true) && !has_updates {
            self.report(
                &cursor.key("supersede"),
                "only `identity.updated` can be superseded, and the subscription does not have it",
                Some("remove `supersede`, or add `identity.updated` to `events`".to_owned()),
            );
        }
    }

    fn schedule(&mut self, cursor: &Cursor<'_>, file: Option<&file::Retry>) -> Schedule {
        let Some(file) = file else {
            return Schedule::DELIVERIES;
        };
        let mut interval = |key: &str, value: Option<&file::Duration>, default, bounds| {
            self.duration(&cursor.key(key), value, default, bounds)
        };
        let schedule = Schedule {
            first: interval(
                "initial_interval",
                file.initial_interval.as_ref(),
                "5s",
                ("1s", "1h"),
            ),
            longest: interval(
                "max_interval",
                file.max_interval.as_ref(),
                "1h",
                ("1s", "1d"),
            ),
            ..Schedule::DELIVERIES
        };
        if schedule.longest < schedule.first {
            self.report(
                &cursor.key("max_interval"),
                "`max_interval` is shorter than `initial_interval`",
                None,
            );
        }
        schedule
    }

    fn write_backs(
        &mut self,
        cursor: &Cursor<'a>,
        file: &IndexMap<String, Value>,
        scope: &Scope,
    ) -> Vec<WriteBack> {
        if !file.is_empty() && !self.has_admin_url() {
            self.needs_admin_url(cursor, "`write_back`");
        }
        let mut write_backs: Vec<WriteBack> = Vec::new();
        for (path, value) in file {
            let cursor = cursor.key(path);
            if value.is_null() {
                self.problems
                    .push(Problem::nothing(cursor.path.clone(), cursor.at));
                continue;
            }
            let value = self.json(&cursor, value, scope);
            let names: Vec<String> = path.split('.').map(ToOwned::to_owned).collect();
            let first = names.first().map_or("", String::as_str);
            if !WRITABLE.contains(&first) || names.len() < 2 || names.iter().any(String::is_empty) {
                let hint = did_you_mean(first, WRITABLE)
                    .filter(|_| !WRITABLE.contains(&first))
                    .unwrap_or_else(|| "as in `metadata_admin.crm_id`".to_owned());
                self.report(
                    &cursor,
                    format!(
                        "`{path}` is not a path in `metadata_admin`, `metadata_public` or `traits`"
                    ),
                    Some(hint),
                );
                continue;
            }
            if names.iter().any(|name| has_leading_zero(name)) {
                self.bad_index(&cursor, path);
                continue;
            }
            let overlaps = |other: &&WriteBack| {
                let shorter = other.path.len().min(names.len());
                other.path[..shorter] == names[..shorter]
            };
            if let Some(other) = write_backs.iter().find(overlaps) {
                let message = format!("`{path}` and `{}` overlap", other.path.join("."));
                self.report(&cursor, message, None);
                continue;
            }
            self.writes
                .push(Write::write_back(&cursor, &names, value.as_ref()));
            write_backs.extend(value.map(|value| WriteBack { path: names, value }));
        }
        write_backs
    }
}
