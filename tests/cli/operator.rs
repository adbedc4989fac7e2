//! What an operator does with a database, by the real program on a real file.

use std::path::Path;

use serde_json::Value;

use crate::{SERVED, Serving, folder_with, run, text, unread};

const ADA: &str = "7e2a2a9e-6c3d-4c3f-9a53-1d8d0f6f5b11";
const BOB: &str = "7e2a2a9e-6c3d-4c3f-9a53-1d8d0f6f5b12";
const NOBODY: &str = "7e2a2a9e-6c3d-4c3f-9a53-1d8d0f6f5b99";

/// Exit code, what was printed, and what was complained.
fn said(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = run(folder, arguments);
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Signs these people up; nobody listens where their deliveries go.
fn sign_up(serving: &Serving, people: &[&str]) {
    for id in people {
        let body = format!(
            r#"{{"version":1,"flow":{{"id":"16796416-e4ae-4463-99a6-be78d13a634a"}},"identity":{{"id":"{id}","traits":{{"invite":"canary-good","email":"canary@example.org"}}}}}}"#
        );
        let answer = serving.call("/hooks/registration/post?method=password", &body);
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    }
}

/// A folder in which these people's deliveries wait, newest first.
fn waiting(people: &[&str]) -> (tempfile::TempDir, Vec<String>) {
    let folder = folder_with(SERVED);
    let mut serving = Serving::start(folder.path());
    sign_up(&serving, people);
    assert_eq!(serving.stop().0, Some(0));
    let ids = ids(folder.path(), &[]);
    assert_eq!(ids.len(), people.len());
    (folder, ids)
}

fn ids(folder: &Path, options: &[&str]) -> Vec<String> {
    let arguments = [&["deliveries", "list", "--json"], options].concat();
    let (code, printed, complained) = said(folder, &arguments);
    assert_eq!(code, Some(0), "{complained}");
    let listed: Value = serde_json::from_str(&printed).expect("JSON");
    let listed = listed.as_array().expect("a list").iter();
    listed
        .map(|one| one["id"].as_str().expect("an id").to_owned())
        .collect()
}

#[test]
fn an_operator_lists_deliveries_by_filter_and_page_by_page() {
    let (folder, all) = waiting(&[ADA, BOB]);
    let folder = folder.path();
    unread(folder, &["deliveries", "list"]);
    unread(folder, &["deliveries", "list", "--json"]);
    unread(folder, &["deliveries", "show", &all[0], "--json"]);
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
        ["--identity", NOBODY],
    ] {
        assert!(ids(folder, &options).is_empty(), "{options:?}");
    }
    assert_eq!(ids(folder, &["--limit", "1"]), all[..1]);
    assert_eq!(ids(folder, &["--cursor", &all[0]]), all[1..]);
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
            "expected a day, a time, or an age, as in 2026-11-01",
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
        let (code, _, complained) =
            said(folder.path(), &[&["deliveries"], &arguments[..]].concat());
        assert!(matches!(code, Some(1 | 2)), "{arguments:?}: {code:?}");
        assert!(complained.contains(expected), "{expected} in {complained}");
    }
    assert!(!folder.path().join("vestibule.db").exists());
}

#[test]
fn a_delivery_is_shown_with_its_payload_only_on_request() {
    let (folder, all) = waiting(&[ADA]);
    let show = |options: &[&str]| {
        let arguments = [&["deliveries", "show", &all[0]], options].concat();
        let (code, printed, complained) = said(folder.path(), &arguments);
        assert_eq!(code, Some(0), "{complained}");
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
    let (code, printed, complained) = said(folder.path(), &["deliveries", "show", NOBODY]);
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert_eq!(
        complained,
        format!(
            "error: there is no delivery {NOBODY}\nhelp: list deliveries with `vestibule deliveries list`\n"
        )
    );
}

#[test]
fn a_retry_reports_skipped_deliveries_in_its_exit_code_too() {
    let (folder, all) = waiting(&[ADA]);
    let (code, printed, _) = said(folder.path(), &["deliveries", "retry", &all[0], NOBODY]);
    assert_eq!(code, Some(1));
    assert_eq!(
        printed,
        format!("1 delivery is due now.\n{NOBODY} was not retried: there is no such delivery.\n")
    );
    let (code, printed, _) = said(folder.path(), &["deliveries", "retry", "--all"]);
    assert_eq!(
        (code, printed.as_str()),
        (Some(0), "1 delivery is due now.\n")
    );
}

#[test]
fn a_bulk_discard_needs_a_confirmation() {
    let (folder, all) = waiting(&[ADA, BOB]);
    let folder = folder.path();
    let (code, printed, complained) = said(folder, &["deliveries", "discard", "--all"]);
    assert_eq!((code, printed.as_str()), (Some(1), ""));
    assert_eq!(
        complained,
        "error: this would discard 2 deliveries, and there is no terminal to confirm at\nhelp: add `--yes`\n"
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
            vec!["--dry-run", &all[0], NOBODY],
            "1 delivery would be discarded.\n",
        ),
    ] {
        let (code, printed, _) = said(folder, &[&["deliveries", "discard"], &options[..]].concat());
        assert_eq!((code, printed.as_str()), (Some(0), expected), "{options:?}");
    }
    assert_eq!(
        ids(folder, &["--state", "pending"]),
        all,
        "nothing is gone yet"
    );

    let (code, printed, _) = said(folder, &["deliveries", "discard", &all[0]]);
    assert_eq!(
        (code, printed.as_str()),
        (Some(0), "1 delivery was discarded.\n"),
        "who names it is not asked"
    );
    let (code, printed, _) = said(folder, &["deliveries", "discard", "--all", "--yes"]);
    assert_eq!(
        (code, printed.as_str()),
        (Some(0), "1 delivery was discarded.\n")
    );
    assert_eq!(ids(folder, &["--state", "discarded"]), all);
    let shown = said(folder, &["deliveries", "show", "--payload", &all[0]]).1;
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn an_identity_is_erased_while_the_server_runs() {
    let folder = folder_with(SERVED);
    let mut serving = Serving::start(folder.path());
    sign_up(&serving, &[ADA, BOB]);
    let (code, printed, complained) = said(folder.path(), &["forget", ADA, NOBODY]);
    assert_eq!(code, Some(0), "{complained}");
    assert_eq!(
        printed,
        format!(
            "{ADA}: forgotten; 1 delivery held something.\n{NOBODY}: no delivery held anything.\n"
        )
    );
    assert_eq!(ids(folder.path(), &["--state", "discarded"]).len(), 1);
    let kept = ids(folder.path(), &["--identity", BOB, "--state", "pending"]);
    assert_eq!(kept.len(), 1, "others are left alone");
    assert_eq!(serving.stop().0, Some(0));
    let gone = &ids(folder.path(), &["--identity", ADA])[0];
    let shown = said(folder.path(), &["deliveries", "show", "--payload", gone]).1;
    assert!(
        shown.contains("No payload is kept") && !shown.contains("canary"),
        "{shown}"
    );
    let (code, _, complained) = said(
        folder.path(),
        &["forget", "00000000-0000-0000-0000-000000000000"],
    );
    assert_eq!(code, Some(1));
    assert!(
        complained.contains("an id of zeros is no identity"),
        "{complained}"
    );
}

#[test]
fn forget_does_not_create_a_database() {
    let folder = folder_with(SERVED);
    let (code, _, complained) = said(folder.path(), &["forget", ADA]);
    assert_eq!(code, Some(1));
    assert!(
        complained.contains("there is no database at vestibule.db"),
        "{complained}"
    );
    assert!(!folder.path().join("vestibule.db").exists());
}

#[test]
fn migrate_creates_the_database_once_and_reports_it() {
    let folder = folder_with(SERVED);
    let (code, printed, complained) = said(folder.path(), &["migrate"]);
    assert_eq!(code, Some(0), "{complained}");
    assert!(
        printed.starts_with("Created the database vestibule.db.\nApplied migration 1: initial.\n"),
        "{printed}"
    );
    assert!(
        printed.ends_with("\nThe database schema is up to date.\n"),
        "{printed}"
    );
    assert!(ids(folder.path(), &[]).is_empty());
    let (code, printed, _) = said(folder.path(), &["migrate"]);
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
            "the folder /nowhere/at does not exist; create it",
        ),
    ] {
        let folder = folder_with(settings);
        let (code, printed, complained) = said(folder.path(), &["migrate"]);
        assert_eq!((code, printed.as_str()), (Some(1), ""));
        assert!(complained.contains(expected), "{complained}");
    }
}

#[test]
fn schema_prints_the_openapi_document() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, printed, _) = said(folder.path(), &["schema", "--openapi"]);
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    assert_eq!(code, Some(0));
    assert!(printed == std::fs::read_to_string(kept).expect("a document"));
}

#[test]
fn lifting_an_unknown_refusal_is_reported() {
    let id = "00000000-0000-0000-0000-000000000007";
    let (folder, _) = waiting(&[id]);
    for (arguments, expected) in [
        (
            vec!["deferred", "lift", id],
            "no late refusal of 00000000-0000-0000-0000-000000000007 is in force",
        ),
        (
            vec!["deferred", "lift", id, "--check", "vat"],
            "no late refusal by `vat` of",
        ),
    ] {
        let (code, printed, complained) = said(folder.path(), &arguments);
        assert_eq!(code, Some(1), "{complained}");
        assert_eq!(printed, "");
        assert!(complained.contains(expected), "{complained}");
    }
}
