//! The order of deliveries of one subscription to one identity.

use serde_json::Value;

use super::subscription::Trigger;
use super::{Event, Subscription};
use crate::base::clock::Timestamp;
use crate::expression::Variables;

/// How a delivery relates to others of the same subscription and identity.
///
/// Deliveries with a time go one at a time, in the order of this time and then of their ids. Deliveries without an
/// identity and other work, such as writes into identities, have the default: no order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryOrder {
    /// When Kratos saved the identity that the event reports. `None`: not ordered.
    pub updated_at: Option<Timestamp>,
    /// Whether the delivery supersedes earlier ones that also have this mark, and can be superseded.
    pub supersedes: bool,
    /// Whether no other delivery of the subscription may be stored for the identity.
    pub once: bool,
}

impl DeliveryOrder {
    /// Returns the order of a delivery of this subscription.
    #[must_use]
    pub fn of(
        subscription: &Subscription,
        trigger: &Trigger<'_>,
        variables: &Variables<'_>,
    ) -> Self {
        if trigger.identity_id.is_nil() {
            return Self::default();
        }
        Self {
            updated_at: Some(updated_at(variables.identity).unwrap_or(variables.now)),
            supersedes: subscription.supersede && trigger.event == Event::IdentityUpdated,
            once: subscription.once,
        }
    }
}

fn updated_at(identity: Option<&Value>) -> Option<Timestamp> {
    identity?["updated_at"].as_str()?.parse().ok()
}
