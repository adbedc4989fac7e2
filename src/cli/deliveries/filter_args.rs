//! Which deliveries are meant.

use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use crate::base::clock::{Timestamp, earlier};
use crate::config::{parse_duration, parse_moment};
use crate::model::delivery::State;
use crate::store::Filter;

/// Which deliveries are meant.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Only these ids
    #[arg(value_name = "ID")]
    pub(super) ids: Vec<Uuid>,
    /// Only of this plan, a name under `deliveries`; or `write-back:…`, `deferred-check:…`, `late-refusal:…`, `take:…`, `confirm:…`, `release:…`
    #[arg(long)]
    plan: Option<String>,
    /// Only in this state: pending, delivered, abandoned or discarded
    #[arg(long, value_parser = state)]
    state: Option<State>,
    /// Only about this identity
    #[arg(long, value_name = "ID")]
    identity: Option<Uuid>,
    /// Only made then or later: a day, a moment, or how long ago, as in 2026-11-01, 2026-11-01T12:00:00Z, 2h or 3d
    #[arg(long, value_name = "WHEN", value_parser = when)]
    since: Option<When>,
    /// Only made before then; a day means its beginning, in UTC
    #[arg(long, value_name = "WHEN", value_parser = when)]
    until: Option<When>,
}

/// A moment, or how long ago it was.
#[derive(Clone, Copy, Debug)]
enum When {
    At(Timestamp),
    Ago(Duration),
}

impl FilterArgs {
    /// As the store takes it.
    pub(super) fn filter(&self, after: Option<Uuid>, now: Timestamp) -> anyhow::Result<Filter> {
        let filter = Filter {
            ids: self.ids.clone(),
            plan: self.plan.clone(),
            state: self.state,
            identity: self.identity,
            since: self.since.map(|when| when.moment(now)),
            until: self.until.map(|when| when.moment(now)),
            after,
            ..Filter::default()
        };
        filter.check()?;
        Ok(filter)
    }

    /// A single one.
    pub(super) fn only(id: Uuid) -> Filter {
        Filter {
            ids: vec![id],
            ..Filter::default()
        }
    }
}

impl When {
    fn moment(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::Ago(duration) => earlier(now, duration),
        }
    }
}

fn state(name: &str) -> Result<State, String> {
    State::named(name)
        .ok_or_else(|| format!("it is one of: {}", State::ALL.map(State::as_str).join(", ")))
}

fn when(text: &str) -> Result<When, String> {
    parse_moment(text)
        .map(When::At)
        .or_else(|_| parse_duration(text).map(When::Ago))
        .map_err(|_| {
            "expected a day, a moment, or how long ago, as in 2026-11-01, 2026-11-01T12:00:00Z, 30m, 2h or 3d".to_owned()
        })
}
