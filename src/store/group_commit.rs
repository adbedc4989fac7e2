//! Calls that come while one transaction is being written share the next.
//!
//! A transaction costs a sync of the disk, whatever is in it. Whoever waits for an answer never waits for company: who comes
//! alone is written alone. What is handed in without anybody waiting gathers for a moment.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, mpsc, oneshot};

use super::Error;
use crate::base::clock::{Clock, saturating_add};

/// How many calls may wait to be written; beyond it they wait to wait.
const WAITING: usize = 1024;
/// How many share a transaction.
const TOGETHER: usize = 256;
/// How long what nobody waits for gathers, unless somebody comes who waits.
const GATHERS: Duration = Duration::from_millis(5);

/// What the database said to one call. An error is shared by all whom it concerns.
pub type WriteResult<T> = Result<T, Arc<Error>>;

struct Call<I, O> {
    input: I,
    /// `None` if nobody waits.
    answer: Option<oneshot::Sender<WriteResult<O>>>,
}

/// Where calls are handed in.
#[derive(Debug)]
pub struct GroupCommit<I, O> {
    calls: mpsc::Sender<Call<I, O>>,
    waiter_arrived: Arc<Notify>,
}

/// Says something to each of its inputs, in their order.
type Write<I, O> = dyn Fn(Vec<I>) -> BoxFuture<'static, Vec<WriteResult<O>>> + Send + Sync;

/// The other end, which writes them down.
pub struct Writer<I, O> {
    waiting: mpsc::Receiver<Call<I, O>>,
    waiter_arrived: Arc<Notify>,
    write: Box<Write<I, O>>,
}

/// Both ends. `write` says something to each of its inputs, in their order. Nothing is written before [`Writer::run`].
pub fn group_commit<I: Send + 'static, O: Send + 'static>(
    write: impl Fn(Vec<I>) -> BoxFuture<'static, Vec<WriteResult<O>>> + Send + Sync + 'static,
) -> (GroupCommit<I, O>, Writer<I, O>) {
    let (calls, waiting) = mpsc::channel(WAITING);
    let waiter_arrived = Arc::new(Notify::new());
    let writer = Writer {
        waiting,
        waiter_arrived: Arc::clone(&waiter_arrived),
        write: Box::new(write),
    };
    let group_commit = GroupCommit {
        calls,
        waiter_arrived,
    };
    (group_commit, writer)
}

impl<I, O> Clone for GroupCommit<I, O> {
    fn clone(&self) -> Self {
        Self {
            calls: self.calls.clone(),
            waiter_arrived: Arc::clone(&self.waiter_arrived),
        }
    }
}

impl<I, O> GroupCommit<I, O> {
    /// Returns once it is written, or cannot be.
    pub async fn write(&self, input: I) -> WriteResult<O> {
        let (answer, answered) = oneshot::channel();
        let closed = || Arc::new(Error::Database(sqlx::Error::PoolClosed));
        let answer = Some(answer);
        let call = Call { input, answer };
        self.calls.send(call).await.map_err(|_| closed())?;
        self.waiter_arrived.notify_one();
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Hands it in at once, for nobody waits for an answer. `false` if too many are waiting already.
    #[must_use]
    pub fn try_submit(&self, input: I) -> bool {
        let answer = None;
        self.calls.try_send(Call { input, answer }).is_ok()
    }
}

impl<I, O> Writer<I, O> {
    /// Writes until every [`GroupCommit`] is gone and everybody has an answer.
    pub async fn run(mut self) {
        let mut calls = Vec::with_capacity(TOGETHER);
        while self.waiting.recv_many(&mut calls, TOGETHER).await > 0 {
            self.linger(&mut calls).await;
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
                .filter_map(|(answer, said)| match answer {
                    Some(answer) => answer.send(said).err()?.err(),
                    None => said.err(),
                })
                .last();
            // Whoever waited has left by now, or never did.
            if let Some(error) = unheard {
                tracing::error!(
                    error = %error.error_chain(),
                    "The database did not do what nobody waits for any more",
                );
            }
        }
    }

    async fn linger(&mut self, calls: &mut Vec<Call<I, O>>) {
        if calls.iter().any(|call| call.answer.is_some()) {
            return;
        }
        let clock = Clock::system();
        let until = saturating_add(clock.now(), GATHERS);
        clock
            .timeout_at(until, self.waiter_arrived.notified())
            .await;
        while calls.len() < TOGETHER
            && let Ok(call) = self.waiting.try_recv()
        {
            calls.push(call);
        }
    }
}
