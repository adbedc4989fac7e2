//! Converts an identity of the admin API to the form that hooks send.

use serde_json::{Map, Value};

/// Members that are copied unchanged.
const SCALARS: [&str; 7] = [
    "id",
    "schema_id",
    "external_id",
    "state",
    "state_changed_at",
    "created_at",
    "updated_at",
];
/// The data of the account.
const DATA: [&str; 2] = ["traits", "metadata_public"];
/// Lists of addresses, and the members that are copied from each address.
const ADDRESSES: [(&str, &[&str]); 2] = [
    (
        "verifiable_addresses",
        &["value", "via", "verified", "status"],
    ),
    ("recovery_addresses", &["value", "via"]),
];

/// Returns the identity in the form of `identity` in the body from kratos-config/vestibule.jsonnet. So subscriptions
/// read the same data from a hook and from the admin API. Credentials and `metadata_admin` are left out.
#[must_use]
pub fn hook_view(identity: &Value) -> Value {
    let mut view = picked(identity, &SCALARS);
    for key in DATA {
        let data = present(identity, key).cloned();
        view.insert(
            key.to_owned(),
            data.unwrap_or_else(|| Value::Object(Map::new())),
        );
    }
    for (key, keys) in ADDRESSES {
        let list = identity[key].as_array().into_iter().flatten();
        let list = list.map(|address| Value::Object(picked(address, keys)));
        view.insert(key.to_owned(), list.collect());
    }
    Value::Object(view)
}

fn picked(value: &Value, keys: &[&str]) -> Map<String, Value> {
    keys.iter()
        .filter_map(|key| Some(((*key).to_owned(), present(value, key)?.clone())))
        .collect()
}

/// Returns the member if it exists and is not null.
fn present<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.get(key).filter(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_identity_has_the_form_that_the_jsonnet_template_makes() {
        let call: Value = serde_json::from_str(include_str!(
            "../../../tests/fixtures/kratos/v26.2.0/registration-post-password-api-one-step.json"
        ))
        .unwrap();
        let mut identity = call["ctx"]["identity"].clone();
        // Only the admin API returns these members.
        identity["credentials"] = json!({"password": {"identifiers": ["ada@example.org"]}});
        identity["metadata_admin"] = json!({"secret": true});
        assert_eq!(
            hook_view(&identity),
            json!({
                "id": "f43f639b-6b33-4b0f-8924-e8c9183d6695",
                "schema_id": "default",
                "state": "active",
                "state_changed_at": "2026-11-23T14:32:52.500957928Z",
                "created_at": "2026-11-23T14:32:52.501764Z",
                "updated_at": "2026-11-23T14:32:52.501764Z",
                "traits": {
                    "company": "Muster GmbH",
                    "email": "p3aaf26d5@example.org",
                    "vat_number": "DE811115368",
                },
                "metadata_public": {},
                "verifiable_addresses": [
                    {"value": "p3aaf26d5@example.org", "via": "email", "verified": false, "status": "pending"},
                ],
                "recovery_addresses": [{"value": "p3aaf26d5@example.org", "via": "email"}],
            })
        );
    }

    #[test]
    fn missing_members_have_the_form_that_the_jsonnet_template_makes() {
        let nothing = json!({
            "id": "1", "traits": {}, "metadata_public": {},
            "verifiable_addresses": [], "recovery_addresses": [],
        });
        for (identity, expected) in [
            (json!({"id": "1"}), nothing.clone()),
            (
                json!({"id": "1", "external_id": null, "traits": null, "verifiable_addresses": null}),
                nothing.clone(),
            ),
            (
                json!({"id": "1", "external_id": "crm/7", "metadata_public": {"company": "A"}}),
                json!({
                    "id": "1", "external_id": "crm/7", "traits": {}, "metadata_public": {"company": "A"},
                    "verifiable_addresses": [], "recovery_addresses": [],
                }),
            ),
            (
                json!({"id": "1", "metadata_public": ["odd"]}),
                json!({
                    "id": "1", "traits": {}, "metadata_public": ["odd"],
                    "verifiable_addresses": [], "recovery_addresses": [],
                }),
            ),
        ] {
            assert_eq!(hook_view(&identity), expected, "{identity}");
        }
    }
}
