//! PostgreSQL: one database for several instances.
//!
//! Each change is one statement or one short transaction. No transaction is open while a service is called. The
//! statements use neither LISTEN nor advisory locks.

mod connect;

use super::adapter::{Connections, Pool};
use super::inspect::Inspection;
use super::{Database, Error};
use crate::base::clock::Clock;

/// Connects to `postgres://user:password@host:5432/database` and applies pending migrations. Several instances may do
/// so at the same time. The clock bounds the waits for the server.
pub async fn open(url: &str, clock: Clock) -> Result<Database, Error> {
    let connections = connect::pool(url, &clock).await?;
    let changes = connect::migrate(&connections, &clock).await?;
    let connections = Connections::Postgres { connections, clock };
    Ok(Database::new(Pool::new(connections), changes))
}

/// Inspects the database without a change.
pub(super) async fn inspect(url: &str, clock: &Clock) -> Result<Inspection, Error> {
    connect::inspect(url, clock).await
}

/// Returns whether the text is an address of a PostgreSQL database.
#[must_use]
pub fn is_address(url: &str) -> bool {
    connect::options(url).is_ok()
}
