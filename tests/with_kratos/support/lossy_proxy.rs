//! The network between Kratos and Vestibule, on the day it loses an answer.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use regex::Regex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// Passes everything on, but for the first answer.
pub struct LossyProxy {
    pub url: String,
    triggers: Arc<Mutex<Vec<String>>>,
}

impl LossyProxy {
    /// Starts one in front of `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let triggers = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&triggers);
        tokio::spawn(async move {
            let (client, _) = listener.accept().await.expect("a connection");
            lose_the_answer(client, target, &seen)
                .await
                .expect("a whole exchange");
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, target, Arc::clone(&seen)));
            }
        });
        Self { url, triggers }
    }

    /// The `Ory-Webhook-Trigger-ID` of the first call on each connection, in order.
    pub fn triggers(&self) -> Vec<String> {
        self.triggers.lock().expect("a lock").clone()
    }
}

/// Hands a call over completely, waits for the answer, and hangs up.
async fn lose_the_answer(
    mut client: TcpStream,
    target: SocketAddr,
    triggers: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    let (mut call, mut answer) = (Vec::new(), Vec::new());
    while !is_whole(&call) {
        client.read_buf(&mut call).await?;
    }
    triggers.lock().expect("a lock").push(trigger_id(&call));
    server.write_all(&call).await?;
    server.read_buf(&mut answer).await?;
    assert!(
        answer.starts_with(b"HTTP/1.1 2"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    Ok(())
}

async fn pass_on(
    mut client: TcpStream,
    target: SocketAddr,
    triggers: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let mut call = Vec::new();
    while !is_whole(&call) {
        if client.read_buf(&mut call).await? == 0 {
            return Ok(());
        }
    }
    triggers.lock().expect("a lock").push(trigger_id(&call));
    let mut server = TcpStream::connect(target).await?;
    server.write_all(&call).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Whether a call has arrived with its whole body.
fn is_whole(call: &[u8]) -> bool {
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
