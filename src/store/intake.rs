//! Deliveries on their way into the database. Calls that come while one transaction is being written share the next.
//!
//! A transaction costs a sync of the disk, whatever is in it. Nobody waits for company: who comes alone is written alone.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};

use super::{Error, Store};
use crate::delivery::New;

/// How many calls may wait to be written; beyond it they wait to wait.
const WAITING: usize = 1024;
/// How many share a transaction.
const TOGETHER: usize = 256;

/// What the database said. An error is shared by all whom it concerns.
pub type Accepted = Result<usize, Arc<Error>>;

struct Call {
    deliveries: Vec<New>,
    answer: oneshot::Sender<Accepted>,
}

/// Where deliveries are handed in.
#[derive(Clone, Debug)]
pub struct Intake(mpsc::Sender<Call>);

/// The other end, which writes them down.
pub struct Writer {
    waiting: mpsc::Receiver<Call>,
    store: Arc<dyn Store>,
}

/// Both ends. Nothing is written before [`Writer::run`].
#[must_use]
pub fn intake(store: Arc<dyn Store>) -> (Intake, Writer) {
    let (sender, waiting) = mpsc::channel(WAITING);
    (Intake(sender), Writer { waiting, store })
}

impl Intake {
    /// Stores all of them in one transaction, durably, before it returns. Returns how many were new.
    pub async fn accept(&self, deliveries: Vec<New>) -> Accepted {
        let (answer, answered) = oneshot::channel();
        let call = Call { deliveries, answer };
        let closed = || Arc::new(Error::Database(sqlx::Error::PoolClosed));
        self.0.send(call).await.map_err(|_| closed())?;
        answered.await.unwrap_or_else(|_| Err(closed()))
    }
}

impl Writer {
    /// Writes until every [`Intake`] is gone and everybody has an answer.
    pub async fn run(mut self) {
        let mut calls = Vec::with_capacity(TOGETHER);
        while self.waiting.recv_many(&mut calls, TOGETHER).await > 0 {
            let written = self.write(std::mem::take(&mut calls));
            if AssertUnwindSafe(written).catch_unwind().await.is_err() {
                // Who was waiting is told that nothing was stored; the next are written as ever.
                tracing::error!("Storing deliveries broke down");
            }
        }
    }

    async fn write(&self, calls: Vec<Call>) {
        let all: Vec<New> = calls
            .iter()
            .flat_map(|call| call.deliveries.iter().cloned())
            .collect();
        match self.store.accept_all(&all).await {
            Ok(new) => {
                for call in calls {
                    let own = call.deliveries.iter().filter(|one| new.contains(&one.id));
                    let _ = call.answer.send(Ok(own.count()));
                }
            }
            // One of them may be to blame, and the others are not.
            Err(error) if calls.len() > 1 && is_about_the_data(&error) => {
                for call in calls {
                    let alone = self.store.accept_all(&call.deliveries).await;
                    let _ = call
                        .answer
                        .send(alone.map(|new| new.len()).map_err(Arc::new));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for call in calls {
                    let _ = call.answer.send(Err(Arc::clone(&error)));
                }
            }
        }
    }
}

/// Whether the database is there and refuses what it was given, rather than being gone, locked or full.
fn is_about_the_data(error: &Error) -> bool {
    use sqlx::error::ErrorKind::{
        CheckViolation, ForeignKeyViolation, NotNullViolation, UniqueViolation,
    };
    let Error::Database(error) = error else {
        return false;
    };
    error.as_database_error().is_some_and(|error| {
        // PostgreSQL's class 22: data exceptions.
        error
            .code()
            .is_some_and(|code| code.starts_with("22") && code.len() == 5)
            || matches!(
                error.kind(),
                UniqueViolation | NotNullViolation | CheckViolation | ForeignKeyViolation
            )
    })
}
