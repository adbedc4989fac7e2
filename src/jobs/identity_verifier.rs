//! Verifies writes into identities when they are due, or when a hook call shows that the identity may have changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::checks::activity::{Activity, ActivityLog};
use crate::jobs::driver::{Job, JobError};
use crate::jobs::identity_writer::IdentityWriter;
use crate::store::{self, IdentityWriteStore};

/// The maximum number of activities that are stored together.
const MAX_BATCH: usize = 256;
/// The maximum number of identities that are verified in parallel.
const MAX_CONCURRENT: usize = 4;
/// The maximum number of identities that are leased together.
const PAGE: u32 = 32;
/// The length of a lease. A lease is longer than the verification of a page.
const LEASE: Duration = Duration::from_mins(5);
/// How often to check for writes of other instances.
const POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Verifies writes into identities.
pub struct Verifier {
    writer: Arc<IdentityWriter>,
    store: Arc<dyn IdentityWriteStore>,
    clock: Clock,
    activities: mpsc::Receiver<Activity>,
    /// The activities that are not stored yet.
    noted: Vec<Activity>,
}

/// Creates the activity log and the verifier. Nothing is verified before the job runs.
#[must_use]
pub fn verifier(
    writer: Arc<IdentityWriter>,
    store: Arc<dyn IdentityWriteStore>,
    clock: Clock,
) -> (ActivityLog, Verifier) {
    let (log, activities) = ActivityLog::channel();
    let verifier = Verifier {
        writer,
        store,
        clock,
        activities,
        noted: Vec::with_capacity(MAX_BATCH),
    };
    (log, verifier)
}

/// Verifications that a stop interrupts are repeated when their leases have ended.
#[async_trait]
impl Job for Verifier {
    fn name(&self) -> &'static str {
        "identity_verifier"
    }

    async fn run(&mut self) -> Result<Timestamp, JobError> {
        Ok(self.round().await?)
    }

    async fn wake(&mut self) {
        let (noted, activities) = (&mut self.noted, &mut self.activities);
        tokio::select! {
            // Without a sender no activity follows.
            count = activities.recv_many(noted, MAX_BATCH) => if count == 0 { self.writer.written().await },
            () = self.writer.written() => {}
        }
    }

    fn pause(&self, _: u32) -> Duration {
        POLL_INTERVAL
    }
}

impl Verifier {
    /// Verifies what is due, and returns when the next verification is due.
    async fn round(&mut self) -> Result<Timestamp, store::Error> {
        self.note(&self.noted).await?;
        self.noted.clear();
        let next_check = saturating_add(self.clock.now(), POLL_INTERVAL);
        loop {
            let now = self.clock.now();
            let lease_until = saturating_add(now, LEASE);
            let leased = self
                .store
                .lease_identity_writes(now, lease_until, PAGE)
                .await?;
            if leased.is_empty() {
                break;
            }
            let verifications = leased.into_iter().map(|writes| {
                let writer = Arc::clone(&self.writer);
                async move { writer.verify(&writes, lease_until).await }.boxed()
            });
            let done: Vec<Result<(), store::Error>> = futures_util::stream::iter(verifications)
                .buffer_unordered(MAX_CONCURRENT)
                .collect()
                .await;
            done.into_iter().collect::<Result<(), _>>()?;
        }
        let next = self.store.next_verification().await?;
        Ok(next.map_or(next_check, |next| next.min(next_check)))
    }

    async fn note(&self, noted: &[Activity]) -> Result<(), store::Error> {
        let mut rest = BTreeMap::<Timestamp, Vec<Uuid>>::new();
        for one in noted {
            if one.is_refused {
                self.writer
                    .verify_refused(one.identity_id, one.verify_at)
                    .await?;
            } else {
                rest.entry(one.verify_at).or_default().push(one.identity_id);
            }
        }
        for (at, ids) in rest {
            self.store.verify_identities(&ids, at).await?;
        }
        Ok(())
    }
}
