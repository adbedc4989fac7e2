//! Retries and discards deliveries, and reports the result.

use std::io::{BufRead, IsTerminal as _, Write};

use anyhow::{Context as _, bail};

use crate::base::clock::Timestamp;
use crate::cli::counted;
use crate::store::admin::{self, ActionResult, RetryWindows};
use crate::store::{DeliveryStore, Filter};

/// Whether deliveries that were not selected by id may be discarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// Discard without a question.
    Yes,
    /// Only count the deliveries.
    DryRun,
    /// Ask the operator at the terminal.
    Ask,
    /// There is no terminal, so the operator cannot be asked.
    NoTerminal,
}

impl Confirmation {
    /// Returns the confirmation from the options and the terminal.
    pub(super) fn from_options(yes: bool, dry_run: bool) -> Self {
        match (dry_run, yes) {
            (true, _) => Self::DryRun,
            (false, true) => Self::Yes,
            (false, false) if std::io::stdin().is_terminal() => Self::Ask,
            (false, false) => Self::NoTerminal,
        }
    }
}

/// Makes pending or abandoned deliveries due now, and prints how many. Returns `false` if a delivery that was selected
/// by id was not changed.
pub async fn retry(
    store: &dyn DeliveryStore,
    filter: &Filter,
    now: Timestamp,
    keep_trying: &RetryWindows,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<bool> {
    let done = admin::retry(store, filter, now, keep_trying)
        .await
        .context("cannot retry the deliveries")?;
    let due = counted(done.changed, "delivery is", "deliveries are");
    writeln!(out, "{due} due now.")?;
    if done.out_of_order > 0 && filter.ids.is_empty() {
        let left = counted(done.out_of_order, "delivery was", "deliveries were");
        writeln!(
            out,
            "{left} not retried, because newer ones of the same identities have been delivered. `--out-of-order` retries them."
        )?;
    }
    report_skipped(&done, "not retried", out)
}

/// Discards pending or abandoned deliveries, and prints how many. Asks first if the deliveries are not selected by id.
/// Returns `false` if a selected delivery was not changed, or the operator did not confirm.
pub async fn discard(
    store: &dyn DeliveryStore,
    filter: &Filter,
    now: Timestamp,
    confirmation: Confirmation,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<bool> {
    if confirmation == Confirmation::DryRun || filter.ids.is_empty() {
        let count = store
            .unfinished(filter)
            .await
            .context("cannot count the deliveries")?;
        let deliveries = counted(count, "delivery", "deliveries");
        match confirmation {
            Confirmation::DryRun => {
                writeln!(out, "{deliveries} would be discarded.")?;
                return Ok(true);
            }
            _ if count == 0 => {}
            Confirmation::NoTerminal => bail!(
                "discarding {deliveries} needs a confirmation, and there is no terminal to ask for it\nhelp: add `--yes`"
            ),
            Confirmation::Ask => {
                let question = format!("Discard {deliveries}? [y/N] ");
                if !agreed(
                    &question,
                    &mut std::io::stdin().lock(),
                    &mut std::io::stderr(),
                )? {
                    writeln!(out, "Nothing was discarded.")?;
                    return Ok(false);
                }
            }
            Confirmation::Yes => {}
        }
    }
    let done = admin::discard(store, filter, now)
        .await
        .context("cannot discard the deliveries")?;
    let deliveries = counted(done.changed, "delivery was", "deliveries were");
    writeln!(out, "{deliveries} discarded.")?;
    report_skipped(&done, "not discarded", out)
}

/// Asks a question. Any answer other than `y` or `yes` means no.
pub fn agreed(
    question: &str,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> std::io::Result<bool> {
    write!(out, "{question}")?;
    out.flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    let answer = answer.trim();
    Ok(answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes"))
}

fn report_skipped(
    done: &ActionResult,
    what: &str,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<bool> {
    for skipped in &done.skipped {
        writeln!(out, "{} was {what}: {}.", skipped.id, skipped.reason)?;
    }
    Ok(done.skipped.is_empty())
}
