//! PostgreSQL: a real one of its own, started as a user that is not root, on a free port.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use vestibule::store::Store;
use vestibule::store::postgres::Postgres;

use crate::contract;
use crate::scenes::{MINUTE, at, delivery, start};

/// A server for this run of the tests; it ends with it.
struct Server {
    port: u16,
    _folder: TempDir,
}

static SERVER: OnceLock<Option<Server>> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

contract::ask_if_there!(fresh());
crate::flows::ask!(fresh());

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
fn as_nobody(program: &std::path::Path) -> Command {
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

fn server() -> Option<&'static Server> {
    let server = SERVER.get_or_init(|| {
        let Some(programs) = programs() else {
            eprintln!("\n*** NO POSTGRESQL: ITS TESTS ARE LEFT OUT. Install Debian's package `postgresql`. ***\n");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        // If we are not root the folder is ours already.
        let _ = Command::new("chown")
            .arg("-R")
            .arg("nobody:nogroup")
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        let made = as_nobody(&programs.join("initdb"))
            .args(["--auth", "trust", "--username", "vestibule", "--encoding", "UTF8", "--pgdata"])
            .arg(&data)
            .status()
            .unwrap();
        assert!(made.success(), "initdb");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // From a thread that lives as long as the tests: the server dies with the thread that started it.
        std::thread::spawn(move || {
            let mut server = as_nobody(&programs.join("postgres"))
                .arg("-D")
                .arg(data)
                .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
                .args(["-c", "unix_socket_directories=", "-c", "max_connections=300"])
                .spawn()
                .unwrap();
            let _ = server.wait();
        });
        Some(Server { port, _folder: folder })
    });
    server.as_ref()
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://vestibule@127.0.0.1:{port}/{database}")
}

/// A connection, as soon as the server is there.
#[expect(
    clippy::disallowed_methods,
    reason = "a program starts in its own time"
)]
async fn connected(port: u16) -> PgConnection {
    for _ in 0..300 {
        if let Ok(connection) = PgConnection::connect(&url(port, "postgres")).await {
            return connection;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("PostgreSQL was not there within 30 s");
}

/// The address of an empty database.
async fn database() -> Option<String> {
    let server = tokio::task::spawn_blocking(server).await.unwrap()?;
    let name = format!("t{}", DATABASES.fetch_add(1, Ordering::SeqCst));
    let mut connection = connected(server.port).await;
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut connection)
        .await
        .unwrap();
    Some(url(server.port, &name))
}

async fn fresh() -> Option<(Arc<dyn Store>, ())> {
    let store = Postgres::open(&database().await?).await.unwrap();
    Some((Arc::new(store), ()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_instances_may_start_at_the_same_moment_on_an_empty_database() {
    let Some(url) = database().await else { return };
    let starting = (0..6).map(|_| {
        let url = url.clone();
        tokio::spawn(async move { Postgres::open(&url).await })
    });
    let mut stores = Vec::new();
    for one in starting.collect::<Vec<_>>() {
        stores.push(one.await.unwrap().unwrap());
    }
    // And what one accepts, another carries.
    let accepted = stores[0].accept(vec![delivery("crm", 1)]).await.unwrap();
    let held = stores[5].claim("crm", start(), MINUTE, 10).await.unwrap();
    assert_eq!((accepted, held.len()), (1, 1));
    assert!(
        stores[1]
            .claim("crm", start(), MINUTE, 10)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_claim_at_once_share_without_waiting() {
    let Some(url) = database().await else { return };
    let one = Postgres::open(&url).await.unwrap();
    let other = Postgres::open(&url).await.unwrap();
    let all: Vec<_> = (1..=200)
        .map(|identity| delivery("crm", identity))
        .collect();
    one.accept(all).await.unwrap();
    let claim = async |store: &Postgres| {
        let mut ids = Vec::new();
        loop {
            let held = store.claim("crm", at(MINUTE), MINUTE, 7).await.unwrap();
            if held.is_empty() {
                return ids;
            }
            ids.extend(held.into_iter().map(|held| held.id));
        }
    };
    let (mut ours, theirs) = tokio::join!(claim(&one), claim(&other));
    ours.extend(theirs);
    ours.sort();
    ours.dedup();
    assert_eq!(ours.len(), 200, "each once");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_without_the_password() {
    let error = Postgres::open("postgres://vestibule:hush-hush@127.0.0.1:1/vestibule")
        .await
        .unwrap_err();
    assert!(
        !error.in_full().contains("hush-hush"),
        "{}",
        error.in_full()
    );
}
