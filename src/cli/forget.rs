//! Erasure: deletes the stored data of identities.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Args;
use uuid::Uuid;

use super::{ConfigFile, counted, open_database};
use crate::base::clock::{Clock, Timestamp};
use crate::store::Store;

/// `vestibule forget …`
#[derive(Debug, Args)]
pub struct Options {
    /// The settings, which name the database
    #[command(flatten)]
    file: ConfigFile,
    /// Ids of identities, as Kratos names them
    #[arg(value_name = "ID", required = true)]
    ids: Vec<Uuid>,
}

/// Erases the data, also while `serve` runs.
pub async fn run(options: &Options) -> anyhow::Result<ExitCode> {
    ensure!(
        options.ids.iter().all(|id| !id.is_nil()),
        "an id of zeros is no identity: name the one that Kratos gave it"
    );
    let Some(settings) = options.file.settings() else {
        return Ok(ExitCode::FAILURE);
    };
    let store = open_database(&settings).await?;
    let forgotten = forget(&*store, &options.ids, Clock::system().now()).await;
    store.close().await;
    forgotten.map(|()| ExitCode::SUCCESS)
}

async fn forget(store: &dyn Store, ids: &[Uuid], now: Timestamp) -> anyhow::Result<()> {
    for id in ids {
        let count = store
            .forget(*id, now)
            .await
            .with_context(|| format!("{id} could not be forgotten; try again"))?;
        match count {
            0 => println!("{id}: no delivery held anything."),
            _ => println!(
                "{id}: forgotten; {} held something.",
                counted(count, "delivery", "deliveries")
            ),
        }
    }
    Ok(())
}
