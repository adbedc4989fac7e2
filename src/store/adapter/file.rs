//! Notices that the file of an open SQLite database was removed or replaced.
//!
//! SQLite keeps the file open, so it does not notice: writes succeed, and are lost when the program ends.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The file of an open database.
#[derive(Debug)]
pub(in crate::store) struct DatabaseFile {
    path: PathBuf,
    /// The write-ahead log beside the file, if there is one. SQLite deletes it when the last connection closes.
    log: Option<PathBuf>,
    identity: FileIdentity,
}

/// Identifies a file on this machine, whatever its name is.
#[derive(Debug, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

impl DatabaseFile {
    /// Remembers the file with this path. The database must be open.
    pub(in crate::store) fn of_open_database(path: &Path) -> std::io::Result<Self> {
        let path = std::path::absolute(path)?;
        let mut log = OsString::from(path.canonicalize()?);
        log.push("-wal");
        let log = PathBuf::from(log);
        Ok(Self {
            identity: FileIdentity::of(&path.metadata()?),
            log: log.exists().then_some(log),
            path,
        })
    }

    /// The path of the file.
    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the path still has the file that was opened, and the write-ahead log.
    pub(in crate::store) fn is_in_place(&self) -> bool {
        let found = self.path.metadata();
        found.is_ok_and(|found| FileIdentity::of(&found) == self.identity)
            && self.log.as_ref().is_none_or(|log| log.exists())
    }
}

impl FileIdentity {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
        }
    }
}
