//! Calls hooks as Kratos does: on keep-alive connections, with one call at a time on each.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use uuid::Uuid;
use vestibule::base::telemetry::{LogFormat, init_logging};
use vestibule_testing::join_all;
use vestibule_testing::payload::Payload;

/// The number of calls in flight.
pub const IN_FLIGHT: usize = 64;
/// The key of the calls.
pub const KEY: &str = "a-key-for-the-bench-only";
/// The flow of [`payload`].
pub const FLOW_ID: &str = "16796416-e4ae-4463-99a6-be78d13a634a";

const EMAIL: &str = "p8e40b229@example.org";

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
    join_all("each caller ends", callers).await.concat()
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
            Uuid::new_v4(),
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

/// The body of a hook call for a sign-up in the second step of a form.
pub fn payload() -> Payload {
    let nodes = ["email", "company", "vat_number", "invite"];
    let form = vestibule_testing::payload()
        .with("/flow/id", FLOW_ID)
        .with("/flow/issued_at", "2026-11-23T14:32:52.964673909Z")
        .with("/flow/expires_at", "2026-11-23T15:32:52.964673909Z")
        .with("/flow/transient_payload", json!({}))
        .with(
            "/identity/traits",
            json!({"company": "Muster GmbH", "email": EMAIL, "vat_number": "DE811115368"}),
        )
        .with("/identity/recovery_addresses", json!([address()]))
        .with(
            "/identity/verifiable_addresses",
            json!([verifiable_address()]),
        )
        .with(
            "/request/headers",
            json!({
                "Accept-Language": "de-DE,de;q=0.9,en;q=0.5",
                "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
            }),
        );
    nodes
        .iter()
        .fold(form, |form, name| form.hiding(&format!("traits.{name}")))
}

fn address() -> Value {
    json!({
        "id": Uuid::nil(), "value": EMAIL, "via": "email",
        "created_at": "0001-01-01T00:00:00Z", "updated_at": "0001-01-01T00:00:00Z",
    })
}

fn verifiable_address() -> Value {
    let mut address = address();
    address["status"] = "pending".into();
    address["verified"] = false.into();
    address
}
