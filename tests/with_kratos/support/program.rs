//! A program that runs beside a scene and ends with it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command};

use super::eventually;

/// How much of a log is shown when a scene fails.
const TAIL: usize = 12_000;

/// A running program.
pub struct Program {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts it, with all that it says in `log`.
    pub fn start(name: &'static str, command: &mut Command, log: PathBuf) -> Self {
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log file");
        let child = command
            .stdout(file.try_clone().expect("a log file"))
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
            .expect("a client");
        let name = self.name;
        eventually(&format!("{name} answers"), async || {
            if let Some(status) = self.child.try_wait().expect("a child") {
                panic!("{name} ended at once: {status}\n{}", self.tail());
            }
            let answer = http.get(url).send().await.ok()?;
            answer.status().is_success().then_some(())
        })
        .await;
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(&mut self) {
        let asked = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()
            .expect("kill");
        assert!(asked.success());
        let name = self.name;
        eventually(&format!("{name} stops"), async || {
            self.child.try_wait().expect("a child")
        })
        .await;
    }

    /// Everything that it has said.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn tail(&self) -> String {
        let said = self.said();
        let start = said.len().saturating_sub(TAIL);
        let start = (start..=said.len())
            .find(|at| said.is_char_boundary(*at))
            .unwrap_or(0);
        said[start..].to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- the last words of {} ----\n{}", self.name, self.tail());
        }
    }
}
