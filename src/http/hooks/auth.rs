//! Authenticates calls of Kratos.

use actix_web::HttpRequest;

use crate::base::secret::Secret;
pub use crate::kratos::snippet::KEY_HEADER;

/// Whether the request has one of the keys. All keys are compared, so that the time taken does not reveal which key
/// matched.
pub fn is_authorized(request: &HttpRequest, keys: &[Secret]) -> bool {
    let given = request
        .headers()
        .get(KEY_HEADER)
        .map_or(&b""[..], |value| value.as_bytes());
    keys.iter()
        .fold(false, |matches, key| matches | key.matches(given))
}
