//! Signs deliveries by [Standard Webhooks](https://www.standardwebhooks.com). With the signature, a receiver verifies
//! that Vestibule sent the delivery, and that it is complete and recent.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::base::clock::Timestamp;
use crate::base::secret::Secret;

/// The prefix of a signing secret.
pub const PREFIX: &str = "whsec_";
/// The permitted length of a key in bytes, by the standard.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A signing key.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// The text after `whsec_`: base64, validated.
    encoded: Secret,
}

/// Why a text is not a signing secret. Never holds the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASigningSecret {
    /// The prefix is missing.
    #[error("a signing secret must begin with `{PREFIX}`")]
    Prefix,
    /// The rest is not base64.
    #[error("the part after `{PREFIX}` must be base64 with padding")]
    Encoding,
    /// The key is too short or too long.
    #[error("a signing secret must have {} to {} bytes, this one has {bytes}", BYTES.start(), BYTES.end())]
    Length {
        /// The length of the key.
        bytes: usize,
    },
}

impl SigningKey {
    /// Parses `whsec_…`.
    pub fn parse(text: &str) -> Result<Self, NotASigningSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(NotASigningSecret::Prefix)?;
        let bytes = STANDARD
            .decode(encoded)
            .map_err(|_| NotASigningSecret::Encoding)?;
        if !BYTES.contains(&bytes.len()) {
            return Err(NotASigningSecret::Length { bytes: bytes.len() });
        }
        Ok(Self {
            encoded: Secret::new(encoded.to_owned()),
        })
    }

    fn sign(&self, signed: &str) -> Option<String> {
        let key = STANDARD.decode(self.encoded.expose()).ok()?;
        let mut hmac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
        hmac.update(signed.as_bytes());
        Some(format!(
            "v1,{}",
            STANDARD.encode(hmac.finalize().into_bytes())
        ))
    }
}

/// Returns the header `webhook-signature`: one signature for each key. During a rotation, a receiver may have either
/// of two keys. `at` is also the header `webhook-timestamp`, in seconds.
#[must_use]
pub fn signature(keys: &[SigningKey], id: &str, at: Timestamp, body: &str) -> String {
    let signed = format!("{id}.{}.{body}", at.timestamp());
    let signatures: Vec<String> = keys.iter().filter_map(|key| key.sign(&signed)).collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The secret of the example in the specification.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn the_example_of_the_specification_has_its_published_signature() {
        let keys = [SigningKey::parse(SECRET).unwrap()];
        assert_eq!(
            signature(
                &keys,
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                at(1_614_265_330),
                r#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    /// The reference library accepts the signature with either key of a rotation.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the library compares with the system's time"
    )]
    fn the_reference_library_accepts_the_signature_with_either_key() {
        let keys = [OTHER, SECRET].map(|secret| SigningKey::parse(secret).unwrap());
        let (id, body) = ("0198c1d4", r#"{"type":"identity.created"}"#);
        let now = Timestamp::from(std::time::SystemTime::now());
        let mut headers = http::HeaderMap::new();
        for (name, value) in [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", now.timestamp().to_string()),
            ("webhook-signature", signature(&keys, id, now, body)),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        for secret in [SECRET, OTHER] {
            let receiver = standardwebhooks::Webhook::new(secret).unwrap();
            receiver.verify(body.as_bytes(), &headers).unwrap();
            assert!(receiver.verify(b"another body", &headers).is_err());
        }
    }

    #[test]
    fn an_error_about_a_signing_secret_does_not_hold_the_secret() {
        for (text, expected) in [
            (
                "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                NotASigningSecret::Prefix,
            ),
            ("whsec_not base64", NotASigningSecret::Encoding),
            ("whsec_", NotASigningSecret::Length { bytes: 0 }),
            ("whsec_aHVzaA==", NotASigningSecret::Length { bytes: 4 }),
        ] {
            assert_eq!(SigningKey::parse(text).unwrap_err(), expected, "{text}");
        }
    }
}
