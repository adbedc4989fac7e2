//! Implements [`DeliveryStore`].

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use uuid::Uuid;

use super::admin::AdminAction;
use super::{Database, admin, outbox, pending_writes, reservations, settle};
use crate::base::clock::Timestamp;
use crate::base::telemetry::metrics::{DeliveryCounters, SubscriptionName};
use crate::model::delivery::subscription::Built;
use crate::model::delivery::{Action, Claimed, Event, NewDelivery};
use crate::store::adapter::Connection;
use crate::store::{
    Backlog, DeliveryDetails, DeliveryStore, DeliverySummary, Error, Filter, NextDue, RetryOptions,
    Settlement, WriteSet,
};

#[async_trait]
impl DeliveryStore for Database {
    async fn write(&self, batch: &WriteSet) -> Result<HashSet<Uuid>, Error> {
        let accepted =
            if batch.is_only_deliveries() && !outbox::needs_transaction(&batch.deliveries) {
                self.pool
                    .write(|on| outbox::accept(on, &batch.deliveries).boxed())
                    .await?
            } else {
                self.pool
                    .transaction(|on| write_all(on, batch).boxed())
                    .await?
            };
        self.note(batch.deliveries.iter(), &accepted);
        Ok(accepted.new)
    }

    fn counters(&self) -> DeliveryCounters {
        self.counters.clone()
    }

    async fn claim(
        &self,
        subscription: &str,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Claimed>, Error> {
        let claims = self
            .pool
            .write(|on| outbox::claim(on, subscription, now, lease, limit).boxed())
            .await?;
        if !claims.unreadable.is_empty() {
            self.pool
                .transaction(|on| outbox::abandon_unreadable(on, &claims.unreadable, now).boxed())
                .await?;
        }
        Ok(claims.held)
    }

    async fn keep_built(
        &self,
        held: &Claimed,
        built: &Result<Built, String>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let is_kept = self
            .pool
            .transaction(|on| outbox::keep_built(on, held, built, now).boxed())
            .await?;
        if is_kept && let Err(reason) = built {
            self.note_unbuilt(
                &held.subscription,
                held.event,
                (held.id, held.identity_id),
                reason,
            );
        }
        Ok(is_kept)
    }

    async fn settle_all(&self, settlements: &[Settlement]) -> Result<HashSet<Uuid>, Error> {
        let settled = self
            .pool
            .transaction(|on| settle::settle(on, settlements).boxed())
            .await?;
        let deliveries = settlements.iter().flat_map(|one| &one.follow_up_deliveries);
        self.note(deliveries, &settled.accepted);
        Ok(settled.ids)
    }

    async fn give_back(&self, held: &[Claimed], due_at: Timestamp) -> Result<(), Error> {
        self.pool
            .transaction(|on| outbox::give_back(on, held, due_at).boxed())
            .await
    }

    async fn next_due(&self) -> Result<Vec<NextDue>, Error> {
        self.pool.read(|on| outbox::next_due(on).boxed()).await
    }

    async fn list(&self, filter: &Filter, limit: u32) -> Result<Vec<DeliverySummary>, Error> {
        self.pool
            .read(|on| admin::list(on, filter, limit).boxed())
            .await
    }

    async fn unfinished_queues(&self, identity_id: Uuid) -> Result<Vec<String>, Error> {
        self.pool
            .read(|on| admin::unfinished_queues(on, identity_id).boxed())
            .await
    }

    async fn show(&self, id: Uuid) -> Result<Option<DeliveryDetails>, Error> {
        self.pool.read(|on| admin::show(on, id).boxed()).await
    }

    async fn retry(
        &self,
        filter: &Filter,
        now: Timestamp,
        options: RetryOptions,
    ) -> Result<u64, Error> {
        self.change(AdminAction::Retry(options), filter, now).await
    }

    async fn out_of_order(&self, filter: &Filter) -> Result<u64, Error> {
        self.pool
            .read_untimed(|on| admin::out_of_order(on, filter).boxed())
            .await
    }

    async fn discard(&self, filter: &Filter, now: Timestamp) -> Result<u64, Error> {
        self.change(AdminAction::Discard, filter, now).await
    }

    async fn unfinished(&self, filter: &Filter) -> Result<u64, Error> {
        self.pool
            .read_untimed(|on| admin::unfinished(on, filter).boxed())
            .await
    }

    async fn backlog(&self) -> Result<Backlog, Error> {
        self.pool.read(|on| admin::backlog(on).boxed()).await
    }

    async fn existing_keys(
        &self,
        keys: &[(String, String)],
    ) -> Result<HashSet<(String, String)>, Error> {
        self.pool
            .read(|on| admin::existing_keys(on, keys).boxed())
            .await
    }

    async fn is_pending(&self, subscription: &str, unique_key: &str) -> Result<bool, Error> {
        self.pool
            .read(|on| admin::is_pending(on, subscription, unique_key).boxed())
            .await
    }
}

impl Database {
    /// Counts what a transaction has stored and superseded, and logs what could not be built.
    fn note<'d>(
        &self,
        deliveries: impl Iterator<Item = &'d NewDelivery>,
        accepted: &outbox::Accepted,
    ) {
        self.counters.stored.inc_by(accepted.new.len() as u64);
        for subscription in &accepted.superseded.subscriptions {
            let superseded = &self.counters.superseded;
            superseded
                .get_or_create(&SubscriptionName::of(subscription))
                .inc();
        }
        for new in deliveries.filter(|new| accepted.new.contains(&new.id)) {
            if let Ok(Action::Build(unbuilt)) = &new.action {
                let ids = (new.id, new.identity_id);
                self.note_unbuilt(&new.subscription, new.event, ids, &unbuilt.reason);
            }
        }
    }

    fn note_unbuilt(
        &self,
        subscription: &str,
        event: Event,
        (id, identity_id): (Uuid, Uuid),
        reason: &str,
    ) {
        let not_built = &self.counters.not_built;
        not_built
            .get_or_create(&SubscriptionName::of(subscription))
            .inc();
        tracing::error!(
            delivery.id = %id, subscription, %event, identity.id = %identity_id, reason,
            "A delivery of `{subscription}` could not be built ({reason}); it is kept as abandoned: correct the settings, and then \
             run `vestibule deliveries retry {id}`"
        );
    }

    /// Changes deliveries in several transactions, so that other writers do not wait for all of them.
    async fn change(
        &self,
        action: AdminAction,
        filter: &Filter,
        now: Timestamp,
    ) -> Result<u64, Error> {
        let (mut count, mut after) = (0, String::new());
        loop {
            let step = self
                .pool
                .transaction_untimed(|on| admin::step(on, action, filter, now, &after).boxed());
            let (changed, last) = step.await?;
            count += changed;
            let Some(last) = last else { return Ok(count) };
            after = last;
        }
    }
}

/// Writes a write set within a transaction.
async fn write_all(
    connection: &mut Connection<'_>,
    batch: &WriteSet,
) -> Result<outbox::Accepted, Error> {
    pending_writes::accept(connection, &batch.accepted).await?;
    reservations::use_all(connection, &batch.used).await?;
    pending_writes::end(connection, &batch.ended).await?;
    // Closing a flow deletes the details of its other released reservations, so this comes first.
    reservations::take_again(connection, &batch.taken_again).await?;
    pending_writes::close(connection, &batch.closed).await?;
    reservations::confirm(connection, &batch.confirmed).await?;
    reservations::release(connection, &batch.released).await?;
    reservations::reserve(connection, &batch.reserved).await?;
    outbox::accept(connection, &batch.deliveries).await
}
