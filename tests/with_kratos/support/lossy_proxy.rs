//! A proxy between Kratos and Vestibule that loses the first response.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use regex::Regex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// Forwards everything except the first response.
pub struct LossyProxy {
    pub url: String,
    triggers: Arc<Mutex<Vec<String>>>,
}

impl LossyProxy {
    /// Starts a proxy in front of `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let triggers = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&triggers);
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.expect("a connection");
            lose_response(client, target, &seen)
                .await
                .expect("Vestibule answers the first call");
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, target, Arc::clone(&seen)));
            }
        });
        Self { url, triggers }
    }

    /// The `Ory-Webhook-Trigger-ID` of the first call on each connection, in order.
    pub fn triggers(&self) -> Vec<String> {
        self.triggers
            .lock()
            .expect("the lock is not poisoned")
            .clone()
    }
}

/// Forwards a complete call, waits for the response, and closes the connection without forwarding the response.
async fn lose_response(
    mut client: TcpStream,
    target: SocketAddr,
    triggers: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    let (mut call, mut response) = (Vec::new(), Vec::new());
    while !is_complete(&call) {
        client.read_buf(&mut call).await?;
    }
    triggers
        .lock()
        .expect("the lock is not poisoned")
        .push(trigger_id(&call));
    server.write_all(&call).await?;
    server.read_buf(&mut response).await?;
    assert!(
        response.starts_with(b"HTTP/1.1 2"),
        "{}",
        String::from_utf8_lossy(&response)
    );
    Ok(())
}

async fn forward(
    mut client: TcpStream,
    target: SocketAddr,
    triggers: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let mut call = Vec::new();
    while !is_complete(&call) {
        if client.read_buf(&mut call).await? == 0 {
            return Ok(());
        }
    }
    triggers
        .lock()
        .expect("the lock is not poisoned")
        .push(trigger_id(&call));
    let mut server = TcpStream::connect(target).await?;
    server.write_all(&call).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Whether a call has arrived with its complete body.
fn is_complete(call: &[u8]) -> bool {
    let text = String::from_utf8_lossy(call);
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length =
        header(head, "content-length").map_or(0, |length| length.parse().expect("a length"));
    call.len() >= head.len() + 4 + length
}

fn trigger_id(call: &[u8]) -> String {
    header(&String::from_utf8_lossy(call), "ory-webhook-trigger-id").expect("a trigger id")
}

fn header(head: &str, name: &str) -> Option<String> {
    let line = Regex::new(&format!(r"(?im)^{name}:[ \t]*(\S+)\r?$")).expect("a pattern");
    Some(line.captures(head)?[1].to_owned())
}
