//! A software authenticator that creates passkeys and security keys without an attestation.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use uuid::Uuid;

/// The domain of the passkeys.
pub const RELYING_PARTY: &str = "localhost";
/// The origin of the page that creates them.
pub const ORIGIN: &str = "http://localhost";

/// User present, user verified, and attested credential data follow.
const FLAGS: u8 = 0b0100_0101;
/// CBOR: a map of five entries with `kty: EC2`, `alg: ES256`, `crv: P-256`, and the head of `x`, a byte string of 32 bytes.
const KEY_BEFORE_X: [u8; 10] = [0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20];
/// CBOR: the head of `y`, a byte string of 32 bytes.
const KEY_BEFORE_Y: [u8; 3] = [0x22, 0x58, 0x20];

/// Creates a passkey for a form. Returns the value of its field `passkey_register`.
pub fn created_for(form: &Value) -> String {
    let options = options_in(form, "passkey_create_data");
    created(&options["credentialOptions"]["publicKey"]["challenge"])
}

/// Registers a security key for a form. Returns the value of its field `webauthn_register`.
pub fn registered_for(form: &Value) -> String {
    created(&options_in(form, "webauthn_register_trigger")["publicKey"]["challenge"])
}

/// The options in the field of a form.
fn options_in(form: &Value, field: &str) -> Value {
    let nodes = form["ui"]["nodes"].as_array().expect("nodes");
    let options = nodes
        .iter()
        .map(|node| &node["attributes"])
        .find(|input| input["name"] == field)
        .and_then(|input| input["value"].as_str())
        .unwrap_or_else(|| panic!("the form has no {field}"));
    serde_json::from_str(options).expect("JSON")
}

fn created(challenge: &Value) -> String {
    let client_data = json!({
        "type": "webauthn.create", "challenge": challenge, "origin": ORIGIN, "crossOrigin": false,
    });
    let id = Uuid::new_v4();
    json!({
        "id": BASE64.encode(id),
        "rawId": BASE64.encode(id),
        "type": "public-key",
        "authenticatorAttachment": "platform",
        "clientExtensionResults": {},
        "response": {
            "clientDataJSON": BASE64.encode(client_data.to_string()),
            "attestationObject": BASE64.encode(attestation_object(id)),
            "transports": ["internal"],
        },
    })
    .to_string()
}

/// The attestation object with the new key, in CBOR.
fn attestation_object(id: Uuid) -> Vec<u8> {
    let data = authenticator_data(id);
    let length = u8::try_from(data.len()).expect("less than 256 bytes");
    let mut object = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x58".to_vec();
    object.push(length);
    object.extend(data);
    object
}

fn authenticator_data(id: Uuid) -> Vec<u8> {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    // An uncompressed point: 4, x, y.
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    let mut data = digest(&SHA256, RELYING_PARTY.as_bytes()).as_ref().to_vec();
    data.push(FLAGS);
    // A use counter of 0, and an authenticator model of zeros.
    data.extend([0; 4 + 16]);
    data.extend([0, 16]);
    data.extend(id.as_bytes());
    data.extend(KEY_BEFORE_X);
    data.extend(x);
    data.extend(KEY_BEFORE_Y);
    data.extend(y);
    data
}
