//! What an operator does with deliveries by hand: looks through them, has them tried again, discards them.
//!
//! The same from the command line and over HTTP.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{DeliveryDetails, DeliverySummary, Error, Filter, Store};
use crate::base::clock::Timestamp;
use crate::model::delivery::{State, Subscription};

/// How long abandoned deliveries are tried anew: those of a plan as long as it says, all else for eight days.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetryWindows(Vec<(String, Duration)>);

/// Some deliveries of a list, and where it goes on.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Page {
    /// Newest first.
    pub deliveries: Vec<DeliverySummary>,
    /// The last of them, if there are more behind it: list those that come after this id.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub next: Option<Uuid>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ActionResult {
    /// To so many deliveries.
    pub count: u64,
    /// Those that were named by their id, and to which it was not done.
    pub left_alone: Vec<Skipped>,
}

/// A delivery to which was not done what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Skipped {
    /// Its id.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub id: Uuid,
    /// Why.
    pub why: String,
}

/// Why deliveries cannot be retried or discarded by such a filter, or listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// Nothing is made then.
    #[error("`since` is not before `until`, so there is nothing between them")]
    NoTimeBetween,
    /// What is settled for good stays as it is.
    #[error(
        "what is {0} stays so; only pending and abandoned deliveries can be retried or discarded"
    )]
    Settled(State),
}

impl RetryWindows {
    /// Of what belongs to no plan: what is written into identities, and confirmations and releases.
    pub const OTHERWISE: Duration = Duration::from_hours(8 * 24);

    /// As these plans say.
    #[must_use]
    pub fn of(plans: &[Subscription]) -> Self {
        let named = |plan: &Subscription| (plan.name.clone(), plan.max_elapsed);
        Self(plans.iter().map(named).collect())
    }

    /// How long a delivery of `plan` is tried.
    #[must_use]
    pub fn for_plan(&self, plan: &str) -> Duration {
        let known = self.0.iter().find(|(name, _)| name == plan);
        known.map_or(Self::OTHERWISE, |(_, duration)| *duration)
    }
}

/// Something that is done to deliveries that are pending or abandoned.
#[derive(Clone, Copy)]
enum AdminAction<'a> {
    Retry(&'a RetryWindows),
    Discard,
}

impl Filter {
    /// Whether there can be anything that it leaves.
    pub fn check(&self) -> Result<(), InvalidFilter> {
        match (self.since, self.until) {
            (Some(since), Some(until)) if since >= until => Err(InvalidFilter::NoTimeBetween),
            _ => Ok(()),
        }
    }

    /// Whether there can be anything that it leaves, and that can be retried or discarded.
    pub fn check_for_change(&self) -> Result<(), InvalidFilter> {
        match self.state {
            Some(state @ (State::Delivered | State::Discarded)) => {
                Err(InvalidFilter::Settled(state))
            }
            Some(State::Pending | State::Abandoned) | None => self.check(),
        }
    }

    fn fits(&self, delivery: &DeliverySummary) -> bool {
        self.plan.as_ref().is_none_or(|plan| *plan == delivery.plan)
            && self.state.is_none_or(|state| state == delivery.state)
            && self.identity.is_none_or(|id| id == delivery.identity_id)
            && self.since.is_none_or(|since| since <= delivery.created_at)
            && self.until.is_none_or(|until| delivery.created_at < until)
            && !self.exclude_subscriptions.contains(&delivery.plan)
    }
}

/// Up to `limit` of them, newest first.
pub async fn page(store: &dyn Store, filter: &Filter, limit: u32) -> Result<Page, Error> {
    // One more tells whether there are more.
    let mut deliveries = store.list(filter, limit.saturating_add(1)).await?;
    let whole = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = deliveries.len() > whole;
    deliveries.truncate(whole);
    let last = deliveries.last().map(|delivery| delivery.id);
    Ok(Page {
        deliveries,
        next: last.filter(|_| more),
    })
}

/// Makes pending or abandoned deliveries due now; abandoned ones are tried as long as their plan says, from now on.
pub async fn retry(
    store: &dyn Store,
    filter: &Filter,
    now: Timestamp,
    keep_trying: &RetryWindows,
) -> Result<ActionResult, Error> {
    if filter.ids.is_empty() {
        Ok(ActionResult::to(
            retry_all(store, filter, now, keep_trying).await?,
        ))
    } else {
        one_by_one(store, filter, now, AdminAction::Retry(keep_trying)).await
    }
}

/// Ends pending or abandoned deliveries for good.
pub async fn discard(
    store: &dyn Store,
    filter: &Filter,
    now: Timestamp,
) -> Result<ActionResult, Error> {
    if filter.ids.is_empty() {
        Ok(ActionResult::to(store.discard(filter, now).await?))
    } else {
        one_by_one(store, filter, now, AdminAction::Discard).await
    }
}

impl ActionResult {
    fn to(count: u64) -> Self {
        Self {
            count,
            ..Self::default()
        }
    }
}

/// Plan by plan, because each says for itself how long it is tried.
async fn retry_all(
    store: &dyn Store,
    filter: &Filter,
    now: Timestamp,
    keep_trying: &RetryWindows,
) -> Result<u64, Error> {
    if let Some(plan) = &filter.plan {
        return store.retry(filter, now, keep_trying.for_plan(plan)).await;
    }
    let mut count = 0;
    let mut rest = filter.clone();
    for (plan, duration) in &keep_trying.0 {
        let of_it = Filter {
            plan: Some(plan.clone()),
            ..filter.clone()
        };
        count += store.retry(&of_it, now, *duration).await?;
        rest.exclude_subscriptions.push(plan.clone());
    }
    Ok(count + store.retry(&rest, now, RetryWindows::OTHERWISE).await?)
}

/// Whoever names a delivery is told what became of it.
async fn one_by_one(
    store: &dyn Store,
    filter: &Filter,
    now: Timestamp,
    deed: AdminAction<'_>,
) -> Result<ActionResult, Error> {
    let mut done = ActionResult::default();
    for (index, id) in filter.ids.iter().enumerate() {
        if filter.ids[..index].contains(id) {
            continue;
        }
        let shown = store.show(*id).await?;
        let only_it = Filter {
            ids: vec![*id],
            ..filter.clone()
        };
        let count = match (deed, &shown) {
            (_, None) => 0,
            (AdminAction::Retry(keep_trying), Some(shown)) => {
                let duration = keep_trying.for_plan(&shown.listed.plan);
                store.retry(&only_it, now, duration).await?
            }
            (AdminAction::Discard, Some(_)) => store.discard(&only_it, now).await?,
        };
        done.count += count;
        if count == 0 {
            let why = why_left_alone(shown.as_ref(), filter, deed);
            done.left_alone.push(Skipped { id: *id, why });
        }
    }
    Ok(done)
}

fn why_left_alone(
    shown: Option<&DeliveryDetails>,
    filter: &Filter,
    deed: AdminAction<'_>,
) -> String {
    let Some(shown) = shown else {
        return "there is no such delivery".to_owned();
    };
    let delivery = &shown.listed;
    match delivery.state {
        State::Delivered => "it has been delivered".to_owned(),
        State::Discarded => "it has been discarded".to_owned(),
        State::Pending | State::Abandoned if !filter.fits(delivery) => format!(
            "it is {}, of the plan `{}`, made at {}, and does not fit what else was asked for",
            delivery.state,
            delivery.plan,
            delivery
                .created_at
                .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
        ),
        State::Abandoned if matches!(deed, AdminAction::Retry(_)) => match &delivery.last_error {
            Some(error) => format!("there is nothing to send: {error}"),
            None => "there is nothing to send".to_owned(),
        },
        State::Pending | State::Abandoned => "a worker holds it just now".to_owned(),
    }
}
