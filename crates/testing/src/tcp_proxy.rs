//! A TCP proxy that can block all traffic, and lose a response.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How many bytes of each connection are kept.
const KEPT: usize = 16 * 1024;

/// Forwards traffic. While it blocks, connections stay open and transfer nothing.
pub struct TcpProxy {
    /// The port of 127.0.0.1 on which the proxy listens.
    pub port: u16,
    state: Arc<State>,
}

struct State {
    target: SocketAddr,
    /// Changes with every block and unblock. Connections of an earlier period stay blocked, as those to a failed machine do.
    period: watch::Sender<Period>,
    loses_response: AtomicBool,
    /// The first bytes of the client on each connection.
    first_bytes: Mutex<Vec<Vec<u8>>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Period {
    number: u32,
    blocked: bool,
}

/// One direction of a connection.
struct Direction {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    /// The period in which the connection began.
    began: Period,
    now: watch::Receiver<Period>,
}

impl TcpProxy {
    /// Starts a proxy to this address.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            target,
            period: watch::Sender::default(),
            loses_response: AtomicBool::new(false),
            first_bytes: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        // Runs until the runtime of the test ends.
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&shared).serve(client));
            }
        });
        Self { port, state }
    }

    /// The address of the proxy as a URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Blocks all connections.
    pub fn block(&self) {
        self.begin_period(true);
    }

    /// Forwards new connections again.
    pub fn unblock(&self) {
        self.begin_period(false);
    }

    /// Closes a connection in place of forwarding the next response.
    pub fn lose_next_response(&self) {
        self.state.loses_response.store(true, Ordering::SeqCst);
    }

    /// The first bytes of the client on each connection, in the order of the connections.
    pub fn first_bytes(&self) -> Vec<String> {
        let first_bytes = self.state.first_bytes.lock().expect("a lock");
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        first_bytes.iter().map(text).collect()
    }

    fn begin_period(&self, blocked: bool) {
        self.state.period.send_modify(|period| {
            period.number += 1;
            period.blocked = blocked;
        });
    }
}

impl State {
    async fn serve(self: Arc<Self>, client: TcpStream) {
        let mut now = self.period.subscribe();
        let began = *now.borrow_and_update();
        if began.blocked {
            // Holds the connection open until the runtime of the test ends.
            std::future::pending::<()>().await;
        }
        let Ok(server) = TcpStream::connect(self.target).await else {
            return;
        };
        let number = self.add_connection();
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let direction = |from, to| Direction {
            from,
            to,
            began,
            now: now.clone(),
        };
        let upstream = async {
            let keep = |bytes: &[u8]| {
                self.keep(number, bytes);
                true
            };
            direction(from_client, to_server).forward(keep).await;
            // The server may still answer a client that sends nothing more.
            std::future::pending::<()>().await;
        };
        let is_passed = |_: &[u8]| !self.loses_response.swap(false, Ordering::SeqCst);
        let downstream = direction(from_server, to_client).forward(is_passed);
        // The connection is closed as soon as the server closes it or the response is lost.
        tokio::select! {
            () = upstream => {}
            () = downstream => {}
        }
    }

    fn add_connection(&self) -> usize {
        let mut first_bytes = self.first_bytes.lock().expect("a lock");
        first_bytes.push(Vec::new());
        first_bytes.len() - 1
    }

    fn keep(&self, number: usize, bytes: &[u8]) {
        let mut first_bytes = self.first_bytes.lock().expect("a lock");
        let kept = &mut first_bytes[number];
        let length = bytes.len().min(KEPT.saturating_sub(kept.len()));
        kept.extend_from_slice(&bytes[..length]);
    }
}

impl Direction {
    /// Forwards until one side closes the connection or `pass` returns `false`.
    async fn forward(mut self, mut pass: impl FnMut(&[u8]) -> bool) {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = tokio::select! {
                biased;
                () = period_ends(&mut self.now, self.began) => None,
                read = self.from.read(&mut buffer) => Some(read),
            };
            match read {
                None => std::future::pending().await,
                Some(Ok(length)) if length > 0 => {
                    let bytes = &buffer[..length];
                    if !pass(bytes) || self.to.write_all(bytes).await.is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }
}

async fn period_ends(now: &mut watch::Receiver<Period>, began: Period) {
    let _ = now.wait_for(|period| *period != began).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fake_service::FakeService;
    use crate::http::client_with_timeout;

    async fn proxied(service: &FakeService) -> TcpProxy {
        let address = service.url().replace("http://", "");
        TcpProxy::start(address.parse().expect("an address")).await
    }

    async fn answers(proxy: &TcpProxy, timeout: Duration) -> bool {
        let call = client_with_timeout(timeout).get(proxy.url()).send();
        call.await.is_ok()
    }

    #[tokio::test]
    async fn a_lost_response_is_one_that_the_service_has_sent() {
        let service = FakeService::start();
        let proxy = proxied(&service).await;
        proxy.lose_next_response();
        assert!(!answers(&proxy, Duration::from_secs(30)).await);
        assert_eq!(service.received().len(), 1);
        assert!(answers(&proxy, Duration::from_secs(30)).await);
        let calls = proxy.first_bytes();
        assert!(
            calls.iter().all(|call| call.starts_with("GET / ")),
            "{calls:?}"
        );
        assert_eq!(calls.len(), 2);
    }

    #[tokio::test]
    async fn a_blocked_proxy_transfers_nothing() {
        let service = FakeService::start();
        let proxy = proxied(&service).await;
        proxy.block();
        assert!(!answers(&proxy, Duration::from_millis(50)).await);
        proxy.unblock();
        assert!(answers(&proxy, Duration::from_secs(30)).await);
        assert_eq!(service.received().len(), 1);
    }
}
