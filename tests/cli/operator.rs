//! What an operator does with a database, using the real program and a real file.

use std::path::Path;

use serde_json::Value;
use vestibule_testing::payload;

use crate::{SERVED, Server, folder_with, run, run_unread, text};

const ADA: &str = "7e2a2a9e-6c3d-4c3f-9a53-1d8d0f6f5b11";
const BOB: &str = "7e2a2a9e-6c3d-4c3f-9a53-1d8d0f6f5b12";
const UNKNOWN: &str = "7e2a2a9e-6c3d-4c3f-9a53-1d8d0f6f5b99";

/// Returns the exit code, the output and the error output.
fn run_and_read(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = run(folder, arguments);
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Signs these identities up. Their deliveries have an unreachable target.
fn sign_up(server: &Server, identities: &[&str]) {
    for id in identities {
        let visitor = payload().with_trait("invite", "canary-good");
        let body = visitor.saved_as(id.parse().expect("an id")).to_string();
        let answer = server.call("/hooks/registration/post?method=password", &body);
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    }
}

/// A folder with pending deliveries of these identities, newest first.
fn folder_with_deliveries(identities: &[&str]) -> (tempfile::TempDir, Vec<String>) {
    let folder = folder_with(SERVED);
    let mut server = Server::start(folder.path());
    sign_up(&server, identities);
    assert_eq!(server.stop().0, Some(0));
    let ids = ids(folder.path(), &[]);
    assert_eq!(ids.len(), identities.len());
    (folder, ids)
}

fn ids(folder: &Path, options: &[&str]) -> Vec<String> {
    let arguments = [&["deliveries", "list", "--json"], options].concat();
    let (code, printed, errors) = run_and_read(folder, &arguments);
    assert_eq!(code, Some(0), "{errors}");
    let listed: Value = serde_json::from_str(&printed).expect("JSON");
    let listed = listed.as_array().expect("a list").iter();
    listed
        .map(|one| one["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[test]
fn an_operator_lists_deliveries_by_filter_and_page_by_page() {
    let (folder, all) = folder_with_deliveries(&[ADA, BOB]);
    let folder = folder.path();
    run_unread(folder, &["deliveries", "list"]);
    run_unread(folder, &["deliveries", "list", "--json"]);
    run_unread(folder, &["deliveries", "show", &all[0], "--json"]);
    assert_eq!(ids(folder, &["--identity", ADA]), all[1..]);
    for options in [
        ["--since", "1h"],
        ["--since", "2026-01-01"],
        ["--until", "9999-01-01T00:00:00Z"],
        ["--state", "pending"],
        ["--subscription", "crm"],
    ] {
        assert_eq!(ids(folder, &options), all, "{options:?}");
    }
    for options in [
        ["--until", "1h"],
        ["--since", "9999-01-01"],
        ["--state", "discarded"],
        ["--subscription", "erp"],
        ["--identity", UNKNOWN],
    ] {
        assert!(ids(folder, &options).is_empty(), "{options:?}");
    }
    assert_eq!(ids(folder, &["--limit", "1"]), all[..1]);
    assert_eq!(ids(folder, &["--cursor", &all[0]]), all[1..]);
}

#[test]
fn a_check_that_the_settings_lack_is_a_warning() {
    let (folder, _) = folder_with_deliveries(&[ADA]);
    for (name, warning) in [
        ("invite", ""),
        (
            "invit",
            "warning: the settings have no check `invit`\nhelp: did you mean `invite`?\n",
        ),
    ] {
        let arguments = ["decisions", "list", "--outcome", "changed", "--check", name];
        let (code, printed, errors) = run_and_read(folder.path(), &arguments);
        assert_eq!(
            (code, printed.as_str()),
            (Some(0), "No decisions.\n"),
            "{errors}"
        );
        assert_eq!(errors, warning);
    }
}

#[test]
fn invalid_arguments_are_reported() {
    let folder = folder_with(SERVED);
    for (arguments, expected) in [
        (
            vec!["list", "--state", "lost"],
            "expected one of: pending, delivered, abandoned, discarded",
        ),
        (
            vec!["list", "--since", "yesterday"],
            "expected a day, a time, or an age, such as 2026-11-01",
        ),
        (vec!["list", "--until", "5"], "or an age"),
        (vec!["list", "--identity", "ada"], "--identity <ID>"),
        (vec!["list", "--limit", "0"], "0 is not in 1..=10000"),
        (
            vec!["list", "--since", "1h", "--until", "2h"],
            "`since` is not before `until`",
        ),
        (vec!["show"], "<ID>"),
        (
            vec!["retry"],
            "no deliveries given\nhelp: give ids, or `--all`",
        ),
        (
            vec!["retry", "--subscription", "crm"],
            "no deliveries given\nhelp: give ids, or `--all`",
        ),
        (vec!["retry", ADA, "--all"], "cannot be used with"),
        (
            vec!["retry", "--all", "--state", "delivered"],
            "delivered deliveries cannot be changed",
        ),
        (
            vec!["discard"],
            "no deliveries given\nhelp: give ids, or `--all`",
        ),
        (
            vec!["discard", "--all", "--state", "discarded"],
            "discarded deliveries cannot be changed",
        ),
    ] {
        let (code, _, errors) =
            run_and_read(folder.path(), &[&["deliveries"], &arguments[..]].concat());
        assert!(matches!(code, Some(1 | 2)), "{arguments:?}: {code:?}");
        assert!(errors.contains(expected), "{expected} in {errors}");
    }
    assert!(!folder.path().join("vestibule.db").exists());
}

#[test]
fn a_delivery_is_shown_with_its_payload_only_on_request() {
    let (folder, all) = folder_with_deliveries(&[ADA]);
    let show = |options: &[&str]| {
        let arguments = [&["deliveries", "show", &all[0]], options].concat();
        let (code, printed, errors) = run_and_read(folder.path(), &arguments);
        assert_eq!(code, Some(0), "{errors}");
        printed
    };
    for options in [&[][..], &["--json"]] {
        let printed = show(options);
        assert!(printed.contains(ADA), "{printed}");
        assert!(!printed.contains("canary"), "{printed}");
    }
    for options in [&["--payload"][..], &["--payload", "--json"]] {
        let printed = show(options);
        assert!(printed.contains("canary@example.org"), "{printed}");
    }
    let (code, printed, errors) = run_and_read(folder.path(), &["deliveries", "show", UNKNOWN]);
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert_eq!(
        errors,
        format!(
            "error: there is no delivery {UNKNOWN}\nhelp: list deliveries with `vestibule deliveries list`\n"
        )
    );
}

#[test]
fn a_retry_reports_skipped_deliveries_in_its_exit_code_too() {
    let (folder, all) = folder_with_deliveries(&[ADA]);
    let (code, printed, _) =
        run_and_read(folder.path(), &["deliveries", "retry", &all[0], UNKNOWN]);
    assert_eq!(code, Some(1));
    assert_eq!(
        printed,
        format!(
            "1 delivery is due now.\n{UNKNOWN} was not retried: the delivery does not exist.\n"
        )
    );
    let (code, printed, _) = run_and_read(folder.path(), &["deliveries", "retry", "--all"]);
    assert_eq!(
        (code, printed.as_str()),
        (Some(0), "1 delivery is due now.\n")
    );
}

#[test]
fn a_bulk_discard_needs_a_confirmation() {
    let (folder, all) = folder_with_deliveries(&[ADA, BOB]);
    let folder = folder.path();
    let (code, printed, errors) = run_and_read(folder, &["deliveries", "discard", "--all"]);
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert_eq!(
        errors,
        "error: discarding 2 deliveries needs a confirmation, and there is no terminal to ask for it\nhelp: add `--yes`\n"
    );
    for (options, expected) in [
        (
            vec!["--all", "--dry-run"],
            "2 deliveries would be discarded.\n",
        ),
        (
            vec!["--all", "--dry-run", "--identity", ADA],
            "1 delivery would be discarded.\n",
        ),
        (
            vec!["--dry-run", &all[0], UNKNOWN],
            "1 delivery would be discarded.\n",
        ),
    ] {
        let (code, printed, _) =
            run_and_read(folder, &[&["deliveries", "discard"], &options[..]].concat());
        assert_eq!((code, printed.as_str()), (Some(0), expected), "{options:?}");
    }
    assert_eq!(
        ids(folder, &["--state", "pending"]),
        all,
        "nothing is discarded yet"
    );

    let (code, printed, _) = run_and_read(folder, &["deliveries", "discard", &all[0]]);
    assert_eq!(
        (code, printed.as_str()),
        (Some(0), "1 delivery was discarded.\n"),
        "an id needs no confirmation"
    );
    let (code, printed, _) = run_and_read(folder, &["deliveries", "discard", "--all", "--yes"]);
    assert_eq!(
        (code, printed.as_str()),
        (Some(0), "1 delivery was discarded.\n")
    );
    assert_eq!(ids(folder, &["--state", "discarded"]), all);
    let shown = run_and_read(folder, &["deliveries", "show", "--payload", &all[0]]).1;
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn an_identity_is_erased_while_the_server_runs() {
    let folder = folder_with(SERVED);
    let mut server = Server::start(folder.path());
    sign_up(&server, &[ADA, BOB]);
    let (code, printed, errors) = run_and_read(folder.path(), &["forget", ADA, UNKNOWN]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(
        printed,
        format!("{ADA}: erased the data of 1 delivery.\n{UNKNOWN}: there was no data to erase.\n")
    );
    assert_eq!(ids(folder.path(), &["--state", "discarded"]).len(), 1);
    let kept = ids(folder.path(), &["--identity", BOB, "--state", "pending"]);
    assert_eq!(kept.len(), 1, "other identities keep their data");
    assert_eq!(server.stop().0, Some(0));
    let erased = &ids(folder.path(), &["--identity", ADA])[0];
    let shown = run_and_read(folder.path(), &["deliveries", "show", "--payload", erased]).1;
    assert!(
        shown.contains("No payload is stored") && !shown.contains("canary"),
        "{shown}"
    );
    let (code, _, errors) = run_and_read(
        folder.path(),
        &["forget", "00000000-0000-0000-0000-000000000000"],
    );
    assert_eq!(code, Some(1));
    assert!(errors.contains("is not the id of an identity"), "{errors}");
}

#[test]
fn forget_does_not_create_a_database() {
    let folder = folder_with(SERVED);
    let (code, _, errors) = run_and_read(folder.path(), &["forget", ADA]);
    assert_eq!(code, Some(1));
    assert!(
        errors.contains("there is no database at vestibule.db"),
        "{errors}"
    );
    assert!(!folder.path().join("vestibule.db").exists());
}

#[test]
fn migrate_creates_the_database_once_and_reports_it() {
    let folder = folder_with(SERVED);
    let (code, printed, errors) = run_and_read(folder.path(), &["migrate"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        printed.starts_with("Created the database vestibule.db.\nApplied migration 1: initial.\n"),
        "{printed}"
    );
    assert!(
        printed.ends_with("\nThe database schema is up to date.\n"),
        "{printed}"
    );
    assert!(ids(folder.path(), &[]).is_empty());
    let (code, printed, _) = run_and_read(folder.path(), &["migrate"]);
    assert_eq!(
        (code, printed.as_str()),
        (Some(0), "The database schema was already up to date.\n")
    );
}

#[test]
fn migrate_reports_problems_with_the_settings_and_the_folder() {
    for (settings, expected) in [
        ("dsn: 5", "dsn"),
        (
            "dsn: sqlite:///nowhere/at/all.db",
            "the folder /nowhere/at of the database file does not exist; create the folder",
        ),
    ] {
        let folder = folder_with(settings);
        let (code, printed, errors) = run_and_read(folder.path(), &["migrate"]);
        assert_eq!((code, printed.as_str()), (Some(1), ""));
        assert!(errors.contains(expected), "{errors}");
    }
}

#[test]
fn schema_prints_the_openapi_document() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, printed, _) = run_and_read(folder.path(), &["schema", "--openapi"]);
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    assert_eq!(code, Some(0));
    assert!(printed == std::fs::read_to_string(kept).expect("a document"));
}

#[test]
fn lifting_an_unknown_refusal_is_reported() {
    let id = "00000000-0000-0000-0000-000000000007";
    let (folder, _) = folder_with_deliveries(&[id]);
    for (arguments, expected) in [
        (
            vec!["deferred", "lift", id],
            "00000000-0000-0000-0000-000000000007 has no late refusal in force",
        ),
        (
            vec!["deferred", "lift", id, "--check", "vat"],
            "has no late refusal by `vat` in force",
        ),
    ] {
        let (code, printed, errors) = run_and_read(folder.path(), &arguments);
        assert_eq!(code, Some(1), "{errors}");
        assert_eq!(printed, "");
        assert!(errors.contains(expected), "{errors}");
    }
}
