//! Starts the `kratos` of PATH on kratos-config/, together with the demo.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::process::{Child, Command};

use crate::base::clock::Clock;
use crate::kratos::template::TEMPLATE;

const KRATOS_YML: &str = include_str!("../../kratos-config/kratos.yml");
const IDENTITY_SCHEMA: &str = include_str!("../../kratos-config/identity.schema.json");

/// The admin API's address in kratos.yml.
pub const ADMIN_URL: &str = "http://127.0.0.1:4434";

/// A running Kratos.
pub struct Kratos {
    /// The address for browsers.
    pub public_url: String,
    process: Child,
}

/// Starts Kratos on the ports of kratos.yml, with its files in `folder`, and waits until Kratos is ready.
pub async fn start(folder: &Path, hooks: &str, key: &str, clock: &Clock) -> anyhow::Result<Kratos> {
    let write = |name: &str, text: &str| -> anyhow::Result<PathBuf> {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    write("identity.schema.json", IDENTITY_SCHEMA)?;
    write("vestibule.jsonnet", TEMPLATE)?;
    let file = write("kratos.yml", &adapted(folder, hooks, key))?;
    let log = std::fs::File::create(folder.join("kratos.log"))
        .context("cannot create Kratos's log file")?;
    let program = crate::config::Environment::of_process()
        .value("KRATOS_BIN")
        .unwrap_or_else(|| "kratos".to_owned());
    let process = Command::new(&program)
        .args(["serve", "--dev", "--sqa-opt-out", "-c"])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot create Kratos's log file")?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start `{program}`; put Ory Kratos v26.2.0 on PATH, or its path in KRATOS_BIN"))?;
    let mut kratos = Kratos {
        public_url: "http://127.0.0.1:4433".to_owned(),
        process,
    };
    kratos.ready(folder, clock).await?;
    Ok(kratos)
}

/// Returns kratos.yml with this demo's address, key and files.
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
    async fn ready(&mut self, folder: &Path, clock: &Clock) -> anyhow::Result<()> {
        let address = self.public_url.trim_start_matches("http://").to_owned();
        for _ in 0..300 {
            if let Some(status) = self.process.try_wait()? {
                anyhow::bail!(
                    "Kratos exited immediately ({status}); the end of its log:\n{}",
                    last_lines(&folder.join("kratos.log"))
                );
            }
            if tokio::net::TcpStream::connect(&address).await.is_ok() {
                return Ok(());
            }
            clock.sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!(
            "Kratos was not ready within 30 s; the end of its log:\n{}",
            last_lines(&folder.join("kratos.log"))
        )
    }

    /// Stops Kratos.
    pub async fn stop(mut self) {
        if let Err(error) = self.process.kill().await {
            tracing::warn!(%error, "Could not stop Kratos");
        }
    }
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
