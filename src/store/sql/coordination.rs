//! Implements [`Coordination`]: locks and properties.

use async_trait::async_trait;
use futures_util::FutureExt as _;
use uuid::Uuid;

use super::Database;
use crate::base::clock::Timestamp;
use crate::store::adapter::{Connection, Sql, query};
use crate::store::{Coordination, Error};

#[async_trait]
impl Coordination for Database {
    async fn acquire_lock(
        &self,
        name: &str,
        holder: Uuid,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error> {
        self.pool
            .write(|on| acquire_lock(on, name, holder, now, until).boxed())
            .await
    }

    async fn release_lock(&self, name: &str, holder: Uuid) -> Result<(), Error> {
        self.pool
            .write(|on| release_lock(on, name, holder).boxed())
            .await
    }

    async fn get_property(&self, name: &str) -> Result<Option<String>, Error> {
        self.pool.read(|on| get_property(on, name).boxed()).await
    }

    async fn set_property(&self, name: &str, value: Option<&str>) -> Result<(), Error> {
        self.pool
            .write(|on| set_property(on, name, value).boxed())
            .await
    }

    async fn get_or_insert_property(&self, name: &str, value: &str) -> Result<String, Error> {
        self.pool
            .write(|on| get_or_insert_property(on, name, value).boxed())
            .await
    }
}

static ACQUIRE_LOCK: Sql = Sql::new(
    "
INSERT INTO locks (name, holder, until) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
WHERE locks.until <= $4 OR locks.holder = excluded.holder",
);

async fn acquire_lock(
    connection: &mut Connection<'_>,
    name: &str,
    holder: Uuid,
    now: Timestamp,
    until: Timestamp,
) -> Result<bool, Error> {
    let acquire = query(&ACQUIRE_LOCK)
        .bind(name)
        .bind(holder)
        .bind(until)
        .bind(now);
    Ok(acquire.execute(connection).await? == 1)
}

static RELEASE_LOCK: Sql = Sql::new("DELETE FROM locks WHERE name = $1 AND holder = $2");

async fn release_lock(
    connection: &mut Connection<'_>,
    name: &str,
    holder: Uuid,
) -> Result<(), Error> {
    let release = query(&RELEASE_LOCK).bind(name).bind(holder);
    release.execute(connection).await?;
    Ok(())
}

static GET_PROPERTY: Sql = Sql::new("SELECT value FROM properties WHERE name = $1");

async fn get_property(
    connection: &mut Connection<'_>,
    name: &str,
) -> Result<Option<String>, Error> {
    let get = query(&GET_PROPERTY).bind(name);
    let row = get.fetch_optional(connection).await?;
    Ok(row.map(|row| row.string("value")).transpose()?)
}

static SET_PROPERTY: Sql = Sql::new(
    "
INSERT INTO properties (name, value) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET value = excluded.value",
);
static DELETE_PROPERTY: Sql = Sql::new("DELETE FROM properties WHERE name = $1");

/// Sets a property. `None` deletes the property.
pub(super) async fn set_property(
    connection: &mut Connection<'_>,
    name: &str,
    value: Option<&str>,
) -> Result<(), Error> {
    let set = match value {
        Some(value) => query(&SET_PROPERTY).bind(name).bind(value),
        None => query(&DELETE_PROPERTY).bind(name),
    };
    set.execute(connection).await?;
    Ok(())
}

static INSERT_PROPERTY: Sql = Sql::new(
    "
INSERT INTO properties (name, value) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET value = properties.value
RETURNING value",
);

async fn get_or_insert_property(
    connection: &mut Connection<'_>,
    name: &str,
    value: &str,
) -> Result<String, Error> {
    let stored = query(&INSERT_PROPERTY).bind(name).bind(value);
    Ok(stored.fetch_one(connection).await?.string("value")?)
}
