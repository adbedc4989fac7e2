//! Finds the identifiers with which visitors sign in: the traits that an identity schema marks, and the addresses.

use serde_json::Value;

use super::schema::Schemas;

/// The paths of the traits that are identifiers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identifiers(Vec<Vec<String>>);

/// The credentials whose identifier is a trait that the visitor typed.
const CREDENTIALS: [&str; 3] = ["password", "code", "webauthn"];

impl Identifiers {
    /// Returns the identifiers that the identity schemas mark: `"ory.sh/kratos": {"credentials": {"password":
    /// {"identifier": true}}}`.
    #[must_use]
    pub fn of(schemas: &Schemas) -> Self {
        let is_marked = |schema: &Value| {
            let credentials = &schema["ory.sh/kratos"]["credentials"];
            CREDENTIALS
                .iter()
                .any(|name| credentials[*name]["identifier"] == true)
        };
        let paths = schemas.paths_where(&is_marked);
        Self(
            paths
                .iter()
                .map(|path| path.split('.').skip(1).map(ToOwned::to_owned).collect())
                .collect(),
        )
    }

    /// Returns the identifiers of this identity, as far as Kratos includes them in hook calls.
    #[must_use]
    pub fn in_identity(&self, identity: &Value) -> Vec<String> {
        let addresses = ["verifiable_addresses", "recovery_addresses"]
            .into_iter()
            .filter_map(|list| identity[list].as_array())
            .flatten()
            .filter_map(|address| address["value"].as_str());
        let marked = self.0.iter().filter_map(|path| {
            let traits = &identity["traits"];
            let value = path.iter().try_fold(traits, |there, key| there.get(key))?;
            value.as_str()
        });
        let mut known: Vec<String> = Vec::new();
        for identifier in marked.chain(addresses).filter(|text| !text.is_empty()) {
            if !known.iter().any(|other| other == identifier) {
                known.push(identifier.to_owned());
            }
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn identifiers_are_the_marked_traits_and_the_addresses() {
        let marked = json!({"ory.sh/kratos": {"credentials": {"password": {"identifier": true}}}});
        let schema = json!({
            "definitions": {"name": marked},
            "properties": {"traits": {"properties": {
                "email": {"type": "string"},
                "user_name": {"$ref": "#/definitions/name"},
                "login": {"properties": {"name": marked, "number": marked}},
            }}},
        });
        let member = json!({"properties": {"traits": {"properties": {"member": marked}}}});
        let mut schemas = Schemas::default();
        schemas.add("default".to_owned(), schema);
        schemas.add("member".to_owned(), member);
        let identity = json!({
            "traits": {"email": "a@example.org", "user_name": "ada", "login": {"name": "", "number": 7}, "member": "m-1"},
            "verifiable_addresses": [{"value": "a@example.org", "via": "email"}],
            "recovery_addresses": [{"value": "a@example.org", "via": "email"}, {"value": "+49123", "via": "sms"}],
        });
        assert_eq!(
            Identifiers::of(&schemas).in_identity(&identity),
            ["ada", "m-1", "a@example.org", "+49123"]
        );
        assert_eq!(
            Identifiers::default().in_identity(&json!({"traits": {}})),
            [""; 0]
        );
    }
}
