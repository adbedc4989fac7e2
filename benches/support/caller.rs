//! Kratos's part of a measurement: kept-alive connections, each with one call after the other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vestibule::base::telemetry::{LogFormat, init_logging};

/// How many calls are under way.
pub const IN_FLIGHT: usize = 64;
/// The key that they carry.
pub const KEY: &str = "a-key-for-the-bench-only";

/// Runs a measurement, with logs as the program writes them, but to nowhere.
pub fn run(measurement: impl Future<Output = ()>) {
    // `cargo test --benches` passes this; a measurement is no test.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    init_logging(std::io::sink, tracing::Level::INFO, LogFormat::Json).expect("logging");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measurement);
}

/// How long each call took, in one round.
#[expect(
    clippy::disallowed_methods,
    reason = "a measurement is about the system's own time"
)]
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
        took.extend(caller.await.expect("a caller"));
    }
    took
}

/// One kept-alive connection, as Kratos keeps them: a call, its answer, the next.
#[expect(
    clippy::disallowed_methods,
    reason = "a measurement is about the system's own time"
)]
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
        stream.write_all(request.as_bytes()).await.expect("a call");
        let mut length = 0;
        while !buffer[..length].ends_with(b"\r\n\r\n") {
            let read = stream.read(&mut buffer[length..]).await.expect("an answer");
            assert!(read > 0, "the connection was closed");
            length += read;
        }
        assert!(
            buffer.starts_with(b"HTTP/1.1 204"),
            "{}",
            String::from_utf8_lossy(&buffer[..length])
        );
        took.push(started.elapsed());
    }
    took
}

/// The body of a sign-up.
pub fn payload() -> Value {
    json!({
        "version": 1,
        "flow": {
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
