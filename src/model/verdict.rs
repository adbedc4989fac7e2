//! The verdict: admit, admit with changes, or refuse with findings.

use serde_json::{Map, Value};

use crate::kratos::form::{Form, group_by_pointer};
use crate::kratos::{Field, Message, Reply};

/// The result of all checks of a sign-up.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The sign-up is accepted.
    Admit,
    /// The sign-up is accepted, and these fields replace those that Kratos sent.
    AdmitWith(Map<String, Value>),
    /// The sign-up is refused for these reasons, at least one.
    Refuse(Vec<Finding>),
}

/// One reason to refuse.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The field; `None` means the sign-up as a whole.
    pub field: Option<Field>,
    /// The message for the visitor.
    pub message: Message,
}

impl Verdict {
    /// Returns the name of the verdict for logs and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Admit => "admitted",
            Self::AdmitWith(_) => "changed",
            Self::Refuse(_) => "refused",
        }
    }

    /// Converts the verdict to a reply for Kratos, with each message where this form shows it.
    #[must_use]
    pub fn into_reply(self, form: Form<'_>) -> Reply {
        match self {
            Self::Admit => Reply::NoContent,
            Self::AdmitWith(changes) => Reply::Changed(changes),
            Self::Refuse(findings) => Reply::refused(group_by_pointer(
                findings
                    .into_iter()
                    .flat_map(|finding| form.place(finding.field.as_ref(), finding.message))
                    .collect(),
            )),
        }
    }
}
