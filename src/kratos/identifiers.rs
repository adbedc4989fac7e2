//! Finds the identifiers with which visitors sign in: the traits that an identity schema marks, and the addresses.

use serde_json::Value;

/// The paths of the traits that are identifiers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identifiers(Vec<Vec<String>>);

/// The credentials whose identifier is a trait that the visitor typed.
const CREDENTIALS: [&str; 3] = ["password", "code", "webauthn"];

impl Identifiers {
    /// Returns the identifiers that an identity schema marks: `"ory.sh/kratos": {"credentials": {"password":
    /// {"identifier": true}}}`.
    #[must_use]
    pub fn of(schema: &Value) -> Self {
        let mut paths = Vec::new();
        let traits = &schema["properties"]["traits"];
        collect_paths(traits, &mut Vec::new(), &mut paths);
        Self(paths)
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

fn collect_paths(schema: &Value, path: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    let credentials = &schema["ory.sh/kratos"]["credentials"];
    if CREDENTIALS
        .iter()
        .any(|name| credentials[*name]["identifier"] == true)
    {
        paths.push(path.clone());
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        path.push(name.clone());
        collect_paths(inner, path, paths);
        path.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn identifiers_are_the_marked_traits_and_the_addresses() {
        let marked = json!({"ory.sh/kratos": {"credentials": {"password": {"identifier": true}}}});
        let schema = json!({"properties": {"traits": {"properties": {
            "email": {"type": "string"},
            "user_name": marked,
            "login": {"properties": {"name": marked, "number": marked}},
        }}}});
        let identity = json!({
            "traits": {"email": "a@example.org", "user_name": "ada", "login": {"name": "", "number": 7}},
            "verifiable_addresses": [{"value": "a@example.org", "via": "email"}],
            "recovery_addresses": [{"value": "a@example.org", "via": "email"}, {"value": "+49123", "via": "sms"}],
        });
        assert_eq!(
            Identifiers::of(&schema).in_identity(&identity),
            ["ada", "a@example.org", "+49123"]
        );
        assert_eq!(
            Identifiers::default().in_identity(&json!({"traits": {}})),
            [""; 0]
        );
    }
}
