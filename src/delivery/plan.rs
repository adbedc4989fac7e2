//! Which deliveries an identity calls for.

use chrono::SecondsFormat;
use serde_json::json;
use uuid::Uuid;

use super::{Event, New, Plan};
use crate::clock::{Timestamp, later};
use crate::expression::Names;
use crate::request::{Body, Content, Method, Request};

/// What happened, to whom, and by which call of Kratos we know.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// What happened.
    pub event: Event,
    /// To whom; never all zeros.
    pub identity_id: Uuid,
    /// The same for every repetition of the same call.
    pub trigger_id: &'a str,
}

/// The deliveries that the plans make of an occasion. One whose expressions fail is among them, with the
/// reason in place of its request, so that it is kept and can be seen.
#[must_use]
pub fn deliveries_for(plans: &[Plan], occasion: &Occasion<'_>, names: &Names<'_>) -> Vec<New> {
    plans
        .iter()
        .filter(|plan| plan.events.contains(&occasion.event))
        .filter_map(|plan| {
            let request = request(plan, occasion.event, names)?;
            Some(delivery(plan, occasion, names.now, request))
        })
        .collect()
}

/// `None` if the plan's `when` does not hold.
fn request(plan: &Plan, event: Event, names: &Names<'_>) -> Option<Result<Request, String>> {
    match plan.when.as_ref().map(|when| when.holds(names)) {
        Some(Ok(false)) => return None,
        Some(Err(error)) => return Some(Err(format!("`when` failed: {error}"))),
        Some(Ok(true)) | None => {}
    }
    let built = plan.send.build(names).map(|mut request| {
        if matches!(plan.send.body, Content::Empty) && may_have_body(request.method) {
            request.body = Some(default_body(event, names));
        }
        request
    });
    Some(built.map_err(|error| format!("the request could not be built: {error}")))
}

fn delivery(
    plan: &Plan,
    occasion: &Occasion<'_>,
    now: Timestamp,
    request: Result<Request, String>,
) -> New {
    New {
        id: time_ordered_id(now),
        plan: plan.name.clone(),
        event: occasion.event,
        unique_key: unique_key(occasion),
        identity_id: occasion.identity_id,
        request,
        created_at: now,
        keep_trying_until: later(now, plan.keep_trying_for),
    }
}

/// An identity is created only once, whatever calls tell of it; all else may happen again.
fn unique_key(occasion: &Occasion<'_>) -> String {
    match occasion.event {
        Event::IdentityCreated => occasion.identity_id.to_string(),
        Event::IdentityUpdated | Event::CredentialsChanged | Event::IdentityVerified => {
            occasion.trigger_id.to_owned()
        }
    }
}

fn may_have_body(method: Method) -> bool {
    match method {
        Method::Post | Method::Put | Method::Patch => true,
        Method::Get | Method::Delete => false,
    }
}

/// The body for plans that name none.
fn default_body(event: Event, names: &Names<'_>) -> Body {
    let body = json!({
        "type": event,
        "timestamp": names.now.to_rfc3339_opts(SecondsFormat::Millis, true),
        "data": {"identity": names.identity, "previous": names.previous},
    });
    Body {
        content_type: "application/json".to_owned(),
        text: body.to_string(),
    }
}

fn time_ordered_id(now: Timestamp) -> Uuid {
    let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
    let moment = uuid::Timestamp::from_unix(uuid::NoContext, seconds, now.timestamp_subsec_nanos());
    Uuid::new_v7(moment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::Lists;
    use serde_json::Value;
    use std::time::Duration;

    fn names<'a>(identity: &'a Value, previous: Option<&'a Value>, lists: &'a Lists) -> Names<'a> {
        Names {
            identity: Some(identity),
            previous,
            value: None,
            flow: None,
            request: None,
            method: "password",
            now: later(
                Timestamp::UNIX_EPOCH,
                Duration::from_millis(1_600_000_000_250),
            ),
            response: None,
            checks: None,
            lists,
        }
    }

    #[test]
    fn the_default_body_tells_what_happened_to_whom_and_when() {
        let identity = json!({"id": "1", "traits": {"email": "ada@example.org"}});
        let previous = json!({"traits": {"email": "ada@example.com"}});
        let lists = Lists::default();
        let body = |event, previous| {
            let body = default_body(event, &names(&identity, previous, &lists));
            assert_eq!(body.content_type, "application/json");
            serde_json::from_str::<Value>(&body.text).unwrap()
        };
        assert_eq!(
            body(Event::IdentityCreated, None),
            json!({
                "type": "identity.created",
                "timestamp": "2020-09-13T12:26:40.250Z",
                "data": {"identity": identity, "previous": null},
            })
        );
        assert_eq!(
            body(Event::IdentityUpdated, Some(&previous))["data"]["previous"],
            previous
        );
    }

    #[test]
    fn an_identity_is_created_once_and_updated_with_every_call() {
        let occasion = |event| Occasion {
            event,
            identity_id: Uuid::from_u128(7),
            trigger_id: "call-1",
        };
        assert_eq!(
            unique_key(&occasion(Event::IdentityCreated)),
            Uuid::from_u128(7).to_string()
        );
        assert_eq!(unique_key(&occasion(Event::IdentityUpdated)), "call-1");
    }

    #[test]
    fn ids_are_ordered_by_time() {
        let earlier = later(Timestamp::UNIX_EPOCH, Duration::from_secs(1_600_000_000));
        let later = later(earlier, Duration::from_millis(1));
        assert!(time_ordered_id(earlier) < time_ordered_id(later));
    }
}
