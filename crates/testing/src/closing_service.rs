//! A service that closes kept-alive connections at the worst moment: after a request has arrived on one of them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// Answers `200 {}` to the first requests of each connection, and closes the connection after the next one.
pub struct ClosingService {
    address: SocketAddr,
    connections: Arc<Connections>,
}

#[derive(Default)]
struct Connections {
    /// The text of each request, by connection.
    requests: Mutex<Vec<Vec<String>>>,
}

impl ClosingService {
    /// Starts a service that answers so many requests of each connection.
    pub async fn answering(answers: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let connections = Arc::new(Connections::default());
        let shared = Arc::clone(&connections);
        // Runs until the runtime of the test ends.
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&shared).serve(client, answers));
            }
        });
        Self {
            address,
            connections,
        }
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The text of each request, by connection.
    pub fn requests(&self) -> Vec<Vec<String>> {
        self.connections.lock().clone()
    }
}

impl Connections {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<String>>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self: Arc<Self>, mut client: TcpStream, answers: usize) {
        let number = {
            let mut requests = self.lock();
            requests.push(Vec::new());
            requests.len() - 1
        };
        for count in 0.. {
            let Some(request) = read_request(&mut client).await else {
                return;
            };
            self.lock()[number].push(request);
            if count == answers || client.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}

/// Reads a request with its body. `None` at the end of the connection.
async fn read_request(client: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let length = client.read(&mut buffer).await.ok()?;
        if length == 0 {
            return None;
        }
        request.extend_from_slice(&buffer[..length]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.len() >= content_length(head)
        {
            return Some(text);
        }
    }
}

fn content_length(head: &str) -> usize {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    lengths
        .next()
        .map_or(0, |(_, value)| value.trim().parse().expect("a length"))
}
