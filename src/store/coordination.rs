//! What a database keeps for the program itself: locks and properties.

use async_trait::async_trait;
use uuid::Uuid;

use super::Error;
use crate::base::clock::Timestamp;

/// Coordinates instances with locks, and keeps properties of the database.
#[async_trait]
pub trait Coordination: Send + Sync {
    /// Gives `holder` the lock of that name until this time. Returns `false` if another holder has the lock.
    async fn acquire_lock(
        &self,
        name: &str,
        holder: Uuid,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, Error>;
    /// Releases the lock if `holder` has it.
    async fn release_lock(&self, name: &str, holder: Uuid) -> Result<(), Error>;

    /// Returns the value of this property.
    async fn get_property(&self, name: &str) -> Result<Option<String>, Error>;
    /// Sets the value of this property. `None` deletes the property.
    async fn set_property(&self, name: &str, value: Option<&str>) -> Result<(), Error>;
    /// Stores the property unless it exists. Returns the value that is stored now.
    async fn get_or_insert_property(&self, name: &str, value: &str) -> Result<String, Error>;
}
