//! Calls that come while one transaction is being written share the next.
//!
//! A transaction costs a sync of the disk, whatever is in it. Nobody waits for company: who comes alone is written alone.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::Error;

/// How many calls may wait to be written; beyond it they wait to wait.
const WAITING: usize = 1024;
/// How many share a transaction.
const TOGETHER: usize = 256;

/// What the database said to one call. An error is shared by all whom it concerns.
pub type Said<T> = Result<T, Arc<Error>>;

struct Call<I, O> {
    input: I,
    answer: oneshot::Sender<Said<O>>,
}

/// Where calls are handed in.
#[derive(Debug)]
pub struct Together<I, O>(mpsc::Sender<Call<I, O>>);

/// Says something to each of its inputs, in their order.
type Write<I, O> = dyn Fn(Vec<I>) -> BoxFuture<'static, Vec<Said<O>>> + Send + Sync;

/// The other end, which writes them down.
pub struct Writer<I, O> {
    waiting: mpsc::Receiver<Call<I, O>>,
    write: Box<Write<I, O>>,
}

/// Both ends. `write` says something to each of its inputs, in their order. Nothing is written before [`Writer::run`].
pub fn together<I: Send + 'static, O: Send + 'static>(
    write: impl Fn(Vec<I>) -> BoxFuture<'static, Vec<Said<O>>> + Send + Sync + 'static,
) -> (Together<I, O>, Writer<I, O>) {
    let (sender, waiting) = mpsc::channel(WAITING);
    let write = Box::new(write);
    (Together(sender), Writer { waiting, write })
}

impl<I, O> Clone for Together<I, O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I, O> Together<I, O> {
    /// Returns once it is written, or cannot be.
    pub async fn write(&self, input: I) -> Said<O> {
        let (answer, answered) = oneshot::channel();
        let closed = || Arc::new(Error::Database(sqlx::Error::PoolClosed));
        let call = Call { input, answer };
        self.0.send(call).await.map_err(|_| closed())?;
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Hands it in at once, for nobody waits for an answer. `false` if too many are waiting already.
    #[must_use]
    pub fn hand_in(&self, input: I) -> bool {
        let (answer, _) = oneshot::channel();
        self.0.try_send(Call { input, answer }).is_ok()
    }
}

impl<I, O> Writer<I, O> {
    /// Writes until every [`Together`] is gone and everybody has an answer.
    pub async fn run(mut self) {
        let mut calls = Vec::with_capacity(TOGETHER);
        while self.waiting.recv_many(&mut calls, TOGETHER).await > 0 {
            let (inputs, answers): (Vec<I>, Vec<_>) = std::mem::take(&mut calls)
                .into_iter()
                .map(|Call { input, answer }| (input, answer))
                .unzip();
            let written = AssertUnwindSafe((self.write)(inputs)).catch_unwind();
            let Ok(said) = written.await else {
                // Who was waiting is told that nothing was stored; the next are written as ever.
                tracing::error!("Writing to the database broke down");
                continue;
            };
            let unheard = answers
                .into_iter()
                .zip(said)
                .filter_map(|(answer, said)| answer.send(said).err()?.err())
                .last();
            // Whoever waited has left by now, or never did.
            if let Some(error) = unheard {
                tracing::error!(
                    error = %error.in_full(),
                    "The database did not do what nobody waits for any more",
                );
            }
        }
    }
}
