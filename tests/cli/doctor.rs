//! `vestibule doctor`: what it finds in files, databases, ports, services and Kratos.

mod database;
pub mod kratos;
mod services;

use std::fs::{Permissions, set_permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use vestibule_testing::{port, program};

use super::{KEY, Server, folder_with, text, vestibule};

/// Settings on ports that the system chooses.
const PORTS: &str =
    "serve: {hooks: {host: 127.0.0.1, port: 0}, admin: {host: 127.0.0.1, port: 0}}\n";

/// What a run printed.
struct Examination {
    code: i32,
    report: Value,
}

impl Examination {
    /// Reads what the command printed. No value of the environment is in it.
    fn of_output(output: &Output) -> Self {
        let (printed, errors) = (text(&output.stdout), text(&output.stderr));
        assert!(!printed.to_lowercase().contains("canary"), "{printed}");
        let report = serde_json::from_str(&printed);
        Self {
            code: output.status.code().expect("an exit code"),
            report: report.unwrap_or_else(|error| panic!("{error}: {printed}{errors}")),
        }
    }

    /// Returns the findings of this name, in order: level, message and help.
    fn of(&self, section: &str, name: &str) -> Vec<&Value> {
        let findings = self.report["findings"].as_array().expect("findings");
        let is_wanted = |one: &&Value| one["section"] == section && one["name"] == name;
        findings.iter().filter(is_wanted).collect()
    }

    /// Returns the only finding of this name.
    fn the(&self, section: &str, name: &str) -> &Value {
        let found = self.of(section, name);
        assert_eq!(found.len(), 1, "{section}.{name}: {:#}", self.report);
        found[0]
    }

    /// Asserts the level of the only finding of this name, and a part of its message and its help.
    fn assert(&self, section: &str, name: &str, level: &str, part: &str) {
        let found = self.the(section, name);
        let printed = format!("{} {}", found["message"], found["help"]);
        assert_eq!(found["level"], level, "{section}.{name}: {printed}");
        assert!(printed.contains(part), "{section}.{name}: {printed}");
    }
}

/// Examines one section of the settings in this folder, with these variables.
fn examine(folder: &Path, section: &str, variables: &[(&str, &str)]) -> Examination {
    examine_with(folder, &["--only", section], variables)
}

fn examine_with(folder: &Path, options: &[&str], variables: &[(&str, &str)]) -> Examination {
    let arguments = [&["doctor", "--json"], options].concat();
    let mut command = vestibule(folder, &arguments);
    command.env("VESTIBULE_KEY", KEY);
    Examination::of_output(&program::output(command.envs(variables.iter().copied())))
}

#[test]
fn doctor_examines_everything_and_prints_text() {
    let folder = folder_with(PORTS);
    let mut command = vestibule(folder.path(), &["doctor"]);
    let output = program::output(command.env("VESTIBULE_KEY", KEY));
    let printed = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{printed}");
    for part in [
        "Settings\n  ok           file: valid; checks: 0, subscriptions: 0\n",
        "\nFiles\n  ok           vestibule.yaml: permissions: no secret in clear was found",
        "\nDatabase\n",
        "\nPorts\n  ok           serve.hooks: listen: the system chooses a free port\n",
        "\nServices\n  ok           services: the settings name none\n",
        "\nKratos\n  not checked  reach: `kratos.admin_url` is not set\n                 help: set ",
        "\nno problems, ",
    ] {
        assert!(printed.contains(part), "{part}\n{printed}");
    }
}

/// A pipe can be read once. The places in the file come from the same text as the settings.
#[test]
fn doctor_reads_the_settings_from_a_pipe() {
    let nowhere = port::free();
    let folder = folder_with(&format!(
        "{PORTS}services:\n  crm: {{url: \"http://127.0.0.1:{nowhere}\"}}\n"
    ));
    let script = "\"$0\" doctor --json --only services --config <(cat vestibule.yaml)";
    let mut bash = Command::new("bash");
    bash.args(["-c", script, env!("CARGO_BIN_EXE_vestibule")]);
    let output = program::output(bash.current_dir(folder.path()).env("VESTIBULE_KEY", KEY));
    let examination = Examination::of_output(&output);
    let connect = examination.the("services", "connect");
    assert_eq!(
        (&connect["level"], &connect["line"]),
        (&"problem".into(), &3.into())
    );
}

#[test]
fn the_exit_code_of_doctor_tells_problems_from_warnings() {
    let warned = folder_with(PORTS);
    std::fs::create_dir(warned.path().join("data")).expect("a folder");
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = busy.local_addr().expect("an address").port();
    let broken = folder_with(&format!(
        "serve: {{hooks: {{host: 127.0.0.1, port: {port}}}, admin: {{host: 127.0.0.1, port: 0}}}}\n"
    ));
    for (folder, options, has_key, code) in [
        (&warned, &["--only", "settings,ports"][..], true, 0),
        (&warned, &["--only", "settings", "--strict"], true, 0),
        (&warned, &["--only", "settings"], false, 0),
        (&warned, &["--only", "settings", "--strict"], false, 1),
        (&broken, &["--only", "ports"], true, 1),
        (&broken, &["--only", "settings"], true, 0),
        (&warned, &["--only", "nonsense"], true, 2),
        (&warned, &["--timeout", "5"], true, 2),
        (&warned, &["--kratos-public", "kratos:4433"], true, 2),
    ] {
        let arguments = [&["doctor"], options].concat();
        let mut command = vestibule(folder.path(), &arguments);
        if has_key {
            command.env("VESTIBULE_KEY", KEY);
        }
        let output = program::output(&mut command);
        let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{options:?}\n{printed}");
    }
}

#[test]
fn settings_with_a_problem_stop_the_examination() {
    let folder = folder_with("chekcs: {}\n");
    let found = examine_with(folder.path(), &[], &[]);
    assert_eq!(found.code, 1);
    found.assert("settings", "file", "problem", "did you mean `checks`?");
    assert_eq!(found.the("settings", "file")["line"], 1);
    for section in ["files", "database", "ports", "services", "kratos"] {
        found.assert(section, "settings", "not_checked", "has problems");
    }
    assert_eq!(found.report["healthy"], false);
    assert_eq!(found.report["problems"], 1);
    assert_eq!(found.report["not_checked"], 5);
}

#[test]
fn a_report_of_one_section_keeps_the_problems_of_the_settings() {
    let folder = folder_with("chekcs: {}\n");
    for (file, section, part) in [
        ("nowhere.yaml", "services", "cannot read the file"),
        ("nowhere.yaml", "files,ports", "cannot read the file"),
        ("vestibule.yaml", "kratos", "did you mean `checks`?"),
    ] {
        let options = ["--config", file, "--only", section];
        let found = examine_with(folder.path(), &options, &[]);
        assert_eq!(found.code, 1, "{file} {section}");
        assert_eq!(found.report["healthy"], false);
        found.assert("settings", "file", "problem", part);
    }
}

#[test]
fn without_authorities_everything_that_needs_no_client_is_examined() {
    let kratos = format!("http://127.0.0.1:{}", port::free());
    let busy = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = busy.local_addr().expect("an address").port();
    let folder = folder_with(&format!(
        "serve: {{hooks: {{host: 127.0.0.1, port: {port}}}, admin: {{host: 127.0.0.1, port: 0}}}}\n\
         kratos: {{admin_url: \"{kratos}\"}}\n\
         services: {{crm: {{url: \"http://127.0.0.1:{port}\", probe: {{get: /me}}}}}}\n"
    ));
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no certificate\n").expect("a file");
    let file = empty.to_str().expect("a path");
    let variables = [("SSL_CERT_FILE", file), ("SSL_CERT_DIR", "/nowhere")];
    let found = examine_with(folder.path(), &[], &variables);
    assert_eq!(found.code, 1);
    let client = found.the("services", "client").to_string();
    for part in [
        "No CA certificates were loaded",
        "SSL_CERT_FILE=",
        "SSL_CERT_DIR=/nowhere",
    ] {
        assert!(client.contains(part), "{client}");
    }
    found.assert("services", "connect", "ok", "accepts connections");
    found.assert(
        "services",
        "credentials",
        "not_checked",
        "cannot be created",
    );
    found.assert("kratos", "connect", "problem", "Connection refused");
    found.assert("database", "reach", "ok", "creates it");
    assert!(!found.of("files", "permissions").is_empty());
    let ports = found.of("ports", "listen");
    assert_eq!(ports[0]["level"], "not_checked", "{}", ports[0]);
    for section in ["files", "services", "kratos"] {
        let found = examine(folder.path(), section, &variables);
        assert_eq!(found.code, 1, "{section}");
        found.assert("services", "client", "problem", "No CA certificates");
    }
}

#[test]
fn files_that_the_settings_name_are_examined_with_their_folders() {
    let schema = "{\"type\": \"object\", \"properties\": {\"traits\": {\"type\": \"object\", \"properties\": {}}}}";
    let folder = folder_with(&format!(
        "{PORTS}dsn: sqlite://data/v.db\nlists: {{codes: {{file: codes.txt}}}}\nkratos: {{identity_schema: \"file://schema.json\"}}\n"
    ));
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("data")).expect("a folder");
    std::fs::write(path("codes.txt"), "a\n").expect("a file");
    std::fs::write(path("schema.json"), schema).expect("a file");
    let set = |path: &Path, mode| {
        set_permissions(path, Permissions::from_mode(mode)).expect("permissions");
    };
    for (codes, of_schema, of_folder, levels) in [
        (0o644, 0o664, 0o755, ["ok", "ok", "ok"]),
        (0o646, 0o644, 0o755, ["problem", "ok", "ok"]),
        (0o644, 0o646, 0o755, ["ok", "problem", "ok"]),
        (0o644, 0o644, 0o757, ["ok", "ok", "warning"]),
    ] {
        set(&path("codes.txt"), codes);
        set(&path("schema.json"), of_schema);
        set(folder.path(), of_folder);
        let found = examine(folder.path(), "files", &[]);
        let files = found.of("files", "permissions");
        assert_eq!(files[1]["subject"], "codes.txt", "{:#}", found.report);
        assert_eq!(files[1]["level"], levels[0], "{}", files[1]);
        assert_eq!(files[2]["subject"], "schema.json");
        assert_eq!(files[2]["level"], levels[1], "{}", files[2]);
        let above = found.of("files", "folders");
        assert_eq!(above.len(), 1, "{above:?}");
        assert_eq!(above[0]["level"], levels[2], "{}", above[0]);
    }
}

#[test]
fn doctor_warns_about_secrets_that_every_user_can_read() {
    let secret = format!("{PORTS}hooks: {{keys: [canary-key-in-clear-0123]}}\n");
    let folder = folder_with(&secret);
    let file = folder.path().join("vestibule.yaml");
    let set = |path: &Path, mode| {
        set_permissions(path, Permissions::from_mode(mode)).expect("permissions");
    };
    for (mode, level, part) in [
        (0o644, "warning", "chmod o-r vestibule.yaml"),
        (0o640, "ok", "mode 0640"),
        (0o646, "problem", "chmod o-w vestibule.yaml"),
    ] {
        set(&file, mode);
        let found = examine(folder.path(), "files", &[]);
        let files = found.of("files", "permissions");
        let of_settings = files[0];
        assert_eq!(of_settings["level"], level, "{of_settings}");
        assert!(of_settings.to_string().contains(part), "{of_settings}");
    }
    let key = folder.path().join("key");
    std::fs::write(&key, "canary-key-in-a-file-0123").expect("a file");
    set(&key, 0o644);
    let inserted = format!(
        "{PORTS}hooks: {{keys: [\"${{file:{}}}\"]}}\n",
        key.display()
    );
    std::fs::write(&file, inserted).expect("a file");
    set(&file, 0o644);
    let found = examine(folder.path(), "files", &[]);
    let files = found.of("files", "permissions");
    assert_eq!(files[0]["level"], "ok", "{}", files[0]);
    assert_eq!(files[1]["level"], "warning", "{}", files[1]);
    assert_eq!(files[1]["subject"], key.display().to_string());
}

/// The command without root's right to ignore permissions.
fn without_override(folder: &Path, arguments: &[&str]) -> Command {
    let plain = vestibule(folder, arguments);
    let is_root = program::output(Command::new("id").arg("-u")).stdout == b"0\n";
    if !is_root {
        return plain;
    }
    let mut command = Command::new("setpriv");
    command
        .arg("--bounding-set=-dac_override,-dac_read_search")
        .arg(plain.get_program())
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    command
}

#[test]
fn a_database_that_this_user_cannot_write_is_a_problem() {
    let folder = folder_with(&format!("{PORTS}dsn: sqlite://data/vestibule.db\n"));
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("a folder");
    let arguments = ["doctor", "--json", "--only", "files,database"];
    let set = |path: &Path, mode| {
        set_permissions(path, Permissions::from_mode(mode)).expect("permissions");
    };
    let examine = || {
        let mut command = without_override(folder.path(), &arguments);
        Examination::of_output(&program::output(command.env("VESTIBULE_KEY", KEY)))
    };
    set(&data, 0o555);
    let found = examine();
    assert_eq!(found.code, 1);
    let of_folder = found.of("files", "permissions")[1];
    assert_eq!(of_folder["level"], "problem", "{of_folder}");
    assert_eq!(of_folder["path"], "dsn");
    let part = "cannot write to it: Permission denied";
    assert!(of_folder.to_string().contains(part), "{of_folder}");

    set(&data, 0o755);
    assert!(super::run(folder.path(), &["migrate"]).status.success());
    set(&data.join("vestibule.db"), 0o444);
    let found = examine();
    let of_file = found.of("files", "permissions")[2];
    assert_eq!(of_file["level"], "problem", "{of_file}");
    found.assert(
        "database",
        "write",
        "problem",
        "make the file and its folder writable",
    );
}

/// Returns the level and the message of both ports.
fn ports(found: &Examination) -> Vec<(String, String)> {
    let ports = found.of("ports", "listen");
    let both = ports.iter().map(|one| {
        let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
        (text("level"), text("message"))
    });
    both.collect()
}

fn settings_on(hooks: u16, admin: u16) -> String {
    format!(
        "serve: {{hooks: {{host: 127.0.0.1, port: {hooks}}}, admin: {{host: 127.0.0.1, port: {admin}}}}}\n\
         dsn: sqlite://vestibule.db\n"
    )
}

#[test]
fn a_port_is_free_or_of_a_vestibule_or_of_another_program() {
    let (hooks, admin) = (port::free(), port::free());
    let folder = folder_with(&settings_on(hooks, admin));
    let free = ports(&examine(folder.path(), "ports", &[]));
    assert_eq!(
        free[0],
        ("ok".to_owned(), format!("127.0.0.1:{hooks} is free"))
    );

    let mut server = Server::start(folder.path());
    let found = examine_with(folder.path(), &[], &[]);
    assert_eq!(found.code, 0, "{:#}", found.report);
    for (level, message) in ports(&found) {
        assert_eq!(level, "not_checked", "{message}");
        assert!(message.contains("a Vestibule answers"), "{message}");
    }
    // The database is in use by the server, and can still be written to.
    found.assert("database", "write", "ok", "rolled back");
    found.assert("database", "migrations", "ok", "all");

    let exchanged = folder_with(&settings_on(admin, hooks));
    let found = ports(&examine(exchanged.path(), "ports", &[]));
    for ((level, message), other) in found.iter().zip(["admin", "hooks"]) {
        assert_eq!(level, "problem", "{message}");
        let part = format!("is the {other} port of a running Vestibule");
        assert!(message.contains(&part), "{message}");
    }
    let (code, log) = server.stop();
    assert_eq!(code, Some(0));
    assert!(!log.contains("unknown path"), "{log}");

    let _other = TcpListener::bind(("127.0.0.1", hooks)).expect("the port is free again");
    let options = ["--only", "ports", "--timeout", "300ms"];
    let taken = ports(&examine_with(folder.path(), &options, &[]));
    assert_eq!(taken[0].0, "problem");
    assert!(taken[0].1.contains("another program listens"), "{taken:?}");
    assert_eq!(taken[1].0, "ok");
}
