//! Reads the identities of Kratos page by page, and stores the deliveries that are missing.

use std::collections::HashSet;

use chrono::TimeDelta;
use serde_json::Value;
use uuid::Uuid;

use super::checkpoint::Next;
use super::{Error, Round};
use crate::base::clock::Timestamp;
use crate::expression::Variables;
use crate::model::delivery::subscription::{Trigger, deliveries_for};
use crate::model::delivery::{Event, NewDelivery, Subscription};
use crate::outbound::kratos_admin;
use crate::outbound::kratos_admin::hook_view::hook_view;

/// Newer accounts are left to their hook. The hook is running now, and has more data than the admin API.
const MIN_AGE: TimeDelta = TimeDelta::seconds(10);

/// An identity of a page whose deliveries may be missing.
struct Candidate<'a> {
    id: Uuid,
    created_at: Timestamp,
    identity: &'a Value,
}

impl Round<'_> {
    /// Processes all pages from this one on. Returns the id after which the stored identities continue.
    pub(super) async fn pages(&mut self, mut from: Option<String>) -> Result<Uuid, Error> {
        let reconciler = self.reconciler;
        let mut is_resumed = from.is_some();
        loop {
            self.renew_lock().await?;
            let began = reconciler.clock.now();
            let page = match reconciler.identities.page(from.as_deref()).await {
                Err(kratos_admin::Error::Status(400 | 404 | 410)) if is_resumed => {
                    tracing::info!(
                        "Kratos no longer has the page where a reconciliation was interrupted; the reconciliation starts from the first page"
                    );
                    (from, is_resumed) = (None, false);
                    continue;
                }
                Ok(page) if page.next.is_some() && page.next == from => {
                    // The round would never end.
                    Err(kratos_admin::Error::NotUnderstood)
                }
                page => page,
            };
            let page = page.map_err(|source| Error::Page {
                checked: self.report.checked,
                source,
            })?;
            is_resumed = false;
            self.page(&page.identities).await?;
            let Some(next) = page.next else {
                self.store_checkpoint(Next::Stored(Uuid::nil())).await?;
                return Ok(Uuid::nil());
            };
            self.store_checkpoint(Next::Page(next.clone())).await?;
            from = Some(next);
            reconciler.pause(began, page.identities.len()).await;
        }
    }

    async fn page(&mut self, identities: &[Value]) -> Result<(), Error> {
        let reconciler = self.reconciler;
        let just_now = reconciler.clock.now() - MIN_AGE;
        let candidates: Vec<Candidate<'_>> = identities
            .iter()
            .filter_map(Candidate::of)
            .filter(|candidate| candidate.created_at <= just_now)
            .collect();
        let mut keys = Vec::new();
        for candidate in &candidates {
            for (number, subscription) in reconciler.subscriptions.iter().enumerate() {
                if self.cutoff.is_covered(number, candidate.created_at) {
                    keys.push(candidate.key(subscription));
                }
            }
        }
        let mut missing = Vec::new();
        if !keys.is_empty() {
            let known = reconciler.store.existing_keys(&keys).await?;
            self.saw_known_identity |= !known.is_empty();
            // The horizon is read after the keys. Retention moves the horizon before it deletes, so every deletion is
            // covered.
            self.cutoff.refresh(&*reconciler.store).await?;
            for candidate in &candidates {
                missing.extend(self.missing(candidate, &known));
                // Other tasks run between two candidates.
                tokio::task::yield_now().await;
            }
        }
        self.report.checked += identities.len() as u64;
        self.deliver(missing).await?;
        self.progress.checked(self.report.checked);
        Ok(())
    }

    /// Returns the deliveries of this identity that are not stored.
    fn missing(
        &self,
        candidate: &Candidate<'_>,
        known: &HashSet<(String, String)>,
    ) -> Vec<NewDelivery> {
        let subscriptions = self.reconciler.subscriptions.iter().enumerate();
        let subscriptions: Vec<&Subscription> = subscriptions
            .filter(|(number, subscription)| {
                self.cutoff.is_covered(*number, candidate.created_at)
                    && !known.contains(&candidate.key(subscription))
            })
            .map(|(_, subscription)| subscription)
            .collect();
        if subscriptions.is_empty() {
            return Vec::new();
        }
        let view = hook_view(candidate.identity);
        let variables = Variables {
            identity: Some(&view),
            previous: None,
            value: None,
            flow: None,
            request: None,
            method: "",
            now: self.reconciler.clock.now(),
            response: None,
            checks: None,
            taken: None,
            lists: self.reconciler.rules.lists(),
        };
        let trigger = Trigger {
            event: Event::IdentityCreated,
            identity_id: candidate.id,
            trigger_id: "",
            check: None,
        };
        let deliveries = subscriptions.into_iter().flat_map(|subscription| {
            deliveries_for(std::slice::from_ref(subscription), &trigger, &variables)
        });
        deliveries.collect()
    }

    async fn deliver(&mut self, missing: Vec<NewDelivery>) -> Result<(), Error> {
        for delivery in &missing {
            let unbuilt = delivery.unbuilt_reason();
            self.report.missing += 1;
            self.report.unbuilt += u64::from(unbuilt.is_some());
            self.progress
                .missing(delivery.identity_id, &delivery.subscription, unbuilt);
        }
        if missing.is_empty() || self.reconciler.options.dry_run {
            return Ok(());
        }
        // A hook may have stored some of the deliveries meanwhile.
        let stored = self.reconciler.outbox.accept(missing).await?;
        self.report.stored += stored as u64;
        Ok(())
    }
}

impl<'a> Candidate<'a> {
    fn of(identity: &'a Value) -> Option<Self> {
        Some(Self {
            id: identity["id"].as_str()?.parse().ok()?,
            created_at: identity["created_at"].as_str()?.parse().ok()?,
            identity,
        })
    }

    fn key(&self, subscription: &Subscription) -> (String, String) {
        (subscription.name.clone(), self.id.to_string())
    }
}
