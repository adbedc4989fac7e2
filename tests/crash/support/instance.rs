//! The real program: started, killed and restarted.

use std::path::{Path, PathBuf};
use std::process::Command;

use vestibule_testing::{Program, port};

/// The key that hooks are called with.
pub const KEY: &str = "crash-test-key-0123456789";

/// The folder, database and receiver of an instance.
#[derive(Clone)]
pub struct InstanceOptions {
    pub folder: PathBuf,
    pub dsn: String,
    pub receiver: String,
}

/// A running instance with its own ports.
pub struct Instance {
    options: InstanceOptions,
    ports: (u16, u16),
    program: Program,
}

/// The settings file of every instance.
pub fn settings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/vestibule.yaml")
}

impl InstanceOptions {
    /// The variables that the settings file reads with `${env:…}`.
    pub fn environment(&self, ports: (u16, u16)) -> Vec<(String, String)> {
        [
            ("HOOKS_PORT", ports.0.to_string()),
            ("ADMIN_PORT", ports.1.to_string()),
            ("KEY", KEY.to_owned()),
            ("DSN", self.dsn.clone()),
            ("RECEIVER", self.receiver.clone()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

impl Instance {
    /// Starts an instance and waits until it answers.
    pub async fn start(options: InstanceOptions) -> Self {
        let ports = (port::free(), port::free());
        let program = run(&options, ports);
        let mut instance = Self {
            options,
            ports,
            program,
        };
        instance.ready().await;
        instance
    }

    /// The base URL of the hooks.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.0)
    }

    /// Kills the instance with SIGKILL.
    pub fn kill(&mut self) {
        self.program.kill();
    }

    /// Starts the instance again on the same ports, without waiting until it answers.
    pub fn restart(&mut self) {
        self.program = run(&self.options, self.ports);
    }

    /// Waits until the instance answers.
    pub async fn ready(&mut self) {
        self.program.ready(&(self.url() + "/health/ready")).await;
    }

    /// The complete log.
    pub fn log_text(&self) -> String {
        self.program.log_text()
    }
}

fn run(options: &InstanceOptions, ports: (u16, u16)) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
    command
        .args(["serve", "--config"])
        .arg(settings())
        .env_clear()
        .envs(options.environment(ports));
    let log = options.folder.join(format!("{}.log", ports.0));
    Program::start("an instance", &mut command, log)
}
