//! Deliveries.

use indexmap::IndexMap;
use serde_json::Value;

use super::{Cursor, Resolver};
use crate::base::diagnostics::{Problem, did_you_mean};
use crate::config::file;
use crate::expression::{Scope, Variable};
use crate::model::delivery::backoff::Schedule;
use crate::model::delivery::{Event, Save, Subscription};

/// What the admin API may change.
const SAVED: [&str; 3] = ["metadata_admin", "metadata_public", "traits"];

/// The names in a delivery's expressions; where something is updated, `previous` too.
const ROOTS: [Variable; 6] = [
    Variable::Identity,
    Variable::Flow,
    Variable::Request,
    Variable::Method,
    Variable::Now,
    Variable::Lists,
];

impl<'a> Resolver<'a> {
    pub(super) fn deliveries(&mut self) -> Vec<Subscription> {
        let place = self.root.key("deliveries");
        let mut plans = Vec::new();
        for entry in place.entries() {
            let place = place.key(&entry.key);
            self.name(&place, entry, "a delivery");
            let Some(file) = self.decode::<file::Delivery>(&place) else {
                continue;
            };
            plans.extend(self.delivery(&entry.key, &place, &file));
        }
        plans
    }

    fn delivery(
        &mut self,
        name: &str,
        place: &Cursor<'a>,
        file: &file::Delivery,
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
            let hint = "name `identity.created`, `identity.updated` or both".to_owned();
            self.report(
                &place.key("events"),
                "a delivery without events is never made",
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
        });
        let failed = file
            .events
            .iter()
            .position(|event| matches!(event, file::Event::RegistrationFailed));
        if let Some(index) = failed.filter(|_| !self.has_admin_url()) {
            let place = place.key("events").item(index);
            self.needs_admin_url(&place, "`registration.failed`");
        }
        let when = file
            .when
            .as_ref()
            .and_then(|when| self.expression(&place.key("when"), when, &scope));
        let send = self.request(&place.key("send"), &file.send, &scope);
        let keep_trying_for = self.duration(
            &place.key("keep_trying_for"),
            file.keep_trying_for.as_ref(),
            "8d",
            ("1m", "30d"),
        );
        let schedule = self.retry(&place.key("retry"), file.retry.as_ref());
        let answered: Vec<Variable> = roots.iter().copied().chain([Variable::Response]).collect();
        let after = self.scope(&answered, Vec::new());
        let mut expression = |key: &str, source: Option<&file::Expression>| {
            source.and_then(|source| self.expression(&place.key(key), source, &after))
        };
        let delivered = expression("delivered", file.delivered.as_ref());
        let give_up = expression("give_up", file.give_up.as_ref());
        let save = self.saves(&place.key("save"), &file.save, &after);
        let plan = Subscription {
            name: name.to_owned(),
            events: events.collect(),
            when,
            send: send?,
            schedule,
            keep_trying_for,
            delivered,
            give_up,
            save,
        };
        (self.problems.len() == before).then_some(plan)
    }

    fn retry(&mut self, place: &Cursor<'_>, file: Option<&file::Retry>) -> Schedule {
        let Some(file) = file else {
            return Schedule::DELIVERIES;
        };
        let mut pause = |key: &str, value: Option<&file::Duration>, default, bounds| {
            self.duration(&place.key(key), value, default, bounds)
        };
        let schedule = Schedule {
            first: pause("first_pause", file.first_pause.as_ref(), "5s", ("1s", "1h")),
            longest: pause(
                "longest_pause",
                file.longest_pause.as_ref(),
                "1h",
                ("1s", "1d"),
            ),
            ..Schedule::DELIVERIES
        };
        if schedule.longest < schedule.first {
            self.report(
                &place.key("longest_pause"),
                "the longest pause is shorter than the first",
                None,
            );
        }
        schedule
    }

    fn saves(
        &mut self,
        place: &Cursor<'a>,
        file: &IndexMap<String, Value>,
        scope: &Scope,
    ) -> Vec<Save> {
        if !file.is_empty() && !self.has_admin_url() {
            self.needs_admin_url(place, "`save`");
        }
        let mut saves: Vec<Save> = Vec::new();
        for (path, value) in file {
            let place = place.key(path);
            if value.is_null() {
                self.problems
                    .push(Problem::nothing(place.path.clone(), place.at));
                continue;
            }
            let value = self.json(&place, value, scope);
            let names: Vec<String> = path.split('.').map(ToOwned::to_owned).collect();
            let first = names.first().map_or("", String::as_str);
            if !SAVED.contains(&first) || names.len() < 2 || names.iter().any(String::is_empty) {
                let hint = did_you_mean(first, SAVED)
                    .filter(|_| !SAVED.contains(&first))
                    .unwrap_or_else(|| "as in `metadata_admin.crm_id`".to_owned());
                self.report(
                    &place,
                    format!(
                        "`{path}` is no place in `metadata_admin`, `metadata_public` or `traits`"
                    ),
                    Some(hint),
                );
                continue;
            }
            let inside = |other: &&Save| {
                let shorter = other.path.len().min(names.len());
                other.path[..shorter] == names[..shorter]
            };
            if let Some(other) = saves.iter().find(inside) {
                let message = format!(
                    "`{path}` and `{}` lie one inside the other",
                    other.path.join(".")
                );
                self.report(&place, message, None);
                continue;
            }
            saves.extend(value.map(|value| Save { path: names, value }));
        }
        saves
    }
}
