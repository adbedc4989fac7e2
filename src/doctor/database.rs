//! The database: reachable, migrated, writable, and its disk.

use std::path::Path;

use chrono::TimeDelta;

use super::report::{Finding, Section};
use super::skew::{self, Stakes};
use super::{Examined, disk, files};
use crate::config::settings::Dsn;
use crate::store::inspect::{self, Inspection};
use crate::store::{AppliedMigration, Error};

const SECTION: Section = Section::Database;

/// Examines the database, and changes nothing.
pub(super) async fn examine(examined: &Examined<'_>) -> Vec<Finding> {
    match &examined.settings.dsn {
        Dsn::Sqlite(path) => sqlite(examined, path).await,
        Dsn::Postgres(url) => {
            let clock = examined.clock;
            let inspected = examined.within_limit(inspect::postgres(url.expose(), clock));
            let started = clock.monotonic();
            let inspected = inspected.await.unwrap_or(Err(Error::Timeout));
            let took = clock.monotonic().saturating_sub(started);
            let mut findings = judge(examined, inspected, took.as_millis());
            let reason = "the disk of the PostgreSQL server cannot be seen from here";
            findings.push(SECTION.not_checked("disk", reason));
            findings
        }
    }
}

async fn sqlite(examined: &Examined<'_>, path: &Path) -> Vec<Finding> {
    let folder = files::folder_of(path);
    if !folder.is_dir() {
        let message = format!("the folder {} does not exist", folder.display());
        let missing = SECTION.problem("reach", message);
        let help = format!("mkdir -p {}", folder.display());
        return vec![missing.at(examined.place(&["dsn"])).help(help)];
    }
    let mut findings = vec![disk::examine(&folder)];
    if path.exists() {
        let started = examined.clock.monotonic();
        let inspected = examined.within_limit(inspect::sqlite(path)).await;
        let took = examined.clock.monotonic().saturating_sub(started);
        let inspected = inspected.unwrap_or(Err(Error::Timeout));
        findings.extend(judge(examined, inspected, took.as_millis()));
    } else {
        let message = format!(
            "there is no database at {} yet; `vestibule serve` creates it",
            path.display()
        );
        findings.push(SECTION.ok("reach", message));
    }
    findings
}

fn judge(
    examined: &Examined<'_>,
    inspected: Result<Inspection, Error>,
    took: u128,
) -> Vec<Finding> {
    let at = || examined.place(&["dsn"]);
    let milliseconds = u64::try_from(took).unwrap_or(u64::MAX);
    let inspection = match inspected {
        Ok(inspection) => inspection,
        Err(error) => return vec![failed("reach", &error).at(at()).took(milliseconds)],
    };
    let mut findings = vec![
        SECTION.ok("reach", inspection.version).took(milliseconds),
        migrations(&inspection.missing, &inspection.foreign).at(at()),
        match &inspection.write {
            Ok(()) => SECTION.ok("write", "a write succeeded, and was rolled back"),
            Err(error) => failed("write", error).at(at()),
        },
    ];
    if let Some(time) = inspection.time {
        let between = (time.asked, time.answered);
        let skew = skew::skew(time.server, TimeDelta::milliseconds(1), between);
        findings.push(skew::judge(SECTION, skew, Stakes::None));
    }
    findings
}

/// Describes an error in one line. What follows `help:` in it becomes the help.
fn failed(name: &'static str, error: &Error) -> Finding {
    let text = error.error_chain();
    let (message, help) = match text.split_once("help: ") {
        Some((message, help)) => (message.trim(), Some(help)),
        None => (text.as_str(), error.help()),
    };
    let found = SECTION.problem(name, message.to_owned());
    match help {
        Some(help) => found.help(help),
        None => found,
    }
}

fn migrations(missing: &[AppliedMigration], foreign: &[i64]) -> Finding {
    if let [first, ..] = foreign {
        let message = format!(
            "the database belongs to another version of Vestibule: migration {first} in it is not one of this version"
        );
        return SECTION
            .problem("migrations", message)
            .help("run the newer version of Vestibule, or set `dsn` to another database");
    }
    if missing.is_empty() {
        return SECTION.ok("migrations", "all are applied");
    }
    let names: Vec<String> = missing
        .iter()
        .map(|one| format!("{} ({})", one.number, one.name))
        .collect();
    SECTION
        .warning("migrations", format!("not applied: {}", names.join(", ")))
        .help("`vestibule migrate` applies them, and so does `vestibule serve` when it starts")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Level;

    #[test]
    fn missing_migrations_are_a_warning_and_foreign_ones_a_problem() {
        let missing = [AppliedMigration {
            number: 2,
            name: "more",
        }];
        for (missing, foreign, expected, part) in [
            (&[][..], &[][..], Level::Ok, "all"),
            (&missing, &[], Level::Warning, "2 (more)"),
            (&missing, &[7], Level::Problem, "migration 7"),
        ] {
            let found = migrations(missing, foreign);
            assert_eq!(found.level, expected);
            assert!(found.message.contains(part), "{}", found.message);
        }
    }

    #[test]
    fn the_help_in_an_error_becomes_the_help_of_the_finding() {
        let path = "v.db".into();
        let found = failed("reach", &Error::Locked { path });
        assert!(found.message.ends_with("v.db"), "{}", found.message);
        assert!(found.help.unwrap_or_default().starts_with("end what holds"));
        assert_eq!(failed("reach", &Error::Timeout).help, None);
    }
}
