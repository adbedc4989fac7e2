//! Lists, retries and discards deliveries for an operator.
//!
//! The command line and the admin API share this code.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{DeliveryDetails, DeliverySummary, Error, Filter, Store};
use crate::base::clock::Timestamp;
use crate::model::delivery::{State, Subscription};

/// How long an abandoned delivery is retried. A subscription's own deliveries use its setting; all others use eight
/// days.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetryWindows(Vec<(String, Duration)>);

/// One page of a list of deliveries.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Page {
    /// The deliveries, newest first.
    pub deliveries: Vec<DeliverySummary>,
    /// The cursor of the next page: the id of the last delivery, if more follow.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub next: Option<Uuid>,
}

/// The result of a retry or discard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ActionResult {
    /// The number of deliveries that were changed.
    pub count: u64,
    /// Deliveries that were selected by id and not changed.
    pub left_alone: Vec<Skipped>,
}

/// A delivery that was selected and not changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Skipped {
    /// The delivery's id.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub id: Uuid,
    /// The reason why the delivery was not changed.
    pub why: String,
}

/// A filter that cannot be used to list, retry or discard deliveries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// No delivery was created between these times.
    #[error("`since` is not before `until`, so there is nothing between them")]
    NoTimeBetween,
    /// A settled delivery cannot be changed.
    #[error(
        "what is {0} stays so; only pending and abandoned deliveries can be retried or discarded"
    )]
    Settled(State),
}

impl RetryWindows {
    /// The time for deliveries without a subscription: writes into identities, confirmations and releases.
    pub const OTHERWISE: Duration = Duration::from_hours(8 * 24);

    /// Reads the times from these subscriptions.
    #[must_use]
    pub fn of(plans: &[Subscription]) -> Self {
        let named = |plan: &Subscription| (plan.name.clone(), plan.keep_trying_for);
        Self(plans.iter().map(named).collect())
    }

    /// Returns how long a delivery of `plan` is retried.
    #[must_use]
    pub fn for_plan(&self, plan: &str) -> Duration {
        let known = self.0.iter().find(|(name, _)| name == plan);
        known.map_or(Self::OTHERWISE, |(_, duration)| *duration)
    }
}

/// A change to deliveries that are pending or abandoned.
#[derive(Clone, Copy)]
enum AdminAction<'a> {
    Retry(&'a RetryWindows),
    Discard,
}

impl Filter {
    /// Checks that the filter can match a delivery.
    pub fn check(&self) -> Result<(), InvalidFilter> {
        match (self.since, self.until) {
            (Some(since), Some(until)) if since >= until => Err(InvalidFilter::NoTimeBetween),
            _ => Ok(()),
        }
    }

    /// Checks that the filter can match a delivery that can be retried or discarded.
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

/// Returns up to `limit` deliveries, newest first.
pub async fn page(store: &dyn Store, filter: &Filter, limit: u32) -> Result<Page, Error> {
    // One more delivery shows whether another page follows.
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

/// Makes pending or abandoned deliveries due now. Abandoned deliveries get the retry time of their subscription, from
/// now.
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

/// Discards pending or abandoned deliveries.
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

/// Retries each subscription on its own, because each subscription has its own retry time.
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

/// Changes each delivery that was selected by id, and reports the deliveries that were not changed.
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
