//! `vestibule reconcile`: delivers identities, changes and deletions that Vestibule missed, and erases data of identities
//! deleted in Kratos.

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use uuid::Uuid;

use super::{ConfigFile, counted};
use crate::app::{identity_tracker, open_store, shutdown_signal};
use crate::base::clock::{Clock, Timestamp};
use crate::base::telemetry::Metrics;
use crate::config::settings::{Dsn, Settings};
use crate::config::{self, Environment};
use crate::jobs::reconcile::{Deps, Progress, Reconciler, Report, RoundOptions, only_of_hooks};
use crate::model::delivery::Event;
use crate::outbound::kratos_admin::KratosAdmin;
use crate::outbound::services::client::Services;
use crate::store::Store;
use crate::store::outbox::outbox;

/// `vestibule reconcile`
///
/// Reads all identities from Kratos's admin API. Stores deliveries for identities that Vestibule missed, such as
/// those created by the admin API, imported, or created by a method without hooks. Delivers deletions to subscriptions of
/// `identity.deleted`, and, if `reconcile.every` is set, changes that no hook reported to subscriptions of `identity.updated`. Never
/// delivers anything twice. Erases the data of identities that were deleted in Kratos. Can run beside `serve`. An interrupted round
/// continues where it stopped.
#[derive(Debug, Args)]
pub struct Options {
    /// The settings file, which names the database, Kratos and the subscriptions
    #[command(flatten)]
    file: ConfigFile,
    /// Deliver identities created from this time on, as in 2026-11-01 or 2026-11-01T12:00:00Z. Without it, and without
    /// `reconcile.since`, identities that are older than this database are skipped
    #[arg(long, value_name = "TIME", value_parser = config::parse_moment)]
    since: Option<Timestamp>,
    /// List what would be delivered and erased, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Erase data even if Kratos has none of many known identities, which also happens if `kratos.admin_url` is another Kratos
    #[arg(long)]
    allow_mass_erasure: bool,
    /// Print JSON, one object per line: the findings of --dry-run, then the summary
    #[arg(long)]
    json: bool,
}

impl Options {
    /// Runs one reconciliation on what the settings name.
    pub async fn run(self, clock: Clock) -> anyhow::Result<ExitCode> {
        let settings = match config::load(&self.file.config, &Environment::of_process()) {
            Ok(settings) => settings,
            Err(problems) => {
                eprintln!("{problems}");
                return Ok(ExitCode::FAILURE);
            }
        };
        anyhow::ensure!(
            settings.kratos.admin.is_some(),
            "reconciliation needs Kratos's admin API\nhelp: add `kratos: {{admin_url: \"http://kratos:4434\"}}` to {}",
            self.file.config.display()
        );
        if let Dsn::Sqlite(path) = &settings.dsn {
            anyhow::ensure!(
                path.exists(),
                "there is no database at {}\nhelp: start `vestibule serve`, which creates it",
                path.display()
            );
        }
        let store = open_store(&settings.dsn).await?;
        let done = self.reconcile(settings, Arc::clone(&store), clock).await;
        store.close().await;
        done
    }

    async fn reconcile(
        &self,
        settings: Settings,
        store: Arc<dyn Store>,
        clock: Clock,
    ) -> anyhow::Result<ExitCode> {
        let options = RoundOptions {
            since: self.since.or(settings.reconcile.since),
            per_second: settings.reconcile.per_second,
            dry_run: self.dry_run,
            allow_mass_erasure: self.allow_mass_erasure,
            reports_changes: settings.reconcile.every.is_some(),
        };
        let reconciler = Reconciler::new(deps(settings, store, clock)?, options);
        let mut out = std::io::stdout();
        let findings = Findings {
            out: Mutex::new(std::io::stdout()),
            json: self.json,
        };
        let progress: &dyn Progress = if self.dry_run { &findings } else { &() };
        let report = tokio::select! {
            report = reconciler.round(progress) => report?,
            signal = shutdown_signal() => {
                signal?;
                reconciler.release_lock().await?;
                anyhow::bail!("stopped; the next round continues where this one stopped");
            }
        };
        if self.json {
            serde_json::to_writer(&mut out, &report)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", summary(&report, self.dry_run))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn deps(settings: Settings, store: Arc<dyn Store>, clock: Clock) -> anyhow::Result<Deps> {
    let rules = settings.rules();
    let tracker = identity_tracker(&settings, &store)?;
    let metrics = Arc::new(Metrics::new());
    let admin = settings.kratos.admin.into_iter().collect();
    let services = Services::new(admin, clock.clone(), Arc::clone(&metrics))
        .context("cannot build the HTTP client")?;
    let (outbox, writer) = outbox(store.clone(), Arc::clone(&metrics), clock.clone());
    // The writer ends with the reconciler, after every write has its result.
    tokio::spawn(writer.run());
    Ok(Deps {
        store,
        identities: KratosAdmin::new(Arc::new(services), clock.clone()),
        rules: Arc::new(rules),
        outbox,
        tracker,
        clock,
        metrics,
    })
}

/// Prints findings as they are found.
struct Findings<O> {
    out: Mutex<O>,
    json: bool,
}

impl<O: Write> Findings<O> {
    fn print_delivery(
        &self,
        kind: &str,
        identity: Uuid,
        subscription: &str,
        unbuilt: Option<&str>,
    ) {
        if self.json {
            let delivery =
                json!({"identity_id": identity, "subscription": subscription, "unbuilt": unbuilt});
            self.print(&json!({ kind: delivery }).to_string());
        } else if let Some(why) = unbuilt {
            self.print(&format!(
                "{kind}  {identity}  {subscription}  (cannot be built: {why})"
            ));
        } else {
            self.print(&format!("{kind}  {identity}  {subscription}"));
        }
    }

    fn print(&self, line: &str) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // The reader has closed the output, so a failed write is ignored. The final write of the summary returns the
        // error.
        let _ = writeln!(out, "{line}");
    }
}

impl<O: Write + Send> Progress for Findings<O> {
    fn left_out(&self, subscription: &str, event: Event) {
        if self.json {
            let left_out = json!({"subscription": subscription, "event": event});
            self.print(&json!({ "left_out": left_out }).to_string());
        } else {
            self.print(&format!(
                "left out {subscription}  {event}  (its `when` reads {}, which only hooks have)",
                only_of_hooks(event)
            ));
        }
    }

    fn missing(&self, identity: Uuid, subscription: &str, unbuilt: Option<&str>) {
        self.print_delivery("missing", identity, subscription, unbuilt);
    }

    fn changed(&self, identity: Uuid, subscription: &str, unbuilt: Option<&str>) {
        self.print_delivery("changed", identity, subscription, unbuilt);
    }

    fn deletion(&self, identity: Uuid, subscription: &str) {
        self.print_delivery("deletion", identity, subscription, None);
    }

    fn deleted(&self, identity: Uuid) {
        if self.json {
            self.print(&json!({"deleted": {"identity_id": identity}}).to_string());
        } else {
            self.print(&format!("deleted  {identity}"));
        }
    }
}

/// Formats the summary as text.
fn summary(report: &Report, dry_run: bool) -> String {
    let Report {
        checked,
        missing,
        stored,
        unbuilt,
        changes_reported,
        deletions_reported,
        deleted,
        erased,
    } = *report;
    let sum = format!("Checked {}.", counted(checked, "identity", "identities"));
    let of_deliveries = |count| counted(count, "delivery", "deliveries");
    let deleted_identities = counted(deleted, "identity", "identities");
    if dry_run {
        let mut stored = format!("{} that Vestibule missed", of_deliveries(missing));
        if changes_reported > 0 {
            let _ = write!(
                stored,
                ", {} of changes that no hook reported",
                of_deliveries(changes_reported)
            );
        }
        if deletions_reported > 0 {
            let _ = write!(
                stored,
                ", {} of `identity.deleted`",
                of_deliveries(deletions_reported)
            );
        }
        return format!(
            "{sum} Would store {stored}, and erase the data of {deleted_identities} deleted in Kratos. Nothing was changed."
        );
    }
    let mut sentences = vec![sum];
    if stored > 0 {
        let stored = of_deliveries(stored);
        sentences.push(format!(
            "Stored {stored} that Vestibule missed; a running `vestibule serve` sends them within a minute."
        ));
    } else if unbuilt == 0 {
        sentences.push("Nothing was missing.".to_owned());
    }
    if changes_reported > 0 {
        let reported = of_deliveries(changes_reported);
        sentences.push(format!(
            "Stored {reported} of changes that no hook reported."
        ));
    }
    if deletions_reported > 0 {
        let reported = of_deliveries(deletions_reported);
        sentences.push(format!("Stored {reported} of `identity.deleted`."));
    }
    if unbuilt > 0 {
        let unbuilt = counted(unbuilt, "missing delivery", "missing deliveries");
        sentences.push(format!(
            "Could not build {unbuilt}, because the subscriptions read what these identities or the admin API do not have: \
             see `vestibule deliveries list --state abandoned`."
        ));
    }
    if deleted > 0 {
        let erased = of_deliveries(erased);
        sentences.push(format!(
            "Erased the data of {deleted_identities} deleted in Kratos ({erased})."
        ));
    }
    sentences.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_printed_as_text() {
        let nothing = Report {
            checked: 1,
            ..Report::default()
        };
        let much = Report {
            checked: 250,
            missing: 3,
            stored: 3,
            unbuilt: 1,
            deleted: 1,
            erased: 2,
            ..Report::default()
        };
        let unreported = Report {
            checked: 2,
            changes_reported: 2,
            deletions_reported: 1,
            deleted: 1,
            ..Report::default()
        };
        let still_unbuilt = Report {
            checked: 2,
            missing: 2,
            unbuilt: 2,
            ..Report::default()
        };
        for (report, dry_run, expected) in [
            (
                still_unbuilt,
                false,
                "Checked 2 identities. Could not build 2 missing deliveries, because the subscriptions read what these identities \
                 or the admin API do not have: see `vestibule deliveries list --state abandoned`.",
            ),
            (nothing, false, "Checked 1 identity. Nothing was missing."),
            (
                nothing,
                true,
                "Checked 1 identity. Would store 0 deliveries that Vestibule missed, and erase the data of 0 identities deleted \
                 in Kratos. Nothing was changed.",
            ),
            (
                much,
                false,
                "Checked 250 identities. Stored 3 deliveries that Vestibule missed; a running `vestibule serve` sends them within \
                 a minute. Could not build 1 missing delivery, because the subscriptions read what these identities or the admin \
                 API do not have: see `vestibule deliveries list --state abandoned`. Erased the data of 1 identity deleted in Kratos (2 deliveries).",
            ),
            (
                unreported,
                false,
                "Checked 2 identities. Nothing was missing. Stored 2 deliveries of changes that no hook reported. Stored 1 \
                 delivery of `identity.deleted`. Erased the data of 1 identity deleted in Kratos (0 deliveries).",
            ),
            (
                unreported,
                true,
                "Checked 2 identities. Would store 0 deliveries that Vestibule missed, 2 deliveries of changes that no hook \
                 reported, 1 delivery of `identity.deleted`, and erase the data of 1 identity deleted in Kratos. Nothing was \
                 changed.",
            ),
        ] {
            assert_eq!(summary(&report, dry_run), expected);
        }
    }

    #[test]
    fn findings_are_printed_as_text_or_json() {
        let id = Uuid::from_u128(7);
        for (json, expected) in [
            (
                false,
                "left out tax  identity.created  (its `when` reads `flow`, `request` or `method`, which only hooks have)\n\
                 left out tax  identity.updated  (its `when` reads `previous`, `flow`, `request` or `method`, which only hooks have)\n\
                 missing  00000000-0000-0000-0000-000000000007  crm\n\
                 missing  00000000-0000-0000-0000-000000000007  erp  (cannot be built: why)\n\
                 changed  00000000-0000-0000-0000-000000000007  crm\n\
                 deletion  00000000-0000-0000-0000-000000000007  crm\n\
                 deleted  00000000-0000-0000-0000-000000000007\n",
            ),
            (
                true,
                "{\"left_out\":{\"subscription\":\"tax\",\"event\":\"identity.created\"}}\n\
                 {\"left_out\":{\"subscription\":\"tax\",\"event\":\"identity.updated\"}}\n\
                 {\"missing\":{\"identity_id\":\"00000000-0000-0000-0000-000000000007\",\"subscription\":\"crm\",\"unbuilt\":null}}\n\
                 {\"missing\":{\"identity_id\":\"00000000-0000-0000-0000-000000000007\",\"subscription\":\"erp\",\"unbuilt\":\"why\"}}\n\
                 {\"changed\":{\"identity_id\":\"00000000-0000-0000-0000-000000000007\",\"subscription\":\"crm\",\"unbuilt\":null}}\n\
                 {\"deletion\":{\"identity_id\":\"00000000-0000-0000-0000-000000000007\",\"subscription\":\"crm\",\"unbuilt\":null}}\n\
                 {\"deleted\":{\"identity_id\":\"00000000-0000-0000-0000-000000000007\"}}\n",
            ),
        ] {
            let findings = Findings {
                out: Mutex::new(Vec::new()),
                json,
            };
            findings.left_out("tax", Event::IdentityCreated);
            findings.left_out("tax", Event::IdentityUpdated);
            findings.missing(id, "crm", None);
            findings.missing(id, "erp", Some("why"));
            findings.changed(id, "crm", None);
            findings.deletion(id, "crm");
            findings.deleted(id);
            let printed = findings.out.into_inner().unwrap();
            assert_eq!(String::from_utf8(printed).unwrap(), expected);
        }
    }
}
