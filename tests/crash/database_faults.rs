//! The database fails: its disk is full, it is read-only, or another program locks it.
//!
//! `post` answers 503 so that Kratos repeats the call, `pre` answers 204, and the log names the cause. After the fault Vestibule
//! works again without a restart.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use vestibule_testing::bounded;
use vestibule_testing::program::output;

use crate::support::load::{CallResult, Callers};
use crate::support::postgres::Server;
use crate::support::{TestEnv, within};

const CALLERS: Callers = Callers { post: 8, pre: 4 };
const TIMEOUT: Duration = Duration::from_mins(1);
/// Longer than a lease, and than the longest pause of a dispatcher after an outage of its database.
const LEASE_TIMEOUT: Duration = Duration::from_mins(5);

pub async fn vestibule_reports_and_survives_a_full_disk() {
    let Some(disk) = SmallDisk::mount() else {
        report_skipped("full disk: mounting a small disk needs root");
        return;
    };
    let env = TestEnv::start(1, Some(disk.database())).await;
    let start_fault = async || disk.fill();
    let end_fault = async |()| disk.free();
    run("disk full", &env, "disk is full", start_fault, end_fault).await;
}

pub async fn vestibule_reports_and_survives_a_read_only_file() {
    let env = TestEnv::start(1, None).await;
    let folder = env.options.folder.clone();
    if !set_immutable(&folder.join("vestibule.db"), true) {
        report_skipped("read-only file: `chattr +i` needs root and ext4");
        return;
    }
    set_immutable(&folder.join("vestibule.db"), false);
    // The third file is only shared memory.
    let files = ["vestibule.db", "vestibule.db-wal"];
    let set = |on| {
        for file in files {
            assert!(set_immutable(&folder.join(file), on), "{file}");
        }
    };
    let start_fault = async || set(true);
    let end_fault = async |()| set(false);
    run(
        "read-only file",
        &env,
        "disk I/O error",
        start_fault,
        end_fault,
    )
    .await;
}

pub async fn vestibule_reports_and_survives_a_read_only_server() {
    let Some(server) = Server::start() else {
        return;
    };
    let env = TestEnv::start(1, Some(server.database().await)).await;
    let set = async |value: &str| {
        let mut connection = server.connected().await;
        // As after a failover, when another server is the primary.
        for statement in [
            format!("ALTER SYSTEM SET default_transaction_read_only = {value}"),
            "SELECT pg_reload_conf()".to_owned(),
        ] {
            let changed = sqlx::query(AssertSqlSafe(statement)).execute(&mut connection);
            let changed = bounded("PostgreSQL changes the setting", changed).await;
            changed.expect("PostgreSQL changes the setting");
        }
    };
    let start_fault = async || set("on").await;
    let end_fault = async |()| set("off").await;
    let cause = "read-only transaction";
    run("read-only PostgreSQL", &env, cause, start_fault, end_fault).await;
}

pub async fn vestibule_reports_and_survives_a_locked_database() {
    let env = TestEnv::start(1, None).await;
    let path = env.options.folder.join("vestibule.db");
    let start_fault = async || {
        let options = SqliteConnectOptions::new().filename(&path);
        let other = options.busy_timeout(TIMEOUT).connect().await;
        let mut other = other.expect("the database opens");
        sqlx::query("BEGIN IMMEDIATE")
            .execute(&mut other)
            .await
            .expect("the database is locked");
        other
    };
    let end_fault =
        async |other: sqlx::SqliteConnection| other.close().await.expect("the lock is released");
    run(
        "database locked",
        &env,
        "database is locked",
        start_fault,
        end_fault,
    )
    .await;
}

/// Starts the fault under load, waits until responses and the log show it, and ends it. Checks that Vestibule works again and
/// that all acknowledged sign-ups are delivered.
async fn run<T>(
    fault: &str,
    env: &TestEnv,
    cause: &str,
    start_fault: impl AsyncFnOnce() -> T,
    end_fault: impl AsyncFnOnce(T),
) {
    let instance = &env.instances[0];
    let load = env.load(CALLERS);
    let wait_for_posts = async |what: &str, result, more: u64| {
        let before = load.post_count(result);
        within(TIMEOUT, what, async || {
            (load.post_count(result) >= before + more).then_some(())
        })
        .await;
    };
    wait_for_posts(
        "Vestibule answers `post` with 204",
        CallResult::Status(204),
        30,
    )
    .await;
    assert!(
        !instance.log_text().contains(cause),
        "the log does not name the cause yet"
    );
    let fault_state = start_fault().await;
    wait_for_posts(
        "Vestibule answers `post` with 503",
        CallResult::Status(503),
        20,
    )
    .await;
    within(
        TIMEOUT,
        &format!("the log contains `{cause}`"),
        async || instance.log_text().contains(cause).then_some(()),
    )
    .await;
    end_fault(fault_state).await;
    wait_for_posts(
        "Vestibule answers `post` with 204 again",
        CallResult::Status(204),
        30,
    )
    .await;
    let results = load.stop().await;
    env.wait_for_deliveries(&results, LEASE_TIMEOUT).await;
    let longest = results.longest_pre;
    env.report(&format!("{fault}, longest `pre` {longest:?}"), &results);
    results.assert_responses();
}

fn report_skipped(what: &str) {
    eprintln!("\n*** SKIPPED: {what} ***\n");
}

/// Sets or clears the immutable attribute of a file, also for processes that have it open. Returns `false` if this machine does
/// not support it.
fn set_immutable(file: &Path, on: bool) -> bool {
    let mut chattr = Command::new("chattr");
    chattr.arg(if on { "+i" } else { "-i" }).arg(file);
    let set = output(&mut chattr).status.success();
    set && (!on || File::options().append(true).open(file).is_err())
}

/// The size of a [`SmallDisk`].
const DISK_BYTES: usize = 6 * 1024 * 1024;

/// A small tmpfs.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={DISK_BYTES}"), "tmpfs"]);
        let mounted = output(mount.arg(folder.path()));
        mounted.status.success().then_some(Self { folder })
    }

    fn database(&self) -> String {
        format!("sqlite://{}/vestibule.db", self.folder.path().display())
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }

    fn fill(&self) {
        let mut filler = File::create(self.filler()).expect("the filler is created");
        let is_full = (0..=DISK_BYTES / 4096).any(|_| filler.write_all(&[0; 4096]).is_err());
        assert!(is_full, "the disk is full");
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).expect("the filler exists");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because the program may still use it.
        output(Command::new("umount").arg("-l").arg(self.folder.path()));
    }
}
