//! SQLite keeps the promises, and those that only a file can keep.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};
use vestibule::model::delivery::{Action, Outcome};
use vestibule::store::sqlite::Sqlite;
use vestibule::store::{Error, Filter, Store};

use crate::contract;
use crate::scenes::{Home, MINUTE, decision, delivery, start, tried};

contract::ask!(fresh());
crate::flows::ask!(async { Some(fresh().await) });
crate::identities::ask!(async { Some(fresh().await) });

async fn fresh() -> (Arc<dyn Store>, Home) {
    let home = Home::new();
    let store = Sqlite::open(&home.database()).await.unwrap();
    (Arc::new(store), home)
}

/// Another program that has the file open.
pub async fn beside(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    options.connect().await.unwrap()
}

#[tokio::test]
async fn what_was_accepted_is_there_when_the_file_is_opened_again() {
    let home = Home::new();
    let store = Sqlite::open(&home.database()).await.unwrap();
    store.accept(vec![delivery("crm", 1)]).await.unwrap();
    // Nothing is closed: as after a crash, only the files are there.
    let again = Sqlite::open(&home.database()).await.unwrap();
    assert_eq!(
        again.claim("crm", start(), MINUTE, 9).await.unwrap().len(),
        1
    );
    store.close().await;
    again.close().await;
    let third = Sqlite::open(&home.database()).await.unwrap();
    assert_eq!(
        third.list(&Filter::default(), 9).await.unwrap()[0].attempts,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_programs_may_open_and_use_the_same_file() {
    for _ in 0..20 {
        let home = Home::new();
        let path = home.database();
        let (server, command) = tokio::join!(Sqlite::open(&path), Sqlite::open(&path));
        let (server, command) = (server.unwrap(), command.unwrap());
        let batch = |from: u128| (from..from + 20).map(|number| vec![delivery("crm", number)]);
        let accept = async |store: &Sqlite, from| {
            for one in batch(from) {
                store.accept(one).await.unwrap();
            }
        };
        tokio::join!(accept(&server, 0), accept(&command, 100));
        assert_eq!(server.backlog().await.unwrap().pending, 40);
        assert_eq!(command.backlog().await.unwrap().pending, 40);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_database_is_waited_for_and_then_an_error_and_then_works_again() {
    let home = Home::new();
    let hasty = Sqlite::open_with(&home.database(), Duration::from_millis(20))
        .await
        .unwrap();
    let patient = Sqlite::open_with(&home.database(), MINUTE).await.unwrap();
    let mut other = beside(&home.database()).await;
    let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();

    let refused = hasty.accept(vec![delivery("crm", 1)]).await.unwrap_err();
    assert_eq!(
        refused.error_chain(),
        "database error: error returned from database: (code: 5) database is locked"
    );
    assert!(hasty.ping().await.is_err());
    // Reading goes on.
    assert_eq!(hasty.backlog().await.unwrap().pending, 0);

    let waiting = tokio::spawn(async move { patient.accept(vec![delivery("crm", 2)]).await });
    lock.rollback().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), 1);
    hasty.ping().await.unwrap();
    assert_eq!(hasty.accept(vec![delivery("crm", 1)]).await.unwrap(), 1);
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let home = Home::new();
    let folder = home.folder().join("not-there");
    let error = Sqlite::open(&folder.join("vestibule.db"))
        .await
        .unwrap_err();
    assert_eq!(
        error.error_chain(),
        format!(
            "the folder {} does not exist; create it, the database is kept in there",
            folder.display()
        )
    );
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_is_named() {
    let home = Home::new();
    let mut folder = home.folder();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o555)).unwrap();
    if std::fs::write(folder.join("probe"), "").is_ok() {
        // We are root, whom only the kernel's own folders stop.
        folder = "/sys".into();
    }
    let path = folder.join("vestibule.db");
    let error = Sqlite::open(&path).await.unwrap_err();
    assert!(matches!(error, Error::File { .. }));
    let words = error.error_chain();
    let expected = format!(
        "the database file {} could not be created: ",
        path.display()
    );
    assert!(words.starts_with(&expected), "{words}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error_and_stays_as_it_is() {
    let home = Home::new();
    let text = "precious words, not a database ".repeat(40);
    std::fs::write(home.database(), &text).unwrap();
    assert!(Sqlite::open(&home.database()).await.is_err());
    assert_eq!(std::fs::read_to_string(home.database()).unwrap(), text);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let home = Home::new();
    Sqlite::open(&home.database()).await.unwrap().close().await;
    let mut other = beside(&home.database()).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, x'00', 0)",
    )
    .execute(&mut other)
    .await
    .unwrap();
    let error = Sqlite::open(&home.database()).await.unwrap_err();
    assert!(matches!(error, Error::OtherVersion { number: 9999 }));
    assert!(
        error.error_chain().contains("9999"),
        "{}",
        error.error_chain()
    );
}

#[tokio::test]
async fn only_its_owner_may_read_the_files() {
    let home = Home::new();
    let store = Sqlite::open(&home.database()).await.unwrap();
    store.accept(vec![delivery("crm", 1)]).await.unwrap();
    for file in std::fs::read_dir(home.folder()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.path().display());
    }
}

#[tokio::test]
async fn nothing_personal_stays_in_the_file_of_what_has_arrived() {
    let home = Home::new();
    let store = Sqlite::open(&home.database()).await.unwrap();
    let mut new = delivery("crm", 1);
    let secret = "ada.lovelace@example.org";
    let Ok(Action::Send(request)) = &mut new.action else {
        panic!("a request");
    };
    request.body.as_mut().unwrap().text = secret.repeat(1000);
    store.accept(vec![new]).await.unwrap();
    let held = store
        .claim("crm", start(), MINUTE, 1)
        .await
        .unwrap()
        .remove(0);
    let arrived = tried(204, start());
    store
        .settle(&held, &arrived, &Outcome::Delivered)
        .await
        .unwrap();
    store.close().await;
    for file in std::fs::read_dir(home.folder()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        let found = content
            .windows(secret.len())
            .any(|window| window == secret.as_bytes());
        assert!(!found);
    }
}

#[tokio::test]
async fn a_delivery_of_another_version_is_put_aside_and_holds_up_nobody() {
    let home = Home::new();
    let store = Sqlite::open(&home.database()).await.unwrap();
    store
        .accept(vec![delivery("crm", 1), delivery("crm", 2)])
        .await
        .unwrap();
    let mut other = beside(&home.database()).await;
    sqlx::query("UPDATE deliveries SET action = '{\"verb\": \"BREW\"}' WHERE id = ?1")
        .bind(delivery("crm", 1).id.to_string())
        .execute(&mut other)
        .await
        .unwrap();
    let held = store.claim("crm", start(), MINUTE, 9).await.unwrap();
    assert_eq!(held.len(), 1);
    let backlog = store.backlog().await.unwrap();
    assert_eq!((backlog.pending, backlog.abandoned), (1, 1));
}

#[tokio::test]
async fn a_decision_is_kept_with_its_checks() {
    let (store, home) = fresh().await;
    store.record(&[decision(7)]).await.unwrap();
    let row = sqlx::query(
        "SELECT flow || ' ' || method || ' ' || outcome || ' ' || duration_ms AS words, at, checks FROM decisions",
    )
    .fetch_one(&mut beside(&home.database()).await)
    .await
    .unwrap();
    assert_eq!(
        row.get::<&str, _>("words"),
        "registration password refused 12"
    );
    assert_eq!(row.get::<i64, _>("at"), start().timestamp_millis());
    assert_eq!(
        row.get::<&str, _>("checks"),
        r#"[{"check":"vat_number","outcome":"refused","message_id":4900101,"duration_ms":11}]"#
    );
}
