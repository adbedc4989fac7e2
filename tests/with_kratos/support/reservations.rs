//! The reservations at the fake invite service.

use std::collections::{BTreeMap, BTreeSet};

use super::service::Received;

/// The state of all reservations after some calls.
#[derive(Debug, Default)]
pub struct Reservations {
    /// The reservation of each invite.
    active: BTreeMap<String, String>,
    confirmed: BTreeSet<String>,
    released: BTreeSet<String>,
}

impl Reservations {
    /// Replays the calls in order.
    pub fn after(received: &[Received]) -> Self {
        let mut reservations = Self::default();
        for call in received {
            reservations.apply(call);
        }
        reservations
    }

    fn apply(&mut self, call: &Received) {
        let parts: Vec<&str> = call.path.trim_matches('/').split('/').collect();
        match (call.method.as_str(), parts.as_slice()) {
            ("POST", ["invites", code, "hold"]) => {
                let key = call.idempotency_key().unwrap_or_default();
                let held = self.active.entry((*code).to_owned());
                held.or_insert_with(|| format!("{key}.{code}"));
            }
            ("POST", ["holds", hold, "confirm"]) => {
                self.confirmed.insert((*hold).to_owned());
            }
            ("DELETE", ["holds", hold]) => {
                self.released.insert((*hold).to_owned());
                self.active.retain(|_, held| held != hold);
            }
            _ => {}
        }
    }

    /// The invites with an unconfirmed reservation.
    pub fn unconfirmed(&self) -> Vec<&str> {
        let unconfirmed = self
            .active
            .iter()
            .filter(|(_, hold)| !self.confirmed.contains(*hold));
        unconfirmed.map(|(code, _)| code.as_str()).collect()
    }

    /// The reservations that were both confirmed and released.
    pub fn confirmed_and_released(&self) -> Vec<&str> {
        let both = self.confirmed.intersection(&self.released);
        both.map(String::as_str).collect()
    }
}
