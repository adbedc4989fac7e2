//! Hashes that identify the same traits in `pre`, `post` and the admin API.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::digest::Update;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// The length of the hash, in bytes. This much of SHA-256 is enough to avoid collisions between visitors' traits.
const HASH_BYTES: usize = 24;

/// The prefix of the external ids that `pre` returns.
pub const GUARD_PREFIX: &str = "vestibule:";

/// Returns the hash of a JSON value in canonical form: keys sorted, numbers as 64-bit floats.
///
/// Kratos sorts keys in hook calls, and rounds integers beyond 2^53. The admin API does neither. So their texts
/// differ for the same traits.
#[must_use]
pub fn fingerprint(value: &Value) -> String {
    let mut hasher = Sha256::default();
    feed(&mut hasher, value);
    URL_SAFE_NO_PAD.encode(&hasher.finalize()[..HASH_BYTES])
}

/// The key of the fingerprints that are stored about identities.
///
/// A plain hash would let everybody who reads the database test guessed traits, such as addresses.
#[derive(Clone)]
pub struct FingerprintKey(Hmac<Sha256>);

impl FingerprintKey {
    /// Creates the key from a secret text. Of a text with more than 64 bytes, the rest is ignored.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        let mut block = [0; 64];
        for (byte, of_secret) in block.iter_mut().zip(secret.bytes()) {
            *byte = of_secret;
        }
        Self(Hmac::new(&block.into()))
    }

    /// Returns an HMAC of the identity's traits, state and schema id. It is the same for an identity of a hook and of the
    /// admin API.
    #[must_use]
    pub fn fingerprint(&self, identity: &Value) -> String {
        let empty = Value::Object(Map::new());
        let traits = identity.get("traits").filter(|traits| !traits.is_null());
        let mut hmac = self.0.clone();
        feed(&mut hmac, traits.unwrap_or(&empty));
        feed(&mut hmac, &identity["state"]);
        feed(&mut hmac, &identity["schema_id"]);
        URL_SAFE_NO_PAD.encode(&hmac.finalize().into_bytes()[..HASH_BYTES])
    }
}

impl std::fmt::Debug for FingerprintKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("FingerprintKey(…)")
    }
}

fn feed(hasher: &mut impl Update, value: &Value) {
    match value {
        Value::Null => hasher.update(b"n"),
        Value::Bool(true) => hasher.update(b"t"),
        Value::Bool(false) => hasher.update(b"f"),
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            // -0 and 0 are the same number in JSON.
            let number = if number == 0.0 { 0.0 } else { number };
            hasher.update(b"d");
            hasher.update(&number.to_be_bytes());
        }
        Value::String(text) => feed_text(hasher, text),
        Value::Array(items) => {
            hasher.update(b"[");
            hasher.update(&(items.len() as u64).to_be_bytes());
            for item in items {
                feed(hasher, item);
            }
        }
        Value::Object(members) => {
            let mut keys: Vec<&String> = members.keys().collect();
            keys.sort_unstable();
            hasher.update(b"{");
            hasher.update(&(keys.len() as u64).to_be_bytes());
            for key in keys {
                feed_text(hasher, key);
                feed(hasher, &members[key]);
            }
        }
    }
}

fn feed_text(hasher: &mut impl Update, text: &str) {
    hasher.update(b"s");
    hasher.update(&(text.len() as u64).to_be_bytes());
    hasher.update(text.as_bytes());
}

/// Returns the `external_id` that `pre` gives to every submission of a flow.
///
/// Kratos keeps external ids unique, so Kratos creates at most one identity for the flow. The id is a hash, because
/// the id of an API flow gives read access to the flow. The hash has 58 characters, because Kratos stores at most 64.
#[must_use]
pub fn guard_id(flow_id: Uuid) -> String {
    use std::fmt::Write as _;
    let digest = Sha256::digest(flow_id.to_string().as_bytes());
    digest[..HASH_BYTES]
        .iter()
        .fold(GUARD_PREFIX.to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Returns whether `pre` gave this `external_id` to another flow.
#[must_use]
pub fn is_of_another_flow(external_id: &str, flow_id: Uuid) -> bool {
    external_id.starts_with(GUARD_PREFIX) && external_id != guard_id(flow_id)
}

/// Returns whether a text in the value contains U+0000. PostgreSQL rejects this character after `pre` has accepted.
#[must_use]
pub fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members
            .iter()
            .any(|(key, value)| key.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn equal_traits_in_different_notations_have_one_fingerprint() {
        for (one, other) in [
            (r#"{"a": 1, "b": 2}"#, r#"{"b": 2, "a": 1}"#),
            (r#"{"a": 1.50}"#, r#"{"a": 1.5}"#),
            (r#"{"a": 1e21}"#, r#"{"a": 1000000000000000000000}"#),
            (r#"{"a": 9007199254740993}"#, r#"{"a": 9007199254740992}"#),
            (r#"{"a": 0}"#, r#"{"a": -0.0}"#),
            (
                r#"{"a": {"c": [], "b": {}}}"#,
                r#"{"a": {"b": {}, "c": []}}"#,
            ),
        ] {
            let (one, other) = (parsed(one), parsed(other));
            assert_eq!(fingerprint(&one), fingerprint(&other), "{one} {other}");
        }
    }

    #[test]
    fn different_traits_have_different_fingerprints() {
        let all = [
            json!({}),
            json!(null),
            json!({"a": null}),
            json!({"a": ""}),
            json!({"a": "b"}),
            json!({"a": ["b"]}),
            json!({"ab": ""}),
            json!({"a": "1"}),
            json!({"a": 1}),
            json!({"a": true}),
            json!({"a": [1, 2]}),
            json!({"a": [2, 1]}),
            json!({"a": {"b": 1}, "c": 1}),
            json!({"a": {"b": 1, "c": 1}}),
            json!({"a": "é"}),
            json!({"a": "e\u{301}"}),
        ];
        let mut hashes: Vec<String> = all.iter().map(fingerprint).collect();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), all.len());
    }

    #[test]
    fn a_keyed_fingerprint_depends_on_traits_state_schema_and_key_alone() {
        let identity = parsed(
            r#"{"id": "1", "schema_id": "default", "state": "active", "traits": {"a": 1.0, "b": "x"}}"#,
        );
        let key = FingerprintKey::new("a secret");
        let fingerprint = key.fingerprint(&identity);
        for (other, is_same) in [
            (
                r#"{"schema_id": "default", "state": "active", "traits": {"b": "x", "a": 1}, "metadata_public": {"c": 1},
                    "updated_at": "2026-11-01T00:00:00Z"}"#,
                true,
            ),
            (
                r#"{"schema_id": "default", "state": "active", "traits": {"a": 2, "b": "x"}}"#,
                false,
            ),
            (
                r#"{"schema_id": "default", "state": "inactive", "traits": {"a": 1, "b": "x"}}"#,
                false,
            ),
            (
                r#"{"schema_id": "other", "state": "active", "traits": {"a": 1, "b": "x"}}"#,
                false,
            ),
            (
                r#"{"schema_id": "active", "state": "default", "traits": {"a": 1, "b": "x"}}"#,
                false,
            ),
        ] {
            assert_eq!(
                key.fingerprint(&parsed(other)) == fingerprint,
                is_same,
                "{other}"
            );
        }
        assert_ne!(
            FingerprintKey::new("another").fingerprint(&identity),
            fingerprint
        );
        assert_eq!(
            key.fingerprint(&json!({"traits": null})),
            key.fingerprint(&json!({"traits": {}}))
        );
        assert!(!format!("{key:?}").contains("secret"));
    }

    #[test]
    fn the_guard_id_is_a_hash_that_kratos_can_store() {
        let id = guard_id(Uuid::from_u128(1));
        assert_eq!(id.len(), 58);
        assert!(id.starts_with("vestibule:"));
        assert!(!id.contains("00000001"));
        assert_ne!(id, guard_id(Uuid::from_u128(2)));
        assert_eq!(id, id.to_lowercase());
    }

    #[test]
    fn has_nul_finds_a_nul_in_texts_keys_and_nested_values() {
        for (value, expected) in [
            (json!({"a": "b\u{0}"}), true),
            (json!({"a": ["x", {"b": "\u{0}"}]}), true),
            (json!({"a\u{0}": 1}), true),
            (json!({"a": "0", "b": 0, "c": null, "d": [true]}), false),
        ] {
            assert_eq!(has_nul(&value), expected, "{value}");
        }
    }
}
