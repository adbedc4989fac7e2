//! The promises, kept by statements that both databases understand.
//!
//! This file and those beside it are compiled once for each database, with its dialect: `rows!`, `texts!`,
//! `skip_locked!`, and the types of its connections.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use uuid::Uuid;

use super::admin::AdminAction;
use super::retry::{again, again_and_wait};
use super::{Database, admin, decisions, late_refusals, outbox, pending, reservations, upkeep};
use crate::base::clock::Timestamp;
use crate::model::decision::Decision;
use crate::model::delivery::Claimed;
use crate::model::pending::{FlowRecord, LookupKind};
use crate::model::reservation::{Details, Reservation};
use crate::store::{
    AppliedMigration, Backlog, DeliveryDetails, DeliverySummary, Error, Filter, FlowState, NextDue,
    Settlement, Store, WriteSet,
};

impl Database {
    async fn write_once(&self, batch: &WriteSet) -> Result<HashSet<Uuid>, Error> {
        if batch.is_only_deliveries() {
            let mut connection = self.writer().acquire().await?;
            return outbox::accept(&mut connection, &batch.deliveries).await;
        }
        let mut transaction = self.begin().await?;
        pending::accept(&mut transaction, &batch.accepted).await?;
        reservations::use_all(&mut transaction, &batch.used).await?;
        pending::end(&mut transaction, &batch.ended).await?;
        // Closing a flow deletes what is kept of its other released reservations.
        reservations::take_again(&mut transaction, &batch.taken_again).await?;
        pending::close(&mut transaction, &batch.closed).await?;
        pending::settle_questions(&mut transaction, &batch.questions_settled).await?;
        reservations::confirm(&mut transaction, &batch.confirmed).await?;
        reservations::release(&mut transaction, &batch.released).await?;
        reservations::reserve(&mut transaction, &batch.reserved).await?;
        let mut new = outbox::accept(&mut transaction, &batch.deliveries).await?;
        new.extend(late_refusals::lift_accepted(&mut transaction, &batch.refusals_lifted).await?);
        transaction.commit().await?;
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
            let step =
                again_and_wait(|| admin::step(self.writer(), deed, filter, now, &after).boxed());
            let (done, last) = step.await?;
            count += done;
            let Some(last) = last else { return Ok(count) };
            after = last;
        }
    }

    async fn settle_once(&self, settlements: &[Settlement]) -> Result<HashSet<Uuid>, Error> {
        let mut transaction = self.begin().await?;
        let settled = outbox::settle(&mut transaction, settlements).await?;
        transaction.commit().await?;
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
        let deleted = upkeep::delete_settled(&mut transaction, before, limit).await?;
        transaction.commit().await?;
        Ok(deleted)
    }

    async fn delete_ended_once(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        let mut transaction = self.begin().await?;
        let deleted = upkeep::delete_ended(&mut transaction, before, limit).await?;
        transaction.commit().await?;
        Ok(deleted)
    }

    async fn forget_once(&self, identity_id: Uuid, now: Timestamp) -> Result<u64, Error> {
        let mut transaction = self.begin().await?;
        let forgotten = upkeep::forget(&mut transaction, identity_id, now).await?;
        transaction.commit().await?;
        Ok(forgotten)
    }
}

#[async_trait]
impl Store for Database {
    async fn write(&self, batch: &WriteSet) -> Result<HashSet<Uuid>, Error> {
        again(|| self.write_once(batch).boxed()).await
    }

    async fn claim(
        &self,
        plan: &str,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<Claimed>, Error> {
        again(|| outbox::claim(self.writer(), plan, now, lease, limit).boxed()).await
    }

    async fn settle_all(&self, settlements: &[Settlement]) -> Result<HashSet<Uuid>, Error> {
        again(|| self.settle_once(settlements).boxed()).await
    }

    async fn give_back(&self, held: &[Claimed], due_at: Timestamp) -> Result<(), Error> {
        again(|| outbox::give_back(self.writer(), held, due_at).boxed()).await
    }

    async fn next_due(&self) -> Result<Vec<NextDue>, Error> {
        again(|| outbox::next_due(self.readers()).boxed()).await
    }

    async fn list(&self, filter: &Filter, limit: u32) -> Result<Vec<DeliverySummary>, Error> {
        again(|| admin::list(self.readers(), filter, limit).boxed()).await
    }

    async fn show(&self, id: Uuid) -> Result<Option<DeliveryDetails>, Error> {
        again(|| admin::show(self.readers(), id).boxed()).await
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
        again_and_wait(|| admin::unfinished(self.readers(), filter).boxed()).await
    }

    async fn backlog(&self) -> Result<Backlog, Error> {
        again(|| admin::backlog(self.readers()).boxed()).await
    }

    async fn known(&self, keys: &[(String, String)]) -> Result<HashSet<(String, String)>, Error> {
        again(|| admin::known(self.readers(), keys).boxed()).await
    }

    async fn is_pending(&self, plan: &str, unique_key: &str) -> Result<bool, Error> {
        again(|| admin::is_pending(self.readers(), plan, unique_key).boxed()).await
    }

    async fn record(&self, decisions: &[Decision]) -> Result<(), Error> {
        again(|| decisions::record(self.writer(), decisions).boxed()).await
    }

    async fn flow(&self, flow_id: Uuid) -> Result<FlowState, Error> {
        // In this order: if a later part shows the flow open, the earlier parts are from before it was closed.
        let reservations = again(|| reservations::of_flow(self.readers(), flow_id).boxed()).await?;
        let pending = again(|| pending::of_flow(self.readers(), flow_id).boxed()).await?;
        Ok(FlowState {
            record: self.flow_record(flow_id).await?,
            pending,
            reservations,
        })
    }

    async fn flow_record(&self, flow_id: Uuid) -> Result<Option<FlowRecord>, Error> {
        again(|| pending::record(self.readers(), flow_id).boxed()).await
    }

    async fn open_flow(&self, external_id: &str) -> Result<Option<Uuid>, Error> {
        again(|| pending::open_flow(self.readers(), external_id).boxed()).await
    }

    async fn flows_of_change(
        &self,
        identity_id: Uuid,
        traits_hash: &str,
    ) -> Result<Vec<Uuid>, Error> {
        again(|| pending::flows_of_change(self.readers(), identity_id, traits_hash).boxed()).await
    }

    async fn lease_flows(
        &self,
        kind: LookupKind,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<FlowRecord>, Error> {
        again(|| pending::lease(self.writer(), kind, now, lease, limit).boxed()).await
    }

    async fn reschedule_lookup(
        &self,
        record: &FlowRecord,
        at: Option<Timestamp>,
    ) -> Result<(), Error> {
        again(|| pending::reschedule(self.writer(), record, at).boxed()).await
    }

    async fn look_up_all_now(
        &self,
        now: Timestamp,
        accepted_since: Timestamp,
    ) -> Result<u64, Error> {
        again(|| pending::look_up_all_now(self.writer(), now, accepted_since).boxed()).await
    }

    async fn next_lookup(&self) -> Result<Option<Timestamp>, Error> {
        again(|| pending::next_lookup(self.readers()).boxed()).await
    }

    async fn share_reservation(&self, id: Uuid, until: Timestamp) -> Result<bool, Error> {
        again(|| reservations::share(self.writer(), id, until).boxed()).await
    }

    async fn take_over_reservation(
        &self,
        reservation: &Reservation,
        former: Option<&Reservation>,
        submission: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error> {
        again(|| {
            self.take_over_once(reservation, former, submission, (now, until))
                .boxed()
        })
        .await
    }

    async fn taken(&self, id: Uuid, details: &Details) -> Result<bool, Error> {
        again(|| reservations::taken(self.writer(), id, details).boxed()).await
    }

    async fn not_taken(&self, id: Uuid) -> Result<(), Error> {
        again(|| reservations::not_taken(self.writer(), id).boxed()).await
    }

    async fn unused_reservations(
        &self,
        now: Timestamp,
        expired_at: Timestamp,
        limit: u32,
    ) -> Result<Vec<Reservation>, Error> {
        again(|| reservations::unused(self.readers(), now, expired_at, limit).boxed()).await
    }

    async fn take_turn(
        &self,
        name: &str,
        holder: Uuid,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error> {
        again(|| upkeep::take_turn(self.writer(), name, holder, now, until).boxed()).await
    }

    async fn end_turn(&self, name: &str, holder: Uuid) -> Result<(), Error> {
        again(|| upkeep::end_turn(self.writer(), name, holder).boxed()).await
    }

    async fn fact(&self, name: &str) -> Result<Option<String>, Error> {
        again(|| upkeep::fact(self.readers(), name).boxed()).await
    }

    async fn set_fact(&self, name: &str, value: Option<&str>) -> Result<(), Error> {
        again(|| upkeep::set_fact(self.writer(), name, value).boxed()).await
    }

    async fn first_fact(&self, name: &str, value: &str) -> Result<String, Error> {
        again(|| upkeep::first_fact(self.writer(), name, value).boxed()).await
    }

    async fn delete_settled(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        again(|| self.delete_settled_once(before, limit).boxed()).await
    }

    async fn delete_decisions(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        again(|| upkeep::delete_decisions(self.writer(), before, limit).boxed()).await
    }

    async fn delete_ended(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        again(|| self.delete_ended_once(before, limit).boxed()).await
    }

    async fn identities_kept(&self, after: Uuid, limit: u32) -> Result<Vec<Uuid>, Error> {
        again(|| upkeep::identities_kept(self.readers(), after, limit).boxed()).await
    }

    async fn forget(&self, identity_id: Uuid, now: Timestamp) -> Result<u64, Error> {
        again(|| self.forget_once(identity_id, now).boxed()).await
    }

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
