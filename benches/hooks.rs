//! What answering `pre` costs beside the least that any hook must do: a bare actix-web handler that parses the
//! payload and answers 204. Same payload, same machine, same run, 64 calls in flight; rounds take turns.
//!
//! `cargo bench --bench hooks`

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actix_web::{App as Web, HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vestibule::app::{App, Surroundings};
use vestibule::config::{self, Environment};
use vestibule::telemetry::{LogFormat, log_to};

/// The program's own, for both sides.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IN_FLIGHT: usize = 64;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(3);
const KEY: &str = "a-key-for-the-bench-only";

const TEN_CHECKS: &str = r#"
hooks: {keys: [a-key-for-the-bench-only]}
serve: {hooks: {host: 127.0.0.1, port: 0}, admin: {host: 127.0.0.1, port: 0}}
dsn: ${env:DSN}
lists: {throwaway: [trash.example, mail.example]}
checks:
  c1: {field: traits.email, refuse: [{when: "in_domains(value, lists.throwaway)"}]}
  c2: {field: traits.email, refuse: [{when: "value.endsWith('.invalid')"}]}
  c3: {field: traits.vat_number, refuse: [{when: "!value.matches('^[A-Z]{2}[0-9A-Z]+$')"}]}
  c4: {field: traits.vat_number, refuse: [{when: "value.substring(0, 2) == 'XX'"}]}
  c5: {field: traits.company, refuse: [{when: "size(value) > 200"}]}
  c6: {field: traits.company, refuse: [{when: "value.lowerAscii() == 'test'"}]}
  c7: {refuse: [{when: "identity.schema_id != 'default'"}]}
  c8: {refuse: [{when: "has(identity.traits.invite) && identity.traits.invite == ''"}]}
  c9: {refuse: [{when: "method == 'lookup_secret'"}]}
  c10: {refuse: [{when: "flow.type == 'api' && !has(flow.return_to)"}]}
"#;

fn main() {
    // `cargo test --benches` passes this; a measurement is no test.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    log_to(std::io::sink, tracing::Level::INFO, LogFormat::Json).expect("logging");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let folder = tempfile::tempdir().expect("a folder");
    let dsn = format!("sqlite://{}", folder.path().join("bench.db").display());
    let environment = Environment::of([("DSN".to_owned(), dsn)]);
    let settings = config::read(TEN_CHECKS, Path::new("bench.yaml"), &environment)
        .unwrap_or_else(|problems| panic!("{problems}"));
    let app = App::start(settings, Surroundings::default())
        .await
        .expect("a start");
    let bare = start_bare();

    let body = payload().to_string();
    println!(
        "payload {} bytes, {IN_FLIGHT} in flight, {ROUNDS} rounds of {} s each",
        body.len(),
        ROUND.as_secs()
    );
    let mut ratios = Vec::new();
    // One round each to warm up.
    round(bare, &body).await;
    round(app.hooks_address, &body).await;
    for number in 1..=ROUNDS {
        let least = round(bare, &body).await;
        let ours = round(app.hooks_address, &body).await;
        ratios.push(ours / least);
        println!(
            "round {number}: bare {least:>8.0} /s   pre {ours:>8.0} /s   ratio {:.2}",
            ours / least
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("ratio, median of {ROUNDS}: {:.2}", ratios[ROUNDS / 2]);
    app.stop().await;
}

fn start_bare() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let server =
        HttpServer::new(|| Web::new().route("/hooks/registration/pre", web::post().to(bare)))
            .listen(listener)
            .expect("listening")
            .disable_signals()
            .run();
    tokio::spawn(server);
    address
}

async fn bare(body: web::Bytes) -> HttpResponse {
    match serde_json::from_slice::<Value>(&body) {
        Ok(_) => HttpResponse::NoContent().finish(),
        Err(_) => HttpResponse::BadRequest().finish(),
    }
}

/// Calls per second over one round.
#[expect(
    clippy::disallowed_methods,
    reason = "a measurement is about the system's own time"
)]
async fn round(address: SocketAddr, body: &str) -> f64 {
    let running = Arc::new(AtomicBool::new(true));
    let calls = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let callers: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            tokio::spawn(call(
                address,
                body.to_owned(),
                Arc::clone(&running),
                Arc::clone(&calls),
            ))
        })
        .collect();
    tokio::time::sleep(ROUND).await;
    running.store(false, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("a caller");
    }
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let calls = calls.load(Ordering::Relaxed) as f64;
    calls / started.elapsed().as_secs_f64()
}

/// One kept-alive connection, as Kratos keeps them: a call, its answer, the next.
async fn call(address: SocketAddr, body: String, running: Arc<AtomicBool>, calls: Arc<AtomicU64>) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("nodelay");
    let mut buffer = vec![0; 4096];
    while running.load(Ordering::Relaxed) {
        let request = format!(
            "POST /hooks/registration/pre?method=password HTTP/1.1\r\nHost: vestibule\r\nUser-Agent: Go-http-client/1.1\r\n\
             Content-Type: application/json\r\nX-Vestibule-Key: {KEY}\r\nOry-Webhook-Trigger-Id: {}\r\nContent-Length: {}\r\n\r\n{body}",
            uuid::Uuid::new_v4(),
            body.len()
        );
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
        calls.fetch_add(1, Ordering::Relaxed);
    }
}

fn payload() -> Value {
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
