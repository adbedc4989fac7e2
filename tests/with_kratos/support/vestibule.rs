//! The program itself, as it is shipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::port;
use super::program::Program;

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
    /// Starts it on this file beside the tests; `environment` fills in the rest.
    pub async fn start(
        folder: &Path,
        settings: &'static str,
        keys: [&str; 2],
        environment: Vec<(&'static str, String)>,
    ) -> Self {
        let ports = (port::free(), port::free());
        let program = open(folder, settings, ports, keys, &environment).await;
        Self {
            hooks: format!("http://127.0.0.1:{}", ports.0),
            ports,
            folder: folder.to_owned(),
            settings,
            environment,
            program,
        }
    }

    /// Stops it and starts it again on the same addresses, with other keys.
    pub async fn restart(&mut self, keys: [&str; 2]) {
        self.program.stop().await;
        self.program = open(
            &self.folder,
            self.settings,
            self.ports,
            keys,
            &self.environment,
        )
        .await;
    }

    /// The same on other settings, with this in the environment.
    pub async fn restart_on(
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

    /// The value of a metric, 0 if there is none of that name yet.
    pub async fn metric(&self, name: &str) -> f64 {
        let url = format!("http://127.0.0.1:{}/metrics", self.ports.1);
        let answer = reqwest::get(url).await.expect("metrics");
        let text = answer.text().await.expect("metrics");
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .unwrap_or(0.0)
    }

    /// What another command of the program says beside it, on the same settings.
    pub fn runs(&self, arguments: &[&str]) -> String {
        let output = command(
            &self.folder,
            self.settings,
            self.ports,
            ["unused-key-0123456789", "another-key-0123456789"],
            &self.environment,
            arguments,
        )
        .output()
        .expect("the program runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{complained}");
        said
    }

    /// Everything that it has logged.
    pub fn said(&self) -> String {
        self.program.said()
    }
}

async fn open(
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
    let settings = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/with_kratos")
        .join(settings);
    let mut command = Command::new(env!("CARGO_BIN_EXE_vestibule"));
    command
        .args(arguments)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .env("VESTIBULE_CONFIG", settings)
        .env("FOLDER", folder)
        .env("HOOKS_PORT", ports.0.to_string())
        .env("ADMIN_PORT", ports.1.to_string())
        .env("KEY", keys[0])
        .env("OLD_KEY", keys[1])
        .current_dir(folder);
    command
}
