//! Group commit: calls that arrive during one write share the next transaction.
//!
//! A transaction costs one sync of the disk, whatever it holds. A call that waits for its result never waits for other
//! calls: a single call is written immediately. Inputs without a waiting caller are collected for a short time.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, mpsc, oneshot};

use super::Error;
use crate::base::clock::Clock;

/// The maximum number of calls in the queue. Further calls wait for a place in the queue.
const QUEUE_SIZE: usize = 1024;
/// The maximum number of calls in one transaction.
const MAX_BATCH: usize = 256;
/// How long inputs without a waiting caller are collected, unless a waiting caller arrives.
const MAX_LINGER: Duration = Duration::from_millis(5);

/// The result of one call. All calls of a failed transaction share the error.
pub type WriteResult<T> = Result<T, Arc<Error>>;

struct Call<I, O> {
    input: I,
    /// `None` if no caller waits.
    answer: Option<oneshot::Sender<WriteResult<O>>>,
}

/// The sending end, which accepts calls.
#[derive(Debug)]
pub struct GroupCommit<I, O> {
    calls: mpsc::Sender<Call<I, O>>,
    waiter_arrived: Arc<Notify>,
}

/// Returns one result for each input, in the order of the inputs.
type Write<I, O> = dyn Fn(Vec<I>) -> BoxFuture<'static, Vec<WriteResult<O>>> + Send + Sync;

/// The receiving end, which writes the calls.
pub struct Writer<I, O> {
    waiting: mpsc::Receiver<Call<I, O>>,
    waiter_arrived: Arc<Notify>,
    clock: Clock,
    write: Box<Write<I, O>>,
}

/// Creates both ends of the queue. `write` returns one result for each input, in the order of the inputs. Nothing is
/// written before [`Writer::run`]. The clock ends the collection of inputs without a waiting caller.
pub fn group_commit<I: Send + 'static, O: Send + 'static>(
    clock: Clock,
    write: impl Fn(Vec<I>) -> BoxFuture<'static, Vec<WriteResult<O>>> + Send + Sync + 'static,
) -> (GroupCommit<I, O>, Writer<I, O>) {
    let (calls, waiting) = mpsc::channel(QUEUE_SIZE);
    let waiter_arrived = Arc::new(Notify::new());
    let writer = Writer {
        waiting,
        waiter_arrived: Arc::clone(&waiter_arrived),
        clock,
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
    /// Writes the input, and returns when it is committed or has failed.
    pub async fn write(&self, input: I) -> WriteResult<O> {
        let (answer, answered) = oneshot::channel();
        let closed = || Arc::new(Error::Database(sqlx::Error::PoolClosed));
        let answer = Some(answer);
        let call = Call { input, answer };
        self.calls.send(call).await.map_err(|_| closed())?;
        self.waiter_arrived.notify_one();
        answered.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Queues the input without waiting for its result. Returns `false` if the queue is full.
    #[must_use]
    pub fn try_submit(&self, input: I) -> bool {
        let answer = None;
        self.calls.try_send(Call { input, answer }).is_ok()
    }
}

impl<I, O> Writer<I, O> {
    /// Writes until every [`GroupCommit`] is dropped and every call has its result.
    pub async fn run(mut self) {
        let mut calls = Vec::with_capacity(MAX_BATCH);
        while self.waiting.recv_many(&mut calls, MAX_BATCH).await > 0 {
            self.linger(&mut calls).await;
            let (inputs, answers): (Vec<I>, Vec<_>) = std::mem::take(&mut calls)
                .into_iter()
                .map(|Call { input, answer }| (input, answer))
                .unzip();
            let written = AssertUnwindSafe((self.write)(inputs)).catch_unwind();
            let Ok(results) = written.await else {
                // The waiting callers get an error, because nothing was stored. The next write is not affected.
                tracing::error!("A write to the database panicked");
                continue;
            };
            let unreceived = answers
                .into_iter()
                .zip(results)
                .filter_map(|(answer, results)| match answer {
                    Some(answer) => answer.send(results).err()?.err(),
                    None => results.err(),
                })
                .last();
            // No caller receives these errors, so they are logged here.
            if let Some(error) = unreceived {
                tracing::error!(
                    error = %error.error_chain(),
                    "A write that no caller waits for failed",
                );
            }
        }
    }

    async fn linger(&mut self, calls: &mut Vec<Call<I, O>>) {
        if calls.iter().any(|call| call.answer.is_some()) {
            return;
        }
        let until = self.clock.deadline(MAX_LINGER);
        self.clock
            .timeout_at(until, self.waiter_arrived.notified())
            .await;
        while calls.len() < MAX_BATCH
            && let Ok(call) = self.waiting.try_recv()
        {
            calls.push(call);
        }
    }
}
