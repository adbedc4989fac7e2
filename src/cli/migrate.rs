//! `vestibule migrate`: applies pending database migrations.

use std::process::ExitCode;

use super::ConfigFile;
use crate::app::open_store;
use crate::config::settings::Dsn;

/// Opens the database that the settings name, which applies pending migrations, and prints the migrations.
pub async fn run(file: &ConfigFile) -> anyhow::Result<ExitCode> {
    let Some(settings) = file.settings() else {
        return Ok(ExitCode::FAILURE);
    };
    let new_file = match &settings.dsn {
        Dsn::Sqlite(path) if !path.exists() => Some(path.display()),
        Dsn::Sqlite(_) | Dsn::Postgres(_) => None,
    };
    let store = open_store(&settings.dsn).await?;
    let changes = store.changes().to_vec();
    store.close().await;
    if let Some(path) = new_file {
        println!("Created the database {path}.");
    }
    for change in &changes {
        println!("Applied migration {}: {}.", change.number, change.name);
    }
    let note = if changes.is_empty() {
        "was already"
    } else {
        "is"
    };
    println!("The database schema {note} up to date.");
    Ok(ExitCode::SUCCESS)
}
