//! The input of a visitor: the values, and the kind of form.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// A submitted form.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignUpInput {
    /// The typed values.
    pub traits: Traits,
    /// The sign-up method.
    #[serde(default)]
    pub method: Method,
    /// Whether the form has one step or two.
    #[serde(default)]
    pub steps: Steps,
    /// The browser's `Accept-Language`.
    #[serde(default)]
    pub language: Option<String>,
    /// The account whose profile is changed. `None` for a sign-up.
    #[serde(default)]
    pub changes: Option<Uuid>,
    /// The browser's `User-Agent`.
    #[serde(skip)]
    pub browser: Option<String>,
}

/// The fields of kratos-config/identity.schema.json.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traits {
    /// The address for logins.
    pub email: String,
    /// The company's name.
    pub company: String,
    /// The company's VAT number.
    pub vat_number: String,
    /// An invite code, or empty.
    pub invite: String,
}

/// The methods whose form the demo knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// A password.
    #[default]
    Password,
    /// A code by e-mail. Kratos consumes the code before it calls the hook.
    Code,
    /// An account at another company.
    Oidc,
}

/// `style:` of the registration in kratos.yml.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Steps {
    /// `unified`: one step with all fields.
    One,
    /// `profile_first`: the fields are hidden when the hook is called.
    #[default]
    Two,
}

impl Method {
    /// Returns the name in the hook's URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Code => "code",
            Self::Oidc => "oidc",
        }
    }
}

impl Traits {
    /// Names, labels, and the minimum and maximum length in characters, as in the schema.
    pub const FIELDS: [(&'static str, &'static str, usize, usize); 4] = [
        ("email", "E-mail", 3, 320),
        ("company", "Company", 1, 200),
        ("vat_number", "VAT number", 1, 20),
        ("invite", "Invite code", 0, 64),
    ];

    /// Returns the traits as Kratos stores them, without empty fields.
    #[must_use]
    pub fn as_json(&self) -> Value {
        let mut traits = Map::new();
        for ((name, ..), value) in Self::FIELDS.into_iter().zip(self.values()) {
            if !value.is_empty() {
                traits.insert(name.to_owned(), json!(value));
            }
        }
        traits.into()
    }

    /// Returns the schema error with which Kratos itself rejects the traits, before it calls any hook.
    #[must_use]
    pub fn schema_error(&self) -> Option<String> {
        for ((name, title, shortest, longest), value) in Self::FIELDS.into_iter().zip(self.values())
        {
            let length = value.chars().count();
            if length < shortest {
                return Some(format!("{title}: at least {shortest} characters"));
            }
            if length > longest {
                return Some(format!("{title}: at most {longest} characters"));
            }
            let part = |part: Option<&str>| part.is_some_and(|part| !part.is_empty());
            let mut parts = value.rsplitn(2, '@');
            if name == "email" && !(part(parts.next()) && part(parts.next())) {
                return Some(format!("{title}: not an e-mail address"));
            }
        }
        None
    }

    fn values(&self) -> [&str; 4] {
        [&self.email, &self.company, &self.vat_number, &self.invite]
    }
}
