//! The command tree; `--help` is the manual.

pub mod deliveries;
pub mod demo;
pub mod health;
pub mod keygen;
pub mod kratos;
pub mod reconcile;
pub mod schema;
pub mod serve;
pub mod validate;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Checks sign-up fields for Ory Kratos before an account is saved, and delivers the account to other
/// systems after.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer Kratos's hooks and carry deliveries, until SIGTERM or Ctrl-C
    Serve(ConfigFile),
    /// Show everything on one machine in one process, with example services and a page to try it on
    Demo(demo::Options),
    /// Read a settings file and print every problem in it; exit code 1 if there is one
    Validate {
        /// The settings file
        #[arg(default_value = "vestibule.yaml")]
        file: PathBuf,
    },
    /// Print the JSON Schema of the settings file, for editors
    Schema {
        /// Print docs/configuration.md instead
        #[arg(long)]
        markdown: bool,
    },
    /// Print what kratos.yml needs
    #[command(subcommand)]
    Kratos(kratos::Command),
    /// Look at deliveries, and try them again
    #[command(subcommand)]
    Deliveries(deliveries::Command),
    /// Look for accounts that nobody told of, and for those that are gone from Kratos
    Reconcile(reconcile::Options),
    /// Ask whether something is well: exit code 0 if it is, 1 and why if not
    Health(health::Options),
    /// Print a new random key for `hooks.keys` and kratos.yml
    Keygen(keygen::Options),
}

/// Which settings file.
#[derive(Debug, Args)]
pub struct ConfigFile {
    /// The settings file
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "VESTIBULE_CONFIG",
        default_value = "vestibule.yaml"
    )]
    pub config: PathBuf,
}

impl Cli {
    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(file) => serve::serve(&file.config).await,
            Command::Demo(options) => demo::run(&options).await,
            Command::Validate { file } => validate::run(&file),
            Command::Schema { markdown } => schema::run(markdown),
            Command::Kratos(command) => command.run(),
            Command::Deliveries(command) => command.run().await,
            Command::Reconcile(options) => options.run().await,
            Command::Health(options) => health::run(&options).await,
            Command::Keygen(options) => keygen::run(&options),
        }
    }
}
