//! What two transactions did to each other is tried again. SQLite has one writer, and never says so.

use futures_util::future::BoxFuture;
use sqlx::error::DatabaseError;

use crate::store::Error;

/// How often in all.
const TRIES: u32 = 5;

/// "Serialization failure" and "deadlock detected": nothing was done, and the same may be asked once more.
const TRY_AGAIN: [&str; 2] = ["40001", "40P01"];

/// Does it, and again if the database asks for that.
pub(super) async fn again<'a, T>(
    ask: impl Fn() -> BoxFuture<'a, Result<T, Error>> + Send,
) -> Result<T, Error> {
    for _ in 1..TRIES {
        match ask().await {
            Err(Error::Database(error)) if is_to_be_tried_again(&error) => {}
            done => return done,
        }
    }
    ask().await
}

fn is_to_be_tried_again(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| TRY_AGAIN.contains(&&*code))
}
