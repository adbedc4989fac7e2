//! Tables of plain text.

use chrono::SecondsFormat;
use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use crate::base::clock::Timestamp;

pub(super) fn table() -> Table {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

pub(super) fn time(moment: Timestamp) -> String {
    moment.to_rfc3339_opts(SecondsFormat::Secs, true)
}

pub(super) fn nothing() -> String {
    "-".to_owned()
}
