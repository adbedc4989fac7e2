//! Shows one delivery with all its stored data.

use std::io::Write;

use anyhow::Context as _;
use serde_json::json;
use uuid::Uuid;

use super::{nothing, table, time};
use crate::model::delivery::{Action, State};
use crate::model::request::Request;
use crate::store::{DeliveryDetails, ListedAttempt, Store};

/// Prints the delivery as text or as JSON. The payload holds personal data, so it is printed only with `payload`.
pub async fn show(
    store: &dyn Store,
    id: Uuid,
    payload: bool,
    json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let shown = store
        .show(id)
        .await
        .context("the delivery cannot be shown")?
        .with_context(|| {
            format!("there is no delivery {id}; `vestibule deliveries list` lists them")
        })?;
    if json {
        let mut delivery = json!(shown);
        if payload {
            delivery["payload"] = json!(shown.work);
        }
        writeln!(out, "{delivery:#}")?;
        return Ok(());
    }
    about(&shown, out)?;
    tries(&shown.tries, out)?;
    match &shown.work {
        Some(work) if payload => write(work, out)?,
        Some(_) => writeln!(
            out,
            "\nA payload is kept; it holds personal data, and is printed with --payload."
        )?,
        None => writeln!(out, "\nNo payload is kept: {}.", why_none(&shown))?,
    }
    Ok(())
}

fn about(shown: &DeliveryDetails, out: &mut (dyn Write + Send)) -> std::io::Result<()> {
    let delivery = &shown.listed;
    let lines = [
        ("id", Some(delivery.id.to_string())),
        ("plan", Some(delivery.plan.clone())),
        ("event", Some(delivery.event.to_string())),
        ("identity", Some(delivery.identity_id.to_string())),
        ("state", Some(delivery.state.to_string())),
        ("created", Some(time(delivery.created_at))),
        ("attempts", Some(delivery.attempts.to_string())),
        ("next attempt", delivery.next_attempt_at.map(time)),
        (
            "keeps trying until",
            (delivery.state == State::Pending).then(|| time(shown.keep_trying_until)),
        ),
        ("settled", delivery.settled_at.map(time)),
        ("last error", delivery.last_error.clone()),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            writeln!(out, "{name:<20}{value}")?;
        }
    }
    Ok(())
}

fn tries(tries: &[ListedAttempt], out: &mut (dyn Write + Send)) -> std::io::Result<()> {
    if tries.is_empty() {
        return Ok(());
    }
    let mut table = table();
    table.set_header(["TRY", "BEGAN", "DURATION", "STATUS", "ERROR"]);
    for one in tries {
        table.add_row([
            one.attempt.to_string(),
            time(one.began_at),
            format!("{} ms", one.duration_ms),
            one.status.map_or_else(nothing, |status| status.to_string()),
            one.error.clone().unwrap_or_else(nothing),
        ]);
    }
    writeln!(out, "\n{table}")
}

fn why_none(shown: &DeliveryDetails) -> &'static str {
    match shown.listed.state {
        State::Delivered => "what has arrived is forgotten",
        State::Discarded => "what is discarded is forgotten",
        State::Pending | State::Abandoned => "it could not be built",
    }
}

fn write(work: &Action, out: &mut (dyn Write + Send)) -> std::io::Result<()> {
    match work {
        Action::Send(request) => {
            writeln!(
                out,
                "\nTo be sent, beside the service's address and credentials:\n"
            )?;
            request_of(request, out)
        }
        Action::Ask(request) => {
            writeln!(
                out,
                "\nTo be asked, beside the service's address and credentials:\n"
            )?;
            request_of(request, out)
        }
        Action::Write(puts) => writeln!(
            out,
            "\nTo be written into the identity:\n\n{:#}",
            json!(puts)
        ),
        Action::Enforce(puts) => writeln!(
            out,
            "\nTo be written into the identity, whose sessions are deleted before and after:\n\n{:#}",
            json!(puts)
        ),
        Action::Take { take, .. } => {
            writeln!(
                out,
                "\nTo be reserved again, beside the service's address and credentials:\n"
            )?;
            request_of(take, out)
        }
        Action::Undo { take, .. } => {
            writeln!(out, "\nTo be released if it was taken by:\n")?;
            request_of(take, out)
        }
    }
}

fn request_of(request: &Request, out: &mut (dyn Write + Send)) -> std::io::Result<()> {
    writeln!(out, "{} {}", request.method.as_str(), request.path)?;
    for (name, value) in &request.headers {
        writeln!(out, "{name}: {value}")?;
    }
    if let Some(body) = &request.body {
        writeln!(out, "Content-Type: {}\n\n{}", body.content_type, body.text)?;
    }
    Ok(())
}
