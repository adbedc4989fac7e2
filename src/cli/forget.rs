//! `vestibule forget`: erases the stored data of identities.

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Args;
use uuid::Uuid;

use super::{ConfigFile, counted, open_database};
use crate::base::clock::Timestamp;
use crate::store::Retention;

/// `vestibule forget …`
#[derive(Debug, Args)]
pub struct Options {
    /// The settings file, which names the database
    #[command(flatten)]
    file: ConfigFile,
    /// The ids of the identities in Kratos
    #[arg(value_name = "ID", required = true)]
    ids: Vec<Uuid>,
}

/// Erases the data, also while `serve` runs.
pub async fn run(options: &Options, now: Timestamp) -> anyhow::Result<ExitCode> {
    ensure!(
        options.ids.iter().all(|id| !id.is_nil()),
        "00000000-0000-0000-0000-000000000000 is not the id of an identity\nhelp: give the id that the identity has in Kratos"
    );
    let Some(settings) = options.file.settings() else {
        return Ok(ExitCode::FAILURE);
    };
    let store = open_database(&settings).await?;
    let erased = forget(&*store, &options.ids, now).await;
    store.close().await;
    erased.map(|()| ExitCode::SUCCESS)
}

async fn forget(store: &dyn Retention, ids: &[Uuid], now: Timestamp) -> anyhow::Result<()> {
    for id in ids {
        let count = store
            .forget(*id, now)
            .await
            .with_context(|| format!("cannot erase the data of {id}"))?;
        match count {
            0 => println!("{id}: there was no data to erase."),
            _ => println!(
                "{id}: erased the data of {}.",
                counted(count, "delivery", "deliveries")
            ),
        }
    }
    Ok(())
}
