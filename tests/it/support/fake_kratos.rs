//! A fake admin API of Kratos with the identities of a test: look-ups, PATCH, and a list in pages with the `Link` header of
//! Kratos.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use uuid::Uuid;
use vestibule::base::clock::Timestamp;

use super::FakeService;
use super::fake_service::{Behaviour, Received};

type Identities = BTreeMap<Uuid, Value>;

/// A fake Kratos with its admin API.
pub struct FakeKratos {
    pub service: FakeService,
    identities: Arc<Mutex<Identities>>,
}

impl FakeKratos {
    /// Starts a Kratos without identities.
    pub fn start() -> Self {
        let kratos = Self {
            service: FakeService::start(),
            identities: Arc::default(),
        };
        kratos.answer_normally();
        kratos
    }

    pub fn url(&self) -> String {
        self.service.url()
    }

    fn identities(&self) -> std::sync::MutexGuard<'_, Identities> {
        self.identities.lock().expect("a lock")
    }

    /// Answers every request normally.
    pub fn answer_normally(&self) {
        self.answer_unless(|_| None);
    }

    /// Answers with this status if the target holds `target_part`, and normally otherwise.
    pub fn fail_on(&self, target_part: &str, status: u16) {
        let target_part = target_part.to_owned();
        self.answer_unless(move |received| {
            received.target.contains(&target_part).then_some(status)
        });
    }

    pub fn set_down(&self, is_down: bool) {
        self.answer_unless(move |_| is_down.then_some(503));
    }

    /// Returns the normal behaviour, to set it for one prefix again.
    pub fn normal_behaviour(&self) -> Behaviour {
        let identities = Arc::clone(&self.identities);
        Behaviour::Handles(Arc::new(move |received| {
            answer(&mut identities.lock().expect("a lock"), received)
        }))
    }

    fn answer_unless(&self, failure: impl Fn(&Received) -> Option<u16> + Send + Sync + 'static) {
        let identities = Arc::clone(&self.identities);
        self.service
            .set_behaviour(Behaviour::Handles(Arc::new(move |received| {
                if let Some(status) = failure(received) {
                    return error(status);
                }
                answer(&mut identities.lock().expect("a lock"), received)
            })));
    }

    /// Adds an identity with this address and this creation time.
    pub fn add_identity(&self, email: &str, created_at: &str) -> Uuid {
        let id = Uuid::new_v4();
        let traits = json!({"email": email, "company": "Canary GmbH", "vat_number": "DE-canary-1", "invite": "canary-invite"});
        self.insert_identity(id, &json!(created_at), &traits, &Value::Null);
        id
    }

    /// Adds an identity with this creation time that no hook has reported.
    pub fn add_identity_with_id(&self, id: Uuid, created_at: Timestamp) {
        let traits = json!({"email": format!("canary-{id}@example.org")});
        let admin = json!({"note": "canary-admin"});
        self.insert_identity(id, &json!(created_at), &traits, &admin);
    }

    /// Adds this number of identities, with ids from 1 on.
    pub fn add_identities(&self, number: u128, created_at: Timestamp) {
        for number in 1..=number {
            self.add_identity_with_id(Uuid::from_u128(number), created_at);
        }
    }

    fn insert_identity(&self, id: Uuid, created_at: &Value, traits: &Value, admin: &Value) {
        let email = &traits["email"];
        let identity = json!({
            "id": id, "schema_id": "default", "schema_url": "http://127.0.0.1:4433/schemas/ZGVmYXVsdA",
            "state": "active", "traits": traits, "metadata_public": null, "metadata_admin": admin,
            "created_at": created_at, "updated_at": created_at,
            "verifiable_addresses": [{
                "id": Uuid::new_v4(), "value": email, "via": "email", "verified": false, "status": "pending",
            }],
            "recovery_addresses": [],
            "credentials": {"password": {"identifiers": [email]}},
        });
        self.identities().insert(id, identity);
    }

    /// Deletes the identity.
    pub fn remove_identity(&self, id: Uuid) {
        self.identities().remove(&id).expect("a known identity");
    }

    /// Sets this note in `metadata_admin` of every identity.
    pub fn set_note_of_all(&self, note: &str) {
        for identity in self.identities().values_mut() {
            identity["metadata_admin"]["note"] = note.into();
        }
    }

    /// Sets the value at this pointer.
    pub fn set_value(&self, id: Uuid, pointer: &str, value: Value) {
        let mut identities = self.identities();
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let identity = identities.get_mut(&id).expect("a known identity");
        identity.pointer_mut(parent).expect("a known identity")[name] = value;
    }

    pub fn identity(&self, id: Uuid) -> Value {
        self.identities()[&id].clone()
    }

    /// Waits for the next call and returns its method and target.
    pub async fn next_call(&self) -> String {
        let received = self.service.next_call().await;
        format!("{} {}", received.method, received.target)
    }

    /// Refuses every PATCH, as if the traits violated the current schema, or stops that.
    pub fn set_refusing_patches(&self, is_refusing: bool) {
        self.answer_unless(move |received| {
            (is_refusing && received.method == "PATCH").then_some(400)
        });
    }

    /// Overwrites the identity with an earlier row, as a save of Kratos does. A profile save erases `state_changed_at`.
    pub fn overwrite_identity(&self, id: Uuid, mut row: Value) {
        if let Some(row) = row.as_object_mut() {
            row.remove("state_changed_at");
        }
        self.identities().insert(id, row);
    }

    /// Sets the state as an operator does through the admin API, at a later time.
    pub fn set_state_as_operator(&self, id: Uuid, state: &str) {
        let mut identities = self.identities();
        let identity = identities.get_mut(&id).expect("a known identity");
        identity["state"] = state.into();
        identity["state_changed_at"] = next_moment();
    }

    /// Returns how many times the sessions of this identity were deleted.
    pub fn session_deletions(&self, id: Uuid) -> usize {
        let target = format!("DELETE /admin/identities/{id}/sessions");
        self.service
            .request_lines()
            .iter()
            .filter(|one| **one == target)
            .count()
    }

    /// Returns how many times this identity was patched.
    pub fn patch_count(&self, id: Uuid) -> usize {
        let target = format!("PATCH /admin/identities/{id}");
        self.service
            .request_lines()
            .iter()
            .filter(|one| **one == target)
            .count()
    }

    /// Returns the first id of each requested page; 0 is the first page.
    pub fn requested_pages(&self) -> Vec<u128> {
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

/// Returns a later time with each call.
fn next_moment() -> Value {
    static SECONDS: AtomicI64 = AtomicI64::new(0);
    let first: Timestamp = "2026-11-23T15:00:00.123456Z".parse().expect("a moment");
    let seconds = SECONDS.fetch_add(1, Ordering::SeqCst);
    json!(first + chrono::TimeDelta::seconds(seconds))
}

type Answer = (u16, String, Option<(&'static str, String)>);

fn answer(identities: &mut Identities, received: &Received) -> Answer {
    let path = received.target.split('?').next().unwrap_or_default();
    let rest = path.trim_start_matches("/admin/identities");
    if let Some(external) = rest.strip_prefix("/by/external/") {
        let external = percent_encoding::percent_decode_str(external).decode_utf8_lossy();
        let found = identities
            .values()
            .find(|one| one["external_id"] == *external);
        return found.map_or_else(|| error(404), identity_answer);
    }
    if let Some(id) = rest
        .strip_suffix("/sessions")
        .and_then(|id| id.strip_prefix('/'))
    {
        let known = id
            .parse()
            .is_ok_and(|id: Uuid| identities.contains_key(&id));
        assert!(
            received.method == "DELETE" && known,
            "the sessions of a known identity"
        );
        return (204, String::new(), None);
    }
    if let Some(id) = rest.strip_prefix('/') {
        let id = id.parse().ok();
        let Some(identity) = id.and_then(|id: Uuid| identities.get_mut(&id)) else {
            return error(404);
        };
        if received.method == "PATCH" {
            apply(identity, &received.json());
        }
        return identity_answer(identity);
    }
    match parameter(&received.target, "credentials_identifier") {
        Some(identifier) => with_identifier(identities, &identifier.to_lowercase()),
        None => page(identities, &received.target),
    }
}

fn identity_answer(identity: &Value) -> Answer {
    (200, identity.to_string(), None)
}

fn error(status: u16) -> Answer {
    let body = json!({"error": {"code": status}});
    (status, body.to_string(), None)
}

fn with_identifier(identities: &Identities, identifier: &str) -> Answer {
    let has_identifier = |one: &&Value| {
        let identifiers = one["credentials"]["password"]["identifiers"].as_array();
        identifiers
            .into_iter()
            .flatten()
            .any(|one| one == identifier)
    };
    let found: Vec<&Value> = identities.values().filter(has_identifier).collect();
    (200, json!(found).to_string(), None)
}

fn page(identities: &Identities, target: &str) -> Answer {
    let size = parameter(target, "page_size")
        .map_or(250, |size| size.parse().expect("a page size is a number"));
    let from = parameter(target, "page_token");
    let from = from.map_or(Uuid::nil(), |token| {
        token.parse().expect("a token of this server")
    });
    let mut remaining = identities.range(from..).map(|(_, identity)| identity);
    let page: Vec<&Value> = remaining.by_ref().take(size).collect();
    let link = remaining.next().map(|next| {
        let next = next["id"].as_str().expect("an id");
        let first = Uuid::nil();
        format!(
            "</admin/identities?page_size={size}&page_token={first}>; rel=\"first\",\
             </admin/identities?page_size={size}&page_token={next}>; rel=\"next\""
        )
    });
    let link = link.map(|link| ("link", link));
    (200, json!(page).to_string(), link)
}

fn parameter(target: &str, name: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
}

fn apply(identity: &mut Value, patch: &Value) {
    for step in patch.as_array().expect("steps") {
        let pointer = step["path"].as_str().expect("a path");
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let parent = identity.pointer_mut(parent).expect("its parent");
        match step["op"].as_str() {
            Some("add") => {
                let is_state = pointer == "/state" && parent[name] != step["value"];
                parent[name] = step["value"].clone();
                if is_state {
                    parent["state_changed_at"] = next_moment();
                }
            }
            Some("replace") => {
                let entry = parent.as_array_mut().expect("a list");
                entry[name.parse::<usize>().expect("an index")] = step["value"].clone();
            }
            Some("remove") => {
                let removed = parent.as_object_mut().and_then(|map| map.remove(name));
                assert!(removed.is_some(), "{pointer} exists");
            }
            other => panic!("{other:?}"),
        }
    }
}
