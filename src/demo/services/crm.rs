//! A CRM that stores each contact once, however often it is delivered.

use std::sync::{Mutex, PoisonError};

use actix_web::HttpRequest;
use indexmap::IndexMap;
use serde_json::{Value, json};

/// The maximum number of contacts.
const MAX_ENTRIES: usize = 1000;

/// The contacts, by `Idempotency-Key`.
#[derive(Default)]
pub struct Crm(Mutex<IndexMap<String, Value>>);

impl Crm {
    pub fn answer(
        &self,
        method: &str,
        path: &str,
        request: &HttpRequest,
        body: &[u8],
    ) -> (u16, Value) {
        if path != "/contacts" {
            return (404, json!({"error": "the only path is /contacts"}));
        }
        let mut contacts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match method {
            "GET" => (200, contacts.values().cloned().collect()),
            "POST" => {
                let Ok(contact) = serde_json::from_slice::<Value>(body) else {
                    return (400, json!({"error": "the contact is not JSON"}));
                };
                let key = request
                    .headers()
                    .get("idempotency-key")
                    .and_then(|key| key.to_str().ok())
                    .map_or_else(|| uuid::Uuid::new_v4().to_string(), ToOwned::to_owned);
                contacts.insert(key.clone(), contact);
                let number = contacts.get_index_of(&key).unwrap_or_default() + 1;
                if contacts.len() > MAX_ENTRIES {
                    contacts.shift_remove_index(0);
                }
                (201, json!({"id": format!("c-{number}")}))
            }
            _ => (405, json!({"error": "GET lists contacts, POST adds one"})),
        }
    }
}
