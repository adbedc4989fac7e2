//! `vestibule reconcile`: look once for accounts that nobody told of, and for those that are gone.

use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use super::ConfigFile;
use crate::app::open_store;
use crate::app::shutdown_signal;
use crate::base::clock::{Clock, Timestamp};
use crate::base::telemetry::Metrics;
use crate::config::settings::{Dsn, Settings};
use crate::config::{self, Environment};
use crate::jobs::reconcile::{Deps, Progress, Reconciler, Report, RoundOptions};
use crate::outbound::kratos_admin::KratosAdmin;
use crate::outbound::services::client::Services;
use crate::store::Store;

/// `vestibule reconcile`
///
/// Pages through the identities of Kratos by its admin API. Those that were never delivered (made by the admin API,
/// imported, made by a method without hooks) are stored for delivery; what was delivered is never delivered again. Of
/// those that are gone from Kratos, what is stored is forgotten. Works beside a running `serve`. A round that is
/// interrupted goes on where it was.
#[derive(Debug, Args)]
pub struct Options {
    /// The settings, which name the database, Kratos and the deliveries
    #[command(flatten)]
    file: ConfigFile,
    /// Deliver accounts made from then on, as in 2026-11-01 or 2026-11-01T12:00:00Z. Without it, and without
    /// `reconcile.since`, those made before this database are left alone
    #[arg(long, value_name = "MOMENT", value_parser = config::parse_moment)]
    since: Option<Timestamp>,
    /// Only look: list whom it would deliver and forget, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Forget identities even if Kratos knows none of many. That happens if `kratos.admin_url` is another Kratos
    #[arg(long)]
    all_gone: bool,
    /// Print JSON, one object a line: the findings of --dry-run, and in the end the sum
    #[arg(long)]
    json: bool,
}

impl Options {
    /// Runs it on what the settings name.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let settings = match config::load(&self.file.config, &Environment::of_process()) {
            Ok(settings) => settings,
            Err(problems) => {
                eprintln!("{problems}");
                return Ok(ExitCode::FAILURE);
            }
        };
        anyhow::ensure!(
            settings.kratos.admin.is_some(),
            "reconciling needs Kratos's admin API; name its address in {}: `kratos: {{admin_url: \"http://kratos:4434\"}}`",
            self.file.config.display()
        );
        if let Dsn::Sqlite(path) = &settings.dsn {
            anyhow::ensure!(
                path.exists(),
                "there is no database at {}; `vestibule serve` makes it when it starts",
                path.display()
            );
        }
        let store = open_store(&settings.dsn).await?;
        let done = self.reconcile(settings, Arc::clone(&store)).await;
        store.close().await;
        done
    }

    async fn reconcile(
        &self,
        settings: Settings,
        store: Arc<dyn Store>,
    ) -> anyhow::Result<ExitCode> {
        let wishes = RoundOptions {
            since: self.since.or(settings.reconcile.since),
            per_second: settings.reconcile.per_second,
            dry_run: self.dry_run,
            believe_all_gone: self.all_gone,
        };
        let reconciler = Reconciler::new(knows(settings, store)?, wishes);
        let mut out = std::io::stdout();
        let findings = Findings {
            out: Mutex::new(std::io::stdout()),
            json: self.json,
        };
        let witness: &dyn Progress = if self.dry_run { &findings } else { &() };
        let report = tokio::select! {
            report = reconciler.round(witness) => report?,
            told = shutdown_signal() => {
                told?;
                reconciler.release_lock().await?;
                anyhow::bail!("stopped; the next round goes on where this one was");
            }
        };
        if self.json {
            serde_json::to_writer(&mut out, &report)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", words(&report, self.dry_run))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn knows(settings: Settings, store: Arc<dyn Store>) -> anyhow::Result<Deps> {
    let clock = Clock::system();
    let metrics = Arc::new(Metrics::new());
    let admin = settings.kratos.admin.into_iter().collect();
    let services = Services::new(admin, clock.clone(), Arc::clone(&metrics))
        .context("the HTTP client could not be built")?;
    Ok(Deps {
        store,
        identities: KratosAdmin::new(Arc::new(services), clock.clone()),
        plans: settings.subscriptions,
        lists: settings.lists,
        stored: Arc::new(Notify::new()),
        clock,
        metrics,
    })
}

/// Prints findings as they come.
struct Findings<O> {
    out: Mutex<O>,
    json: bool,
}

impl<O: Write> Findings<O> {
    fn print(&self, line: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever reads no more is told nothing more; the sum is printed by who can tell.
        let _ = writeln!(out, "{line}");
    }
}

impl<O: Write + Send> Progress for Findings<O> {
    fn left_out(&self, plan: &str) {
        if self.json {
            self.print(&json!({"left_out": {"plan": plan}}).to_string());
        } else {
            self.print(&format!(
                "left out {plan}  (its `when` reads `flow`, `request` or `method`, which only a hook knows)"
            ));
        }
    }

    fn missing(&self, identity: Uuid, plan: &str, unbuilt: Option<&str>) {
        if self.json {
            let missing = json!({"identity_id": identity, "plan": plan, "unbuilt": unbuilt});
            self.print(&json!({ "missing": missing }).to_string());
        } else if let Some(why) = unbuilt {
            self.print(&format!(
                "missing  {identity}  {plan}  (cannot be built: {why})"
            ));
        } else {
            self.print(&format!("missing  {identity}  {plan}"));
        }
    }

    fn gone(&self, identity: Uuid) {
        if self.json {
            self.print(&json!({"gone": {"identity_id": identity}}).to_string());
        } else {
            self.print(&format!("gone     {identity}"));
        }
    }
}

/// The sum, for people.
fn words(report: &Report, dry_run: bool) -> String {
    let Report {
        looked_at,
        missing,
        stored,
        unbuilt,
        gone,
        forgotten,
    } = *report;
    let looked = format!("Looked at {}.", number(looked_at, "identity", "identities"));
    let (deliveries, those_gone) = (
        number(missing, "delivery", "deliveries"),
        number(gone, "identity", "identities"),
    );
    if dry_run {
        return format!(
            "{looked} Would store {deliveries} that nobody told of, and forget {those_gone} that are gone from Kratos. \
             Nothing was changed."
        );
    }
    let mut sentences = vec![looked];
    if stored > 0 {
        let stored = number(stored, "delivery", "deliveries");
        sentences.push(format!(
            "Stored {stored} that nobody told of; a running `vestibule serve` takes them up within a minute."
        ));
    } else {
        sentences.push("Nothing was missing.".to_owned());
    }
    if unbuilt > 0 {
        let unbuilt = number(unbuilt, "delivery", "deliveries");
        sentences.push(format!(
            "Of these, {unbuilt} could not be built, because their plans ask for what only a hook knows: \
             `vestibule deliveries list --state abandoned` tells which."
        ));
    }
    if gone > 0 {
        let forgotten = number(forgotten, "delivery", "deliveries");
        sentences.push(format!(
            "Forgot {those_gone} gone from Kratos ({forgotten})."
        ));
    }
    sentences.join(" ")
}

fn number(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_told_in_words() {
        let nothing = Report {
            looked_at: 1,
            ..Report::default()
        };
        let much = Report {
            looked_at: 250,
            missing: 3,
            stored: 3,
            unbuilt: 1,
            gone: 1,
            forgotten: 2,
        };
        for (report, dry_run, expected) in [
            (nothing, false, "Looked at 1 identity. Nothing was missing."),
            (
                nothing,
                true,
                "Looked at 1 identity. Would store 0 deliveries that nobody told of, and forget 0 identities that are gone \
                 from Kratos. Nothing was changed.",
            ),
            (
                much,
                false,
                "Looked at 250 identities. Stored 3 deliveries that nobody told of; a running `vestibule serve` takes them \
                 up within a minute. Of these, 1 delivery could not be built, because their plans ask for what only a hook \
                 knows: `vestibule deliveries list --state abandoned` tells which. Forgot 1 identity gone from Kratos (2 \
                 deliveries).",
            ),
        ] {
            assert_eq!(words(&report, dry_run), expected);
        }
    }

    #[test]
    fn findings_are_lines_for_people_or_programs() {
        let id = Uuid::from_u128(7);
        for (json, expected) in [
            (
                false,
                "left out tax  (its `when` reads `flow`, `request` or `method`, which only a hook knows)\n\
                 missing  00000000-0000-0000-0000-000000000007  crm\n\
                 missing  00000000-0000-0000-0000-000000000007  erp  (cannot be built: why)\n\
                 gone     00000000-0000-0000-0000-000000000007\n",
            ),
            (
                true,
                "{\"left_out\":{\"plan\":\"tax\"}}\n\
                 {\"missing\":{\"identity_id\":\"00000000-0000-0000-0000-000000000007\",\"plan\":\"crm\",\"unbuilt\":null}}\n\
                 {\"missing\":{\"identity_id\":\"00000000-0000-0000-0000-000000000007\",\"plan\":\"erp\",\"unbuilt\":\"why\"}}\n\
                 {\"gone\":{\"identity_id\":\"00000000-0000-0000-0000-000000000007\"}}\n",
            ),
        ] {
            let findings = Findings {
                out: Mutex::new(Vec::new()),
                json,
            };
            findings.left_out("tax");
            findings.missing(id, "crm", None);
            findings.missing(id, "erp", Some("why"));
            findings.gone(id);
            let printed = findings.out.into_inner().unwrap();
            assert_eq!(String::from_utf8(printed).unwrap(), expected);
        }
    }
}
