//! The line between the program and its database, which can go dead.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes on what is said, until it goes dead: then nothing arrives, and nobody is told.
pub struct Line {
    pub port: u16,
    /// Grows with every failure. Connections of an earlier time stay dead, as those to a machine that is gone.
    times: Arc<watch::Sender<Time>>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Time {
    number: u32,
    dead: bool,
}

impl Line {
    /// A line to this port of this machine.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("an address").port();
        let times = Arc::new(watch::Sender::new(Time::default()));
        let shared = Arc::clone(&times);
        tokio::spawn(async move {
            while let Ok((ours, _)) = listener.accept().await {
                let mut now = shared.subscribe();
                tokio::spawn(async move {
                    let began = *now.borrow_and_update();
                    if began.dead {
                        // Held open for ever.
                        std::future::pending::<()>().await;
                    }
                    let Ok(theirs) = TcpStream::connect(("127.0.0.1", port)).await else {
                        return;
                    };
                    let (from_us, to_us) = ours.into_split();
                    let (from_them, to_them) = theirs.into_split();
                    let there = pass(from_us, to_them, now.clone(), began);
                    let back = pass(from_them, to_us, now, began);
                    tokio::join!(there, back);
                });
            }
        });
        Self { port: own, times }
    }

    /// From now on nothing arrives.
    pub fn goes_dead(&self) {
        self.times.send_modify(|time| {
            time.number += 1;
            time.dead = true;
        });
    }

    /// New connections work again.
    pub fn is_mended(&self) {
        self.times.send_modify(|time| {
            time.number += 1;
            time.dead = false;
        });
    }
}

async fn over(now: &mut watch::Receiver<Time>, began: Time) {
    let _ = now.wait_for(|time| *time != began).await;
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut now: watch::Receiver<Time>,
    began: Time,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = tokio::select! {
            biased;
            () = over(&mut now, began) => None,
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
