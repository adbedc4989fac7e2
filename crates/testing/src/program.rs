//! Child processes. None outlives its test, and each wait for one has a bound.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use crate::http::client_with_timeout;
use crate::wait::{try_until, wait_until_by, within};

/// How long a program may take to start, to stop, or to run to its end.
const PATIENCE: Duration = Duration::from_mins(1);
/// How many bytes of the log a failed test prints.
const TAIL: usize = 12_000;

/// A running program whose output goes to a file. It is killed when this value is dropped.
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts the program. Its output and its errors are appended to `log`.
    pub fn start(name: &str, command: &mut Command, log: PathBuf) -> Self {
        let errors = open_log(&log);
        Self::start_with_errors_to(name, command, log, errors)
    }

    /// Starts the program. Its output is appended to `log`, and its errors go elsewhere.
    pub fn start_with_errors_to(
        name: &str,
        command: &mut Command,
        log: PathBuf,
        errors: impl Into<Stdio>,
    ) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(open_log(&log))
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let name = name.to_owned();
        Self { name, child, log }
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `url` answers 200.
    pub async fn ready(&mut self, url: &str) {
        let http = client_with_timeout(Duration::from_secs(5));
        let what = format!("{} answers", self.name);
        within(PATIENCE, &what, async || {
            self.assert_running();
            let response = http.get(url).send().await.ok()?;
            response.status().is_success().then_some(())
        })
        .await;
    }

    /// Calls `probe` with the log until it finds something, and blocks the thread meanwhile.
    pub fn wait_for_log<T>(&mut self, what: &str, mut probe: impl FnMut(&str) -> Option<T>) -> T {
        let what = format!("{what} in the log of {}", self.name);
        wait_until_by(PATIENCE, &what, || {
            let found = probe(&self.log_text());
            if found.is_none() {
                self.assert_running();
            }
            found
        })
    }

    /// Sends SIGTERM, and waits until the program has ended.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal("TERM");
        let what = format!("{} stops", self.name);
        within(PATIENCE, &what, async || self.status()).await
    }

    /// Sends SIGTERM, and blocks the thread until the program has ended.
    pub fn stop_blocking(&mut self) -> ExitStatus {
        self.signal("TERM");
        let what = format!("{} stops", self.name);
        wait_until_by(PATIENCE, &what, || self.status())
    }

    /// Sends SIGKILL, and blocks the thread until the program has ended.
    pub fn kill(&mut self) {
        self.child.kill().expect("the program is killed");
        let what = format!("{} has ended", self.name);
        wait_until_by(PATIENCE, &what, || self.status());
    }

    /// Sends a signal, such as `HUP`.
    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = output(Command::new("kill").args([&format!("-{signal}"), &id]));
        assert!(sent.status.success(), "{signal} is sent to {}", self.name);
    }

    /// The complete log.
    pub fn log_text(&self) -> String {
        read(&self.log)
    }

    fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the status of the process")
    }

    fn assert_running(&mut self) {
        if let Some(status) = self.status() {
            panic!("{} ended: {status}\n{}", self.name, self.tail());
        }
    }

    fn tail(&self) -> String {
        let text = self.log_text();
        let start = text.ceil_char_boundary(text.len().saturating_sub(TAIL));
        text[start..].to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // A program that has ended already is not affected.
        let _ = try_until(PATIENCE, || self.child.try_wait().transpose());
        if std::thread::panicking() {
            eprintln!("---- end of the log of {} ----\n{}", self.name, self.tail());
        }
    }
}

/// Runs a command to its end. Panics if it does not end in time.
pub fn output(command: &mut Command) -> Output {
    output_by(PATIENCE, command)
}

/// Runs a command to its end. Panics if it does not end within `bound`.
pub fn output_by(bound: Duration, command: &mut Command) -> Output {
    let (mut stdout, mut stderr) = (scratch_file(), scratch_file());
    let child = command
        .stdin(Stdio::null())
        .stdout(clone(&stdout))
        .stderr(clone(&stderr))
        .spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let status = end(&mut child, bound);
    let output = Output {
        status: status.unwrap_or_default(),
        stdout: content(&mut stdout),
        stderr: content(&mut stderr),
    };
    assert!(
        status.is_some(),
        "{command:?} did not end within {bound:?}: {output:?}"
    );
    output
}

/// Waits until the process has ended, or kills it after `bound`.
pub fn end(child: &mut Child, bound: Duration) -> Option<ExitStatus> {
    let status = try_until(bound, || {
        child.try_wait().expect("the status of the process")
    });
    if status.is_none() {
        let _ = child.kill();
    }
    status
}

fn scratch_file() -> File {
    tempfile::tempfile().expect("a temporary file")
}

fn clone(file: &File) -> File {
    file.try_clone().expect("the file is open")
}

fn content(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("the file is open");
    file.read_to_end(&mut bytes).expect("the file is open");
    bytes
}

fn open_log(log: &Path) -> File {
    let file = File::options().create(true).append(true).open(log);
    file.expect("the log file opens")
}

fn read(log: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_runs_to_its_end() {
        let ran = output(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        assert_eq!(ran.status.code(), Some(3));
        assert_eq!((&*ran.stdout, &*ran.stderr), (&b"out\n"[..], &b"err\n"[..]));
    }

    #[test]
    #[should_panic(expected = "did not end within 30ms")]
    fn a_command_that_hangs_is_killed() {
        output_by(Duration::from_millis(30), Command::new("sleep").arg("600"));
    }

    #[test]
    fn a_program_writes_its_log_and_is_stopped() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("sh");
        command.args(["-c", "echo started; exec sleep 600"]);
        let mut program = Program::start("a shell", &mut command, folder.path().join("log"));
        program.wait_for_log("its line", |log| log.contains("started").then_some(()));
        assert!(!program.stop_blocking().success());
    }

    #[test]
    #[should_panic(expected = "a shell ended: exit status: 7")]
    fn a_program_that_ends_early_is_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new("sh");
        command.args(["-c", "exit 7"]);
        let mut program = Program::start("a shell", &mut command, folder.path().join("log"));
        program.wait_for_log("its line", |_| None::<()>);
    }
}
