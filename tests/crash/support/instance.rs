//! The program itself, as it is shipped: started, killed, started again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use super::{eventually, port};

/// The key that hooks are called with.
pub const KEY: &str = "crash-test-key-0123456789";

/// What an instance runs on.
#[derive(Clone)]
pub struct Overrides {
    pub folder: PathBuf,
    pub dsn: String,
    pub receiver: String,
}

/// An instance with addresses of its own.
pub struct Instance {
    surroundings: Overrides,
    ports: (u16, u16),
    log: PathBuf,
    child: Child,
}

/// The settings of every instance.
pub fn settings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/vestibule.yaml")
}

impl Overrides {
    /// What stands in the settings as `${env:…}`.
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
    /// Starts one and waits until it answers.
    pub async fn start(surroundings: Overrides) -> Self {
        let ports = (port::free(), port::free());
        let log = surroundings.folder.join(format!("{}.log", ports.0));
        let child = run(&surroundings, ports, &log);
        let mut instance = Self {
            surroundings,
            ports,
            log,
            child,
        };
        instance.ready().await;
        instance
    }

    /// Where hooks are called.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports.0)
    }

    /// SIGKILL, and no word of goodbye.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it is gone");
    }

    /// At the same addresses; does not wait until it answers.
    pub fn start_again(&mut self) {
        self.child = run(&self.surroundings, self.ports, &self.log);
    }

    /// Waits until it answers.
    pub async fn ready(&mut self) {
        let http = http(Duration::from_secs(5));
        let url = self.url() + "/health/ready";
        let log = self.log.clone();
        eventually("an instance answers", Duration::from_mins(1), async || {
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("it ended: {status}\n{}", tail(&log));
            }
            let answer = http.get(&url).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Everything that it has logged.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- last words of an instance ----\n{}", tail(&self.log));
        }
    }
}

fn run(surroundings: &Overrides, ports: (u16, u16), log: &Path) -> Child {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .expect("a log file");
    Command::new(env!("CARGO_BIN_EXE_vestibule"))
        .args(["serve", "--config"])
        .arg(settings())
        .env_clear()
        .envs(surroundings.environment(ports))
        .stdout(file.try_clone().expect("a log file"))
        .stderr(file)
        .spawn()
        .expect("the program starts")
}

fn tail(log: &Path) -> String {
    let said = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<_> = said.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// A client that gives up in the end.
pub fn http(patience: Duration) -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(patience)
        .build()
        .expect("a client")
}
