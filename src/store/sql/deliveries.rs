//! Implements [`DeliveryStore`].

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use prometheus_client::metrics::counter::Counter;
use uuid::Uuid;

use super::admin::AdminAction;
use super::{Database, admin, known_identities, outbox, pending_writes, reservations, settle};
use crate::base::clock::Timestamp;
use crate::model::delivery::Claimed;
use crate::store::adapter::Connection;
use crate::store::{
    Backlog, DeliveryDetails, DeliveryStore, DeliverySummary, Error, Filter, NextDue, Settlement,
    WriteSet,
};

#[async_trait]
impl DeliveryStore for Database {
    async fn write(&self, batch: &WriteSet) -> Result<HashSet<Uuid>, Error> {
        let new = if batch.is_only_deliveries() {
            self.pool
                .write(|on| outbox::accept(on, &batch.deliveries).boxed())
                .await?
        } else {
            self.pool
                .transaction(|on| write_all(on, batch).boxed())
                .await?
        };
        self.stored.inc_by(new.len() as u64);
        Ok(new)
    }

    fn deliveries_stored(&self) -> Counter {
        self.stored.clone()
    }

    async fn claim(
        &self,
        subscription: &str,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Claimed>, Error> {
        self.pool
            .write(|on| outbox::claim(on, subscription, now, lease, limit).boxed())
            .await
    }

    async fn settle_all(&self, settlements: &[Settlement]) -> Result<HashSet<Uuid>, Error> {
        let (settled, stored) = self
            .pool
            .transaction(|on| settle::settle(on, settlements).boxed())
            .await?;
        self.stored.inc_by(stored as u64);
        Ok(settled)
    }

    async fn give_back(&self, held: &[Claimed], due_at: Timestamp) -> Result<(), Error> {
        self.pool
            .write(|on| outbox::give_back(on, held, due_at).boxed())
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
        keep_trying_for: Duration,
    ) -> Result<u64, Error> {
        self.change(AdminAction::Retry(keep_trying_for), filter, now)
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

/// Writes a write set within a transaction. Returns the ids of the new deliveries.
async fn write_all(
    connection: &mut Connection<'_>,
    batch: &WriteSet,
) -> Result<HashSet<Uuid>, Error> {
    pending_writes::accept(connection, &batch.accepted).await?;
    reservations::use_all(connection, &batch.used).await?;
    pending_writes::end(connection, &batch.ended).await?;
    // Closing a flow deletes the details of its other released reservations, so this comes first.
    reservations::take_again(connection, &batch.taken_again).await?;
    pending_writes::close(connection, &batch.closed).await?;
    reservations::confirm(connection, &batch.confirmed).await?;
    reservations::release(connection, &batch.released).await?;
    reservations::reserve(connection, &batch.reserved).await?;
    known_identities::record(connection, &batch.identities).await?;
    outbox::accept(connection, &batch.deliveries).await
}
