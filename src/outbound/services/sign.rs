//! Signatures by [Standard Webhooks](https://www.standardwebhooks.com): who receives a delivery can tell that it is
//! ours, whole and fresh.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::base::clock::Timestamp;
use crate::base::secret::Secret;

/// What a signing secret begins with.
pub const PREFIX: &str = "whsec_";
/// The fewest and the most bytes of a key, as the standard asks.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A key to sign with.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// The text behind `whsec_`: base64, checked.
    encoded: Secret,
}

/// Why a text is no signing secret. Never holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASigningSecret {
    /// It begins otherwise.
    #[error("a signing secret begins with `{PREFIX}`")]
    Prefix,
    /// The rest is not base64.
    #[error("behind `{PREFIX}` a signing secret is base64, to its last `=`")]
    Encoding,
    /// Too short or too long.
    #[error("a signing secret holds {} to {} bytes, this one {bytes}", BYTES.start(), BYTES.end())]
    Length {
        /// How many it holds.
        bytes: usize,
    },
}

impl SigningKey {
    /// Reads `whsec_…`.
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

/// The header `webhook-signature`: one signature for each key, so that a receiver may know either of two during a
/// rotation. `at` goes into `webhook-timestamp`, in seconds.
#[must_use]
pub fn signature(keys: &[SigningKey], id: &str, at: Timestamp, body: &str) -> String {
    let signed = format!("{id}.{}.{body}", at.timestamp());
    let signatures: Vec<String> = keys.iter().filter_map(|key| key.sign(&signed)).collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the specification.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn the_public_example_comes_out() {
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

    /// The reference library takes it, with either key of a rotation.
    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "the library compares with the system's time"
    )]
    fn the_reference_library_takes_it() {
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
    fn what_is_no_secret_is_told_without_it() {
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
