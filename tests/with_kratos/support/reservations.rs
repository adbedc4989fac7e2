//! What became of everything that the invites held.

use std::collections::{BTreeMap, BTreeSet};

use super::service::Received;

/// As the service of the invites sees it after these calls.
#[derive(Debug, Default)]
pub struct Reservations {
    /// By invite: what holds it.
    holding: BTreeMap<String, String>,
    confirmed: BTreeSet<String>,
    released: BTreeSet<String>,
}

impl Reservations {
    /// Of the calls, in their order.
    pub fn after(received: &[Received]) -> Self {
        let mut holds = Self::default();
        for call in received {
            holds.called(call);
        }
        holds
    }

    fn called(&mut self, call: &Received) {
        let parts: Vec<&str> = call.path.trim_matches('/').split('/').collect();
        match (call.method.as_str(), parts.as_slice()) {
            ("POST", ["invites", code, "hold"]) => {
                let key = call.idempotency_key.as_deref().unwrap_or_default();
                let held = self.holding.entry((*code).to_owned());
                held.or_insert_with(|| format!("{key}.{code}"));
            }
            ("POST", ["holds", hold, "confirm"]) => {
                self.confirmed.insert((*hold).to_owned());
            }
            ("DELETE", ["holds", hold]) => {
                self.released.insert((*hold).to_owned());
                self.holding.retain(|_, held| held != hold);
            }
            _ => {}
        }
    }

    /// The invites that are held without an account.
    pub fn left(&self) -> Vec<&str> {
        let left = self
            .holding
            .iter()
            .filter(|(_, hold)| !self.confirmed.contains(*hold));
        left.map(|(code, _)| code.as_str()).collect()
    }

    /// What was confirmed and released.
    pub fn both_ways(&self) -> Vec<&str> {
        let both = self.confirmed.intersection(&self.released);
        both.map(String::as_str).collect()
    }
}
