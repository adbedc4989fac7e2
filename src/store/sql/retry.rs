//! Retries transactions that conflicted with another one, and limits the duration of statements. SQLite has one writer,
//! and never reports such a conflict. A connection to a failed machine reports no error, so a time limit is necessary.

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::error::DatabaseError;

use super::MAX_DURATION;
use crate::base::clock::{Clock, saturating_add};
use crate::store::Error;

/// The maximum number of attempts.
const TRIES: u32 = 5;

/// "Serialization failure" and "deadlock detected": nothing was changed, and the transaction may be repeated.
const RETRYABLE_SQLSTATES: [&str; 2] = ["40001", "40P01"];

/// Runs the statement with a time limit, and repeats it after a conflict.
pub(super) async fn with_retry<'a, T>(
    ask: impl Fn() -> BoxFuture<'a, Result<T, Error>> + Send,
) -> Result<T, Error> {
    with_retry_untimed(move || in_time(ask()).boxed()).await
}

/// Runs an operator's statement without a time limit, because the statement may affect all rows.
pub(super) async fn with_retry_untimed<'a, T>(
    ask: impl Fn() -> BoxFuture<'a, Result<T, Error>> + Send,
) -> Result<T, Error> {
    for _ in 1..TRIES {
        match ask().await {
            Err(Error::Database(error)) if is_retryable(&error) => {}
            done => return done,
        }
    }
    ask().await
}

async fn in_time<T>(statement: BoxFuture<'_, Result<T, Error>>) -> Result<T, Error> {
    let Some(longest) = MAX_DURATION else {
        return statement.await;
    };
    let clock = Clock::system();
    let answered = clock
        .timeout_at(saturating_add(clock.now(), longest), statement)
        .await;
    answered.unwrap_or(Err(Error::Timeout))
}

fn is_retryable(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| RETRYABLE_SQLSTATES.contains(&&*code))
}
