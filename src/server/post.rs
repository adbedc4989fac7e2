//! payload -> deliveries stored -> reply

use super::answer::Answer;
use super::door::Door;
use super::hook::Call;
use super::pre::place;
use crate::clock::milliseconds;
use crate::delivery::plan::{Occasion, deliveries_for};
use crate::delivery::{self, Event};
use crate::expression::Names;
use crate::kratos::{Flow, Hook, Payload, Reply};
use crate::telemetry::metrics::ReasonLabels;

/// Stores what the saved identity calls for, and says yes once it is stored.
pub async fn answer(door: &Door, call: &Call) -> Answer {
    let payload = match call
        .body
        .as_ref()
        .map_err(ToString::to_string)
        .and_then(|body| Payload::parse(body).map_err(|error| error.to_string()))
    {
        Ok(mut payload) => {
            door.add_client_ip(&mut payload);
            payload
        }
        Err(error) => return unread(door, &error),
    };
    if payload.identity_id.is_nil() {
        let mend = format!(
            "the hook of {} that calls `post` has `response: {{parse: true}}` (or stands under `before`), so Kratos calls \
             it before saving; take that out",
            place(call)
        );
        door.tell_wiring(&call.hook, "post_before_saving", &mend);
        return Answer::new(Reply::Yes, "miswired");
    }
    let deliveries = planned(door, call, &payload, event(&call.hook));
    match store(door, call, deliveries).await {
        Ok(stored) => {
            let duration_ms = milliseconds(call.at, door.clock.now());
            tracing::info!(
                trace.id = %call.trace, flow.id = %payload.flow_id, identity.id = %payload.identity_id, stored, duration_ms,
                "Stored {stored} deliveries of a {} by `{}`", call.hook.flow, call.hook.method
            );
            Answer::new(Reply::Yes, "stored")
        }
        Err(error) => {
            tracing::error!(
                trace.id = %call.trace, flow.id = %payload.flow_id, identity.id = %payload.identity_id, error,
                "Deliveries could not be stored; Kratos is asked to call again"
            );
            Answer::new(Reply::AskAgain, "not_stored")
        }
    }
}

/// An account was made of which we were not told. A refusal would show an error page to somebody who has
/// an account, so it is a yes, and an alarm.
fn unread(door: &Door, error: &str) -> Answer {
    door.metrics
        .unread_posts
        .get_or_create(&ReasonLabels {
            reason: "unreadable",
        })
        .inc();
    tracing::error!(
        error,
        "ALARM: a `post` could not be read: an account was made or changed of which nothing is known, and nothing is \
         delivered for it; compare the newest identities of Kratos with `vestibule deliveries list`"
    );
    Answer::new(Reply::Yes, "unreadable")
}

/// What the call tells of. Of all that settings can change, only the profile holds the traits.
fn event(hook: &Hook) -> Event {
    match (hook.flow, hook.method.as_str()) {
        (Flow::Registration, _) => Event::IdentityCreated,
        (Flow::Settings, "profile" | "") => Event::IdentityUpdated,
        (Flow::Settings, _) => Event::CredentialsChanged,
        (Flow::Verification, _) => Event::IdentityVerified,
    }
}

fn planned(door: &Door, call: &Call, payload: &Payload, event: Event) -> Vec<delivery::New> {
    let names = Names {
        identity: payload.identity.as_ref(),
        previous: payload.previous.as_ref(),
        value: None,
        flow: Some(&payload.flow),
        request: Some(&payload.request),
        method: &call.hook.method,
        now: call.at,
        response: None,
        checks: None,
        taken: None,
        lists: &door.lists,
    };
    let occasion = Occasion {
        event,
        identity_id: payload.identity_id,
        trigger_id: &call.trigger,
        check: None,
    };
    deliveries_for(&door.plans, &occasion, &names)
}

async fn store(door: &Door, call: &Call, deliveries: Vec<delivery::New>) -> Result<usize, String> {
    if deliveries.is_empty() {
        return Ok(0);
    }
    let stored = door
        .clock
        .before(call.until, door.intake.accept(deliveries))
        .await;
    let stored = stored.ok_or_else(|| "the database did not answer in time".to_owned())?;
    let stored = stored.map_err(|error| error.in_full())?;
    door.metrics.deliveries_stored.inc_by(stored as u64);
    door.stored.notify_one();
    Ok(stored)
}
