//! Deliveries.

use super::{Place, Resolver};
use crate::config::file;
use crate::delivery::{Event, Plan};
use crate::expression::Root;

/// The names in a delivery's expressions; where something is updated, `previous` too.
const ROOTS: [Root; 6] = [
    Root::Identity,
    Root::Flow,
    Root::Request,
    Root::Method,
    Root::Now,
    Root::Lists,
];

impl<'a> Resolver<'a> {
    pub(super) fn deliveries(&mut self) -> Vec<Plan> {
        let place = self.root.key("deliveries");
        let mut plans = Vec::new();
        for entry in place.entries() {
            let place = place.key(&entry.key);
            self.name(&place, entry, "a delivery");
            let Some(file) = self.decoded::<file::Delivery>(&place) else {
                continue;
            };
            plans.extend(self.delivery(&entry.key, &place, &file));
        }
        plans
    }

    fn delivery(&mut self, name: &str, place: &Place<'a>, file: &file::Delivery) -> Option<Plan> {
        let before = self.problems.len();
        let updates = |event: &file::Event| {
            matches!(
                event,
                file::Event::IdentityUpdated | file::Event::CredentialsChanged
            )
        };
        let previous = file.events.iter().any(updates).then_some(Root::Previous);
        let roots: Vec<Root> = ROOTS.into_iter().chain(previous).collect();
        let scope = self.scope(&roots, Vec::new());
        if file.events.is_empty() {
            let hint = "name `identity.created`, `identity.updated` or both".to_owned();
            self.tell(
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
        });
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
        let plan = Plan {
            name: name.to_owned(),
            events: events.collect(),
            when,
            send: send?,
            keep_trying_for,
        };
        (self.problems.len() == before).then_some(plan)
    }
}
