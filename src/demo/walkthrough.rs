//! The walkthrough of the demo: sends sign-ups exactly as Kratos would, and prints all calls and results.

use serde_json::Value;

use super::call::{Call, Sender};
use super::fake_kratos::{Account, Flow, Method, SignUpInput, Steps, Traits};
use crate::app::App;
use crate::base::clock::{Clock, Timestamp};
use crate::base::telemetry::Trace;
use crate::kratos::Stage;

/// Prints a line.
pub fn say(line: &str) {
    println!("{line}");
}

/// Sends one sign-up that is accepted and two that are refused.
pub async fn run(app: &App, sender: &Sender, clock: &Clock) -> anyhow::Result<()> {
    say("1. A valid sign-up. Before Kratos saves the account, it calls `pre`:\n");
    let good = sign_up_input("DE811115368", "WELCOME-2026");
    let flow = Flow::of(&good, None, clock.now());
    let mut account = Account::new(&good.traits, good.method, clock.now());
    let answer = call(sender, Stage::Pre, &flow, &account, &good).await;
    if let Some(changes) = answer["identity"].as_object() {
        account.take(changes);
    }
    say("\n   Kratos saves the account and calls `post`:\n");
    account.save(clock.now());
    call(sender, Stage::Post, &flow, &account, &good).await;
    wait_until_delivered(app, clock).await?;
    say(
        "\n2. An invalid sign-up: the VAT number is not registered, and the invite code is unknown.\n",
    );
    send_refused(
        sender,
        &sign_up_input("DE000000000", "LET-ME-IN"),
        clock.now(),
    )
    .await;
    say("\n   Kratos shows these messages beside the fields, and saves nothing.");
    say(
        "\n3. The VAT number is malformed: Vestibule refuses it without a request to the register.\n",
    );
    send_refused(sender, &sign_up_input("D", "FRIENDS-2026"), clock.now()).await;
    Ok(())
}

/// Returns the input of a visitor whose form has one step.
#[must_use]
pub fn sign_up_input(vat_number: &str, invite: &str) -> SignUpInput {
    SignUpInput {
        traits: Traits {
            email: "ada@muster.example".to_owned(),
            company: "Muster".to_owned(),
            vat_number: vat_number.to_owned(),
            invite: invite.to_owned(),
        },
        method: Method::Password,
        steps: Steps::One,
        language: Some("en".to_owned()),
        changes: None,
        browser: Some("Mozilla/5.0".to_owned()),
    }
}

async fn send_refused(sender: &Sender, sign_up_input: &SignUpInput, now: Timestamp) {
    let account = Account::new(&sign_up_input.traits, sign_up_input.method, now);
    let flow = Flow::of(sign_up_input, None, now);
    call(sender, Stage::Pre, &flow, &account, sign_up_input).await;
}

/// Calls one hook, and prints the request and the response.
async fn call(
    sender: &Sender,
    stage: Stage,
    flow: &Flow,
    account: &Account,
    sign_up_input: &SignUpInput,
) -> Value {
    let trace = Trace::begin().child();
    let call = sender.prepare(
        flow.kind,
        stage,
        flow.method(),
        &flow.ctx(account, sign_up_input),
        &trace,
    );
    say(&format!(
        "   -> {:<4}     Kratos        POST {}",
        stage.as_str(),
        path(&call)
    ));
    say(&format!(
        "               traits        {}",
        account.as_json()["traits"]
    ));
    let answer = sender.answer(&call).await;
    let status = answer
        .status
        .map_or("none".to_owned(), |status| status.to_string());
    say(&format!(
        "   <- {status:<4}     Vestibule     {} ({} ms)",
        meaning(stage, answer.status),
        answer.duration_ms
    ));
    for placed in answer.body["messages"].as_array().into_iter().flatten() {
        for message in placed["messages"].as_array().into_iter().flatten() {
            say(&format!(
                "               {:<22} {} (message {})",
                placed["instance_ptr"].as_str().unwrap_or_default(),
                message["text"].as_str().unwrap_or_default(),
                message["id"]
            ));
        }
    }
    if let Some(identity) = answer.body.get("identity") {
        say(&format!("               identity      {identity}"));
    }
    answer.body
}

fn path(call: &Call) -> &str {
    call.url
        .find("/hooks/")
        .map_or(&*call.url, |start| &call.url[start..])
}

/// Returns what a status means to Kratos.
#[must_use]
pub fn meaning(stage: Stage, status: Option<u16>) -> &'static str {
    match (stage, status) {
        (Stage::Pre, Some(204)) => "accepted, unchanged",
        (Stage::Pre, Some(200)) => "accepted, with changes",
        (Stage::Pre, Some(400..=499)) => "refused, with messages for the visitor",
        (Stage::Pre, _) => "no usable response",
        (Stage::Post, Some(204)) => "stored, will be delivered",
        (Stage::Post, _) => "not stored, Kratos calls again",
    }
}

/// Waits until no delivery is pending.
async fn wait_until_delivered(app: &App, clock: &Clock) -> anyhow::Result<()> {
    for _ in 0..100 {
        if app.store.backlog().await?.pending == 0 {
            say("               delivered     no delivery is pending");
            return Ok(());
        }
        clock.sleep(std::time::Duration::from_millis(50)).await;
    }
    anyhow::bail!("the delivery did not arrive within 5 s")
}
