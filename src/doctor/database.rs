//! The database: reachable, migrated, writable, and its disk.

use std::io::{self, ErrorKind};
use std::path::Path;

use chrono::TimeDelta;
use rustix::fs::{Access, access};

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
    let at = || examined.place(&["dsn"]);
    let folder = files::folder_of(path);
    if let Some(problem) = without_folder(&folder) {
        return vec![problem.at(at())];
    }
    let mut findings = vec![disk::examine(&folder)];
    match state_of(path) {
        FileState::Present => {
            // Several statements can wait for a lock. The step must not end before the first of them reports it.
            let patience = examined.timeout / 4;
            let started = examined.clock.monotonic();
            let inspection = inspect::sqlite(path, patience);
            let inspected = examined.within_limit(inspection).await;
            let took = examined.clock.monotonic().saturating_sub(started);
            let inspected = inspected.unwrap_or(Err(Error::Timeout));
            findings.extend(judge(examined, inspected, took.as_millis()));
        }
        state => findings.push(without_file(path, &folder, &state).at(at())),
    }
    findings
}

/// What is at the path of the database.
#[derive(Debug)]
enum FileState {
    Present,
    Absent,
    /// A symbolic link to a file that does not exist.
    Dangling,
    Unknown(io::Error),
}

fn state_of(path: &Path) -> FileState {
    match (path.symlink_metadata(), path.metadata()) {
        (Ok(_), Ok(_)) => FileState::Present,
        (Ok(_), Err(error)) if error.kind() == ErrorKind::NotFound => FileState::Dangling,
        (Err(error), _) if error.kind() == ErrorKind::NotFound => FileState::Absent,
        (_, Err(error)) | (Err(error), _) => FileState::Unknown(error),
    }
}

/// Reports that there is no usable folder.
fn without_folder(folder: &Path) -> Option<Finding> {
    let shown = folder.display();
    let problem = |message: String| Some(SECTION.problem("reach", message));
    match folder.metadata() {
        Ok(found) if found.is_dir() => None,
        Ok(_) => problem(format!("{shown} is not a folder")),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let found = problem(format!("the folder {shown} does not exist"));
            found.map(|found| found.help(format!("mkdir -p {shown}")))
        }
        Err(error) => problem(format!("the folder {shown} cannot be examined: {error}")),
    }
}

/// Judges a path at which there is no file, so that `vestibule serve` would create one.
fn without_file(path: &Path, folder: &Path, state: &FileState) -> Finding {
    let shown = path.display();
    let user = rustix::process::geteuid().as_raw();
    let problem = |message: String| SECTION.problem("reach", message);
    let rights = "give the folder to the user that runs Vestibule with `chown`, and run this command as that user";
    match state {
        FileState::Unknown(error) => problem(format!(
            "{shown} cannot be examined by the user {user}: {error}"
        ))
        .help(rights),
        FileState::Dangling => problem(format!(
            "{shown} is a symbolic link to a file that does not exist"
        ))
        .help(format!("correct the link, or remove it: rm {shown}")),
        FileState::Absent | FileState::Present => match access(
            folder,
            Access::WRITE_OK | Access::EXEC_OK,
        ) {
            Ok(()) => SECTION.ok(
                "reach",
                format!("there is no database at {shown} yet; `vestibule serve` creates it"),
            ),
            Err(error) => problem(format!(
                "there is no database at {shown} yet, and the user {user} cannot create it: {error}"
            ))
            .help(rights),
        },
    }
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
    if let Some(lacking) = &inspection.lacking {
        findings.push(privileges(lacking).at(at()));
    }
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

/// Judges the privileges of a user of PostgreSQL.
fn privileges(lacking: &[String]) -> Finding {
    if lacking.is_empty() {
        return SECTION.ok(
            "privileges",
            "the user of `dsn` has those that Vestibule needs",
        );
    }
    let message = format!("the user of `dsn` lacks {}", lacking.join(", "));
    SECTION
        .problem("privileges", message)
        .help("make this user the owner of the schema and its tables, or grant it these privileges")
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
    fn lacking_privileges_are_a_problem() {
        assert_eq!(privileges(&[]).level, Level::Ok);
        let found = privileges(&["DELETE on `attempts`".to_owned()]);
        assert_eq!(found.level, Level::Problem);
        assert!(found.message.contains("DELETE on `attempts`"));
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
