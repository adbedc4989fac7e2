//! What two transactions did to each other is tried again; SQLite has one writer, and never says so. And nobody waits for ever:
//! a connection to a machine that is gone says nothing at all.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::error::DatabaseError;

use super::LONGEST;
use crate::base::clock::{Clock, saturating_add};
use crate::store::Error;

/// How often in all.
const TRIES: u32 = 5;

/// "Serialization failure" and "deadlock detected": nothing was done, and the same may be asked once more.
const RETRYABLE_SQLSTATES: [&str; 2] = ["40001", "40P01"];

/// Does it, and again if the database asks for that.
pub(super) async fn with_retry<'a, T>(
    ask: impl Fn() -> BoxFuture<'a, Result<T, Error>> + Send,
) -> Result<T, Error> {
    with_retry_untimed(move || in_time(ask()).boxed()).await
}

/// The same for what an operator asks for, which may concern everything and take its time.
pub(super) async fn with_retry_untimed<'a, T>(
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

async fn in_time<T>(request_hash: BoxFuture<'_, Result<T, Error>>) -> Result<T, Error> {
    let Some(longest) = LONGEST else {
        return request_hash.await;
    };
    let clock = Clock::system();
    let answered = clock
        .timeout_at(saturating_add(clock.now(), longest), request_hash)
        .await;
    answered.unwrap_or(Err(Error::Timeout))
}

fn is_to_be_tried_again(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| RETRYABLE_SQLSTATES.contains(&&*code))
}
