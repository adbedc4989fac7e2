//! A real PostgreSQL server for the tests, which runs as a user other than root on a free port.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread::JoinHandle;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

use crate::port;
use crate::program::output;
use crate::wait::{BOUND, bounded, eventually, wait_until};

/// Printed if PostgreSQL is not installed.
pub const LEFT_OUT: &str = "\n*** POSTGRESQL IS NOT INSTALLED: ITS TESTS ARE SKIPPED. Install the Debian package `postgresql`. ***\n";

/// A server. It ends when this value is dropped or the test program ends.
pub struct Server {
    programs: PathBuf,
    folder: TempDir,
    /// The port of 127.0.0.1 on which it listens.
    pub port: u16,
    databases: AtomicU32,
    running: Mutex<Option<Running>>,
}

struct Running {
    id: u32,
    ended: JoinHandle<()>,
}

/// Returns the folder with `initdb` and `postgres`.
fn programs() -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&on_path).collect();
    let debian = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    folders.extend(debian.filter_map(|version| Some(version.ok()?.path().join("bin"))));
    folders
        .into_iter()
        .find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

/// A command of PostgreSQL, which refuses to run as root. The process ends with its parent.
fn as_nobody(program: &Path) -> Command {
    let is_root = output(Command::new("id").arg("-u")).stdout == b"0\n";
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if is_root {
        command.args(["--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]);
    }
    command
        .arg(program)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// Deletes the folder once this program has ended. A server in a static is never dropped, and its data are large.
fn delete_after_this_program(folder: &Path) {
    let watch = r#"while kill -0 "$1" 2>/dev/null; do sleep 1; done; rm -rf -- "$2""#;
    let watcher = Command::new("sh")
        .args(["-c", watch, "sh", &std::process::id().to_string()])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    // Without a watcher the folder stays.
    drop(watcher);
}

impl Server {
    /// Starts a new server. Returns `None` and prints a note if PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("{LEFT_OUT}");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        delete_after_this_program(folder.path());
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        // If this user is not root, the folder already belongs to it.
        let mut owned = Command::new("chown");
        output(owned.args(["-R", "nobody:nogroup"]).arg(folder.path()));
        let mut initdb = as_nobody(&programs.join("initdb"));
        initdb
            .args(["--auth", "trust", "--username", "vestibule"])
            .args(["--encoding", "UTF8", "--pgdata"])
            .arg(&data);
        let initialized = output(&mut initdb);
        assert!(initialized.status.success(), "initdb: {initialized:?}");
        let server = Self {
            programs,
            folder,
            port: port::free(),
            databases: AtomicU32::new(0),
            running: Mutex::new(None),
        };
        server.start_again();
        Some(server)
    }

    /// Starts the server again after [`Server::stop`], on the same port and with the same data.
    pub fn start_again(&self) {
        let (started, id) = mpsc::channel();
        let mut server = as_nobody(&self.programs.join("postgres"));
        server
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(["-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args([
                "-c",
                "unix_socket_directories=",
                "-c",
                "max_connections=300",
            ]);
        // The thread lives as long as the server, because the server dies with the thread that started it.
        let ended = std::thread::spawn(move || {
            let mut child = server.spawn().expect("postgres");
            started.send(child.id()).expect("a receiver");
            let _ = child.wait();
        });
        let id = id.recv_timeout(BOUND).expect("postgres is started");
        *self.running.lock().expect("a lock") = Some(Running { id, ended });
    }

    /// Stops the server as a power failure does: connections break during a statement. Returns when the server has ended.
    pub fn stop(&self) {
        let Some(running) = self.running.lock().expect("a lock").take() else {
            return;
        };
        output(Command::new("kill").args(["-QUIT", &running.id.to_string()]));
        wait_until("PostgreSQL stops", || {
            running.ended.is_finished().then_some(())
        });
    }

    /// Returns the address of a database.
    pub fn address(&self, database: &str) -> String {
        format!("postgres://vestibule@127.0.0.1:{}/{database}", self.port)
    }

    /// Connects to the server as soon as it is ready.
    pub async fn connected(&self) -> PgConnection {
        eventually("PostgreSQL starts", async || {
            PgConnection::connect(&self.address("postgres")).await.ok()
        })
        .await
    }

    /// Returns the address of a new empty database.
    pub async fn database(&self) -> String {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::SeqCst));
        let mut connection = self.connected().await;
        let created = sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")));
        let created = created.execute(&mut connection);
        let created = bounded("PostgreSQL creates a database", created).await;
        created.expect("a database");
        self.address(&name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
