//! The contract on SQLite, and guarantees about its file.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};
use vestibule::model::delivery::{Action, Outcome};
use vestibule::store::{Database, DeliveryStore, Error, Filter, Store, sqlite};
use vestibule_testing::bounded;

use crate::contract;
use crate::fixtures::{
    DeliveryStoreExt as _, MINUTE, TempFolder, decision, delivery, start, tried,
};

contract::test_contract!(fresh());
crate::flows::test_contract!(async { Some(fresh().await) });
crate::known_identities::test_contract!(async { Some(fresh().await) });
crate::identities::test_contract!(async { Some(fresh().await) });
crate::order::test_contract!(async { Some(fresh().await) });
crate::unbuilt::test_contract!(async { Some(fresh().await) });

async fn fresh() -> (Arc<dyn Store>, TempFolder) {
    let temp = TempFolder::new();
    let store = sqlite::open(&temp.database()).await.unwrap();
    (Arc::new(store), temp)
}

/// Opens a second connection, as another process does.
pub async fn connect(path: &Path) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(path);
    options.connect().await.unwrap()
}

#[tokio::test]
async fn accepted_deliveries_survive_a_restart() {
    let temp = TempFolder::new();
    let store = sqlite::open(&temp.database()).await.unwrap();
    store.accept(vec![delivery("crm", 1)]).await.unwrap();
    // The store is not closed: only the files remain, as after a crash.
    let again = sqlite::open(&temp.database()).await.unwrap();
    assert_eq!(
        again.claim("crm", start(), MINUTE, 9).await.unwrap().len(),
        1
    );
    store.close().await;
    again.close().await;
    let third = sqlite::open(&temp.database()).await.unwrap();
    assert_eq!(
        third.list(&Filter::default(), 9).await.unwrap()[0].attempts,
        1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_can_open_and_use_the_same_file() {
    for _ in 0..20 {
        let temp = TempFolder::new();
        let path = temp.database();
        let (server, command) = tokio::join!(sqlite::open(&path), sqlite::open(&path));
        let (server, command) = (server.unwrap(), command.unwrap());
        let batch = |from: u128| (from..from + 20).map(|number| vec![delivery("crm", number)]);
        let accept = async |store: &Database, from| {
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
async fn a_locked_database_is_an_error_after_the_timeout_and_recovers() {
    let temp = TempFolder::new();
    let impatient = sqlite::open_with(&temp.database(), Duration::from_secs(1))
        .await
        .unwrap();
    let patient = sqlite::open_with(&temp.database(), MINUTE).await.unwrap();
    let mut other = connect(&temp.database()).await;
    let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();

    let error = impatient
        .accept(vec![delivery("crm", 1)])
        .await
        .unwrap_err();
    assert_eq!(
        error.error_chain(),
        "database error: error returned from database: (code: 5) database is locked"
    );
    assert!(impatient.ping().await.is_err());
    // Reads still work.
    assert_eq!(impatient.backlog().await.unwrap().pending, 0);

    let waiting = tokio::spawn(async move { patient.accept(vec![delivery("crm", 2)]).await });
    lock.rollback().await.unwrap();
    let stored = bounded("the write returns", waiting).await;
    assert_eq!(stored.unwrap().unwrap(), 1);
    impatient.ping().await.unwrap();
    assert_eq!(impatient.accept(vec![delivery("crm", 1)]).await.unwrap(), 1);
}

#[tokio::test]
async fn the_error_names_a_database_that_another_program_has_locked() {
    let temp = TempFolder::new();
    sqlite::open(&temp.database()).await.unwrap().close().await;
    let mut other = connect(&temp.database()).await;
    let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();
    let opened = sqlite::open_with(&temp.database(), Duration::from_millis(20)).await;
    let error = opened.unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error:?}");
    let text = error.error_chain();
    assert!(text.contains("help: end what holds the lock"), "{text}");
    lock.rollback().await.unwrap();
    assert!(sqlite::open(&temp.database()).await.is_ok());
}

#[tokio::test]
async fn the_error_names_a_missing_folder() {
    let temp = TempFolder::new();
    let folder = temp.folder().join("not-there");
    let error = sqlite::open(&folder.join("vestibule.db"))
        .await
        .unwrap_err();
    assert_eq!(
        error.error_chain(),
        format!(
            "the folder {} of the database file does not exist; create the folder",
            folder.display()
        )
    );
}

#[tokio::test]
async fn the_error_names_a_folder_that_is_not_writable() {
    let temp = TempFolder::new();
    let mut folder = temp.folder();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o555)).unwrap();
    if std::fs::write(folder.join("probe"), "").is_ok() {
        // Root can write everywhere except to folders of the kernel.
        folder = "/sys".into();
    }
    let path = folder.join("vestibule.db");
    let error = sqlite::open(&path).await.unwrap_err();
    assert!(matches!(error, Error::File { .. }));
    let text = error.error_chain();
    let expected = format!(
        "the database file {} could not be created: ",
        path.display()
    );
    assert!(text.starts_with(&expected), "{text}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error_and_is_not_changed() {
    let temp = TempFolder::new();
    let text = "important text, not a database ".repeat(40);
    std::fs::write(temp.database(), &text).unwrap();
    assert!(sqlite::open(&temp.database()).await.is_err());
    assert_eq!(std::fs::read_to_string(temp.database()).unwrap(), text);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let temp = TempFolder::new();
    sqlite::open(&temp.database()).await.unwrap().close().await;
    let mut other = connect(&temp.database()).await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', TRUE, x'00', 0)",
    )
    .execute(&mut other)
    .await
    .unwrap();
    let error = sqlite::open(&temp.database()).await.unwrap_err();
    assert!(matches!(error, Error::OtherVersion { number: 9999 }));
    assert!(
        error.error_chain().contains("9999"),
        "{}",
        error.error_chain()
    );
}

#[tokio::test]
async fn only_the_owner_can_read_the_database_files() {
    let temp = TempFolder::new();
    let store = sqlite::open(&temp.database()).await.unwrap();
    store.accept(vec![delivery("crm", 1)]).await.unwrap();
    for file in std::fs::read_dir(temp.folder()).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.path().display());
    }
}

#[tokio::test]
async fn the_file_keeps_no_personal_data_after_a_delivery() {
    let temp = TempFolder::new();
    let store = sqlite::open(&temp.database()).await.unwrap();
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
    let delivered = tried(204, start());
    store
        .settle(&held, &delivered, &Outcome::Delivered)
        .await
        .unwrap();
    store.close().await;
    for file in std::fs::read_dir(temp.folder()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        let found = content
            .windows(secret.len())
            .any(|window| window == secret.as_bytes());
        assert!(!found);
    }
}

#[tokio::test]
async fn an_unreadable_delivery_is_abandoned_and_does_not_block_others() {
    let temp = TempFolder::new();
    let store = sqlite::open(&temp.database()).await.unwrap();
    store
        .accept(vec![delivery("crm", 1), delivery("crm", 2)])
        .await
        .unwrap();
    let mut other = connect(&temp.database()).await;
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
async fn a_decision_is_stored_with_its_checks() {
    let (store, temp) = fresh().await;
    store.record(&[decision(7)]).await.unwrap();
    let row = sqlx::query(
        "SELECT flow || ' ' || method || ' ' || outcome || ' ' || duration_ms AS summary, at, checks FROM decisions",
    )
    .fetch_one(&mut connect(&temp.database()).await)
    .await
    .unwrap();
    assert_eq!(
        row.get::<&str, _>("summary"),
        "registration password refused 12"
    );
    assert_eq!(row.get::<i64, _>("at"), start().timestamp_millis());
    assert_eq!(
        row.get::<&str, _>("checks"),
        r#"[{"check":"vat_number","outcome":"refused","message_id":4900101,"duration_ms":11}]"#
    );
}
