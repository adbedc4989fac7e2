//! Implements the store traits with statements that both databases understand.
//!
//! This file and the files beside it are compiled once for each database, with its dialect: `rows!`, `texts!`,
//! `skip_locked!`, and the types of its connections.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use prometheus_client::metrics::counter::Counter;
use uuid::Uuid;

use super::admin::AdminAction;
use super::retry::{with_retry, with_retry_untimed};
use super::{
    Database, admin, decisions, erasure, locks, outbox, pending, properties, reservations,
    retention,
};
use crate::base::clock::Timestamp;
use crate::model::decision::Decision;
use crate::model::delivery::Claimed;
use crate::model::pending::{AttributedSubmission, FlowRecord, LookupKind};
use crate::model::reservation::{Details, Reservation};
use crate::store::{
    AppliedMigration, Backlog, Coordination, DeliveryDetails, DeliveryStore, DeliverySummary,
    Error, Filter, FlowState, NextDue, PendingStore, ReservationStore, Retention, Settlement,
    Store, WriteSet,
};

impl Database {
    async fn write_once(&self, batch: &WriteSet) -> Result<HashSet<Uuid>, Error> {
        if batch.is_only_deliveries() {
            let mut connection = self.writer().acquire().await?;
            let new = outbox::accept(&mut connection, &batch.deliveries).await?;
            self.stored.inc_by(new.len() as u64);
            return Ok(new);
        }
        let mut transaction = self.begin().await?;
        pending::accept(&mut transaction, &batch.accepted).await?;
        reservations::use_all(&mut transaction, &batch.used).await?;
        pending::end(&mut transaction, &batch.ended).await?;
        // Closing a flow deletes the details of its other released reservations, so this comes first.
        reservations::take_again(&mut transaction, &batch.taken_again).await?;
        pending::close(&mut transaction, &batch.closed).await?;
        reservations::confirm(&mut transaction, &batch.confirmed).await?;
        reservations::release(&mut transaction, &batch.released).await?;
        reservations::reserve(&mut transaction, &batch.reserved).await?;
        let new = outbox::accept(&mut transaction, &batch.deliveries).await?;
        transaction.commit().await?;
        self.stored.inc_by(new.len() as u64);
        Ok(new)
    }

    async fn step_by_step(
        &self,
        deed: AdminAction,
        filter: &Filter,
        now: Timestamp,
    ) -> Result<u64, Error> {
        let (mut count, mut after) = (0, String::new());
        loop {
            let step = with_retry_untimed(|| {
                admin::step(self.writer(), deed, filter, now, &after).boxed()
            });
            let (done, last) = step.await?;
            count += done;
            let Some(last) = last else { return Ok(count) };
            after = last;
        }
    }

    async fn settle_once(&self, settlements: &[Settlement]) -> Result<HashSet<Uuid>, Error> {
        let mut transaction = self.begin().await?;
        let (settled, stored) = outbox::settle(&mut transaction, settlements).await?;
        transaction.commit().await?;
        self.stored.inc_by(stored as u64);
        Ok(settled)
    }

    async fn take_over_once(
        &self,
        reservation: &Reservation,
        former: Option<&Reservation>,
        submission: &str,
        times: (Timestamp, Timestamp),
    ) -> Result<bool, Error> {
        let mut transaction = self.begin().await?;
        let done =
            reservations::take_over(&mut transaction, reservation, former, submission, times)
                .await?;
        transaction.commit().await?;
        Ok(done)
    }

    async fn delete_settled_once(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        let mut transaction = self.begin().await?;
        let deleted = retention::delete_settled(&mut transaction, before, limit).await?;
        transaction.commit().await?;
        Ok(deleted)
    }

    async fn delete_ended_once(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        let mut transaction = self.begin().await?;
        let deleted = retention::delete_ended(&mut transaction, before, limit).await?;
        transaction.commit().await?;
        Ok(deleted)
    }

    async fn forget_once(&self, identity_id: Uuid, now: Timestamp) -> Result<u64, Error> {
        let mut transaction = self.begin().await?;
        let erased = erasure::forget(&mut transaction, identity_id, now).await?;
        transaction.commit().await?;
        Ok(erased)
    }
}

#[async_trait]
impl DeliveryStore for Database {
    async fn write(&self, batch: &WriteSet) -> Result<HashSet<Uuid>, Error> {
        with_retry(|| self.write_once(batch).boxed()).await
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
        with_retry(|| outbox::claim(self.writer(), subscription, now, lease, limit).boxed()).await
    }

    async fn settle_all(&self, settlements: &[Settlement]) -> Result<HashSet<Uuid>, Error> {
        with_retry(|| self.settle_once(settlements).boxed()).await
    }

    async fn give_back(&self, held: &[Claimed], due_at: Timestamp) -> Result<(), Error> {
        with_retry(|| outbox::give_back(self.writer(), held, due_at).boxed()).await
    }

    async fn next_due(&self) -> Result<Vec<NextDue>, Error> {
        with_retry(|| outbox::next_due(self.readers()).boxed()).await
    }

    async fn list(&self, filter: &Filter, limit: u32) -> Result<Vec<DeliverySummary>, Error> {
        with_retry(|| admin::list(self.readers(), filter, limit).boxed()).await
    }

    async fn unfinished_queues(&self, identity_id: Uuid) -> Result<Vec<String>, Error> {
        with_retry(|| admin::unfinished_queues(self.readers(), identity_id).boxed()).await
    }

    async fn show(&self, id: Uuid) -> Result<Option<DeliveryDetails>, Error> {
        with_retry(|| admin::show(self.readers(), id).boxed()).await
    }

    async fn retry(
        &self,
        filter: &Filter,
        now: Timestamp,
        keep_trying_for: Duration,
    ) -> Result<u64, Error> {
        self.step_by_step(AdminAction::Retry(keep_trying_for), filter, now)
            .await
    }

    async fn discard(&self, filter: &Filter, now: Timestamp) -> Result<u64, Error> {
        self.step_by_step(AdminAction::Discard, filter, now).await
    }

    async fn unfinished(&self, filter: &Filter) -> Result<u64, Error> {
        with_retry_untimed(|| admin::unfinished(self.readers(), filter).boxed()).await
    }

    async fn backlog(&self) -> Result<Backlog, Error> {
        with_retry(|| admin::backlog(self.readers()).boxed()).await
    }

    async fn existing_keys(
        &self,
        keys: &[(String, String)],
    ) -> Result<HashSet<(String, String)>, Error> {
        with_retry(|| admin::existing_keys(self.readers(), keys).boxed()).await
    }

    async fn is_pending(&self, subscription: &str, unique_key: &str) -> Result<bool, Error> {
        with_retry(|| admin::is_pending(self.readers(), subscription, unique_key).boxed()).await
    }
}

#[async_trait]
impl PendingStore for Database {
    async fn flow(&self, flow_id: Uuid) -> Result<FlowState, Error> {
        // The order matters: if a later part shows the flow open, the earlier parts are from before it was closed.
        let reservations =
            with_retry(|| reservations::of_flow(self.readers(), flow_id).boxed()).await?;
        let pending = with_retry(|| pending::of_flow(self.readers(), flow_id).boxed()).await?;
        Ok(FlowState {
            record: self.flow_records(&[flow_id]).await?.pop(),
            pending,
            reservations,
        })
    }

    async fn flow_records(&self, flow_ids: &[Uuid]) -> Result<Vec<FlowRecord>, Error> {
        with_retry(|| pending::records(self.readers(), flow_ids).boxed()).await
    }

    async fn open_flow(&self, external_id: &str) -> Result<Option<Uuid>, Error> {
        with_retry(|| pending::open_flow(self.readers(), external_id).boxed()).await
    }

    async fn flows_of_change(
        &self,
        identity_id: Uuid,
        traits_hash: &str,
    ) -> Result<Vec<Uuid>, Error> {
        with_retry(|| pending::flows_of_change(self.readers(), identity_id, traits_hash).boxed())
            .await
    }

    async fn attributed_to(&self, identity_id: Uuid) -> Result<Vec<AttributedSubmission>, Error> {
        with_retry(|| pending::attributed_to(self.readers(), identity_id).boxed()).await
    }

    async fn lease_flows(
        &self,
        kind: LookupKind,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<FlowRecord>, Error> {
        with_retry(|| pending::lease(self.writer(), kind, now, lease, limit).boxed()).await
    }

    async fn reschedule_lookup(
        &self,
        record: &FlowRecord,
        at: Option<Timestamp>,
    ) -> Result<(), Error> {
        with_retry(|| pending::reschedule(self.writer(), record, at).boxed()).await
    }

    async fn look_up_all_now(
        &self,
        now: Timestamp,
        accepted_since: Timestamp,
    ) -> Result<u64, Error> {
        with_retry(|| pending::look_up_all_now(self.writer(), now, accepted_since).boxed()).await
    }

    async fn next_lookup(&self) -> Result<Option<Timestamp>, Error> {
        with_retry(|| pending::next_lookup(self.readers()).boxed()).await
    }
}

#[async_trait]
impl ReservationStore for Database {
    async fn share_reservation(&self, id: Uuid, until: Timestamp) -> Result<bool, Error> {
        with_retry(|| reservations::share(self.writer(), id, until).boxed()).await
    }

    async fn take_over_reservation(
        &self,
        reservation: &Reservation,
        former: Option<&Reservation>,
        submission: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error> {
        with_retry(|| {
            self.take_over_once(reservation, former, submission, (now, until))
                .boxed()
        })
        .await
    }

    async fn mark_reserved(&self, id: Uuid, details: &Details) -> Result<bool, Error> {
        with_retry(|| reservations::mark_reserved(self.writer(), id, details).boxed()).await
    }

    async fn cancel_reservation(&self, id: Uuid) -> Result<(), Error> {
        with_retry(|| reservations::cancel_reservation(self.writer(), id).boxed()).await
    }

    async fn unused_reservations(
        &self,
        now: Timestamp,
        expired_at: Timestamp,
        limit: u32,
    ) -> Result<Vec<Reservation>, Error> {
        with_retry(|| reservations::unused(self.readers(), now, expired_at, limit).boxed()).await
    }
}

#[async_trait]
impl Coordination for Database {
    async fn acquire_lock(
        &self,
        name: &str,
        holder: Uuid,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error> {
        with_retry(|| locks::acquire_lock(self.writer(), name, holder, now, until).boxed()).await
    }

    async fn release_lock(&self, name: &str, holder: Uuid) -> Result<(), Error> {
        with_retry(|| locks::release_lock(self.writer(), name, holder).boxed()).await
    }

    async fn get_property(&self, name: &str) -> Result<Option<String>, Error> {
        with_retry(|| properties::get_property(self.readers(), name).boxed()).await
    }

    async fn set_property(&self, name: &str, value: Option<&str>) -> Result<(), Error> {
        with_retry(|| properties::set_property(self.writer(), name, value).boxed()).await
    }

    async fn get_or_insert_property(&self, name: &str, value: &str) -> Result<String, Error> {
        with_retry(|| properties::get_or_insert_property(self.writer(), name, value).boxed()).await
    }

    async fn record(&self, decisions: &[Decision]) -> Result<(), Error> {
        with_retry(|| decisions::record(self.writer(), decisions).boxed()).await
    }
}

#[async_trait]
impl Retention for Database {
    async fn delete_settled(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        with_retry(|| self.delete_settled_once(before, limit).boxed()).await
    }

    async fn delete_decisions(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        with_retry(|| retention::delete_decisions(self.writer(), before, limit).boxed()).await
    }

    async fn delete_ended(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        with_retry(|| self.delete_ended_once(before, limit).boxed()).await
    }

    async fn identities_with_data(&self, after: Uuid, limit: u32) -> Result<Vec<Uuid>, Error> {
        with_retry(|| erasure::identities_with_data(self.readers(), after, limit).boxed()).await
    }

    async fn forget(&self, identity_id: Uuid, now: Timestamp) -> Result<u64, Error> {
        with_retry(|| self.forget_once(identity_id, now).boxed()).await
    }
}

#[async_trait]
impl Store for Database {
    fn changes(&self) -> &[AppliedMigration] {
        &self.changes
    }

    async fn ping(&self) -> Result<(), Error> {
        self.reach().await
    }

    async fn close(&self) {
        self.shut().await;
    }
}
