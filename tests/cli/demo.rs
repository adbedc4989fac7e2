//! The page of the demo, and its services alone.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use vestibule::kratos::fingerprint::guard_id;
use vestibule_testing::http::client;
use vestibule_testing::{Program, within};

use super::{run, text, vestibule};

/// A demo picks free ports before it binds them, so the demos start one after the other.
static STARTING: Mutex<()> = Mutex::new(());

struct Demo {
    program: Program,
    page: String,
    http: Client,
    _folder: tempfile::TempDir,
}

impl Demo {
    /// Starts the demo and reads its output up to the first address on or after the line with `marker`.
    fn start(arguments: &[&str], marker: &str) -> Self {
        let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = vestibule(folder.path(), arguments);
        let log = folder.path().join("demo.log");
        let mut program =
            Program::start_with_errors_to("the demo", &mut command, log, Stdio::null());
        let page = program.wait_for_log("the address of the demo", |output| {
            let mut lines = output
                .split_inclusive('\n')
                .skip_while(|line| !line.contains(marker));
            lines.find_map(|line| {
                let address = &line[line.find("http://")?..];
                let address = address.strip_suffix('\n')?.trim();
                Some(address.trim_end_matches('/').to_owned())
            })
        });
        Self {
            program,
            page,
            http: client(),
            _folder: folder,
        }
    }

    fn with_page() -> Self {
        Self::start(&["demo"], "Open this page")
    }

    async fn get(&self, path: &str) -> Response {
        let request = self.http.get(format!("{}{path}", self.page));
        request.send().await.expect("an answer")
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let answer = self
            .http
            .request(method, format!("{}{path}", self.page))
            .header("Origin", &self.page)
            .header("Content-Type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.bytes().await.expect("a body");
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn switch(&self, to: Value) {
        let (status, state) = self.send(Method::PUT, "/api/switch", &to).await;
        assert_eq!(status, 200, "{state}");
        for (service, behaviour) in to.as_object().expect("services") {
            assert_eq!(state[service], *behaviour);
        }
    }

    /// Submits a sign-up and polls it until `done` returns true.
    async fn follow(&self, input: &Value, done: impl Fn(&Value) -> bool) -> Value {
        let (status, accepted) = self.send(Method::POST, "/api/sign-ups", input).await;
        assert_eq!(status, 202, "{accepted}");
        let id = accepted["id"].as_str().expect("an id");
        self.follow_id(id, done).await
    }

    async fn follow_id(&self, id: &str, done: impl Fn(&Value) -> bool) -> Value {
        let mut seen = String::new();
        let what = format!("the state of sign-up {id}");
        // Each response differs from the one before, or took twenty seconds.
        within(Duration::from_mins(2), &what, async || {
            let update = self.get(&format!("/api/sign-ups/{id}?seen={seen}")).await;
            let mut update: Value =
                serde_json::from_slice(&update.bytes().await.expect("a body")).expect("JSON");
            let state = update["seen"].as_str().expect("what was seen");
            state.clone_into(&mut seen);
            let sign_up = update["sign_up"].take();
            done(&sign_up).then_some(sign_up)
        })
        .await
    }

    fn stop(mut self) -> String {
        assert_eq!(self.program.stop_blocking().code(), Some(0));
        self.program.log_text()
    }
}

fn sign_up_input(email: &str, vat_number: &str, invite: &str) -> Value {
    json!({
        "traits": {"email": email, "company": "Muster", "vat_number": vat_number, "invite": invite},
        "method": "password", "steps": "two", "language": "en",
    })
}

fn is_over(sign_up: &Value) -> bool {
    sign_up["over"] == true
}

fn is_delivered(sign_up: &Value) -> bool {
    is_over(sign_up)
        && (sign_up["end"] != "saved" || sign_up["deliveries"][0]["state"] == "delivered")
}

fn texts(messages: &Value) -> Vec<&str> {
    let messages = messages.as_array().expect("messages").iter();
    messages
        .map(|message| message["text"].as_str().expect("a text"))
        .collect()
}

fn node<'a>(sign_up: &'a Value, name: &str) -> &'a Value {
    let nodes = sign_up["form"]["nodes"].as_array().expect("nodes");
    nodes
        .iter()
        .find(|node| node["attributes"]["name"] == name)
        .unwrap_or_else(|| panic!("{name} in {nodes:?}"))
}

#[tokio::test]
async fn the_page_is_complete_and_rejects_other_origins() {
    let demo = Demo::with_page();
    let page = demo.get("/").await;
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .expect("text");
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    let mut paths = BTreeSet::from(["/".to_owned()]);
    let html = page.text().await.expect("text");
    for part in html.split('"').filter(|part| part.starts_with('/')) {
        paths.insert(part.to_owned());
    }
    paths.insert("/view.js".to_owned());
    assert!(paths.len() >= 5, "{paths:?}");
    for path in &paths {
        let file = demo.get(path).await;
        assert_eq!(file.status(), 200, "{path}");
        let text = file.text().await.expect("text");
        let text = text
            .replace("http://www.w3.org/2000/svg", "")
            .replace("http://${host}", "");
        assert!(!text.contains("://"), "{path} names an address elsewhere");
        assert!(!text.contains("innerHTML ="), "{path}");
    }

    let sign_up = sign_up_input("a@muster.example", "DE811115368", "");
    for (header, value) in [
        ("Host", "rebound.example"),
        ("Origin", "http://elsewhere.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
    ] {
        for path in ["/api/state", "/api/sign-ups"] {
            let request = if path == "/api/state" {
                demo.http.get(format!("{}{path}", demo.page))
            } else {
                let request = demo.http.post(format!("{}{path}", demo.page));
                request
                    .header("Content-Type", "application/json")
                    .body(sign_up.to_string())
            };
            let answer = request
                .header(header, value)
                .send()
                .await
                .expect("an answer");
            assert_eq!(answer.status(), 403, "{header}: {value} to {path}");
        }
    }
    let state: Value =
        serde_json::from_slice(&demo.get("/api/state").await.bytes().await.expect("a body"))
            .expect("JSON");
    assert_eq!(state["accounts"], json!([]), "no visitor was signed up");
    assert_eq!(state["kratos"], Value::Null);
}

#[tokio::test]
async fn an_accepted_sign_up_is_shown_from_the_check_to_the_delivery() {
    let demo = Demo::with_page();
    let shown = demo
        .follow(
            &sign_up_input("ada@muster.example", "DE811115368", "WELCOME-2026"),
            is_delivered,
        )
        .await;
    assert_eq!(shown["end"], "saved", "{shown}");
    let pre = &shown["pre"];
    assert!(
        pre["url"]
            .as_str()
            .expect("a URL")
            .ends_with("/hooks/registration/pre?method=password")
    );
    let body: Value = serde_json::from_str(pre["body"].as_str().expect("a body")).expect("JSON");
    assert_eq!(body["identity"]["traits"]["vat_number"], "DE811115368");
    assert_eq!(
        body["nodes"][2],
        json!({"hidden": true, "name": "traits.vat_number", "title": "VAT number"})
    );
    assert_eq!(pre["answer"]["status"], 200);
    let flow_id = body["flow"]["id"].as_str().expect("an id");
    let guard_id = guard_id(flow_id.parse().expect("a UUID"));
    assert_eq!(
        pre["answer"]["body"],
        json!({"identity": {"metadata_public": {"company": "Muster GmbH"}, "external_id": guard_id}})
    );
    let questions = shown["questions"].as_array().expect("questions");
    assert_eq!(questions.len(), 1, "{questions:?}");
    assert_eq!(questions[0]["service"], "VAT register");
    assert_eq!(
        questions[0]["body"],
        json!({"countryCode": "DE", "vatNumber": "811115368"})
    );
    assert_eq!(
        questions[0]["answer"],
        json!({"valid": true, "name": "Muster GmbH"})
    );
    assert!(questions[0]["duration_ms"].as_f64() <= pre["answer"]["duration_ms"].as_f64());
    let account = &shown["account"];
    assert_eq!(account["metadata_public"]["company"], "Muster GmbH");
    assert_eq!(shown["post"]["answer"]["status"], 204);
    let delivery = &shown["deliveries"][0];
    assert_eq!(delivery["attempts"], 1);
    assert_eq!(delivery["tries"][0]["status"], 201);
    assert_eq!(delivery["tries"][0]["body"]["id"], account["id"]);
    let output = demo.program.log_text();
    let key = output.split("X-Vestibule-Key: ").nth(1).expect("the key");
    let key = key.split('\'').next().expect("the key");
    assert!(
        key.len() > 20 && !shown.to_string().contains(key),
        "the key is not shown"
    );

    // Kratos has each address once, and checks that after Vestibule has accepted.
    let again = demo
        .follow(
            &sign_up_input("ada@muster.example", "DE811115368", ""),
            is_over,
        )
        .await;
    assert_eq!(
        (&again["end"], &again["post"]),
        (&json!("taken"), &Value::Null)
    );
    assert_eq!(again["form"]["messages"][0]["id"], 4_000_007);

    // A change of the profile checks only what changed, and is delivered too.
    let mut change = sign_up_input("ada@muster.example", "DE811115368", "WELCOME-2026");
    change["traits"]["company"] = json!("Neu GmbH");
    change["changes"] = account["id"].clone();
    let shown = demo.follow(&change, is_delivered).await;
    assert_eq!(
        (&shown["flow"], &shown["end"]),
        (&json!("settings"), &json!("saved"))
    );
    assert_eq!(shown["questions"], json!([]));
    assert_eq!(shown["deliveries"][0]["event"], "identity.updated");

    let output = demo.stop();
    assert!(
        output.contains("page          sign-up of ada@muster.example: accepted, with changes ("),
        "{output}"
    );
}

#[tokio::test]
async fn a_refused_sign_up_is_shown_as_kratos_shows_it() {
    let demo = Demo::with_page();
    let bad = sign_up_input("ada@muster.example", "DE000000000", "LET-ME-IN");
    let shown = demo.follow(&bad, is_over).await;
    assert_eq!(shown["end"], "refused", "{shown}");
    assert_eq!(shown["pre"]["answer"]["status"], 400);
    assert_eq!(
        texts(&shown["form"]["messages"]),
        [
            "VAT number: This VAT number is not registered.",
            "Invite code: We do not know this invite code."
        ]
    );
    let beside = node(&shown, "traits.vat_number");
    assert_eq!(beside["attributes"]["type"], "hidden");
    assert_eq!(
        texts(&beside["messages"]),
        ["This VAT number is not registered."]
    );
    assert_eq!(
        (&shown["account"], &shown["post"], &shown["deliveries"]),
        (&Value::Null, &Value::Null, &json!([]))
    );

    let mut one_step = sign_up_input("ada@muster.example", "D", "");
    one_step["steps"] = json!("one");
    one_step["language"] = json!("de-DE,de;q=0.9");
    let shown = demo.follow(&one_step, is_over).await;
    assert_eq!(shown["form"]["messages"], json!([]), "the field is visible");
    let beside = node(&shown, "traits.vat_number");
    assert_eq!(
        texts(&beside["messages"]),
        ["Eine USt-IdNr. beginnt mit den zwei Buchstaben eines Landes, etwa DE811115368."]
    );
    assert_eq!(beside["attributes"]["value"], "D");
    assert_eq!(shown["questions"], json!([]), "no service was asked");

    let (status, answer) = demo
        .send(
            Method::POST,
            "/api/sign-ups",
            &sign_up_input("no address", "DE1", ""),
        )
        .await;
    assert_eq!(
        (status, &answer["problem"]),
        (422, &json!("E-mail: not an e-mail address"))
    );
    let (status, _) = demo
        .send(Method::POST, "/api/sign-ups", &json!({"trait": 1}))
        .await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn services_fail_as_switched_and_recover() {
    let demo = Demo::with_page();
    let good = |email: &str| sign_up_input(email, "DE811115368", "");
    for (behaviour, question) in [
        ("slow", json!("cut_off")),
        ("busy", json!("answered")),
        ("broken", json!("answered")),
        ("down", Value::Null),
    ] {
        demo.switch(json!({"register": behaviour})).await;
        let asked = |shown: &Value| is_over(shown) && shown["questions"][0]["state"] != "under_way";
        let shown = demo.follow(&good("ada@muster.example"), asked).await;
        assert_eq!(shown["end"], "refused", "{behaviour}: {shown}");
        let beside = &node(&shown, "traits.vat_number")["messages"];
        assert_eq!(beside[0]["id"], 4_900_001, "{behaviour}: please try again");
        assert_eq!(shown["questions"][0]["state"], question, "{behaviour}");
        if behaviour == "slow" {
            let waited = shown["questions"][0]["duration_ms"]
                .as_f64()
                .expect("a time");
            assert!((2900.0..9000.0).contains(&waited), "{waited}");
        }
    }
    demo.switch(json!({"register": "works", "crm": "down"}))
        .await;
    let tried = |shown: &Value| shown["deliveries"][0]["last_error"].is_string();
    let shown = demo.follow(&good("ada@muster.example"), tried).await;
    assert_eq!(shown["end"], "saved", "{shown}");
    assert_eq!(shown["deliveries"][0]["state"], "pending");
    assert_eq!(
        shown["deliveries"][0]["tries"],
        json!([]),
        "the CRM got no request"
    );
    demo.switch(json!({"crm": "works"})).await;
    let shown = demo
        .follow_id(shown["id"].as_str().expect("an id"), is_delivered)
        .await;
    assert_eq!(shown["deliveries"][0]["attempts"], 2);
    assert_eq!(shown["deliveries"][0]["tries"][0]["status"], 201);
}

#[tokio::test]
async fn the_example_services_run_alone() {
    let demo = Demo::start(
        &["demo", "--services-only", "--listen", "127.0.0.1:0"],
        "Example services at",
    );
    let question = json!({"countryCode": "FR", "vatNumber": "40303265045"});
    let ask = || demo.send(Method::POST, "/vat/check-vat-number", &question);
    assert_eq!(
        ask().await,
        (200, json!({"valid": true, "name": "Exemple SA"}))
    );
    let contact = json!({"email": "ada@muster.example"});
    let (status, _) = demo.send(Method::POST, "/crm/contacts", &contact).await;
    assert_eq!(status, 201);
    let listed = demo.get("/crm/contacts").await.text().await.expect("text");
    assert_eq!(listed, json!([contact]).to_string());

    let switch = |to: &str| json!({"register": to});
    let (status, state) = demo.send(Method::PUT, "/switch", &switch("broken")).await;
    assert_eq!(
        (status, state),
        (200, json!({"register": "broken", "crm": "works"}))
    );
    assert_eq!(ask().await.0, 500);
    demo.send(Method::PUT, "/switch", &switch("down")).await;
    let cut_off = demo
        .http
        .post(format!("{}/vat/check-vat-number", demo.page));
    let cut_off = cut_off.body(question.to_string()).send().await;
    let is_complete = match cut_off {
        Ok(answer) => answer.bytes().await.is_ok(),
        Err(_) => false,
    };
    assert!(
        !is_complete,
        "no complete response while the service is down"
    );
    demo.send(Method::PUT, "/switch", &switch("works")).await;
    assert_eq!(ask().await.0, 200);
    assert_eq!(
        demo.send(Method::PUT, "/switch", &switch("tired")).await.0,
        400
    );
    assert_eq!(demo.get("/health/alive").await.status(), 200);

    let output = demo.stop();
    for line in [
        "VAT register  POST /check-vat-number {\"countryCode\":\"FR\",\"vatNumber\":\"40303265045\"} -> 200 {\"valid\":true,\"name\":\"Exemple SA\"} (",
        "CRM           POST /contacts {\"email\":\"ada@muster.example\"} -> 201",
        "VAT register  switched to \"broken\"",
        "-> 500 (a page)",
        "-> no response",
    ] {
        assert!(output.contains(line), "{line} in\n{output}");
    }
}

#[test]
fn the_demo_prints_its_walkthrough() {
    let _one = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().expect("a folder");
    let output = run(folder.path(), &["demo", "--once"]);
    let printed = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{printed}\n{}",
        text(&output.stderr)
    );
    for line in [
        "request  VAT register  POST /check-vat-number {\"countryCode\":\"DE\",\"vatNumber\":\"811115368\"}",
        "accepted, with changes",
        "\"company\":\"Muster GmbH\"",
        "stored, will be delivered",
        "delivery CRM           POST /contacts",
        "refused, with messages for the visitor",
        "#/traits/vat_number    This VAT number is not registered. (message 4900101)",
        "#/traits/invite        We do not know this invite code. (message 4900103)",
        "A VAT number begins with the two letters of a country",
    ] {
        assert!(printed.contains(line), "{line} in\n{printed}");
    }
}
