//! A fake `OpenID` provider, at which every visitor is signed in and consents.

use std::collections::BTreeMap;
use std::sync::Mutex;

use actix_web::http::header::LOCATION;
use actix_web::web::{Bytes, Data};
use actix_web::{HttpRequest, HttpResponse};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use url::Url;
use url::form_urlencoded::parse;
use uuid::Uuid;
use vestibule_testing::port;
use vestibule_testing::serve::{Server, serve_on};

/// The lifetime of an id token, in seconds.
const LIFETIME: i64 = 600;

/// A running provider. Each authorization is for a new identity with a unique address, unless a person is named.
pub struct Provider {
    pub url: String,
    server: Server,
    state: Data<State>,
}

struct State {
    url: String,
    key: EcdsaKeyPair,
    grants: Mutex<BTreeMap<String, Grant>>,
    /// The subject and the address of the person that is signed in.
    person: Mutex<Option<(Uuid, String)>>,
}

struct Grant {
    client: String,
    nonce: Option<String>,
}

impl Provider {
    /// Starts a provider.
    pub fn start() -> Self {
        let listener = port::listener();
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let state = Data::new(State {
            url: url.clone(),
            key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
            grants: Mutex::default(),
            person: Mutex::default(),
        });
        let server = serve_on(listener, 1, &state, answer);
        Self { url, server, state }
    }

    /// Signs in the person with this address from now on.
    pub fn sign_in_as(&self, address: &str) {
        let person = (Uuid::new_v4(), address.to_owned());
        *self.state.person.lock().expect("a lock") = Some(person);
    }

    /// Signs in a new person each time from now on.
    pub fn sign_in_as_anyone(&self) {
        *self.state.person.lock().expect("a lock") = None;
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.server.begin_to_stop();
    }
}

async fn answer(request: HttpRequest, body: Bytes, state: Data<State>) -> HttpResponse {
    let url = &state.url;
    match request.path() {
        "/.well-known/openid-configuration" => HttpResponse::Ok().json(json!({
            "issuer": url,
            "authorization_endpoint": format!("{url}/authorize"),
            "token_endpoint": format!("{url}/token"),
            "jwks_uri": format!("{url}/keys"),
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })),
        "/keys" => HttpResponse::Ok().json(json!({"keys": [state.public_key()]})),
        "/authorize" => state.authorize(request.query_string()),
        "/token" => state.token(&body),
        _ => HttpResponse::NotFound().finish(),
    }
}

impl State {
    fn public_key(&self) -> Value {
        // An uncompressed point: 4, x, y.
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        json!({
            "kty": "EC", "crv": "P-256", "x": BASE64.encode(x), "y": BASE64.encode(y), "kid": "the-key", "use": "sig",
            "alg": "ES256",
        })
    }

    fn authorize(&self, query: &str) -> HttpResponse {
        let query_parameters: BTreeMap<String, String> =
            parse(query.as_bytes()).into_owned().collect();
        let code = Uuid::new_v4().to_string();
        let mut back = Url::parse(&query_parameters["redirect_uri"]).expect("a URL");
        back.query_pairs_mut()
            .append_pair("code", &code)
            .append_pair("state", &query_parameters["state"]);
        let grant = Grant {
            client: query_parameters["client_id"].clone(),
            nonce: query_parameters.get("nonce").cloned(),
        };
        self.grants
            .lock()
            .expect("the lock is not poisoned")
            .insert(code, grant);
        HttpResponse::SeeOther()
            .insert_header((LOCATION, back.as_str()))
            .finish()
    }

    fn token(&self, body: &[u8]) -> HttpResponse {
        let code = parse(body).find(|(name, _)| name == "code");
        let code = code.map(|(_, code)| code.into_owned()).unwrap_or_default();
        let Some(grant) = self
            .grants
            .lock()
            .expect("the lock is not poisoned")
            .remove(&code)
        else {
            return HttpResponse::BadRequest().json(json!({"error": "invalid_grant"}));
        };
        let now = chrono::Utc::now().timestamp();
        let person = self.person.lock().expect("a lock").clone();
        let (subject, address) = person.unwrap_or_else(|| {
            let subject = Uuid::new_v4();
            (subject, format!("{subject}@example.org"))
        });
        let mut claims = json!({
            "iss": self.url, "aud": grant.client, "sub": subject, "iat": now, "exp": now + LIFETIME,
            "email": address, "email_verified": true,
        });
        if let Some(nonce) = grant.nonce {
            claims["nonce"] = json!(nonce);
        }
        HttpResponse::Ok().json(json!({
            "access_token": Uuid::new_v4(), "token_type": "Bearer", "expires_in": LIFETIME, "id_token": self.signed(&claims),
        }))
    }

    fn signed(&self, claims: &Value) -> String {
        let head = json!({"alg": "ES256", "typ": "JWT", "kid": "the-key"});
        let part = |value: &Value| BASE64.encode(value.to_string());
        let text = format!("{}.{}", part(&head), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes());
        let signature = BASE64.encode(signature.expect("a signature"));
        format!("{text}.{signature}")
    }
}
