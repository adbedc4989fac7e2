//! Connections on which a client sends nothing, or not all of a request.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{TestApp, bounded, eventually, payload};

async fn connect(app: &TestApp) -> TcpStream {
    let connection = TcpStream::connect(app.app.hooks_address)
        .await
        .expect("a connection");
    connection.set_nodelay(true).expect("an open connection");
    connection
}

/// Waits until Vestibule closes the connection, and returns what it has sent.
async fn received(mut connection: TcpStream) -> String {
    let mut text = String::new();
    let read = connection.read_to_string(&mut text);
    bounded("the connection is closed", read)
        .await
        .expect("an end");
    text
}

fn is_open(connection: &TcpStream) -> bool {
    let mut byte = [0];
    let read = connection.try_read(&mut byte);
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Waits until Vestibule has accepted the connections that were opened before: a later one is answered.
async fn settle(app: &TestApp) {
    let reply = app
        .http
        .get(app.url("/health/alive"))
        .send()
        .await
        .expect("an answer");
    assert_eq!(reply.status(), 200);
}

#[tokio::test]
async fn an_unused_connection_is_closed_without_a_response_after_100_seconds() {
    let app = TestApp::with("").start().await;
    let unused = connect(&app).await;
    settle(&app).await;
    app.clock.advance(Duration::from_secs(99));
    settle(&app).await;
    assert!(is_open(&unused));
    app.clock.advance(Duration::from_secs(1));
    assert_eq!(received(unused).await, "");
}

#[tokio::test]
async fn an_unused_connection_can_be_used_after_90_seconds() {
    let app = TestApp::with("").start().await;
    let mut unused = connect(&app).await;
    settle(&app).await;
    app.clock.advance(Duration::from_secs(90));
    let request = "GET /health/alive HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    unused.write_all(request.as_bytes()).await.unwrap();
    let response = received(unused).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}

#[tokio::test]
async fn a_first_request_that_never_ends_is_closed_after_a_minute() {
    let app = TestApp::with("").start().await;
    let mut slow = connect(&app).await;
    slow.write_all(b"GET /health/alive HTTP/1.1\r\nHo")
        .await
        .unwrap();
    // Vestibule reads the bytes at some time, and the minute begins then.
    eventually("the connection is closed", async || {
        settle(&app).await;
        app.clock.advance(Duration::from_secs(20));
        (!is_open(&slow)).then_some(())
    })
    .await;
    assert_eq!(received(slow).await, "");
}

#[tokio::test]
async fn silent_connections_do_not_keep_kratos_out() {
    let app = TestApp::with("").max_connections(8).start().await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(connect(&app).await);
    }
    // As many as are permitted are accepted, and the others wait.
    let visitor = payload();
    let call = app.pre(&visitor);
    let advance = async {
        eventually("the sign-up is answered", async || {
            app.clock.advance(Duration::from_millis(100));
            None::<()>
        })
        .await;
    };
    let started = app.clock.now();
    let reply = tokio::select! {
        reply = call => reply,
        () = advance => unreachable!("it has a bound"),
    };
    assert!(reply.is_admitted());
    let waited = app.clock.now() - started;
    assert!(waited < chrono::TimeDelta::seconds(90), "{waited}");
}

#[tokio::test]
async fn silent_connections_stay_open_while_at_most_half_of_the_connections_are_used() {
    let app = TestApp::with("").max_connections(20).start().await;
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(connect(&app).await);
    }
    settle(&app).await;
    app.clock.advance(Duration::from_mins(1));
    settle(&app).await;
    assert!(silent.iter().all(is_open));
    for _ in 0..4 {
        silent.push(connect(&app).await);
    }
    eventually("silent connections are closed", async || {
        app.clock.advance(Duration::from_secs(1));
        (!silent.iter().all(is_open)).then_some(())
    })
    .await;
    assert!(app.pre(&payload()).await.is_admitted());
}
