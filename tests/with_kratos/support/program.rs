//! A child process that ends with its test case.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};

use super::eventually;

/// How many bytes of the log a failed test case prints.
const TAIL: usize = 12_000;

/// A running program.
pub struct Program {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts the program. Its output goes to `log`.
    pub fn start(name: &'static str, command: &mut Command, log: PathBuf) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("the log file opens");
        let child = command
            .stdout(file.try_clone().expect("the log file opens"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Self { name, child, log }
    }

    /// Waits until `url` answers 200.
    pub async fn ready(&mut self, url: &str) {
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("the HTTP client builds");
        let name = self.name;
        eventually(&format!("{name} answers"), async || {
            if let Some(status) = self.child.try_wait().expect("the status of the process") {
                panic!("{name} ended: {status}\n{}", self.tail());
            }
            let response = http.get(url).send().await.ok()?;
            response.status().is_success().then_some(())
        })
        .await;
    }

    /// Sends SIGTERM and waits until the program ends.
    pub async fn stop(&mut self) {
        let signal = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .expect("`kill` runs");
        assert!(signal.success());
        let name = self.name;
        eventually(&format!("{name} stops"), async || {
            self.child.try_wait().expect("the status of the process")
        })
        .await;
    }

    /// The complete log.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn tail(&self) -> String {
        let text = self.log_text();
        let start = text.len().saturating_sub(TAIL);
        let start = (start..=text.len())
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text[start..].to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- end of the log of {} ----\n{}", self.name, self.tail());
        }
    }
}
