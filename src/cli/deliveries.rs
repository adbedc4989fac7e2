//! `vestibule deliveries`: look at them, try them again.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use chrono::SecondsFormat;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use crate::clock::Timestamp;
use crate::store::{Filter, Listed, Store};

/// Prints deliveries, newest first: for people, or as a JSON list.
pub async fn list(
    store: &dyn Store,
    filter: &Filter,
    limit: u32,
    json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let deliveries = store
        .list(filter, limit)
        .await
        .context("the deliveries cannot be listed")?;
    if json {
        serde_json::to_writer_pretty(&mut *out, &deliveries)?;
        writeln!(out)?;
    } else if deliveries.is_empty() {
        writeln!(out, "No deliveries.")?;
    } else {
        writeln!(out, "{}", table(&deliveries))?;
    }
    Ok(())
}

/// Makes pending or abandoned deliveries due now, and tells how many.
pub async fn retry(
    store: &dyn Store,
    filter: &Filter,
    now: Timestamp,
    keep_trying_for: Duration,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let count = store
        .retry(filter, now, keep_trying_for)
        .await
        .context("the deliveries cannot be retried")?;
    let deliveries = if count == 1 {
        "delivery is"
    } else {
        "deliveries are"
    };
    writeln!(out, "{count} {deliveries} due now.")?;
    Ok(())
}

fn table(deliveries: &[Listed]) -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header([
            "ID",
            "PLAN",
            "EVENT",
            "STATE",
            "ATTEMPTS",
            "NEXT ATTEMPT",
            "LAST ERROR",
            "CREATED",
        ]);
    for delivery in deliveries {
        table.add_row([
            delivery.id.to_string(),
            delivery.plan.clone(),
            delivery.event.to_string(),
            delivery.state.to_string(),
            delivery.attempts.to_string(),
            delivery.next_attempt_at.map_or_else(nothing, time),
            delivery.last_error.clone().unwrap_or_else(nothing),
            time(delivery.created_at),
        ]);
    }
    table
}

fn time(moment: Timestamp) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn nothing() -> String {
    "-".to_owned()
}
