//! Queues: the names under which deliveries are listed. A queue is a subscription, or other work that must not be
//! lost.

use std::fmt;

/// The queue of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Queue<'a> {
    /// A subscription of the settings. The queue has the name of the subscription.
    Subscription(&'a str),
    /// Writes into identities for a subscription or a check: `write-back:crm_contact`.
    WriteBack(&'a str),
    /// Questions of a deferred check: `deferred-check:vat_number`.
    DeferredCheck(&'a str),
    /// Reservations of a check that are taken again, because the account was found after their release: `take:invite`.
    Take(&'a str),
    /// Confirmations of a check's reservations: `confirm:invite`.
    Confirm(&'a str),
    /// Releases of a check's reservations: `release:invite`.
    Release(&'a str),
    /// Deactivations of accounts that a check refused late: `late-refusal:vat_number`.
    LateRefusal(&'a str),
}

impl<'a> Queue<'a> {
    /// Parses the output of [`fmt::Display`]. Names in the settings have no colon.
    #[must_use]
    pub fn named(text: &'a str) -> Self {
        match text.split_once(':') {
            Some(("write-back", name)) => Self::WriteBack(name),
            Some(("deferred-check", name)) => Self::DeferredCheck(name),
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
            Self::WriteBack(name) => write!(formatter, "write-back:{name}"),
            Self::DeferredCheck(name) => write!(formatter, "deferred-check:{name}"),
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
    fn a_queue_name_is_parsed_back() {
        for queue in [
            Queue::Subscription("crm"),
            Queue::WriteBack("crm"),
            Queue::DeferredCheck("vat"),
            Queue::Take("invite"),
            Queue::Confirm("invite"),
            Queue::Release("invite"),
        ] {
            assert_eq!(Queue::named(&queue.to_string()), queue);
        }
    }
}
