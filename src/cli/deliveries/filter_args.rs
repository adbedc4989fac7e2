//! The arguments that select deliveries.

use clap::Args;
use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::cli::when::{When, when};
use crate::model::delivery::State;
use crate::store::Filter;

/// The options that select deliveries.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Only deliveries with these ids
    #[arg(value_name = "ID")]
    pub(super) ids: Vec<Uuid>,
    /// Only deliveries of this subscription; or `write-back:…`, `deferred-check:…`, `late-refusal:…`, `take:…`, `confirm:…`, `release:…`
    #[arg(long)]
    subscription: Option<String>,
    /// Only deliveries in this state: pending, delivered, abandoned, discarded or superseded
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// Only deliveries of this identity
    #[arg(long, value_name = "ID")]
    identity: Option<Uuid>,
    /// Only deliveries created at this time or later: a day, a time, or an age, such as 2026-11-01, 2026-11-01T12:00:00Z, 2h or 3d
    #[arg(long, value_name = "WHEN", value_parser = when)]
    since: Option<When>,
    /// Only deliveries created before this time; a day means its beginning, in UTC
    #[arg(long, value_name = "WHEN", value_parser = when)]
    until: Option<When>,
}

impl FilterArgs {
    /// Returns the filter for the store.
    pub(super) fn filter(&self, cursor: Option<Uuid>, now: Timestamp) -> anyhow::Result<Filter> {
        let filter = Filter {
            ids: self.ids.clone(),
            subscription: self.subscription.clone(),
            state: self.state,
            identity: self.identity,
            since: self.since.map(|when| when.moment(now)),
            until: self.until.map(|when| when.moment(now)),
            cursor,
            ..Filter::default()
        };
        filter.check()?;
        Ok(filter)
    }

    /// Returns a filter for one delivery.
    pub(super) fn only(id: Uuid) -> Filter {
        Filter {
            ids: vec![id],
            ..Filter::default()
        }
    }
}

fn state(name: &str) -> Result<State, String> {
    State::named(name).ok_or_else(|| {
        format!(
            "expected one of: {}",
            State::ALL.map(State::as_str).join(", ")
        )
    })
}
