//! Shows one delivery with all its stored data.

use std::io::Write;

use anyhow::Context as _;
use serde_json::json;
use uuid::Uuid;

use crate::cli::table::{nothing, table, time};
use crate::model::delivery::{Action, State};
use crate::model::request::Request;
use crate::store::{DeliveryDetails, DeliveryStore, ListedAttempt};

/// Prints the delivery as text or as JSON. The payload holds personal data, so it is printed only with `payload`.
pub async fn show(
    store: &dyn DeliveryStore,
    id: Uuid,
    payload: bool,
    json: bool,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<()> {
    let shown = store
        .show(id)
        .await
        .context("cannot show the delivery")?
        .with_context(|| {
            format!(
                "there is no delivery {id}\nhelp: list deliveries with `vestibule deliveries list`"
            )
        })?;
    if json {
        let mut delivery = json!(shown);
        if payload {
            delivery["payload"] = json!(shown.action);
        }
        writeln!(out, "{delivery:#}")?;
        return Ok(());
    }
    about(&shown, out)?;
    tries(&shown.tries, out)?;
    match &shown.action {
        Some(action) if payload => write(action, out)?,
        Some(_) => writeln!(
            out,
            "\nThe payload is stored. It contains personal data; add `--payload` to print it."
        )?,
        None => writeln!(out, "\nNo payload is stored: {}.", why_none(&shown))?,
    }
    Ok(())
}

fn about(shown: &DeliveryDetails, out: &mut (dyn Write + Send)) -> std::io::Result<()> {
    let delivery = &shown.listed;
    let lines = [
        ("id", Some(delivery.id.to_string())),
        ("subscription", Some(delivery.subscription.clone())),
        ("event", Some(delivery.event.to_string())),
        ("identity", Some(delivery.identity_id.to_string())),
        ("state", Some(delivery.state.to_string())),
        (
            "reason",
            delivery.reason.map(|reason| reason.as_str().to_owned()),
        ),
        ("created", Some(time(delivery.created_at))),
        ("attempts", Some(delivery.attempts.to_string())),
        ("next attempt", delivery.next_attempt_at.map(time)),
        (
            "abandoned at",
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
    table.set_header(["ATTEMPT", "BEGAN", "DURATION", "STATUS", "ERROR"]);
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
        State::Delivered => "payloads are erased after delivery",
        State::Discarded => "payloads are erased when a delivery is discarded",
        State::Superseded => "payloads are erased when a delivery is superseded",
        State::Pending | State::Abandoned => "there is nothing to send",
    }
}

fn write(action: &Action, out: &mut (dyn Write + Send)) -> std::io::Result<()> {
    match action {
        Action::Send(request) => {
            writeln!(
                out,
                "\nRequest, without the service's address and credentials:\n"
            )?;
            request_of(request, out)
        }
        Action::Recheck(request) => {
            writeln!(
                out,
                "\nQuestion, without the service's address and credentials:\n"
            )?;
            request_of(request, out)
        }
        Action::PatchIdentity(writes) => {
            writeln!(out, "\nWrites into the identity:\n\n{:#}", json!(writes))
        }
        Action::PatchEntries { fields, entries } => writeln!(
            out,
            "\nWrites into the identity, and into entries of lists that are still as in the event:\n\n{:#}\n\n{:#}",
            json!(fields),
            json!(entries)
        ),
        Action::Build(unbuilt) => writeln!(
            out,
            "\nEvent, from which a retry builds the request:\n\n{:#}",
            json!(unbuilt.context)
        ),
        Action::EndAfterAcceptance => writeln!(
            out,
            "\nEnds the deferral and the late refusal of the check, unless the identity has lost the accepted change."
        ),
        Action::Enforce(writes) => writeln!(
            out,
            "\nWrites into the identity, whose sessions are deleted before and after:\n\n{:#}",
            json!(writes)
        ),
        Action::Take { take, .. } => {
            writeln!(
                out,
                "\nRequest to reserve again, without the service's address and credentials:\n"
            )?;
            request_of(take, out)
        }
        Action::Compensate { take, .. } => {
            writeln!(out, "\nReleases what this request reserved:\n")?;
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
