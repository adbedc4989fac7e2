//! From when on somebody counts who was not delivered.

use chrono::TimeDelta;

use crate::base::clock::{Clock, Timestamp};
use crate::jobs::retention::retention_horizon;
use crate::model::delivery::{Event, Subscription};
use crate::store::{Error, Filter, Store};

/// The fact: when this database was made.
const DATABASE_CREATED_AT: &str = "database_created_at";
/// As much as Kratos's clock may be ahead of ours.
const SKEW: TimeDelta = TimeDelta::hours(1);

/// What is delivered of the past: nothing, unless told to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Past {
    since: Option<Timestamp>,
    database_created_at: Timestamp,
    /// When each plan was first seen.
    plans: Vec<Timestamp>,
    retention_horizon: Option<Timestamp>,
}

/// Writes down, unless it stands there, when this database and the plans of new identities were first seen.
pub async fn record_first_seen(
    store: &dyn Store,
    clock: &Clock,
    plans: &[Subscription],
) -> Result<(), Error> {
    store
        .get_or_insert_property(DATABASE_CREATED_AT, &clock.now().to_rfc3339())
        .await?;
    for plan in plans {
        if plan.events.contains(&Event::IdentityCreated) {
            born(store, clock, &plan.name).await?;
        }
    }
    Ok(())
}

/// When a plan was first seen.
async fn born(store: &dyn Store, clock: &Clock, plan: &str) -> Result<Timestamp, Error> {
    let name = format!("subscription:{plan}:since");
    if let Some(there) = store.get_property(&name).await? {
        return Ok(moment(&there));
    }
    // Of one that has deliveries already, nobody wrote down when it began.
    let of_it = Filter {
        subscription: Some(plan.to_owned()),
        ..Filter::default()
    };
    let was_there = !store.list(&of_it, 1).await?.is_empty();
    let since = if was_there {
        Timestamp::UNIX_EPOCH
    } else {
        clock.now()
    };
    let there = store
        .get_or_insert_property(&name, &since.to_rfc3339())
        .await?;
    Ok(moment(&there))
}

/// What cannot be read, because somebody wrote it by hand, is the past.
fn moment(text: &str) -> Timestamp {
    text.parse().unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Past {
    /// As the database knows it, or from `since` on.
    pub(super) async fn of(
        store: &dyn Store,
        clock: &Clock,
        plans: &[Subscription],
        since: Option<Timestamp>,
    ) -> Result<Self, Error> {
        let now = clock.now().to_rfc3339();
        let database_created_at = moment(
            &store
                .get_or_insert_property(DATABASE_CREATED_AT, &now)
                .await?,
        );
        let mut first_seen = Vec::new();
        for plan in plans {
            first_seen.push(born(store, clock, &plan.name).await?);
        }
        Ok(Self {
            since,
            database_created_at,
            plans: first_seen,
            retention_horizon: retention_horizon(store).await?,
        })
    }

    /// Retention goes on meanwhile.
    pub(super) async fn look_again(&mut self, store: &dyn Store) -> Result<(), Error> {
        self.retention_horizon = retention_horizon(store).await?;
        Ok(())
    }

    /// Whether an identity that was made then, and was not delivered by the plan of this number, should have been.
    pub(super) fn counts(&self, plan: usize, created_at: Timestamp) -> bool {
        let first_seen = self.plans[plan];
        let from = self
            .since
            .unwrap_or(self.database_created_at.max(first_seen));
        created_at >= from && self.is_remembered(first_seen, created_at)
    }

    /// Whether it would be known if it had been delivered. Retention forgets what came into being before a moment; a plan
    /// that was not there at that moment has lost nothing.
    fn is_remembered(&self, first_seen: Timestamp, created_at: Timestamp) -> bool {
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
    fn the_past_is_left_alone_unless_told_to_and_what_is_forgotten_always() {
        for (since, first_seen, retention_horizon, created, expected) in [
            // A new database on day 100.
            (None, 100, None, 99, false),
            (None, 100, None, 100, true),
            (None, 100, None, 101, true),
            // Kept for 90 days from the first hour on: nothing of it can be forgotten yet.
            (Some(50), 100, Some(10), 49, false),
            (Some(50), 100, Some(10), 50, true),
            (Some(5), 100, Some(10), 5, true),
            (Some(5), 100, Some(100), 5, true),
            // Later it may have been.
            (Some(5), 100, Some(101), 5, false),
            (Some(5), 100, Some(101), 101, false),
            (Some(5), 100, Some(101), 102, true),
            (None, 100, Some(150), 149, false),
            (None, 100, Some(150), 151, true),
            // A plan that came on day 200.
            (None, 200, Some(150), 199, false),
            (None, 200, Some(150), 200, true),
            (Some(5), 200, Some(150), 5, true),
            // One that was there before anybody wrote down when it began.
            (None, 0, None, 99, false),
            (None, 0, None, 100, true),
            (Some(5), 0, Some(50), 49, false),
            (Some(5), 0, Some(50), 51, true),
        ] {
            let past = Past {
                since: since.map(day),
                database_created_at: day(100),
                plans: vec![day(first_seen)],
                retention_horizon: retention_horizon.map(day),
            };
            assert_eq!(
                past.counts(0, day(created)),
                expected,
                "made on day {created}: {past:?}"
            );
        }
    }
}
