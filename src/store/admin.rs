//! Lists, retries and discards deliveries for an operator.
//!
//! The command line and the admin API share this code.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{DeliveryDetails, DeliveryStore, DeliverySummary, Error, Filter, RetryOptions};
use crate::base::clock::Timestamp;
use crate::model::delivery::{State, Subscription};

/// How long an abandoned delivery is retried. Deliveries of a subscription use its setting; all others use eight days.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetryWindows {
    subscriptions: Vec<(String, Duration)>,
    out_of_order: bool,
}

/// A page of deliveries.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Page {
    /// The deliveries, newest first.
    pub deliveries: Vec<DeliverySummary>,
    /// The `cursor` of the next page; null on the last page.
    #[schemars(with = "Option<String>", extend("format" = "uuid"))]
    pub next_cursor: Option<Uuid>,
}

/// The result of a retry or a discard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ActionResult {
    /// How many deliveries were changed.
    pub changed: u64,
    /// The deliveries given by id that were not changed.
    pub skipped: Vec<Skipped>,
    /// How many deliveries were not retried because a newer one of the same subscription and identity has been delivered. `out_of_order` retries them.
    pub out_of_order: u64,
}

/// A delivery that was not changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Skipped {
    /// The delivery's id.
    #[schemars(with = "String", extend("format" = "uuid"))]
    pub id: Uuid,
    /// Why it was not changed.
    pub reason: String,
}

/// A filter that cannot be used to list, retry or discard deliveries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// The time range is empty.
    #[error("`since` is not before `until`")]
    NoTimeBetween,
    /// The filter selects settled deliveries, which cannot be changed.
    #[error(
        "{0} deliveries cannot be changed; only pending and abandoned deliveries can be retried or discarded"
    )]
    Settled(State),
}

impl RetryWindows {
    /// The time for deliveries without a subscription: writes into identities, confirmations and releases.
    pub const OTHERWISE: Duration = Duration::from_hours(8 * 24);

    /// Reads the times from these subscriptions.
    #[must_use]
    pub fn of(subscriptions: &[Subscription]) -> Self {
        let named =
            |subscription: &Subscription| (subscription.name.clone(), subscription.max_elapsed);
        Self {
            subscriptions: subscriptions.iter().map(named).collect(),
            out_of_order: false,
        }
    }

    /// Also retries deliveries that are older than one that was delivered.
    #[must_use]
    pub fn out_of_order(self, out_of_order: bool) -> Self {
        Self {
            out_of_order,
            ..self
        }
    }

    fn options(&self, subscription: &str) -> RetryOptions {
        RetryOptions {
            keep_trying_for: self.for_subscription(subscription),
            out_of_order: self.out_of_order,
        }
    }

    /// Returns how long a delivery of `subscription` is retried.
    #[must_use]
    pub fn for_subscription(&self, subscription: &str) -> Duration {
        let mut subscriptions = self.subscriptions.iter();
        let known = subscriptions.find(|(name, _)| name == subscription);
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
            Some(state @ (State::Delivered | State::Discarded | State::Superseded)) => {
                Err(InvalidFilter::Settled(state))
            }
            Some(State::Pending | State::Abandoned) | None => self.check(),
        }
    }

    fn fits(&self, delivery: &DeliverySummary) -> bool {
        self.subscription
            .as_ref()
            .is_none_or(|subscription| *subscription == delivery.subscription)
            && self.state.is_none_or(|state| state == delivery.state)
            && self.identity.is_none_or(|id| id == delivery.identity_id)
            && self.since.is_none_or(|since| since <= delivery.created_at)
            && self.until.is_none_or(|until| delivery.created_at < until)
            && !self.exclude_subscriptions.contains(&delivery.subscription)
    }
}

/// Returns up to `limit` deliveries, newest first.
pub async fn page(store: &dyn DeliveryStore, filter: &Filter, limit: u32) -> Result<Page, Error> {
    // One more delivery shows whether another page follows.
    let mut deliveries = store.list(filter, limit.saturating_add(1)).await?;
    let whole = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = deliveries.len() > whole;
    deliveries.truncate(whole);
    let last = deliveries.last().map(|delivery| delivery.id);
    Ok(Page {
        deliveries,
        next_cursor: last.filter(|_| more),
    })
}

/// Makes pending or abandoned deliveries due now. Abandoned deliveries get the retry time of their subscription, from
/// now.
pub async fn retry(
    store: &dyn DeliveryStore,
    filter: &Filter,
    now: Timestamp,
    keep_trying: &RetryWindows,
) -> Result<ActionResult, Error> {
    if filter.ids.is_empty() {
        let changed = retry_all(store, filter, now, keep_trying).await?;
        Ok(ActionResult {
            out_of_order: left_out(store, filter, keep_trying).await?,
            ..ActionResult::to(changed)
        })
    } else {
        one_by_one(store, filter, now, AdminAction::Retry(keep_trying)).await
    }
}

/// Discards pending or abandoned deliveries.
pub async fn discard(
    store: &dyn DeliveryStore,
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
    fn to(changed: u64) -> Self {
        Self {
            changed,
            ..Self::default()
        }
    }
}

/// Retries the deliveries of each subscription separately, because each subscription has its own retry time.
async fn retry_all(
    store: &dyn DeliveryStore,
    filter: &Filter,
    now: Timestamp,
    keep_trying: &RetryWindows,
) -> Result<u64, Error> {
    if let Some(subscription) = &filter.subscription {
        return store
            .retry(filter, now, keep_trying.options(subscription))
            .await;
    }
    let mut count = 0;
    let mut rest = filter.clone();
    for (subscription, _) in &keep_trying.subscriptions {
        let of_it = Filter {
            subscription: Some(subscription.clone()),
            ..filter.clone()
        };
        let options = keep_trying.options(subscription);
        count += store.retry(&of_it, now, options).await?;
        rest.exclude_subscriptions.push(subscription.clone());
    }
    let others = RetryOptions {
        keep_trying_for: RetryWindows::OTHERWISE,
        out_of_order: keep_trying.out_of_order,
    };
    Ok(count + store.retry(&rest, now, others).await?)
}

/// Returns how many deliveries were left out because of the order.
async fn left_out(
    store: &dyn DeliveryStore,
    filter: &Filter,
    keep_trying: &RetryWindows,
) -> Result<u64, Error> {
    if keep_trying.out_of_order {
        return Ok(0);
    }
    store.out_of_order(filter).await
}

/// Changes each delivery that was selected by id, and reports the deliveries that were not changed.
async fn one_by_one(
    store: &dyn DeliveryStore,
    filter: &Filter,
    now: Timestamp,
    action: AdminAction<'_>,
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
        let mut left = 0;
        let count = match (action, &shown) {
            (_, None) => 0,
            (AdminAction::Retry(keep_trying), Some(shown)) => {
                let options = keep_trying.options(&shown.listed.subscription);
                left = left_out(store, &only_it, keep_trying).await?;
                store.retry(&only_it, now, options).await?
            }
            (AdminAction::Discard, Some(_)) => store.discard(&only_it, now).await?,
        };
        done.changed += count;
        if count == 0 {
            done.out_of_order += left;
            let reason = if left > 0 {
                OUT_OF_ORDER.to_owned()
            } else {
                skip_reason(shown.as_ref(), filter, action)
            };
            done.skipped.push(Skipped { id: *id, reason });
        }
    }
    Ok(done)
}

/// Why a delivery is not retried after a newer one.
const OUT_OF_ORDER: &str = "a newer delivery of the same subscription and identity has been delivered, and this one could \
                            overwrite what it brought; retry it out of order if each event counts, or discard it";

fn skip_reason(
    shown: Option<&DeliveryDetails>,
    filter: &Filter,
    action: AdminAction<'_>,
) -> String {
    let Some(shown) = shown else {
        return "the delivery does not exist".to_owned();
    };
    let delivery = &shown.listed;
    match delivery.state {
        State::Delivered => "it is delivered".to_owned(),
        State::Discarded => "it is discarded".to_owned(),
        State::Superseded => "it is superseded by a newer delivery of the same identity".to_owned(),
        State::Pending | State::Abandoned if !filter.fits(delivery) => format!(
            "it is {}, of the subscription `{}`, created at {}, and does not match the other filters",
            delivery.state,
            delivery.subscription,
            delivery
                .created_at
                .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
        ),
        State::Abandoned if matches!(action, AdminAction::Retry(_)) => match &delivery.last_error {
            Some(error) => format!("it has no request: {error}"),
            None => "it has no request".to_owned(),
        },
        State::Pending | State::Abandoned => "an attempt is running".to_owned(),
    }
}
