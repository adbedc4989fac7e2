//! The database file, and what happens to it.

use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use vestibule_testing::program::output;

/// What happens to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Another program holds the write lock.
    Locked,
    /// The file system is full.
    Full,
    /// The file has another name.
    Removed,
}

/// All faults, in the order in which they come.
pub const FAULTS: [Fault; 3] = [Fault::Locked, Fault::Full, Fault::Removed];

/// A database file in a folder of its own.
pub struct Database {
    /// Settings and log.
    work: TempDir,
    /// A file system of its own, if one could be mounted.
    mounted: Option<TempDir>,
}

impl Database {
    /// Mounts a small file system for the database. Without the right to mount, the fault [`Fault::Full`] is left out.
    pub fn create() -> Self {
        let folder = || tempfile::tempdir().expect("a temporary folder");
        let mounted = folder();
        let mount = output(
            Command::new("mount")
                .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
                .arg(mounted.path()),
        );
        let is_mounted = mount.status.success();
        if !is_mounted {
            println!(
                "LEFT OUT: a full disk, because no file system can be mounted here (run it as root)"
            );
        }
        Self {
            work: folder(),
            mounted: is_mounted.then_some(mounted),
        }
    }

    /// The folder of settings and log.
    pub fn work(&self) -> &Path {
        self.work.path()
    }

    /// The database file.
    pub fn file(&self) -> PathBuf {
        self.folder().join("vestibule.db")
    }

    fn folder(&self) -> &Path {
        self.mounted.as_ref().unwrap_or(&self.work).path()
    }

    /// Runs the work while the database has this fault.
    pub async fn during<T>(&self, fault: Fault, work: impl Future<Output = T>) -> T {
        match fault {
            Fault::Locked => {
                let options = SqliteConnectOptions::new().filename(self.file());
                let mut other = options.connect().await.expect("a connection");
                let lock = other.begin_with("BEGIN IMMEDIATE").await.expect("the lock");
                let done = work.await;
                lock.rollback().await.expect("the lock is returned");
                other.close().await.expect("the connection closes");
                done
            }
            Fault::Full if self.mounted.is_none() => work.await,
            Fault::Full => {
                let filler = self.folder().join("filler");
                fill(&filler);
                let done = work.await;
                std::fs::remove_file(filler).expect("the filler is deleted");
                done
            }
            Fault::Removed => {
                let elsewhere = self.folder().join("elsewhere.db");
                std::fs::rename(self.file(), &elsewhere).expect("the file is renamed");
                let done = work.await;
                std::fs::rename(elsewhere, self.file()).expect("the file is back");
                done
            }
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(mounted) = &self.mounted {
            let _ = output(Command::new("umount").arg("--lazy").arg(mounted.path()));
        }
    }
}

/// Writes until the file system is full.
fn fill(path: &Path) {
    let mut file = File::create(path).expect("a file");
    for size in [1 << 20, 1 << 12, 1] {
        let block = vec![0; size];
        while file.write_all(&block).is_ok() {}
    }
}
