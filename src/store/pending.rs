//! What a database keeps of flows and their accepted submissions.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::Error;
use crate::base::clock::Timestamp;
use crate::model::pending::{AttributedSubmission, FlowRecord, LookupKind, PendingSignUp};
use crate::model::reservation::Reservation;

/// Reads flows and pending sign-ups, and schedules their look-ups. [`DeliveryStore::write`](super::DeliveryStore::write) stores
/// them.
#[async_trait]
pub trait PendingStore: Send + Sync {
    /// Returns the stored state of a flow.
    async fn flow(&self, flow_id: Uuid) -> Result<FlowState, Error>;
    /// Returns only the records of these flows, which is faster. A flow that is not stored is left out.
    async fn flow_records(&self, flow_ids: &[Uuid]) -> Result<Vec<FlowRecord>, Error>;
    /// Returns the flow whose submissions got this `external_id`, if no `post` or look-up has closed it yet.
    async fn open_flow(&self, external_id: &str) -> Result<Option<Uuid>, Error>;
    /// Returns the settings flows with a submission that gives this identity traits with this hash. Submissions that a
    /// `post` or look-up has attributed are left out.
    async fn flows_of_change(
        &self,
        identity_id: Uuid,
        traits_hash: &str,
    ) -> Result<Vec<Uuid>, Error>;
    /// Returns the submissions that are attributed to this identity, with their reservations. Those of closed flows are
    /// deleted.
    async fn attributed_to(&self, identity_id: Uuid) -> Result<Vec<AttributedSubmission>, Error>;

    /// Leases up to `limit` flows whose look-up of this kind is due to the caller, and counts the look-up.
    async fn lease_flows(
        &self,
        kind: LookupKind,
        now: Timestamp,
        lease: Duration,
        limit: u32,
    ) -> Result<Vec<FlowRecord>, Error>;
    /// Schedules the next look-up of the flow, unless a newer submission was accepted meanwhile. `None`: never.
    async fn reschedule_lookup(
        &self,
        record: &FlowRecord,
        at: Option<Timestamp>,
    ) -> Result<(), Error>;
    /// Schedules a look-up of all registration flows whose newest submission was accepted since then. The look-up is
    /// due now, or [`URGENT_LOOKUP_INTERVAL`](crate::model::pending::URGENT_LOOKUP_INTERVAL) after the last such
    /// request. Returns the number of flows that are looked up earlier because of it.
    async fn look_up_all_now(
        &self,
        now: Timestamp,
        accepted_since: Timestamp,
    ) -> Result<u64, Error>;
    /// Returns when the next look-up is due.
    async fn next_lookup(&self) -> Result<Option<Timestamp>, Error>;
}

/// The stored state of a flow.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowState {
    /// The flow, if a submission was accepted or a `post` has closed the flow.
    pub record: Option<FlowRecord>,
    /// All accepted submissions of the flow, oldest first.
    pub pending: Vec<PendingSignUp>,
    /// All reservations of the flow, oldest first.
    pub reservations: Vec<Reservation>,
}
