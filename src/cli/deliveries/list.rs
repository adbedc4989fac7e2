//! Lists deliveries, one line each.

use std::io::Write;

use anyhow::Context as _;
use comfy_table::Table;

use crate::cli::table::{nothing, table as empty_table, time};
use crate::store::admin::page;
use crate::store::{DeliveryStore, DeliverySummary, Filter};

/// Prints deliveries, newest first, as text or as a JSON list.
pub async fn list(
    store: &dyn DeliveryStore,
    filter: &Filter,
    limit: u32,
    json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let page = page(store, filter, limit)
        .await
        .context("cannot list the deliveries")?;
    if json {
        serde_json::to_writer_pretty(&mut *out, &page.deliveries)?;
        writeln!(out)?;
    } else if page.deliveries.is_empty() {
        writeln!(out, "No deliveries.")?;
    } else {
        writeln!(out, "{}", table(&page.deliveries))?;
        if let Some(last) = page.next_cursor {
            writeln!(out, "There are more: --cursor {last}")?;
        }
    }
    Ok(())
}

fn table(deliveries: &[DeliverySummary]) -> Table {
    let mut table = empty_table();
    table.set_header([
        "ID",
        "SUBSCRIPTION",
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
            delivery.subscription.clone(),
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
