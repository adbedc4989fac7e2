//! Ends connections on which a client sends no request.
//!
//! Kratos opens connections that it does not use at first, and keeps each for 90 s. So Vestibule closes such a
//! connection later, and without a response, which Kratos could take for the answer to its next call. Only when many
//! connections are open does Vestibule close silent ones early, so that new ones can be accepted.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::base::clock::{Clock, Deadline};

/// How long a connection may be silent.
const MAX_SILENCE: Duration = Duration::from_secs(100);
/// How long a connection may be silent while more than half of the permitted connections are open.
const MAX_SILENCE_UNDER_LOAD: Duration = Duration::from_secs(2);
/// How long the first request of a connection may take until its response begins. Kratos ends a call after 30 s.
const MAX_FIRST_REQUEST: Duration = Duration::from_mins(1);

/// The open connections of a server.
#[derive(Clone, Debug)]
pub struct Connections {
    clock: Clock,
    maximum: usize,
    open: Arc<watch::Sender<usize>>,
}

impl Connections {
    /// Permits `maximum` connections at the same time.
    #[must_use]
    pub fn new(maximum: usize, clock: Clock) -> Self {
        Self {
            clock,
            maximum,
            open: Arc::new(watch::Sender::new(0)),
        }
    }

    /// The number of connections that may be open at the same time.
    #[must_use]
    pub fn maximum(&self) -> usize {
        self.maximum
    }

    /// Watches an accepted connection.
    #[must_use]
    pub fn watch(&self, io: TcpStream) -> WatchedStream {
        self.open.send_modify(|open| *open += 1);
        let early = self.clock.deadline(MAX_SILENCE_UNDER_LOAD);
        let late = self.clock.deadline(MAX_SILENCE);
        WatchedStream {
            io,
            progress: Progress::Silent(Box::pin(self.clone().silence_ends(early, late))),
            connections: self.clone(),
        }
    }

    /// Completes at `early` or after it while many connections are open, and at `late`.
    async fn silence_ends(self, early: Deadline, late: Deadline) {
        let under_load = async {
            self.clock.wait_until(early).await;
            let is_loaded = |open: &usize| *open > self.maximum / 2;
            // The sender is part of this value, so the wait cannot end early.
            let _ = self.open.subscribe().wait_for(is_loaded).await;
        };
        self.clock.timeout_at(late, under_load).await;
    }
}

type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How far the first request of a connection is.
enum Progress {
    /// Nothing was received.
    Silent(Ending),
    /// A request began, and nothing was answered.
    Began(Ending),
    /// The server has begun a response. From now on, its own limits apply.
    Answered,
}

/// A connection that ends, as if the client had closed it, when its client sends no request for too long.
pub struct WatchedStream {
    io: TcpStream,
    progress: Progress,
    connections: Connections,
}

impl WatchedStream {
    fn note_received(&mut self) {
        if matches!(self.progress, Progress::Silent(_)) {
            let clock = self.connections.clock.clone();
            let end = clock.deadline(MAX_FIRST_REQUEST);
            let deadline = async move { clock.wait_until(end).await };
            self.progress = Progress::Began(Box::pin(deadline));
        }
    }

    fn has_timed_out(&mut self, context: &mut Context<'_>) -> bool {
        match &mut self.progress {
            Progress::Silent(deadline) | Progress::Began(deadline) => {
                let is_over = deadline.as_mut().poll(context).is_ready();
                if is_over {
                    self.progress = Progress::Answered;
                }
                is_over
            }
            Progress::Answered => false,
        }
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        self.connections.open.send_modify(|open| *open -= 1);
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.io).poll_read(context, buffer);
        if buffer.filled().len() > before {
            this.note_received();
        }
        if read.is_pending() && this.has_timed_out(context) {
            // Nothing is read: the end of the connection.
            return Poll::Ready(Ok(()));
        }
        read
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.progress = Progress::Answered;
        Pin::new(&mut this.io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.progress = Progress::Answered;
        Pin::new(&mut this.io).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
