//! The database is there and does not do as asked: its disk is full, it is read-only, another program holds it.
//!
//! `post` asks Kratos to call again, `pre` goes on, the log names the cause; once that is gone everything works, without a restart.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tempfile::TempDir;

use crate::support::load::{Answer, Callers};
use crate::support::postgres::Server;
use crate::support::{House, eventually};

const CALLERS: Callers = Callers { post: 8, pre: 4 };
const PATIENCE: Duration = Duration::from_mins(1);
/// Longer than a lease, and than the longest pause of a worker whose database was away.
const LEASES_END: Duration = Duration::from_mins(5);

pub async fn a_full_disk_is_told_and_survived() {
    let Some(disk) = SmallDisk::mount() else {
        leave_out("a full disk: a small one cannot be mounted, which takes root");
        return;
    };
    let house = House::with(1, Some(disk.database())).await;
    let full = async || disk.fill();
    let free = async |()| disk.free();
    play("disk full", &house, "disk is full", full, free).await;
}

pub async fn a_file_that_becomes_read_only_is_told_and_survived() {
    let house = House::with(1, None).await;
    let folder = house.surroundings.folder.clone();
    if !immutable(&folder.join("vestibule.db"), true) {
        leave_out("a read-only file: `chattr +i` does nothing here; it takes root and ext4");
        return;
    }
    immutable(&folder.join("vestibule.db"), false);
    // Not the third one, which is no more than shared memory.
    let files = ["vestibule.db", "vestibule.db-wal"];
    let set = |on| {
        for file in files {
            assert!(immutable(&folder.join(file), on), "{file}");
        }
    };
    let begins = async || set(true);
    let ends = async |()| set(false);
    play("read-only file", &house, "disk I/O error", begins, ends).await;
}

pub async fn a_server_that_becomes_read_only_is_told_and_survived() {
    let Some(server) = Server::start() else {
        return;
    };
    let house = House::with(1, Some(server.database().await)).await;
    let set = async |value: &str| {
        let mut connection = server.connected().await;
        // As after a change of roles, when the other server is the one that may be written to.
        for statement in [
            format!("ALTER SYSTEM SET default_transaction_read_only = {value}"),
            "SELECT pg_reload_conf()".to_owned(),
        ] {
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut connection)
                .await
                .expect("a setting");
        }
    };
    let begins = async || set("on").await;
    let ends = async |()| set("off").await;
    let cause = "read-only transaction";
    play("read-only PostgreSQL", &house, cause, begins, ends).await;
}

pub async fn a_database_that_another_program_holds_is_told_and_survived() {
    let house = House::with(1, None).await;
    let path = house.surroundings.folder.join("vestibule.db");
    let begins = async || {
        let options = SqliteConnectOptions::new().filename(&path);
        let other = options.busy_timeout(PATIENCE).connect().await;
        let mut other = other.expect("the same file");
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut other)
            .await
            .expect("the lock");
        other
    };
    let ends = async |other: sqlx::SqliteConnection| other.close().await.expect("the lock ends");
    play(
        "database locked",
        &house,
        "database is locked",
        begins,
        ends,
    )
    .await;
}

/// Under load: it begins, is seen in the answers and in the log, goes on for a while, and ends.
async fn play<T>(
    scene: &str,
    house: &House,
    cause: &str,
    begins: impl AsyncFnOnce() -> T,
    ends: impl AsyncFnOnce(T),
) {
    let instance = &house.instances[0];
    let load = house.load(CALLERS);
    let answered = async |what: &str, answer, more: u64| {
        let before = load.posts(answer);
        eventually(what, PATIENCE, async || {
            (load.posts(answer) >= before + more).then_some(())
        })
        .await;
    };
    answered("`post` is answered with 204", Answer::Status(204), 30).await;
    assert!(!instance.said().contains(cause), "not yet");
    let trouble = begins().await;
    answered("`post` is answered with 503", Answer::Status(503), 20).await;
    eventually(&format!("the log says `{cause}`"), PATIENCE, async || {
        instance.said().contains(cause).then_some(())
    })
    .await;
    ends(trouble).await;
    answered("`post` is answered with 204 again", Answer::Status(204), 30).await;
    let noted = load.stop().await;
    house.all_has_arrived(&noted, LEASES_END).await;
    let longest = noted.longest_pre;
    house.account(&format!("{scene}, longest `pre` {longest:?}"), &noted);
    noted.is_as_promised();
}

fn leave_out(what: &str) {
    eprintln!("\n*** LEFT OUT: {what} ***\n");
}

/// Makes a file unchangeable, also for who has it open already, or changeable again. `false` if that does not work here.
fn immutable(file: &Path, on: bool) -> bool {
    let set = Command::new("chattr")
        .arg(if on { "+i" } else { "-i" })
        .arg(file)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    set && (!on || File::options().append(true).open(file).is_err())
}

/// A disk of some megabytes, in memory.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then_some(Self { folder })
    }

    fn database(&self) -> String {
        format!("sqlite://{}/vestibule.db", self.folder.path().display())
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }

    fn fill(&self) {
        let mut filler = File::create(self.filler()).expect("a file");
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the program may still be there.
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.folder.path())
            .status();
    }
}
