//! Creates the deliveries of an event.

use chrono::SecondsFormat;
use serde_json::json;
use uuid::Uuid;

use super::{
    Action, DeliveryOrder, EvaluationContext, Event, NewDelivery, Subscription, Unbuilt,
    time_ordered_id,
};
use crate::base::clock::saturating_add;
use crate::expression::{Lists, Variables};
use crate::model::request::{Body, BodyTemplate, Method, Request, RequestTemplate};

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

/// A request that was built for a delivery, and what expressions about its response read.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// The request.
    pub request: Request,
    /// The variables, if an expression reads the response.
    pub context: Option<EvaluationContext>,
}

/// Returns the deliveries that the event causes. If an expression fails, the delivery has the reason and the event
/// instead of its request. So the delivery is stored, can be listed, and can be built later.
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
            let built = build(subscription, trigger.event, trigger.check, variables)?;
            Some(delivery(subscription, trigger, variables, built))
        })
        .collect()
}

/// Builds the request of a delivery that could not be built before. The error is the reason, without values.
pub fn build_again(
    subscription: &Subscription,
    event: Event,
    unbuilt: &Unbuilt,
    lists: &Lists,
) -> Result<Built, String> {
    let variables = unbuilt.context.variables(lists, None);
    let check = unbuilt.context.check.as_deref();
    build(subscription, event, check, &variables).unwrap_or_else(|| {
        Err("`when` is false with the settings in force; discard the delivery".to_owned())
    })
}

/// Builds the request. `None` if the subscription's `when` is false.
fn build(
    subscription: &Subscription,
    event: Event,
    check: Option<&str>,
    variables: &Variables<'_>,
) -> Option<Result<Built, String>> {
    match subscription.when.as_ref().map(|when| when.holds(variables)) {
        Some(Ok(false)) => return None,
        Some(Err(error)) => return Some(Err(format!("`when` failed: {error}"))),
        Some(Ok(true)) | None => {}
    }
    let built = subscription.send.build(variables).map(|mut request| {
        if has_default_body(&subscription.send) {
            request.body = Some(default_body(event, check, variables));
        }
        let reads_the_answer = subscription.reads_the_answer();
        Built {
            request,
            context: reads_the_answer.then(|| EvaluationContext::of(variables)),
        }
    });
    Some(built.map_err(|error| format!("the request could not be built: {error}")))
}

fn delivery(
    subscription: &Subscription,
    trigger: &Trigger<'_>,
    variables: &Variables<'_>,
    built: Result<Built, String>,
) -> NewDelivery {
    let now = variables.now;
    let order = DeliveryOrder::of(subscription, trigger, variables);
    let (action, context) = match built {
        Ok(built) => (Action::Send(built.request), built.context),
        Err(reason) => {
            let context = EvaluationContext::read_by(subscription, variables, trigger.check);
            (Action::Build(Box::new(Unbuilt { reason, context })), None)
        }
    };
    NewDelivery {
        id: time_ordered_id(now),
        subscription: subscription.name.clone(),
        event: trigger.event,
        unique_key: unique_key(trigger, order),
        identity_id: trigger.identity_id,
        action: Ok(action),
        order,
        context,
        created_at: now,
        due_at: now,
        keep_trying_until: saturating_add(now, subscription.max_elapsed),
    }
}

/// Returns the key that makes a delivery unique. Several calls can report the creation of an identity, but it happens
/// only once. All other events can happen again.
fn unique_key(trigger: &Trigger<'_>, order: DeliveryOrder) -> String {
    match trigger.event {
        _ if order.once => trigger.identity_id.to_string(),
        Event::IdentityCreated => trigger.identity_id.to_string(),
        Event::IdentityUpdated
        | Event::CredentialsChanged
        | Event::IdentityVerified
        | Event::RegistrationFailed
        | Event::CheckRefused => trigger.trigger_id.to_owned(),
    }
}

/// Returns whether the request has the default body, which holds `identity` and `previous`.
#[must_use]
pub fn has_default_body(send: &RequestTemplate) -> bool {
    matches!(send.body, BodyTemplate::Empty) && may_have_body(send.method)
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
        let key = |event, once| {
            let order = DeliveryOrder {
                once,
                ..DeliveryOrder::default()
            };
            unique_key(&trigger(event), order)
        };
        let of_identity = Uuid::from_u128(7).to_string();
        assert_eq!(key(Event::IdentityCreated, false), of_identity);
        assert_eq!(key(Event::IdentityUpdated, false), "call-1");
        for event in [
            Event::IdentityCreated,
            Event::IdentityUpdated,
            Event::IdentityVerified,
        ] {
            assert_eq!(key(event, true), of_identity);
        }
    }

    #[test]
    fn ids_are_ordered_by_time() {
        let earlier = saturating_add(Timestamp::UNIX_EPOCH, Duration::from_secs(1_600_000_000));
        let later = saturating_add(earlier, Duration::from_millis(1));
        assert!(time_ordered_id(earlier) < time_ordered_id(later));
    }
}
