//! `vestibule reconcile` as an operator uses it in a shell.

use vestibule_testing::FakeKratos;

use super::{Server, folder_with, run, text};

const IDENTITY: &str = "7e2a2a9e-6c3d-4c3f-9a53-1d8d0f6f5b11";

/// A Kratos with one identity that was created long ago.
fn kratos() -> FakeKratos {
    let kratos = FakeKratos::start();
    let created_at = "2026-11-01T12:00:00Z".parse().expect("a moment");
    kratos.add_identity_with_id(IDENTITY.parse().expect("an id"), created_at);
    kratos
}

fn settings(kratos: &FakeKratos) -> String {
    format!(
        r#"
serve: {{hooks: {{host: 127.0.0.1, port: 0}}, admin: {{host: 127.0.0.1, port: 0}}}}
dsn: sqlite://vestibule.db
kratos: {{admin_url: "{}"}}
subscriptions: {{crm: {{events: [identity.created], send: {{post: "http://127.0.0.1:9/contacts"}}}}}}
"#,
        kratos.url()
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconcile_reports_a_dry_run_and_stores_missing_deliveries_once() {
    let kratos = kratos();
    let folder = folder_with(&settings(&kratos));
    let reconcile = |arguments: &[&str]| {
        let output = run(folder.path(), &[&["reconcile"], arguments].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    // The server runs at the same time.
    let mut server = Server::start(folder.path());
    assert_eq!(
        reconcile(&[]),
        "Checked 1 identity. Nothing was missing.\n",
        "earlier accounts are not delivered"
    );
    let since = ["--since", "2026-11-01"];
    assert_eq!(
        reconcile(&[&since[..], &["--dry-run"]].concat()),
        format!(
            "missing  {IDENTITY}  crm\nChecked 1 identity. Would store 1 delivery that Vestibule missed, and erase the data of 0 \
             identities deleted in Kratos. Nothing was changed.\n"
        )
    );
    let lines = reconcile(&[&since[..], &["--dry-run", "--json"]].concat());
    let lines: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON lines"))
        .collect();
    assert_eq!(lines[0]["missing"]["identity_id"], IDENTITY);
    assert_eq!(
        (&lines[1]["missing"], &lines[1]["stored"]),
        (&1.into(), &0.into())
    );
    assert_eq!(
        reconcile(&["--since", "2026-11-01T12:00:00Z"]),
        "Checked 1 identity. Stored 1 delivery that Vestibule missed; a running `vestibule serve` sends them within a \
         minute.\n"
    );
    assert_eq!(
        reconcile(&since),
        "Checked 1 identity. Nothing was missing.\n"
    );
    let summary: serde_json::Value =
        serde_json::from_str(&reconcile(&[&since[..], &["--json"]].concat())).expect("JSON");
    assert_eq!(
        (&summary["checked"], &summary["missing"]),
        (&1.into(), &0.into())
    );
    let listed = run(folder.path(), &["deliveries", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    let (code, log) = server.stop();
    assert_eq!(code, Some(0));
    assert!(!log.to_lowercase().contains("canary"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reconcile_reports_errors_with_help() {
    let kratos = kratos();
    let settings = settings(&kratos);
    let without = settings.replace("kratos:", "log: {level: info} #");
    for (settings, arguments, code, expected) in [
        (
            without.as_str(),
            &[][..],
            1,
            "error: reconciliation needs Kratos\'s admin API\nhelp: add `kratos: {admin_url: \"http://kratos:4434\"}` to vestibule.yaml\n",
        ),
        (
            &settings,
            &[],
            1,
            "error: there is no database at vestibule.db\nhelp: start `vestibule serve`, which creates it\n",
        ),
        (
            &settings,
            &["--since", "yesterday"],
            2,
            "error: invalid value 'yesterday' for '--since <TIME>': expected a day or a time, as in 2026-11-01 or \
             2026-11-01T12:00:00Z\n\nFor more information, try '--help'.\n",
        ),
    ] {
        let folder = folder_with(settings);
        let output = run(folder.path(), &[&["reconcile"], arguments].concat());
        assert_eq!(text(&output.stderr), expected);
        assert_eq!(output.status.code(), Some(code));
    }
    assert!(kratos.service.received().is_empty());

    let folder = folder_with(&settings);
    Server::start(folder.path()).stop();
    let assert_error = |expected: &str| {
        let output = run(folder.path(), &["reconcile"]);
        assert_eq!(text(&output.stderr), format!("error: {expected}\n"));
        assert_eq!(output.status.code(), Some(1));
    };
    kratos.fail_on("/admin/identities", 401);
    assert_error(
        "stopped after 0 identities, because the next page could not be read; check that `kratos.auth` has the \
         credentials of the admin API; the next round continues where this one stopped: Kratos's admin API answered with status 401",
    );
    let unreachable = settings.replace(&kratos.url(), "http://127.0.0.1:9");
    std::fs::write(folder.path().join("vestibule.yaml"), unreachable).expect("a file");
    assert_error(
        "stopped after 0 identities, because the next page could not be read; check that Kratos runs and that \
         `kratos.admin_url` can be reached; the next round continues where this one stopped: Kratos's admin API did not \
         answer: the connection failed",
    );
}
