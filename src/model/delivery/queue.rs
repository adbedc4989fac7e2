//! Where a delivery waits: by its plan, or by what else it is that must not be lost.

use std::fmt;

/// What a delivery's `plan` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queue<'a> {
    /// A plan of the settings; stored by its bare name.
    Subscription(&'a str),
    /// What a plan or a check writes into identities: `save:crm_contact`.
    WriteBack(&'a str),
    /// The questions of a deferred check: `check:vat_number`.
    Check(&'a str),
    /// The reservations of a check that are taken again, because the account was found after their release: `take:invite`.
    Take(&'a str),
    /// The confirmations of a check's reservations: `confirm:invite`.
    Confirm(&'a str),
    /// The releases of a check's reservations: `release:invite`.
    Release(&'a str),
    /// The deactivations of accounts that a check refused late: `late-refusal:vat_number`.
    LateRefusal(&'a str),
}

impl<'a> Queue<'a> {
    /// Reads what [`fmt::Display`] wrote. No name in the settings holds a colon.
    #[must_use]
    pub fn named(text: &'a str) -> Self {
        match text.split_once(':') {
            Some(("save", name)) => Self::WriteBack(name),
            Some(("check", name)) => Self::Check(name),
            Some(("take", name)) => Self::Take(name),
            Some(("confirm", name)) => Self::Confirm(name),
            Some(("release", name)) => Self::Release(name),
            Some(("late-refusal", name)) => Self::LateRefusal(name),
            _ => Self::Subscription(text),
        }
    }
}

impl fmt::Display for Queue<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscription(name) => formatter.write_str(name),
            Self::WriteBack(name) => write!(formatter, "save:{name}"),
            Self::Check(name) => write!(formatter, "check:{name}"),
            Self::Take(name) => write!(formatter, "take:{name}"),
            Self::Confirm(name) => write!(formatter, "confirm:{name}"),
            Self::Release(name) => write!(formatter, "release:{name}"),
            Self::LateRefusal(name) => write!(formatter, "late-refusal:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for queue in [
            Queue::Subscription("crm"),
            Queue::WriteBack("crm"),
            Queue::Check("vat"),
            Queue::Take("invite"),
            Queue::Confirm("invite"),
            Queue::Release("invite"),
        ] {
            assert_eq!(Queue::named(&queue.to_string()), queue);
        }
    }
}
