//! Decides from which creation time on an undelivered identity counts as missing.

use chrono::TimeDelta;

use crate::base::clock::{Clock, Timestamp};
use crate::jobs::retention::retention_horizon;
use crate::model::delivery::{Event, Subscription};
use crate::store::{Coordination, Error, Filter, Store};

/// The name of the property that holds the creation time of this database.
const DATABASE_CREATED_AT: &str = "database_created_at";
/// How far Kratos's clock may be ahead of Vestibule's.
const SKEW: TimeDelta = TimeDelta::hours(1);

/// The cutoff. Older identities are not delivered unless the operator sets `since`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cutoff {
    since: Option<Timestamp>,
    database_created_at: Timestamp,
    /// When each subscription was first seen.
    subscriptions: Vec<Timestamp>,
    retention_horizon: Option<Timestamp>,
}

/// Stores when this database and the subscriptions to `identity.created` were first seen, unless that is stored
/// already.
pub async fn record_first_seen(
    store: &dyn Store,
    clock: &Clock,
    subscriptions: &[Subscription],
) -> Result<(), Error> {
    store
        .get_or_insert_property(DATABASE_CREATED_AT, &clock.now().to_rfc3339())
        .await?;
    for subscription in subscriptions {
        if subscription.events.contains(&Event::IdentityCreated) {
            first_seen_at(store, clock, &subscription.name).await?;
        }
    }
    Ok(())
}

/// Returns when a subscription was first seen.
async fn first_seen_at(
    store: &dyn Store,
    clock: &Clock,
    subscription: &str,
) -> Result<Timestamp, Error> {
    let name = format!("subscription:{subscription}:since");
    if let Some(stored) = store.get_property(&name).await? {
        return Ok(moment(&stored));
    }
    // A subscription that has deliveries already began at an unknown time.
    let of_it = Filter {
        subscription: Some(subscription.to_owned()),
        ..Filter::default()
    };
    let was_there = !store.list(&of_it, 1).await?.is_empty();
    let since = if was_there {
        Timestamp::UNIX_EPOCH
    } else {
        clock.now()
    };
    let stored = store
        .get_or_insert_property(&name, &since.to_rfc3339())
        .await?;
    Ok(moment(&stored))
}

/// Parses a stored time. A value that cannot be parsed was edited manually, and counts as the earliest time.
fn moment(text: &str) -> Timestamp {
    text.parse().unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Cutoff {
    /// Reads the cutoff from the database; `since` overrides it.
    pub(super) async fn of(
        store: &dyn Store,
        clock: &Clock,
        subscriptions: &[Subscription],
        since: Option<Timestamp>,
    ) -> Result<Self, Error> {
        let now = clock.now().to_rfc3339();
        let database_created_at = moment(
            &store
                .get_or_insert_property(DATABASE_CREATED_AT, &now)
                .await?,
        );
        let mut first_seen = Vec::new();
        for subscription in subscriptions {
            first_seen.push(first_seen_at(store, clock, &subscription.name).await?);
        }
        Ok(Self {
            since,
            database_created_at,
            subscriptions: first_seen,
            retention_horizon: retention_horizon(store).await?,
        })
    }

    /// Reads the retention horizon again, because retention runs meanwhile.
    pub(super) async fn refresh(&mut self, store: &dyn Coordination) -> Result<(), Error> {
        self.retention_horizon = retention_horizon(store).await?;
        Ok(())
    }

    /// Returns whether an undelivered identity that was created then counts as missing for the subscription with this
    /// index.
    pub(super) fn is_covered(&self, subscription: usize, created_at: Timestamp) -> bool {
        let first_seen = self.subscriptions[subscription];
        let from = self
            .since
            .unwrap_or(self.database_created_at.max(first_seen));
        created_at >= from && self.is_retained(first_seen, created_at)
    }

    /// Returns whether a delivery would still be stored. Retention deletes deliveries of accounts created before the
    /// horizon. A subscription that was first seen after the horizon has lost no deliveries.
    fn is_retained(&self, first_seen: Timestamp, created_at: Timestamp) -> bool {
        self.retention_horizon
            .is_none_or(|before| first_seen >= before || created_at >= before + SKEW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + TimeDelta::days(day)
    }

    #[test]
    fn older_identities_count_only_with_since_and_never_before_the_retention_horizon() {
        for (since, first_seen, retention_horizon, created, expected) in [
            // A new database on day 100.
            (None, 100, None, 99, false),
            (None, 100, None, 100, true),
            (None, 100, None, 101, true),
            // With a retention time of 90 days from the first hour on, no delivery can be deleted yet.
            (Some(50), 100, Some(10), 49, false),
            (Some(50), 100, Some(10), 50, true),
            (Some(5), 100, Some(10), 5, true),
            (Some(5), 100, Some(100), 5, true),
            // Later, deliveries may be deleted.
            (Some(5), 100, Some(101), 5, false),
            (Some(5), 100, Some(101), 101, false),
            (Some(5), 100, Some(101), 102, true),
            (None, 100, Some(150), 149, false),
            (None, 100, Some(150), 151, true),
            // A subscription that was first seen on day 200.
            (None, 200, Some(150), 199, false),
            (None, 200, Some(150), 200, true),
            (Some(5), 200, Some(150), 5, true),
            // A subscription that has been there since before first-seen times were stored.
            (None, 0, None, 99, false),
            (None, 0, None, 100, true),
            (Some(5), 0, Some(50), 49, false),
            (Some(5), 0, Some(50), 51, true),
        ] {
            let cutoff = Cutoff {
                since: since.map(day),
                database_created_at: day(100),
                subscriptions: vec![day(first_seen)],
                retention_horizon: retention_horizon.map(day),
            };
            assert_eq!(
                cutoff.is_covered(0, day(created)),
                expected,
                "created on day {created}: {cutoff:?}"
            );
        }
    }
}
