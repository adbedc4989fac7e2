//! Admit, admit with changes, or refuse with findings.

use serde_json::{Map, Value};

use crate::kratos::form::{Form, group_by_pointer};
use crate::kratos::{Field, Message, Reply};

/// The sum of the checks.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// Everything is as it should be.
    Admit,
    /// The same, and the identity is saved with these fields in place of what Kratos sent.
    AdmitWith(Map<String, Value>),
    /// At least one reason to refuse.
    Refuse(Vec<Finding>),
}

/// One reason to refuse.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What it is about; `None` means the sign-up as a whole.
    pub field: Option<Field>,
    /// What the person reads.
    pub message: Message,
}

impl Verdict {
    /// In one word, for logs and metrics.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Admit => "admitted",
            Self::AdmitWith(_) => "changed",
            Self::Refuse(_) => "refused",
        }
    }

    /// The same in the words that Kratos accepts, each message where this form shows it.
    #[must_use]
    pub fn into_reply(self, form: Form<'_>) -> Reply {
        match self {
            Self::Admit => Reply::Yes,
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
