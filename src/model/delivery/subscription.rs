//! Creates the deliveries of an event.

use chrono::SecondsFormat;
use serde_json::json;
use uuid::Uuid;

use super::{Action, EvaluationContext, Event, NewDelivery, Subscription, time_ordered_id};
use crate::base::clock::saturating_add;
use crate::expression::Variables;
use crate::model::request::{Body, BodyTemplate, Method, Request};

/// An event of an identity, and the call of Kratos that reported it.
#[derive(Clone, Copy, Debug)]
pub struct Trigger<'a> {
    /// The event.
    pub event: Event,
    /// The identity; all zeros if none was created.
    pub identity_id: Uuid,
    /// The trigger id: the same for every repetition of a call. The id distinguishes the events of one identity.
    pub trigger_id: &'a str,
    /// The check that has refused late.
    pub check: Option<&'a str>,
}

/// Returns the deliveries that the event causes. If an expression fails, the delivery has the reason instead of its
/// request. So the delivery is stored and can be listed.
#[must_use]
pub fn deliveries_for(
    subscriptions: &[Subscription],
    trigger: &Trigger<'_>,
    variables: &Variables<'_>,
) -> Vec<NewDelivery> {
    subscriptions
        .iter()
        .filter(|subscription| subscription.events.contains(&trigger.event))
        .filter_map(|subscription| {
            let request = request(subscription, trigger, variables)?;
            Some(delivery(subscription, trigger, variables, request))
        })
        .collect()
}

/// Builds the request. `None` if the subscription's `when` is false.
fn request(
    subscription: &Subscription,
    trigger: &Trigger<'_>,
    variables: &Variables<'_>,
) -> Option<Result<Request, String>> {
    match subscription.when.as_ref().map(|when| when.holds(variables)) {
        Some(Ok(false)) => return None,
        Some(Err(error)) => return Some(Err(format!("`when` failed: {error}"))),
        Some(Ok(true)) | None => {}
    }
    let built = subscription.send.build(variables).map(|mut request| {
        if matches!(subscription.send.body, BodyTemplate::Empty) && may_have_body(request.method) {
            request.body = Some(default_body(trigger.event, trigger.check, variables));
        }
        request
    });
    Some(built.map_err(|error| format!("the request could not be built: {error}")))
}

fn delivery(
    subscription: &Subscription,
    trigger: &Trigger<'_>,
    variables: &Variables<'_>,
    request: Result<Request, String>,
) -> NewDelivery {
    let now = variables.now;
    NewDelivery {
        id: time_ordered_id(now),
        subscription: subscription.name.clone(),
        event: trigger.event,
        unique_key: unique_key(trigger),
        identity_id: trigger.identity_id,
        action: request.map(Action::Send),
        context: subscription
            .reads_the_answer()
            .then(|| EvaluationContext::of(variables)),
        created_at: now,
        due_at: now,
        keep_trying_until: saturating_add(now, subscription.max_elapsed),
    }
}

/// Returns the key that makes a delivery unique. Several calls can report the creation of an identity, but it happens
/// only once, and so does its deletion. All other events can happen again.
fn unique_key(trigger: &Trigger<'_>) -> String {
    match trigger.event {
        Event::IdentityCreated => trigger.identity_id.to_string(),
        Event::IdentityDeleted => format!("{}:deleted", trigger.identity_id),
        Event::IdentityUpdated
        | Event::CredentialsChanged
        | Event::IdentityVerified
        | Event::RegistrationFailed
        | Event::CheckRefused => trigger.trigger_id.to_owned(),
    }
}

fn may_have_body(method: Method) -> bool {
    match method {
        Method::Post | Method::Put | Method::Patch => true,
        Method::Get | Method::Delete => false,
    }
}

/// Builds the body for subscriptions that define none.
fn default_body(event: Event, check: Option<&str>, variables: &Variables<'_>) -> Body {
    let mut body = json!({
        "type": event,
        "timestamp": variables.now.to_rfc3339_opts(SecondsFormat::Millis, true),
        "data": {"identity": variables.identity, "previous": variables.previous},
    });
    if let Some(check) = check {
        body["data"]["check"] = check.into();
    }
    Body {
        content_type: "application/json".to_owned(),
        text: body.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Timestamp;
    use crate::expression::Lists;
    use serde_json::Value;
    use std::time::Duration;

    fn variables<'a>(
        identity: &'a Value,
        previous: Option<&'a Value>,
        lists: &'a Lists,
    ) -> Variables<'a> {
        Variables {
            identity: Some(identity),
            previous,
            value: None,
            flow: None,
            request: None,
            method: "password",
            now: saturating_add(
                Timestamp::UNIX_EPOCH,
                Duration::from_millis(1_600_000_000_250),
            ),
            response: None,
            checks: None,
            taken: None,
            lists,
        }
    }

    #[test]
    fn the_default_body_has_the_event_the_identity_and_the_time() {
        let identity = json!({"id": "1", "traits": {"email": "ada@example.org"}});
        let previous = json!({"traits": {"email": "ada@example.com"}});
        let lists = Lists::default();
        let body = |event, previous| {
            let body = default_body(event, None, &variables(&identity, previous, &lists));
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
        let trigger = |event| Trigger {
            event,
            identity_id: Uuid::from_u128(7),
            trigger_id: "call-1",
            check: None,
        };
        assert_eq!(
            unique_key(&trigger(Event::IdentityCreated)),
            Uuid::from_u128(7).to_string()
        );
        assert_eq!(unique_key(&trigger(Event::IdentityUpdated)), "call-1");
        assert_eq!(
            unique_key(&trigger(Event::IdentityDeleted)),
            format!("{}:deleted", Uuid::from_u128(7))
        );
    }

    #[test]
    fn ids_are_ordered_by_time() {
        let earlier = saturating_add(Timestamp::UNIX_EPOCH, Duration::from_secs(1_600_000_000));
        let later = saturating_add(earlier, Duration::from_millis(1));
        assert!(time_ordered_id(earlier) < time_ordered_id(later));
    }
}
