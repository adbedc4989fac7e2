//! Verifies writes into identities when they are due, or when a hook call shows that the identity may have changed.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::base::clock::{Clock, Timestamp, saturating_add};
use crate::checks::activity::{Activity, ActivityLog};
use crate::jobs::identity_writer::IdentityWriter;
use crate::store::{self, Store};

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
    store: Arc<dyn Store>,
    clock: Clock,
    activities: mpsc::Receiver<Activity>,
}

/// Creates the activity log and the verifier. Nothing is verified before [`Verifier::run`].
#[must_use]
pub fn verifier(
    writer: Arc<IdentityWriter>,
    store: Arc<dyn Store>,
    clock: Clock,
) -> (ActivityLog, Verifier) {
    let (log, activities) = ActivityLog::channel();
    let verifier = Verifier {
        writer,
        store,
        clock,
        activities,
    };
    (log, verifier)
}

impl Verifier {
    /// Verifies until `stop` completes. Verifications in progress are repeated when their leases have ended.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        let mut noted = Vec::with_capacity(MAX_BATCH);
        let mut hooks_are_gone = false;
        loop {
            let round = AssertUnwindSafe(self.round(&noted)).catch_unwind();
            let round = tokio::select! {
                biased;
                () = &mut stop => return,
                round = round => round,
            };
            noted.clear();
            let next = match round {
                Ok(Ok(next)) => next,
                Ok(Err(error)) => {
                    tracing::error!(error = %error.error_chain(), "Writes into identities cannot be verified");
                    saturating_add(self.clock.now(), POLL_INTERVAL)
                }
                Err(_) => {
                    tracing::error!("Verifying writes into identities panicked");
                    saturating_add(self.clock.now(), POLL_INTERVAL)
                }
            };
            tokio::select! {
                biased;
                () = &mut stop => return,
                count = self.activities.recv_many(&mut noted, MAX_BATCH), if !hooks_are_gone => {
                    hooks_are_gone = count == 0;
                }
                () = self.writer.written() => {}
                () = self.clock.sleep_until(next) => {}
            }
        }
    }

    /// Verifies what is due, and returns when the next verification is due.
    async fn round(&self, noted: &[Activity]) -> Result<Timestamp, store::Error> {
        self.note(noted).await?;
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
