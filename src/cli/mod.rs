//! The command line: the tree of commands, and their help texts.

pub mod completions;
pub mod decisions;
pub mod deferred;
pub mod deliveries;
pub mod doctor;
pub mod forget;
pub mod health;
pub mod keygen;
pub mod kratos;
pub mod migrate;
pub mod reconcile;
pub mod reference;
pub mod schema;
pub mod serve;
mod table;
pub mod test;
pub mod trial;
pub mod validate;
mod when;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::ensure;
use clap::{Args, Parser, Subcommand};

use crate::app::{open_store, system_clock};
use crate::config::settings::Dsn;
use crate::config::{self, Environment, Settings};
#[cfg(feature = "demo")]
use crate::demo;
use crate::store::Store;

/// Checks sign-up fields against your services before Ory Kratos creates the account, and notifies your systems afterwards.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run Vestibule: answer Kratos's hooks and send deliveries, until SIGTERM or Ctrl-C
    Serve(serve::Options),
    /// Try Vestibule in one process, with example services and a sign-up page
    #[cfg(feature = "demo")]
    Demo(demo::Options),
    /// Check a settings file, and print every problem and warning
    Validate(validate::Options),
    /// Examine everything that the settings name: files, database, ports, services and Kratos
    Doctor(doctor::Options),
    /// Print the JSON Schema of the settings file, for editors
    Schema(schema::Options),
    /// Print the hooks for kratos.yml, and check kratos.yml
    #[command(subcommand)]
    Kratos(kratos::Command),
    /// List, show, retry and discard deliveries
    #[command(subcommand)]
    Deliveries(deliveries::Command),
    /// List and lift the late refusals of deferred checks
    #[command(subcommand)]
    Deferred(deferred::Command),
    /// Apply pending database migrations; `serve` does the same when it starts
    Migrate(ConfigFile),
    /// Erase the stored data of identities: payloads of deliveries, and error messages of services
    Forget(forget::Options),
    /// List and show decisions: why a visitor was refused
    #[command(subcommand)]
    Decisions(decisions::Command),
    /// Deliver identities that Vestibule missed; erase data of identities deleted in Kratos
    Reconcile(reconcile::Options),
    /// Check the health of a running Vestibule: exit code 0, or 1 with the reason
    Health(health::Options),
    /// Run tests of the rules: what is refused, changed, asked and delivered, without a network
    Test(test::Options),
    /// Try one sign-up against the settings and the real services, and explain what follows
    Try(trial::Options),
    /// Print a new random key for `hooks.keys` and kratos.yml
    Keygen(keygen::Options),
    /// Print completions for a shell
    Completions(completions::Completions),
    /// Print the manual page, or write the pages of all commands
    Man(completions::Manual),
}

/// The option that selects the settings file.
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

impl ConfigFile {
    /// Returns the settings, or `None` after every problem in them has been printed.
    fn settings(&self) -> Option<Settings> {
        config::load(&self.config, &Environment::of_process())
            .inspect_err(|problems| eprintln!("{problems}"))
            .ok()
    }
}

/// Opens the database that the settings name, if it exists.
async fn open_database(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    if let Dsn::Sqlite(path) = &settings.dsn {
        ensure!(
            path.exists(),
            "there is no database at {}\nhelp: start `vestibule serve`, which creates it",
            path.display()
        );
    }
    open_store(&settings.dsn).await
}

/// Formats a count with its noun: `1 delivery`, `2 deliveries`.
fn counted(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

impl Cli {
    /// Returns whether the program ends without its look-ups of names. The system can take longer for one than a command
    /// that limits its steps.
    #[must_use]
    pub fn leaves_lookups(&self) -> bool {
        matches!(self.command, Command::Doctor(_))
    }

    /// Runs the command.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let clock = system_clock();
        match self.command {
            Command::Serve(options) => serve::serve(&options).await,
            #[cfg(feature = "demo")]
            Command::Demo(options) => demo::run(&options, &clock).await,
            Command::Validate(options) => validate::run(&options),
            Command::Schema(options) => schema::run(&options),
            Command::Doctor(options) => doctor::run(options, &clock).await,
            Command::Kratos(command) => command.run(clock).await,
            Command::Deliveries(command) => command.run(clock.now()).await,
            Command::Deferred(command) => command.run(clock.now()).await,
            Command::Migrate(file) => migrate::run(&file).await,
            Command::Decisions(command) => command.run(clock.now()).await,
            Command::Forget(options) => forget::run(&options, clock.now()).await,
            Command::Reconcile(options) => options.run(clock).await,
            Command::Health(options) => health::run(&options, &clock).await,
            Command::Try(options) => trial::run(options, clock).await,
            Command::Test(options) => test::test(&options),
            Command::Completions(options) => completions::completions(&options),
            Command::Man(options) => completions::manual(&options),
            Command::Keygen(options) => keygen::run(&options),
        }
    }
}
