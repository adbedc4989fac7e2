//! The program as an operator uses it in a shell.

#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod kratos_lint;
mod operator;
mod reconcile;
mod rule_tests;
mod trial;
mod validate;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use uuid::Uuid;
use vestibule_testing::payload;
use vestibule_testing::program::{self, Program};
use vestibule_testing::wait::BOUND;

const KEY: &str = "canary-key-one-0123456789";

fn vestibule(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    command
}

fn run(folder: &Path, arguments: &[&str]) -> Output {
    program::output(vestibule(folder, arguments).env("VESTIBULE_KEY", KEY))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn folder_with(settings: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("vestibule.yaml"), settings).expect("a file");
    folder
}

/// A running `vestibule serve`.
struct Server {
    program: Program,
    hooks: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut command = vestibule(folder, &["serve"]);
        let log = folder.join(format!("{}.log", Uuid::new_v4()));
        let mut program = Program::start("Vestibule", command.env("VESTIBULE_KEY", KEY), log);
        let hooks = program.wait_for_log("the address of the hooks", |log| {
            let mut lines = log
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            lines.find_map(|line: Value| Some(line["hooks_address"].as_str()?.to_owned()))
        });
        Self { program, hooks }
    }

    fn call(&self, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.hooks).expect("a connection");
        stream.set_read_timeout(Some(BOUND)).expect("a timeout");
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: v\r\nConnection: close\r\nX-Vestibule-Key: {KEY}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("a call");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("an answer within 30 s");
        answer
    }

    /// Stops the server with SIGTERM. Returns the exit code and the log.
    fn stop(&mut self) -> (Option<i32>, String) {
        let code = self.program.stop_blocking().code();
        (code, self.program.log_text())
    }
}

const SERVED: &str = r#"
serve: {hooks: {host: 127.0.0.1, port: 0}, admin: {host: 127.0.0.1, port: 0}}
dsn: sqlite://vestibule.db
checks: {invite: {field: traits.invite, refuse: [{when: "value != 'canary-good'", message: "No."}]}}
subscriptions: {crm: {events: [identity.created], send: {post: "http://127.0.0.1:9/contacts"}}}
"#;

#[test]
fn health_reports_the_status_and_the_reason() {
    let folder = folder_with(
        "serve: {hooks: {host: 127.0.0.1, port: 0}, admin: {host: 127.0.0.1, port: 0}}",
    );
    let server = Server::start(folder.path());
    let url = |path: &str| format!("http://{}{path}", server.hooks);
    let (ready, missing) = (url("/health/ready"), url("/health/nothing"));
    let output = run(
        folder.path(),
        &["health", "--url", &ready, "--wait", "20s", "--say", "open"],
    );
    assert_eq!(
        (output.status.code(), text(&output.stdout).as_str()),
        (Some(0), "open\n")
    );
    for (url, expected) in [
        (missing.as_str(), "status 404 Not Found"),
        ("http://127.0.0.1:1/", "cannot connect"),
    ] {
        let output = run(folder.path(), &["health", "--url", &ready, "--url", url]);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stderr), format!("error: {url}: {expected}\n"));
    }
    let output = run(folder.path(), &["health", "--wait", "5"]);
    assert!(text(&output.stderr).contains("`5` has no unit; write `5s` for seconds"));
}

#[test]
fn a_closed_output_pipe_is_not_an_error() {
    let folder = folder_with("{}");
    run_unread(folder.path(), &["kratos", "hooks"]);
}

/// Runs a command with a closed output pipe, and asserts that it succeeds without an error.
fn run_unread(folder: &Path, arguments: &[&str]) {
    let errors = tempfile::NamedTempFile::new().expect("a file");
    let mut program = vestibule(folder, arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors.reopen().expect("the file opens"))
        .spawn()
        .expect("the program starts");
    drop(program.stdout.take());
    let status = program::end(&mut program, BOUND).expect("the program ends within 30 s");
    assert!(status.success(), "{arguments:?}");
    let errors = std::fs::read_to_string(errors.path()).expect("a text");
    assert_eq!(errors, "", "{arguments:?}");
}

#[test]
fn listing_deliveries_does_not_create_a_database() {
    let folder = folder_with("{}");
    let output = run(folder.path(), &["deliveries", "list"]);
    assert!(!output.status.success());
    assert_eq!(
        text(&output.stderr),
        "error: there is no database at vestibule.db\nhelp: start `vestibule serve`, which creates it\n"
    );
    assert!(!folder.path().join("vestibule.db").exists());
}

#[test]
fn serve_answers_and_logs_without_personal_data_and_stops_on_sigterm() {
    let folder = folder_with(SERVED);
    let mut server = Server::start(folder.path());
    let body = |id: Uuid, invite: &str| {
        let visitor = payload().with_trait("invite", invite);
        visitor.saved_as(id).to_string()
    };
    let nil = Uuid::nil();
    let pre = "/hooks/registration/pre?method=password";
    assert!(
        server
            .call(pre, &body(nil, "canary-good"))
            .starts_with("HTTP/1.1 204")
    );
    assert!(
        server
            .call(pre, &body(nil, "canary-bad"))
            .starts_with("HTTP/1.1 400")
    );
    assert!(server.call(pre, "canary").starts_with("HTTP/1.1 400"));
    let saved = body(Uuid::new_v4(), "canary-good");
    assert!(
        server
            .call("/hooks/registration/post?method=password", &saved)
            .starts_with("HTTP/1.1 204")
    );

    // The commands read the same database while the server runs.
    let listed = run(folder.path(), &["deliveries", "list", "--json"]);
    assert!(listed.status.success(), "{}", text(&listed.stderr));
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert_eq!(listed[0]["subscription"], "crm");
    assert_eq!(listed[0]["state"], "pending");
    let id = listed[0]["id"].as_str().expect("an id").to_owned();

    let (code, log) = server.stop();
    assert_eq!(code, Some(0));
    assert!(log.contains("Stopped"), "{log}");
    assert!(!log.to_lowercase().contains("canary"), "{log}");
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).expect("JSON lines");
        assert!(
            line["message"].is_string()
                && line["timestamp"].is_string()
                && line["level"].is_string(),
            "{line}"
        );
    }

    let retried = run(folder.path(), &["deliveries", "retry", &id]);
    assert_eq!(
        (retried.status.code(), text(&retried.stdout)),
        (Some(0), "1 delivery is due now.\n".to_owned())
    );
    let table = text(&run(folder.path(), &["deliveries", "list", "--state", "pending"]).stdout);
    assert!(
        table.contains(&id) && table.contains("identity.created"),
        "{table}"
    );
    let none = text(
        &run(
            folder.path(),
            &["deliveries", "list", "--state", "delivered"],
        )
        .stdout,
    );
    assert_eq!(none, "No deliveries.\n");
}

#[test]
fn serve_does_not_start_with_invalid_settings() {
    for (settings, expected) in [
        (
            "checks: {a: {refuse: [{when: \"1 +\"}]}}",
            "checks.a.refuse",
        ),
        ("hooks: {deadline: 5}", "`5` has no unit"),
        ("dsn: sqlite:///nowhere/at/all.db", "/nowhere/at"),
    ] {
        let folder = folder_with(settings);
        let output = run(folder.path(), &["serve"]);
        assert_eq!(output.status.code(), Some(1), "{settings}");
        assert!(
            text(&output.stderr).contains(expected),
            "{expected} in {}",
            text(&output.stderr)
        );
    }
    let folder = folder_with("{}");
    let output = program::output(&mut vestibule(folder.path(), &["serve"]));
    assert_eq!(output.status.code(), Some(1), "no key");
    assert!(
        text(&output.stderr).contains("VESTIBULE_KEY"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn a_port_in_use_is_reported_with_its_settings_key() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let folder = folder_with(&format!(
        "dsn: sqlite://v.db\nserve: {{hooks: {{host: 127.0.0.1, port: {port}}}}}\n"
    ));
    let output = run(folder.path(), &["serve"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("`serve.hooks`"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn validate_succeeds_on_valid_settings_and_fails_on_problems() {
    let folder = folder_with(SERVED);
    let good = run(folder.path(), &["validate", "vestibule.yaml"]);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stderr));
    std::fs::write(
        folder.path().join("bad.yaml"),
        "chekcs: {}\nhooks: {deadline: 1}\n",
    )
    .expect("a file");
    let bad = run(folder.path(), &["validate", "bad.yaml"]);
    assert_eq!(bad.status.code(), Some(1));
    let report = format!("{}{}", text(&bad.stdout), text(&bad.stderr));
    assert!(
        report.contains("2 problems") && report.contains("`checks`"),
        "{report}"
    );
    let missing = run(folder.path(), &["validate", "none.yaml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        text(&missing.stderr).contains("none.yaml") || text(&missing.stdout).contains("none.yaml")
    );
}

/// A warning does not change the settings, and the operator sees it once.
#[test]
fn validate_prints_warnings_and_serve_logs_them_without_failing() {
    let risky = "checks: {risky: {ask: {get: \"http://127.0.0.1:9/a\"}, on_unavailable: accept}, ";
    let settings = SERVED.replace("checks: {", risky);
    assert_ne!(settings, SERVED);
    let folder = folder_with(&settings);
    let validated = run(folder.path(), &["validate", "vestibule.yaml"]);
    assert_eq!(validated.status.code(), Some(0));
    let (printed, errors) = (text(&validated.stdout), text(&validated.stderr));
    assert!(printed.contains("is valid"), "{printed}");
    for expected in [
        "vestibule.yaml has 1 warning\n\n  checks.risky.on_unavailable (line ",
        "`accept` admits sign-ups unchecked",
        "write `defer`",
    ] {
        assert!(errors.contains(expected), "{errors}");
    }
    let mut server = Server::start(folder.path());
    let (code, log) = server.stop();
    assert_eq!(code, Some(0));
    let warnings: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("The settings have a warning"))
        .collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(
        warnings[0].contains("checks.risky.on_unavailable")
            && warnings[0].contains("write `defer`"),
        "{}",
        warnings[0]
    );
}

/// The image sets the variable, so that commands in a container need no path.
#[test]
fn vestibule_config_names_the_settings_file_for_validate_too() {
    let folder = folder_with(SERVED);
    std::fs::rename(
        folder.path().join("vestibule.yaml"),
        folder.path().join("other.yaml"),
    )
    .expect("the file is renamed");
    let mut command = vestibule(folder.path(), &["validate"]);
    command
        .env("VESTIBULE_KEY", KEY)
        .env("VESTIBULE_CONFIG", "other.yaml");
    let output = program::output(&mut command);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
}

#[test]
fn small_commands_print_their_documented_output() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = text(&run(folder.path(), &["keygen"]).stdout);
    assert_eq!(key.trim().len(), 43);
    let schema: Value =
        serde_json::from_slice(&run(folder.path(), &["schema"]).stdout).expect("JSON");
    assert!(schema["properties"]["checks"].is_object());
    let hooks = text(&run(folder.path(), &["kratos", "hooks", "--inline"]).stdout);
    assert!(
        hooks.contains("base64://") && hooks.contains("passkey"),
        "{hooks}"
    );
    let version = text(&run(folder.path(), &["--version"]).stdout);
    assert_eq!(
        version,
        format!("vestibule {}\n", env!("CARGO_PKG_VERSION"))
    );
    let nothing = run(folder.path(), &[]);
    assert_eq!(nothing.status.code(), Some(2));
}

#[test]
fn sighup_is_ignored_and_logged() {
    let folder = folder_with(SERVED);
    let mut server = Server::start(folder.path());
    server.program.signal("HUP");
    server.program.wait_for_log("the signal", |log| {
        log.contains("Ignored SIGHUP").then_some(())
    });
    let answer = server.call("/hooks/registration/pre?method=password", "{}");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(server.stop().0, Some(0));
}
