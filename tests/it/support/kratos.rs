//! The admin API of a Kratos whose identities a test puts there. Pages come with the `Link` header that Kratos sends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::clock::Timestamp;

use super::FakeService;
use super::service::{Behaviour, Received};

type Identities = Arc<Mutex<BTreeMap<Uuid, Value>>>;

/// A Kratos as its admin API shows it.
pub struct FakeKratos {
    pub service: FakeService,
    identities: Identities,
}

impl FakeKratos {
    pub fn start() -> Self {
        let kratos = Self {
            service: FakeService::start(),
            identities: Arc::default(),
        };
        kratos.works();
        kratos
    }

    /// Does its work, at first or again.
    pub fn works(&self) {
        let identities = Arc::clone(&self.identities);
        self.service
            .does(Behaviour::Works(Arc::new(move |received| {
                answer(&identities.lock().expect("a lock"), received)
            })));
    }

    /// Does its work until this word is in what it is asked for; then it answers with the status.
    pub fn fails_at(&self, word: &str, status: u16) {
        let identities = Arc::clone(&self.identities);
        let word = word.to_owned();
        self.service
            .does(Behaviour::Works(Arc::new(move |received| {
                if received.target.contains(&word) {
                    return (status, json!({"error": {"code": status}}).to_string(), None);
                }
                answer(&identities.lock().expect("a lock"), received)
            })));
    }

    /// Somebody whose account was made at this moment, past every hook.
    pub fn has(&self, id: Uuid, created_at: Timestamp) {
        let identity = json!({
            "id": id, "schema_id": "default", "schema_url": "http://127.0.0.1:4433/schemas/ZGVmYXVsdA",
            "state": "active", "traits": {"email": format!("canary-{id}@example.org")},
            "metadata_public": null, "metadata_admin": {"note": "canary-admin"},
            "created_at": created_at, "updated_at": created_at,
            "verifiable_addresses": [{
                "id": Uuid::from_u128(1), "value": format!("canary-{id}@example.org"), "via": "email",
                "verified": false, "status": "pending",
            }],
            "recovery_addresses": [],
            "credentials": {"password": {"identifiers": ["canary-identifier"]}},
        });
        self.identities.lock().expect("a lock").insert(id, identity);
    }

    /// Each of those that it has is as large as this note of theirs.
    pub fn writes_each_of(&self, note: &str) {
        for identity in self.identities.lock().expect("a lock").values_mut() {
            identity["metadata_admin"]["note"] = note.into();
        }
    }

    /// So many of them, with ids from 1 on.
    pub fn has_many(&self, number: u128, created_at: Timestamp) {
        for number in 1..=number {
            self.has(Uuid::from_u128(number), created_at);
        }
    }

    /// The pages that were asked for, by the id at which they begin; 0 is the first.
    pub fn pages_asked(&self) -> Vec<u128> {
        let received = self.service.received();
        let pages = received
            .iter()
            .filter(|one| one.target.starts_with("/admin/identities?"));
        pages
            .map(|one| {
                parameter(&one.target, "page_token")
                    .and_then(|token| token.parse().ok())
                    .map_or(0, |id: Uuid| id.as_u128())
            })
            .collect()
    }
}

type Answer = (u16, String, Option<(&'static str, String)>);

fn answer(identities: &BTreeMap<Uuid, Value>, received: &Received) -> Answer {
    let id = received.target.strip_prefix("/admin/identities/");
    if let Some(id) = id.and_then(|id| id.parse::<Uuid>().ok()) {
        return match identities.get(&id) {
            Some(identity) => (200, identity.to_string(), None),
            None => (
                404,
                json!({"error": {"code": 404, "status": "Not Found"}}).to_string(),
                None,
            ),
        };
    }
    let size = parameter(&received.target, "page_size")
        .map_or(250, |size| size.parse().expect("a page size is a number"));
    let from = parameter(&received.target, "page_token");
    let from = from.map_or(Uuid::nil(), |token| token.parse().expect("our own token"));
    let mut behind = identities.range(from..).map(|(_, identity)| identity);
    let page: Vec<&Value> = behind.by_ref().take(size).collect();
    let link = behind.next().map(|next| {
        let next = next["id"].as_str().expect("an id");
        let first = Uuid::nil();
        format!(
            "</admin/identities?page_size={size}&page_token={first}>; rel=\"first\",\
             </admin/identities?page_size={size}&page_token={next}>; rel=\"next\""
        )
    });
    (
        200,
        json!(page).to_string(),
        link.map(|link| ("link", link)),
    )
}

fn parameter(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
}
