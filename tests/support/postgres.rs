//! A real PostgreSQL of the tests' own, started as a user that is not root, on a free port.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

/// Said when there is none.
pub const LEFT_OUT: &str =
    "\n*** NO POSTGRESQL: ITS TESTS ARE LEFT OUT. Install Debian's package `postgresql`. ***\n";

/// A server; it ends with this, or with the program that started it.
pub struct Server {
    programs: PathBuf,
    folder: TempDir,
    pub port: u16,
    databases: AtomicU32,
    running: Mutex<Option<Running>>,
}

struct Running {
    id: u32,
    ended: JoinHandle<()>,
}

/// The folder with `initdb` and `postgres`.
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

/// PostgreSQL refuses to be root. Dies with whoever started it.
fn as_nobody(program: &Path) -> Command {
    let is_root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.stdout == b"0\n");
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

impl Server {
    /// A fresh one; `None`, loudly, if PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            eprintln!("{LEFT_OUT}");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("a folder");
        // If we are not root the folder is ours already.
        let _ = Command::new("chown")
            .arg("-R")
            .arg("nobody:nogroup")
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        let made = as_nobody(&programs.join("initdb"))
            .args(["--auth", "trust", "--username", "vestibule"])
            .args(["--encoding", "UTF8", "--pgdata"])
            .arg(&data)
            .status()
            .expect("initdb");
        assert!(made.success(), "initdb");
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = Self {
            programs,
            folder,
            port: free.local_addr().expect("an address").port(),
            databases: AtomicU32::new(0),
            running: Mutex::new(None),
        };
        drop(free);
        server.start_again();
        Some(server)
    }

    /// After [`Server::stop`]: on the same port, with the same data.
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
        // From a thread that lives as long as the server: it dies with the thread that started it.
        let ended = std::thread::spawn(move || {
            let mut child = server.spawn().expect("postgres");
            started.send(child.id()).expect("somebody waits");
            let _ = child.wait();
        });
        let id = id.recv().expect("postgres is started");
        *self.running.lock().expect("a lock") = Some(Running { id, ended });
    }

    /// As a power failure does: connections are cut in the middle of a statement, nothing is tidied up. Returns once it is gone.
    pub fn stop(&self) {
        let Some(running) = self.running.lock().expect("a lock").take() else {
            return;
        };
        let _ = Command::new("kill")
            .args(["-QUIT", &running.id.to_string()])
            .status();
        let _ = running.ended.join();
    }

    /// The address of one of its databases.
    pub fn address(&self, database: &str) -> String {
        format!("postgres://vestibule@127.0.0.1:{}/{database}", self.port)
    }

    /// A connection of the tests' own, as soon as the server is there.
    #[expect(
        clippy::disallowed_methods,
        reason = "a program starts in its own time"
    )]
    pub async fn connected(&self) -> PgConnection {
        for _ in 0..300 {
            if let Ok(connection) = PgConnection::connect(&self.address("postgres")).await {
                return connection;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("PostgreSQL was not there within 30 s");
    }

    /// The address of an empty database.
    pub async fn database(&self) -> String {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::SeqCst));
        let mut connection = self.connected().await;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut connection)
            .await
            .expect("a database");
        self.address(&name)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
