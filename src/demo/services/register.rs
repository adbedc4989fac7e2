//! A register of VAT numbers that answers as VIES does.

use serde_json::{Value, json};

/// The registered VAT numbers, with their holders.
pub const REGISTERED: [(&str, &str); 3] = [
    ("DE811115368", "Muster GmbH"),
    ("FR40303265045", "Exemple SA"),
    ("NL123456782B12", "Voorbeeld BV"),
];

pub fn answer(method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    if path != "/check-vat-number" {
        return (
            404,
            json!({"error": "the only path is /check-vat-number, with POST"}),
        );
    }
    if method != "POST" {
        return (405, json!({"error": "use POST"}));
    }
    let Ok(question) = serde_json::from_slice::<Value>(body) else {
        return (400, json!({"error": "the request is not JSON"}));
    };
    let part = |name: &str| question[name].as_str().unwrap_or_default();
    let number = format!("{}{}", part("countryCode"), part("vatNumber"));
    let holder = REGISTERED
        .iter()
        .find(|(known, _)| *known == number)
        .map(|(_, name)| *name);
    (200, json!({"valid": holder.is_some(), "name": holder}))
}

/// Returns VIES's response while the register of a country is unavailable.
pub fn busy() -> Value {
    json!({"actionSucceed": false, "errorWrappers": [{"error": "MS_UNAVAILABLE"}]})
}
