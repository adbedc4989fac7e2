//! The fake external services.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Mutex;

use serde_json::{Value, json};
use vestibule_testing::fake_service::{self, FakeService};
use vestibule_testing::port;

pub use vestibule_testing::fake_service::Received;

/// The prefix of unknown VAT numbers.
pub const UNKNOWN_VAT_PREFIX: &str = "DE0000";
/// An unknown VAT number.
pub const UNKNOWN_VAT_NUMBER: &str = "DE000000000";
/// The only invite code that can be used many times.
pub const KNOWN_INVITE: &str = "WELCOME-2026";
/// The prefix of invite codes that can be used once.
pub const ONE_USE_PREFIX: &str = "ONCE-";

/// The behaviour of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers as a working service.
    Works,
    /// Answers with this status.
    Answers(u16),
    /// Accepts the call and does not answer until the behaviour changes.
    Hangs,
}

impl From<Behaviour> for fake_service::Behaviour {
    fn from(behaviour: Behaviour) -> Self {
        match behaviour {
            Behaviour::Works => Self::Works,
            Behaviour::Answers(status) => Self::Answers(status, "{}".to_owned()),
            Behaviour::Hangs => Self::Hangs,
        }
    }
}

/// A fake service with a role.
pub struct Service(FakeService);

impl Deref for Service {
    type Target = FakeService;

    fn deref(&self) -> &FakeService {
        &self.0
    }
}

impl Service {
    /// A VAT register that knows all numbers except those with [`UNKNOWN_VAT_PREFIX`]. The name of a company contains its number.
    pub fn vat_register() -> Self {
        Self::answering(|received| {
            let number = vat_number(received);
            if number.starts_with(UNKNOWN_VAT_PREFIX) {
                return (200, json!({"valid": false, "name": null}));
            }
            let name = registered_name(&number);
            (200, json!({"valid": true, "name": name}))
        })
    }

    /// An invite service that knows [`KNOWN_INVITE`] and codes with [`ONE_USE_PREFIX`], which can be used once. A repeated
    /// Idempotency-Key gets the same reservation.
    pub fn invites() -> Self {
        let reservations: Mutex<BTreeMap<String, String>> = Mutex::default();
        Self::answering(move |received| {
            let mut reservations = reservations.lock().expect("the lock is not poisoned");
            let key = received.idempotency_key().unwrap_or_default();
            let parts: Vec<&str> = received.path.trim_matches('/').split('/').collect();
            match (received.method.as_str(), parts.as_slice()) {
                ("POST", ["invites", KNOWN_INVITE, "hold"]) => (201, json!({"hold_id": "hold-1"})),
                ("POST", ["invites", code, "hold"]) if code.starts_with(ONE_USE_PREFIX) => {
                    let hold = format!("{key}.{code}");
                    let existing = reservations
                        .entry((*code).to_owned())
                        .or_insert(hold.clone());
                    if *existing == hold {
                        (201, json!({"hold_id": hold}))
                    } else {
                        (409, json!({}))
                    }
                }
                ("DELETE", ["holds", hold]) => {
                    reservations.retain(|_, existing| existing != hold);
                    (200, json!({}))
                }
                ("GET", ["invites", KNOWN_INVITE]) | (_, ["holds", ..]) => (200, json!({})),
                _ => (404, json!({})),
            }
        })
    }

    /// A CRM that accepts every contact.
    pub fn crm() -> Self {
        Self::answering(|_| (201, json!({"id": "contact-1"})))
    }

    fn answering(handler: impl Fn(&Received) -> (u16, Value) + Send + Sync + 'static) -> Self {
        Self(FakeService::answering_on(
            port::listener(),
            move |received| {
                let (status, body) = handler(received);
                (status, body.to_string(), None)
            },
        ))
    }

    /// Sets the behaviour, also for the calls that hang.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.0.change_behaviour(behaviour.into());
    }

    /// Waits for the next call that this method has not returned yet.
    pub async fn next(&self) -> Received {
        self.0.next_call().await
    }
}

/// The VAT number in a call to the register.
pub fn vat_number(received: &Received) -> String {
    let part = |name: &str| received.body[name].as_str().unwrap_or_default().to_owned();
    part("countryCode") + &part("vatNumber")
}

/// The name of the company with this number in the register.
pub fn registered_name(vat_number: &str) -> String {
    format!("Registered {vat_number} GmbH")
}
