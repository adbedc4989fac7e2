//! Notices that the file of an open SQLite database was removed or replaced.
//!
//! SQLite keeps the file open, so it does not notice: writes succeed, and are lost when the program ends.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The files of an open database.
#[derive(Debug)]
pub(in crate::store) struct DatabaseFile {
    path: PathBuf,
    /// The file, the write-ahead log and its index. SQLite deletes the last two when the last connection closes. So some
    /// connection must have them open, from before this value is made.
    parts: Vec<(PathBuf, FileIdentity)>,
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
        let target = path.canonicalize()?;
        let mut parts = vec![(path.clone(), FileIdentity::of(&path)?)];
        for suffix in ["-wal", "-shm"] {
            let mut beside = OsString::from(&target);
            beside.push(suffix);
            let beside = PathBuf::from(beside);
            if let Ok(identity) = FileIdentity::of(&beside) {
                parts.push((beside, identity));
            }
        }
        Ok(Self { path, parts })
    }

    /// The path of the file.
    pub(in crate::store) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the paths still have the files that were opened.
    pub(in crate::store) fn is_in_place(&self) -> bool {
        let is_same = |(path, opened): &(PathBuf, FileIdentity)| {
            FileIdentity::of(path).is_ok_and(|found| found == *opened)
        };
        self.parts.iter().all(is_same)
    }
}

impl FileIdentity {
    /// Reads the identity of the file with this path. A symbolic link is followed.
    fn of(path: &Path) -> std::io::Result<Self> {
        let file = path.metadata()?;
        Ok(Self {
            device: file.dev(),
            inode: file.ino(),
        })
    }
}
