//! The running program, and what it uses.

use std::path::Path;
use std::process::Command;

use reqwest::Client;
use vestibule_testing::{Program, port};

use super::database::Database;
use super::service::Service;

/// The key of the calls.
pub const KEY: &str = "a-key-for-the-bench-only";

const SETTINGS: &str = r#"
hooks: {keys: [a-key-for-the-bench-only]}
serve: {hooks: {host: 127.0.0.1, port: HOOKS}, admin: {host: 127.0.0.1, port: ADMIN}}
dsn: sqlite://FILE
log: {level: warn, format: json}
services:
  register: {url: "http://SERVICE", timeout: 2s}
  crm: {url: "http://SERVICE"}
  hostile: {url: "http://HOSTILE", timeout: 2s}
checks:
  vat_number: {field: traits.vat_number, ask: {service: register, get: "/numbers/{value}"}, accept: "response.status == 200 && response.body.valid"}
  company_number: {field: traits.company_number, ask: {service: hostile, get: "/numbers/{value}"}, accept: "response.status == 200 && response.body.valid"}
  words:
    field: traits.company
    refuse: [{when: "value.split(' ').exists(w, w.size() > 3 && w.split('').all(c, w.replace(c, '') == ''))", message: "No."}]
  doubled:
    field: traits.invite
    refuse: [{when: "value.replace('a', value) == ''", message: "No."}]
subscriptions:
  crm:
    events: [identity.created]
    when: "!has(identity.traits.tags)"
    send: {service: crm, post: /contacts, json: {identity: "{identity}"}}
  tags:
    events: [identity.created]
    when: "has(identity.traits.tags)"
    send: {service: hostile, post: /contacts, json: {identity: "{identity}"}}
    abandon_when: "response.status == 422"
"#;

/// The program as a process of its own.
pub struct Vestibule {
    program: Program,
    /// The client of all calls. A client reads the certificates of the system when it is made, which takes long.
    pub http: Client,
    /// The address of the hooks port.
    pub hooks: String,
    /// The address of the admin port.
    pub admin: String,
    /// Its database.
    pub database: Database,
}

/// What the process uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Resident memory, in KiB.
    pub memory: u64,
    /// Threads.
    pub threads: u64,
    /// Open files and connections.
    pub files: usize,
}

impl Vestibule {
    /// Starts the program with an empty database.
    pub async fn start(service: &Service, hostile: &Service) -> Self {
        let database = Database::create();
        let (hooks, admin) = (port::free(), port::free());
        let settings = SETTINGS
            .replace("HOOKS", &hooks.to_string())
            .replace("ADMIN", &admin.to_string())
            .replace("FILE", &database.file().display().to_string())
            .replace("SERVICE", &service.address.to_string())
            .replace("HOSTILE", &hostile.address.to_string());
        let file = database.work().join("vestibule.yaml");
        std::fs::write(&file, settings).expect("the settings are written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
        command.args(["serve", "--config"]).arg(&file);
        let mut program = Program::start("vestibule", &mut command, database.work().join("log"));
        program
            .ready(&format!("http://127.0.0.1:{admin}/health/ready"))
            .await;
        Self {
            program,
            http: vestibule_testing::http::client(),
            hooks: format!("http://127.0.0.1:{hooks}"),
            admin: format!("http://127.0.0.1:{admin}"),
            database,
        }
    }

    /// Returns what the process uses now.
    pub fn usage(&self) -> Usage {
        let process = format!("/proc/{}", self.program.id());
        let status =
            std::fs::read_to_string(Path::new(&process).join("status")).unwrap_or_default();
        let value = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.unwrap_or_default()
        };
        Usage {
            memory: value("VmRSS:"),
            threads: value("Threads:"),
            files: std::fs::read_dir(Path::new(&process).join("fd")).map_or(0, Iterator::count),
        }
    }

    /// Stops the program, and returns its log.
    pub async fn stop(&mut self) -> String {
        let status = self.program.stop().await;
        assert!(status.success(), "the program ends: {status}");
        self.program.log_text()
    }
}
