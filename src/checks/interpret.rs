//! Interprets the answer to one question: refused, accepted, or unavailable.

use super::{Check, Condition, Kind};
use crate::expression::Variables;
use crate::outbound::services::client::CallError;

/// The interpretation of an answer, or of its absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interpretation {
    /// The answer is an acceptance.
    Accepted,
    /// This entry of `refuse` is true.
    Refused(usize),
    /// There is no usable answer.
    Unavailable(Kind, String),
}

/// Interprets an answer, `variables.response`: first `on_unavailable.when`, then `refuse`, then the status, then `accept`.
///
/// Each step is evaluated only if no step before it has decided. An entry of `refuse` that fails decides nothing by
/// itself. But an answer on which an entry has failed is never accepted, because that entry might have refused it.
#[must_use]
pub fn interpret(check: &Check, status: u16, variables: &Variables<'_>) -> Interpretation {
    let declared = check.on_unavailable.when.as_ref();
    if declared.is_some_and(|when| when.holds(variables) == Ok(true)) {
        return unavailable(Kind::Declared, "`on_unavailable.when` is true");
    }
    let refusal = refusal(check, status, variables);
    if let Ok(Some(index)) = refusal {
        return Interpretation::Refused(index);
    }
    if let Some(kind) = kind_of(status) {
        return unavailable(kind, format!("status {status}"));
    }
    let accepted = match &check.accept {
        Some(Condition::Status(number)) => Ok(*number == status),
        Some(Condition::Expression(accept)) => accept
            .holds(variables)
            .map_err(|error| format!("`accept`, status {status}: {error}")),
        None => Ok((200..300).contains(&status)),
    };
    match (accepted, refusal) {
        (Ok(true), Ok(_)) => Interpretation::Accepted,
        (Ok(true), Err(failed)) => unavailable(Kind::UnexpectedAnswer, failed),
        (_, _) if (400..500).contains(&status) => unavailable(
            Kind::RejectedQuestion,
            format!("neither refused nor accepted, status {status}"),
        ),
        (Err(failed), _) | (Ok(false), Err(failed)) => unavailable(Kind::UnexpectedAnswer, failed),
        (Ok(false), Ok(_)) => unavailable(
            Kind::UnexpectedAnswer,
            format!("neither refused nor accepted, status {status}"),
        ),
    }
}

/// Returns the entry of `refuse` that decides: the first that names the status, else the first whose expression is
/// true. If no entry decides and one failed, the result is `Err` with the first failure.
fn refusal(check: &Check, status: u16, variables: &Variables<'_>) -> Result<Option<usize>, String> {
    let entries = || check.refuse.iter().enumerate();
    let by_status = entries()
        .find(|(_, entry)| matches!(entry.when, Condition::Status(number) if number == status));
    if let Some((index, _)) = by_status {
        return Ok(Some(index));
    }
    let mut failed = None;
    for (index, entry) in entries() {
        let Condition::Expression(when) = &entry.when else {
            continue;
        };
        match when.holds(variables) {
            Ok(true) => return Ok(Some(index)),
            Ok(false) => {}
            Err(error) => {
                failed.get_or_insert(format!("`refuse[{index}].when`, status {status}: {error}"));
            }
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Returns the kind of a status that neither `on_unavailable.when` nor `refuse` covers, whatever `accept` says.
fn kind_of(status: u16) -> Option<Kind> {
    match status {
        401 | 407 => Some(Kind::RejectedCredentials),
        408 => Some(Kind::Timeout),
        425 => Some(Kind::Connection),
        429 => Some(Kind::RateLimited),
        500..600 => Some(Kind::Status5xx),
        _ => None,
    }
}

fn unavailable(kind: Kind, because: impl Into<String>) -> Interpretation {
    Interpretation::Unavailable(kind, because.into())
}

/// Returns the interpretation of a call without an answer.
#[must_use]
pub fn without_answer(none: CallError) -> Interpretation {
    let kind = match none {
        CallError::Timeout => Kind::Timeout,
        CallError::Connection | CallError::ForbiddenAddress | CallError::UnknownService => {
            Kind::Connection
        }
        CallError::TooLarge => Kind::UnexpectedAnswer,
    };
    unavailable(kind, none.to_string())
}
