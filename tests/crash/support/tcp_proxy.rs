//! A TCP proxy between Vestibule and its database that can block all traffic.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Forwards traffic. While it blocks, connections stay open and transfer nothing.
pub struct TcpProxy {
    pub port: u16,
    /// Changes with every block and unblock. Connections of an earlier period stay blocked, as those to a failed machine do.
    period: Arc<watch::Sender<Period>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Period {
    number: u32,
    blocked: bool,
}

impl TcpProxy {
    /// Starts a proxy to this port of 127.0.0.1.
    pub async fn start(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("an address").port();
        let period = Arc::new(watch::Sender::new(Period::default()));
        let shared = Arc::clone(&period);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut now = shared.subscribe();
                tokio::spawn(async move {
                    let began = *now.borrow_and_update();
                    if began.blocked {
                        // Holds the connection open forever.
                        std::future::pending::<()>().await;
                    }
                    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
                        return;
                    };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let upstream = forward(from_client, to_server, now.clone(), began);
                    let downstream = forward(from_server, to_client, now, began);
                    tokio::join!(upstream, downstream);
                });
            }
        });
        Self { port: own, period }
    }

    /// Blocks all connections.
    pub fn block(&self) {
        self.period.send_modify(|period| {
            period.number += 1;
            period.blocked = true;
        });
    }

    /// Forwards new connections again.
    pub fn unblock(&self) {
        self.period.send_modify(|period| {
            period.number += 1;
            period.blocked = false;
        });
    }
}

async fn period_ends(now: &mut watch::Receiver<Period>, began: Period) {
    let _ = now.wait_for(|period| *period != began).await;
}

async fn forward(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut now: watch::Receiver<Period>,
    began: Period,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            biased;
            () = period_ends(&mut now, began) => None,
            read = from.read(&mut buffer) => Some(read),
        };
        match read {
            None => std::future::pending().await,
            Some(Ok(length)) if length > 0 => {
                if to.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
            _ => return,
        }
    }
}
