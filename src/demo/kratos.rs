//! The `kratos` of PATH, started on kratos-config/ beside the demo.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::{Child, Command};

use crate::base::clock::Clock;

const KRATOS_YML: &str = include_str!("../../kratos-config/kratos.yml");
const IDENTITY_SCHEMA: &str = include_str!("../../kratos-config/identity.schema.json");
const TEMPLATE: &str = include_str!("../../kratos-config/vestibule.jsonnet");

/// Where kratos.yml puts its admin API.
pub const ADMIN_URL: &str = "http://127.0.0.1:4434";

/// A running Kratos.
pub struct Kratos {
    /// Where browsers reach it.
    pub public_url: String,
    process: Child,
}

/// Starts it, with its files in `folder`, on the ports that kratos.yml names, and waits until it is ready.
pub async fn start(folder: &Path, hooks: &str, key: &str) -> anyhow::Result<Kratos> {
    let write = |name: &str, text: &str| -> anyhow::Result<PathBuf> {
        let path = folder.join(name);
        std::fs::write(&path, text)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(path)
    };
    write("identity.schema.json", IDENTITY_SCHEMA)?;
    write("vestibule.jsonnet", TEMPLATE)?;
    let file = write("kratos.yml", &adapted(folder, hooks, key))?;
    let log = std::fs::File::create(folder.join("kratos.log")).context("no log file for Kratos")?;
    let program = crate::config::Environment::of_process()
        .value("KRATOS_BIN")
        .unwrap_or_else(|| "kratos".to_owned());
    let process = Command::new(&program)
        .args(["serve", "--dev", "--sqa-opt-out", "-c"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("no log file for Kratos")?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("`{program}` cannot be started; put Ory Kratos v26.2.0 on PATH, or its path in KRATOS_BIN"))?;
    let mut kratos = Kratos {
        public_url: "http://127.0.0.1:4433".to_owned(),
        process,
    };
    kratos.ready(folder).await?;
    Ok(kratos)
}

/// kratos.yml with this demo's address, key and files in it.
fn adapted(folder: &Path, hooks: &str, key: &str) -> String {
    KRATOS_YML
        .replace(crate::kratos::snippet::EXAMPLE_URL, hooks)
        .replace(crate::kratos::snippet::EXAMPLE_KEY, key)
        .replace(
            "file://kratos-config",
            &format!("file://{}", folder.display()),
        )
}

impl Kratos {
    async fn ready(&mut self, folder: &Path) -> anyhow::Result<()> {
        let clock = Clock::system();
        let address = self.public_url.trim_start_matches("http://").to_owned();
        for _ in 0..300 {
            if let Some(status) = self.process.try_wait()? {
                anyhow::bail!(
                    "Kratos ended at once ({status}); it says:\n{}",
                    last_lines(&folder.join("kratos.log"))
                );
            }
            if tokio::net::TcpStream::connect(&address).await.is_ok() {
                return Ok(());
            }
            clock.sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!(
            "Kratos was not ready within 30 s; it says:\n{}",
            last_lines(&folder.join("kratos.log"))
        )
    }

    /// Ends it.
    pub async fn stop(mut self) {
        if let Err(error) = self.process.kill().await {
            tracing::warn!(%error, "Kratos could not be ended");
        }
    }
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
