//! Interprets the answer to one question: refused, accepted, or unavailable.

use super::{Check, Condition, Kind};
use crate::expression::{EvaluationError, Variables};
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

/// An expression that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The key of the expression in the settings of the check, such as `refuse[0].when`.
    pub setting: String,
    /// The cause.
    pub error: EvaluationError,
}

impl Failure {
    /// The failure of the expression at this key.
    #[must_use]
    pub fn new(setting: impl Into<String>, error: EvaluationError) -> Self {
        Self {
            setting: setting.into(),
            error,
        }
    }
}

/// Interprets an answer with this status. `variables.response` is the answer. See [`Steps`] for the order.
#[must_use]
pub fn interpret(check: &Check, status: u16, variables: &Variables<'_>) -> Interpretation {
    let steps = match Steps::take(check, Some(status), variables) {
        Ok(steps) => steps,
        Err(decided) => return decided,
    };
    match (steps.accepted, steps.failed_refusal) {
        (Ok(true), None) => Interpretation::Accepted,
        (Ok(true), Some(failed)) => failed_on(status, &failed),
        (_, _) if (400..500).contains(&status) => unavailable(
            Kind::RejectedQuestion,
            format!("neither refused nor accepted, status {status}"),
        ),
        (Err(failed), _) | (Ok(false), Some(failed)) => failed_on(status, &failed),
        (Ok(false), None) => unavailable(
            Kind::UnexpectedAnswer,
            format!("neither refused nor accepted, status {status}"),
        ),
    }
}

/// Decides about a check that asks no service, in the same order. An error if an expression failed and no entry of
/// `refuse` is true.
pub fn decide(check: &Check, variables: &Variables<'_>) -> Result<Interpretation, Failure> {
    let steps = match Steps::take(check, None, variables) {
        Ok(steps) => steps,
        Err(decided) => return Ok(decided),
    };
    if let Some(failed) = steps.failed_declaration.or(steps.failed_refusal) {
        return Err(failed);
    }
    if steps.accepted? {
        Ok(Interpretation::Accepted)
    } else {
        Ok(unavailable(
            Kind::UnexpectedAnswer,
            "neither refused nor accepted",
        ))
    }
}

/// The steps of an interpretation, none of which has decided: unavailable by `on_unavailable.when`, refused by an entry
/// of `refuse`, unavailable by the status, accepted by `accept`.
///
/// An expression that fails decides nothing by itself. But an answer on which an entry of `refuse` has failed is never
/// accepted, because that entry might have refused it.
struct Steps {
    failed_declaration: Option<Failure>,
    failed_refusal: Option<Failure>,
    accepted: Result<bool, Failure>,
}

impl Steps {
    /// Takes the steps in order. `Err` is the interpretation of the step that has decided.
    fn take(
        check: &Check,
        status: Option<u16>,
        variables: &Variables<'_>,
    ) -> Result<Self, Interpretation> {
        let when = check.on_unavailable.when.as_ref();
        let declared = when.map_or(Ok(false), |when| when.holds(variables));
        if declared == Ok(true) {
            return Err(unavailable(Kind::Declared, "`on_unavailable.when` is true"));
        }
        let refusal = refusal(check, status, variables);
        if let Ok(Some(index)) = refusal {
            return Err(Interpretation::Refused(index));
        }
        if let Some(status) = status
            && let Some(kind) = kind_of(status)
        {
            return Err(unavailable(kind, format!("status {status}")));
        }
        Ok(Self {
            failed_declaration: declared
                .err()
                .map(|error| Failure::new("on_unavailable.when", error)),
            failed_refusal: refusal.err(),
            accepted: accepted(check, status, variables),
        })
    }
}

/// The entry of `refuse` that decides: the first that variables the status, else the first whose expression is true. If
/// no entry decides and one failed, the result is `Err` with the first failure.
fn refusal(
    check: &Check,
    status: Option<u16>,
    variables: &Variables<'_>,
) -> Result<Option<usize>, Failure> {
    let entries = || check.refuse.iter().enumerate();
    let by_status = entries().find(
        |(_, entry)| matches!(entry.when, Condition::Status(number) if Some(number) == status),
    );
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
                failed.get_or_insert(Failure::new(format!("refuse[{index}].when"), error));
            }
        }
    }
    failed.map_or(Ok(None), Err)
}

/// Whether `accept` holds. Without `accept`, a status 2xx is an acceptance, and so is a check without a question.
fn accepted(
    check: &Check,
    status: Option<u16>,
    variables: &Variables<'_>,
) -> Result<bool, Failure> {
    match &check.accept {
        Some(Condition::Status(number)) => Ok(Some(*number) == status),
        Some(Condition::Expression(accept)) => accept
            .holds(variables)
            .map_err(|error| Failure::new("accept", error)),
        None => Ok(status.is_none_or(|status| (200..300).contains(&status))),
    }
}

/// The kind of a status that neither `on_unavailable.when` nor `refuse` covers, whatever `accept` says.
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

/// The interpretation of an answer on which an expression failed. If the expression failed on what the visitor sent, the
/// answer is as expected, and no later answer helps.
fn failed_on(status: u16, Failure { setting, error }: &Failure) -> Interpretation {
    let because = format!("`{setting}`, status {status}: {error}");
    let kind = if error.missing_input {
        Kind::Expression
    } else {
        Kind::UnexpectedAnswer
    };
    unavailable(kind, because)
}

fn unavailable(kind: Kind, because: impl Into<String>) -> Interpretation {
    Interpretation::Unavailable(kind, because.into())
}

/// The interpretation of a call without an answer.
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
