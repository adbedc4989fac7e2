//! The real program.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use vestibule_testing::Program;
use vestibule_testing::http::{client, metric};
use vestibule_testing::program::output;

use super::port;
use super::test_env::KEY;

/// A running Vestibule.
pub struct Vestibule {
    pub hooks: String,
    ports: (u16, u16),
    folder: PathBuf,
    settings: &'static str,
    environment: Vec<(&'static str, String)>,
    program: Program,
}

impl Vestibule {
    /// Starts Vestibule with this settings file of `tests/with_kratos/` and the variables that the file reads.
    pub async fn start(
        folder: &Path,
        settings: &'static str,
        keys: [&str; 2],
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        let ports = (port::free(), port::free());
        let program = start_program(folder, settings, ports, keys, &environment).await;
        Self {
            hooks: format!("http://127.0.0.1:{}", ports.0),
            ports,
            folder: folder.to_owned(),
            settings,
            environment,
            program,
        }
    }

    /// Restarts Vestibule on the same ports with other keys.
    pub async fn restart(&mut self, keys: [&str; 2]) {
        self.program.stop().await;
        self.program = start_program(
            &self.folder,
            self.settings,
            self.ports,
            keys,
            &self.environment,
        )
        .await;
    }

    /// Restarts Vestibule with another settings file and one changed variable.
    pub async fn restart_with_settings(
        &mut self,
        settings: &'static str,
        keys: [&str; 2],
        variable: Option<(&'static str, &str)>,
    ) {
        self.settings = settings;
        if let Some((name, value)) = variable {
            self.environment.retain(|(other, _)| *other != name);
            self.environment.push((name, value.to_owned()));
        }
        self.restart(keys).await;
    }

    /// The value of a metric, or 0 if it does not exist yet.
    pub async fn metric(&self, name: &str) -> f64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.ports.1);
        let response = client().get(url).send().await.expect("metrics");
        metric(&response.text().await.expect("metrics"), name)
    }

    /// The number of calls of a hook so far.
    pub async fn hook_calls(&self, flow: &str, stage: &str) -> usize {
        let url = format!("http://127.0.0.1:{}/metrics", self.ports.1);
        let response = client().get(url).send().await.expect("metrics");
        let start = format!("vestibule_hook_requests_total{{flow=\"{flow}\",stage=\"{stage}\",");
        let text = response.text().await.expect("metrics");
        let lines = text.lines().filter(|line| line.starts_with(&start));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
            .sum()
    }

    /// Runs `vestibule kratos lint` on these files with the settings. Returns its report, which is JSON.
    pub fn lint(&self, arguments: &[&str]) -> Value {
        let settings = path_of(self.settings);
        let settings = settings.to_str().expect("a path");
        let fixed = ["kratos", "lint", "--format", "json", "--settings", settings];
        let mut command = command(
            &self.folder,
            self.settings,
            self.ports,
            [KEY, "another-key-0123456789"],
            &self.environment,
            &[&fixed, arguments].concat(),
        );
        let output = output(&mut command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("a report: {error}: {stderr}"))
    }

    /// Runs another command of the program with the same settings. Returns its standard output.
    pub fn run_command(&self, arguments: &[&str]) -> String {
        let (code, stdout) = self.run_to_exit(arguments);
        assert_eq!(code, Some(0), "{stdout}");
        stdout
    }

    /// The same, for a command that may fail. Returns its exit code too.
    pub fn run_to_exit(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = command(
            &self.folder,
            self.settings,
            self.ports,
            ["unused-key-0123456789", "another-key-0123456789"],
            &self.environment,
            arguments,
        );
        let output = output(&mut command);
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let stderr = String::from_utf8_lossy(&output.stderr);
        if !stderr.is_empty() {
            eprintln!("{arguments:?}: {stderr}");
        }
        (output.status.code(), stdout)
    }

    /// The complete log.
    pub fn log_text(&self) -> String {
        self.program.log_text()
    }
}

async fn start_program(
    folder: &Path,
    settings: &str,
    ports: (u16, u16),
    keys: [&str; 2],
    environment: &[(&'static str, String)],
) -> Program {
    let mut command = command(folder, settings, ports, keys, environment, &["serve"]);
    let mut program = Program::start("vestibule", &mut command, folder.join("vestibule.log"));
    program
        .ready(&format!("http://127.0.0.1:{}/health/ready", ports.0))
        .await;
    program
}

fn command(
    folder: &Path,
    settings: &str,
    ports: (u16, u16),
    keys: [&str; 2],
    environment: &[(&'static str, String)],
    arguments: &[&str],
) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .env("VESTIBULE_CONFIG", path_of(settings))
        .env("FOLDER", folder)
        .env("HOOKS_PORT", ports.0.to_string())
        .env("ADMIN_PORT", ports.1.to_string())
        .env("KEY", keys[0])
        .env("OLD_KEY", keys[1])
        .current_dir(folder);
    command
}

/// The path of a settings file of `tests/with_kratos/`.
fn path_of(settings: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/with_kratos")
        .join(settings)
}
