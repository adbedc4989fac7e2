//! The demo's story: sign-ups sent exactly as Kratos would, and all that follows, said aloud.

use serde_json::Value;

use super::call::{Call, Sender};
use super::fake_kratos::{Account, Flow, Method, SignUpInput, Steps, Traits};
use crate::app::App;
use crate::base::clock::Clock;
use crate::base::telemetry::Trace;
use crate::kratos::Stage;

/// Prints a line.
pub fn say(line: &str) {
    println!("{line}");
}

/// Two sign-ups that are refused and one that is not.
pub async fn tell(app: &App, sender: &Sender) -> anyhow::Result<()> {
    say("1. A good sign-up. Before Kratos saves the account, it asks:\n");
    let good = visit("DE811115368", "WELCOME-2026");
    let flow = Flow::of(&good, None, Clock::system().now());
    let mut account = Account::new(&good.traits, good.method, Clock::system().now());
    let answer = call(sender, Stage::Pre, &flow, &account, &good).await;
    if let Some(changes) = answer["identity"].as_object() {
        account.take(changes);
    }
    say("\n   Kratos saves the account and tells:\n");
    account.save(Clock::system().now());
    call(sender, Stage::Post, &flow, &account, &good).await;
    delivered(app).await?;
    say("\n2. A bad sign-up: a VAT number that nobody has, an invite code that is none.\n");
    asked(sender, &visit("DE000000000", "LET-ME-IN")).await;
    say("\n   Kratos shows these words beside the fields and saves nothing.");
    say("\n3. Not even a VAT number: nobody is asked.\n");
    asked(sender, &visit("D", "FRIENDS-2026")).await;
    Ok(())
}

/// Somebody before a form that asks for all at once.
#[must_use]
pub fn visit(vat_number: &str, invite: &str) -> SignUpInput {
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

async fn asked(sender: &Sender, visit: &SignUpInput) {
    let now = Clock::system().now();
    let account = Account::new(&visit.traits, visit.method, now);
    let flow = Flow::of(visit, None, now);
    call(sender, Stage::Pre, &flow, &account, visit).await;
}

/// Calls one hook and tells what was sent and answered.
async fn call(
    sender: &Sender,
    stage: Stage,
    flow: &Flow,
    account: &Account,
    visit: &SignUpInput,
) -> Value {
    let trace = Trace::begin().child();
    let call = sender.prepare(
        flow.kind,
        stage,
        flow.method(),
        &flow.ctx(account, visit),
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

/// What a status tells Kratos.
#[must_use]
pub fn meaning(stage: Stage, status: Option<u16>) -> &'static str {
    match (stage, status) {
        (Stage::Pre, Some(204)) => "yes, unchanged",
        (Stage::Pre, Some(200)) => "yes, with changes",
        (Stage::Pre, Some(400..=499)) => "no, with words for the person",
        (Stage::Pre, _) => "no answer that Kratos can use",
        (Stage::Post, Some(204)) => "stored, will be delivered",
        (Stage::Post, _) => "not stored, Kratos calls again",
    }
}

/// Waits until nothing is pending.
async fn delivered(app: &App) -> anyhow::Result<()> {
    let clock = Clock::system();
    for _ in 0..100 {
        if app.store.backlog().await?.pending == 0 {
            say("               delivered     nothing is left to do");
            return Ok(());
        }
        clock.sleep(std::time::Duration::from_millis(50)).await;
    }
    anyhow::bail!("the delivery did not arrive within 5 s")
}
