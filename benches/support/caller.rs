//! Calls hooks as Kratos does: on keep-alive connections, with one call at a time on each.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vestibule::base::telemetry::{LogFormat, init_logging};

/// The number of calls in flight.
pub const IN_FLIGHT: usize = 64;
/// The key of the calls.
pub const KEY: &str = "a-key-for-the-bench-only";

/// Runs a measurement. Logs are formatted as in the program and discarded.
pub fn run(measurement: impl Future<Output = ()>) {
    // `cargo test --benches` passes this; benchmarks are not tests.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    init_logging(std::io::sink, tracing::Level::INFO, LogFormat::Json).expect("logging starts");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measurement);
}

/// Runs one round. Returns the duration of each call.
#[expect(clippy::disallowed_methods, reason = "benchmarks use the system clock")]
pub async fn round(
    address: SocketAddr,
    length: Duration,
    body: impl Fn() -> String + Clone + Send + 'static,
) -> Vec<Duration> {
    let running = Arc::new(AtomicBool::new(true));
    let callers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| tokio::spawn(call(address, body.clone(), Arc::clone(&running))))
        .collect();
    tokio::time::sleep(length).await;
    running.store(false, Ordering::Relaxed);
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await.expect("the caller ends"));
    }
    took
}

/// Calls on one keep-alive connection, one call at a time.
#[expect(clippy::disallowed_methods, reason = "benchmarks use the system clock")]
async fn call(
    address: SocketAddr,
    body: impl Fn() -> String,
    running: Arc<AtomicBool>,
) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("nodelay");
    let mut buffer = vec![0; 4096];
    let mut took = Vec::new();
    while running.load(Ordering::Relaxed) {
        let body = body();
        let request = format!(
            "POST /hooks/registration/pre?method=password HTTP/1.1\r\nHost: vestibule\r\nUser-Agent: Go-http-client/1.1\r\n\
             Content-Type: application/json\r\nX-Vestibule-Key: {KEY}\r\nOry-Webhook-Trigger-Id: {}\r\nContent-Length: {}\r\n\r\n{body}",
            uuid::Uuid::new_v4(),
            body.len()
        );
        let started = Instant::now();
        stream
            .write_all(request.as_bytes())
            .await
            .expect("the request is sent");
        let answer = read_answer(&mut stream, &mut buffer).await;
        // With the one-identity guard, `pre` answers 200 with the `external_id`.
        assert!(
            answer.starts_with("HTTP/1.1 204") || answer.starts_with("HTTP/1.1 200"),
            "{answer}"
        );
        took.push(started.elapsed());
    }
    took
}

/// Reads one answer, head and body, and returns it as text.
async fn read_answer<'b>(stream: &mut TcpStream, buffer: &'b mut [u8]) -> Cow<'b, str> {
    let mut length = 0;
    loop {
        let read = stream.read(&mut buffer[length..]).await.expect("an answer");
        assert!(read > 0, "the connection was closed");
        length += read;
        let text = String::from_utf8_lossy(&buffer[..length]);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let header = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>().ok())?
        });
        if body.len() >= header.unwrap_or(0) {
            break;
        }
    }
    String::from_utf8_lossy(&buffer[..length])
}

/// The body of a hook call for a sign-up.
pub fn payload() -> Value {
    json!({
        "version": 2,
        "forwarded_headers": ["Accept-Language", "User-Agent", "True-Client-Ip"],
        "flow": {
            "request_url": "http://127.0.0.1:4433/self-service/registration/browser",
            "id": "16796416-e4ae-4463-99a6-be78d13a634a", "type": "browser", "issued_at": "2026-11-23T14:32:52.964673909Z",
            "expires_at": "2026-11-23T15:32:52.964673909Z", "return_to": "http://127.0.0.1:4455/after", "transient_payload": {}
        },
        "identity": {
            "id": "00000000-0000-0000-0000-000000000000", "schema_id": "default", "state": "active",
            "traits": {"company": "Muster GmbH", "email": "p8e40b229@example.org", "vat_number": "DE811115368"},
            "metadata_public": null,
            "recovery_addresses": [{"id": "00000000-0000-0000-0000-000000000000", "value": "p8e40b229@example.org", "via": "email",
                "created_at": "0001-01-01T00:00:00Z", "updated_at": "0001-01-01T00:00:00Z"}],
            "verifiable_addresses": [{"id": "00000000-0000-0000-0000-000000000000", "value": "p8e40b229@example.org", "via": "email",
                "status": "pending", "verified": false, "created_at": "0001-01-01T00:00:00Z", "updated_at": "0001-01-01T00:00:00Z"}],
            "created_at": "0001-01-01T00:00:00Z", "updated_at": "0001-01-01T00:00:00Z"
        },
        "nodes": [
            {"name": "traits.email", "hidden": true, "title": "E-mail"},
            {"name": "traits.company", "hidden": true, "title": "Company"},
            {"name": "traits.vat_number", "hidden": true, "title": "VAT number"},
            {"name": "traits.invite", "hidden": true, "title": "Invite code"}
        ],
        "request": {"headers": {"Accept-Language": "de-DE,de;q=0.9,en;q=0.5", "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36"}}
    })
}
