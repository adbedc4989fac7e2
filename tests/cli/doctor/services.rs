//! Services: names, connections, certificates, credentials and clocks.

use std::net::SocketAddr;

use vestibule::base::clock::Clock;
use vestibule_testing::fake_service::{Behaviour, FakeService};
use vestibule_testing::port;
use vestibule_testing::tls::{Authority, Certificate};

use super::{Examination, PORTS, examine, examine_with, folder_with};

/// Examines a service with a token and a probe at this address.
fn probed(url: &str, more: &str) -> Examination {
    let folder = folder_with(&format!(
        "{PORTS}services:\n  crm:\n    url: \"{url}\"\n    auth: {{type: bearer, config: {{token: \"${{env:TOKEN}}\"}}}}\n    {more}\n"
    ));
    examine(folder.path(), "services", &[("TOKEN", "canary-token")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_a_probe_tells_whether_credentials_are_accepted() {
    let crm = FakeService::answering(|call| {
        let known = call.header("authorization") == Some("Bearer canary-token");
        (if known { 200 } else { 401 }, "{}".to_owned(), None)
    });
    let probe = "probe: {get: /me}";
    let found = probed(&crm.url(), probe);
    assert_eq!(found.code, 0, "{:#}", found.report);
    found.assert("services", "credentials", "ok", "GET /me answered 200");
    found.assert("services", "clock", "ok", "agrees");
    assert_eq!(found.the("services", "credentials")["subject"], "crm");
    assert!(found.the("services", "credentials")["duration_ms"].is_number());

    for (status, more, level, part) in [
        (401, probe, "problem", "correct `services.crm.auth`"),
        (403, probe, "problem", "credentials were refused"),
        (404, probe, "problem", "expect: [404]"),
        (405, "probe: {get: /me, expect: [405]}", "ok", "405"),
        (503, probe, "problem", "does not work"),
        (302, probe, "problem", "follows no redirect"),
        (429, probe, "warning", "limits calls"),
    ] {
        crm.set_behaviour(Behaviour::Answers(status, "{}".to_owned()));
        let found = probed(&crm.url(), more);
        found.assert("services", "credentials", level, part);
        assert_eq!(found.the("services", "credentials")["line"], 6);
        assert_eq!(found.code, i32::from(level == "problem"), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_in_the_path_of_a_probe_is_not_shown() {
    let crm = FakeService::start();
    let probe = "probe: {get: \"/bot${env:TOKEN}/me?key=${env:TOKEN}\"}";
    for (status, level, part) in [
        (200, "ok", "GET /bot${env:TOKEN}/me answered 200"),
        (500, "problem", "GET /bot${env:TOKEN}/me answered 500"),
    ] {
        crm.set_behaviour(Behaviour::Answers(status, "{}".to_owned()));
        probed(&crm.url(), probe).assert("services", "credentials", level, part);
    }
    assert_eq!(crm.received()[0].path, "/botcanary-token/me");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_address_of_a_name_gets_a_handshake() {
    let addresses = tokio::net::lookup_host("localhost:443").await;
    let addresses: Vec<_> = addresses.expect("addresses").collect();
    let has_both =
        addresses.iter().any(SocketAddr::is_ipv4) && addresses.iter().any(SocketAddr::is_ipv6);
    let authority = Authority::new();
    let port = authority.serve(Certificate::Right).await.port();
    let Ok(other) = tokio::net::TcpListener::bind(("::1", port)).await else {
        return;
    };
    if !has_both {
        return;
    }
    // It accepts connections, and ends them during the handshake.
    tokio::spawn(async move { while let Ok(_connection) = other.accept().await {} });
    let found = probed(&format!("https://localhost:{port}"), "probe: {get: /me}");
    let handshakes = found.of("services", "tls");
    assert_eq!(handshakes.len(), 2, "{:#}", found.report);
    for address in ["127.0.0.1:", "[::1]:"] {
        let is_about = |one: &&&serde_json::Value| one["message"].to_string().contains(address);
        assert_eq!(
            handshakes.iter().filter(is_about).count(),
            1,
            "{handshakes:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_probe_no_request_is_sent() {
    let crm = FakeService::start();
    let found = probed(&crm.url(), "timeout: 2s");
    found.assert("services", "connect", "ok", "accepts connections");
    found.assert(
        "services",
        "credentials",
        "not_checked",
        "probe: {get: /path}",
    );
    assert_eq!(found.code, 0);
    assert!(crm.received().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_does_not_answer_is_bounded_by_the_timeout() {
    let crm = FakeService::start();
    crm.set_behaviour(Behaviour::Hangs);
    let folder = folder_with(&format!(
        "{PORTS}services: {{crm: {{url: \"{}\", probe: {{get: /me}}}}}}\n",
        crm.url()
    ));
    let options = ["--only", "services", "--timeout", "200ms"];
    let found = examine_with(folder.path(), &options, &[]);
    found.assert("services", "credentials", "problem", "no response in time");
    crm.release_hanging_calls();
}

#[test]
fn a_service_that_cannot_be_reached_says_at_which_step() {
    let closed = format!("http://127.0.0.1:{}", port::free());
    for (url, name, part) in [
        (closed.as_str(), "connect", "Connection refused"),
        ("http://169.254.169.254", "resolve", "link-local"),
        ("http://nowhere.invalid", "resolve", "does not resolve"),
    ] {
        let found = probed(url, "probe: {get: /me}");
        found.assert("services", name, "problem", part);
        found.assert(
            "services",
            "credentials",
            "not_checked",
            "cannot be reached",
        );
        assert_eq!(found.the("services", name)["path"], "services.crm.url");
        assert_eq!(found.the("services", name)["line"], 4);
        assert_eq!(found.code, 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reason_of_a_failed_handshake_is_named() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a folder");
    let trusted = folder.path().join("authority.pem");
    std::fs::write(&trusted, &authority.pem).expect("a file");
    let trusted = trusted.to_str().expect("a path");
    for (certificate, level, part) in [
        (Certificate::Right, "ok", "valid for 127.0.0.1"),
        (Certificate::Expired, "problem", "has expired"),
        (Certificate::NotYetValid, "problem", "not valid yet"),
        (Certificate::WrongName, "problem", "other.test"),
        (Certificate::SelfSigned, "problem", "self-signed"),
    ] {
        let address = authority.serve(certificate).await;
        let settings = format!(
            "{PORTS}services: {{crm: {{url: \"https://{address}\", probe: {{get: /me}}}}}}\n"
        );
        let folder = folder_with(&settings);
        let found = examine(folder.path(), "services", &[("SSL_CERT_FILE", trusted)]);
        found.assert("services", "tls", level, part);
        // The client of the product trusts what the examination trusts.
        let expected = if level == "ok" { "ok" } else { "not_checked" };
        found.assert("services", "credentials", expected, "");
    }
    let plain = FakeService::start().url().replace("http://", "https://");
    let folder = folder_with(&format!("{PORTS}services: {{crm: {{url: \"{plain}\"}}}}\n"));
    let found = examine(folder.path(), "services", &[("SSL_CERT_FILE", trusted)]);
    found.assert("services", "tls", "problem", "does not speak TLS");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_another_clock_is_reported() {
    let crm = FakeService::start();
    let now = Clock::system().now();
    let secret = "sign: {secret: whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3}\n    probe: {get: /me}";
    for (minutes, more, level, part) in [
        (-4, "probe: {get: /me}", "warning", "behind"),
        (8, "probe: {get: /me}", "warning", "7 min ahead"),
        (-8, secret, "problem", "reject signatures"),
    ] {
        let date = now + chrono::TimeDelta::minutes(minutes);
        let date = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        crm.set_behaviour(Behaviour::AnswersWith(200, "{}".to_owned(), ("date", date)));
        probed(&crm.url(), more).assert("services", "clock", level, part);
    }
}

#[test]
fn a_service_of_a_whole_url_is_examined_without_a_probe() {
    let closed = format!("http://127.0.0.1:{}", port::free());
    let folder = folder_with(&format!(
        "{PORTS}checks: {{a: {{field: traits.a, ask: {{get: \"{closed}/a\"}}, refuse: [{{when: 404}}]}}}}\n"
    ));
    let found = examine(folder.path(), "services", &[]);
    found.assert("services", "connect", "problem", "Connection refused");
    let connect = found.the("services", "connect");
    assert_eq!(connect["subject"], closed);
    assert_eq!(connect["path"], "checks.a.ask.get");
    assert_eq!(connect["line"], 2);
    for name in ["credentials", "clock"] {
        found.assert("services", name, "not_checked", "no request was sent");
    }
}
