//! Kratos's admin API, as far as it is asked for: identities looked up and patched.

use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;

use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

#[derive(Default)]
struct Kept {
    identities: Vec<Value>,
    is_down: bool,
    patches: Vec<Value>,
}

struct State {
    kept: Mutex<Kept>,
    arrivals: mpsc::UnboundedSender<String>,
}

/// A Kratos that has these identities.
pub struct FakeKratos {
    address: SocketAddr,
    state: Data<State>,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<String>>,
}

impl FakeKratos {
    /// Without any.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, receiver) = mpsc::unbounded_channel();
        let state = Data::new(State {
            kept: Mutex::default(),
            arrivals: sender,
        });
        let shared = state.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shared.clone())
                .default_service(web::route().to(serve))
        })
        .workers(1)
        .disable_signals()
        .shutdown_timeout(0)
        .listen(listener)
        .expect("listening")
        .run();
        tokio::spawn(server);
        Self {
            address,
            state,
            arrivals: tokio::sync::Mutex::new(receiver),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.state.kept.lock().expect("a lock")
    }

    /// Somebody with this address was saved at that moment.
    pub fn has(&self, email: &str, created_at: &str) -> Uuid {
        let id = Uuid::new_v4();
        let address = json!({"id": Uuid::new_v4(), "value": email, "via": "email", "verified": false, "status": "sent"});
        self.kept().identities.push(json!({
            "id": id, "schema_id": "default", "state": "active", "created_at": created_at, "updated_at": created_at,
            "traits": {"email": email, "company": "Canary GmbH", "vat_number": "DE-canary-1", "invite": "canary-invite"}, "metadata_public": null, "metadata_admin": null,
            "verifiable_addresses": [address], "recovery_addresses": [], "credentials": {"password": {"identifiers": [email]}},
        }));
        id
    }

    /// It has this value at that place, too.
    pub fn change(&self, id: Uuid, pointer: &str, value: Value) {
        let mut kept = self.kept();
        let identity = kept
            .identities
            .iter_mut()
            .find(|one| one["id"] == json!(id));
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        identity
            .and_then(|identity| identity.pointer_mut(parent))
            .expect("it is there")[name] = value;
    }

    pub fn is_down(&self, is_down: bool) {
        self.kept().is_down = is_down;
    }

    pub fn identity(&self, id: Uuid) -> Value {
        let kept = self.kept();
        let identity = kept.identities.iter().find(|one| one["id"] == json!(id));
        identity.expect("it is there").clone()
    }

    /// Waits for the next call that was not waited for yet: verb and target.
    #[expect(
        clippy::disallowed_methods,
        reason = "a bound on a test that would otherwise hang for ever"
    )]
    pub async fn next(&self) -> String {
        let mut arrivals = self.arrivals.lock().await;
        let arrival = tokio::time::timeout(std::time::Duration::from_secs(30), arrivals.recv());
        arrival.await.expect("a call within 30 s").expect("it runs")
    }
}

async fn serve(request: HttpRequest, body: Bytes, state: Data<State>) -> HttpResponse {
    let target = request.uri().to_string();
    let _ = state
        .arrivals
        .send(format!("{} {target}", request.method()));
    let mut kept = state.kept.lock().expect("a lock");
    if kept.is_down {
        return HttpResponse::ServiceUnavailable().json(json!({"error": {"code": 503}}));
    }
    let gone = || HttpResponse::NotFound().json(json!({"error": {"code": 404}}));
    let query: Vec<(String, String)> =
        url::form_urlencoded::parse(request.query_string().as_bytes())
            .into_owned()
            .collect();
    let named = request.path().trim_start_matches("/admin/identities");
    if let Some(external) = named.strip_prefix("/by/external/") {
        let external = percent_encoding::percent_decode_str(external).decode_utf8_lossy();
        let found = kept
            .identities
            .iter()
            .find(|one| one["external_id"] == *external);
        return found.map_or_else(gone, |found| HttpResponse::Ok().json(found));
    }
    if let Some(id) = named.strip_prefix('/') {
        let place = kept.identities.iter().position(|one| one["id"] == id);
        let Some(place) = place else { return gone() };
        if request.method() == "PATCH" {
            let patch: Value = serde_json::from_slice(&body).expect("a patch");
            kept.patches.push(patch.clone());
            apply(&mut kept.identities[place], &patch);
        }
        return HttpResponse::Ok().json(&kept.identities[place]);
    }
    let wanted = query
        .iter()
        .find(|(name, _)| name == "credentials_identifier")
        .map(|(_, value)| value.to_lowercase());
    let found: Vec<&Value> = kept
        .identities
        .iter()
        .filter(|one| {
            let identifiers = one["credentials"]["password"]["identifiers"].as_array();
            wanted
                .as_ref()
                .is_none_or(|wanted| identifiers.into_iter().flatten().any(|one| one == wanted))
        })
        .collect();
    HttpResponse::Ok().json(found)
}

fn apply(identity: &mut Value, patch: &Value) {
    for step in patch.as_array().expect("steps") {
        let pointer = step["path"].as_str().expect("a path");
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let parent = identity.pointer_mut(parent).expect("what it stands in");
        match step["op"].as_str() {
            Some("add") => parent[name] = step["value"].clone(),
            Some("remove") => {
                let gone = parent.as_object_mut().and_then(|map| map.remove(name));
                assert!(gone.is_some(), "{pointer} is there");
            }
            other => panic!("{other:?}"),
        }
    }
}
