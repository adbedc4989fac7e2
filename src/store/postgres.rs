//! PostgreSQL: one database for several instances.
//!
//! Each change is one statement or one short transaction. No transaction is open while a service is called. The
//! statements use neither LISTEN nor advisory locks.

mod connect;

use super::adapter::Pool;
use super::{Database, Error};

/// Connects to `postgres://user:password@host:5432/database` and applies pending migrations. Several instances may do
/// so at the same time.
pub async fn open(url: &str) -> Result<Database, Error> {
    let pool = connect::pool(url).await?;
    let changes = connect::migrate(&pool).await?;
    Ok(Database::new(Pool::Postgres(pool), changes))
}

/// Returns whether the text is an address of a PostgreSQL database.
#[must_use]
pub fn is_address(url: &str) -> bool {
    connect::options(url).is_ok()
}
