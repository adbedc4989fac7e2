//! The real program: started, killed and restarted.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use super::{eventually, port};

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
    log: PathBuf,
    child: Child,
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
        let log = options.folder.join(format!("{}.log", ports.0));
        let child = run(&options, ports, &log);
        let mut instance = Self {
            options,
            ports,
            log,
            child,
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
        self.child.kill().expect("the instance is killed");
        self.child.wait().expect("the instance has ended");
    }

    /// Starts the instance again on the same ports, without waiting until it answers.
    pub fn restart(&mut self) {
        self.child = run(&self.options, self.ports, &self.log);
    }

    /// Waits until the instance answers.
    pub async fn ready(&mut self) {
        let http = http(Duration::from_secs(5));
        let url = self.url() + "/health/ready";
        let log = self.log.clone();
        eventually("the instance answers", Duration::from_mins(1), async || {
            if let Some(status) = self.child.try_wait().expect("the status of the process") {
                panic!("the instance ended: {status}\n{}", tail(&log));
            }
            let response = http.get(&url).send().await.ok()?;
            response.status().is_success().then_some(())
        })
        .await;
    }

    /// The complete log.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "---- end of the log of an instance ----\n{}",
                tail(&self.log)
            );
        }
    }
}

fn run(options: &InstanceOptions, ports: (u16, u16), log: &Path) -> Child {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .expect("the log file opens");
    Command::new(env!("CARGO_BIN_EXE_vestibule"))
        .args(["serve", "--config"])
        .arg(settings())
        .env_clear()
        .envs(options.environment(ports))
        .stdout(file.try_clone().expect("the log file opens"))
        .stderr(file)
        .spawn()
        .expect("Vestibule starts")
}

fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// An HTTP client with this timeout.
pub fn http(timeout: Duration) -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(timeout)
        .build()
        .expect("the HTTP client builds")
}
