//! One question put to a service: refused, accepted, or unavailable.

use crate::expression::{EvaluationError, Names};
use crate::service::client::NoAnswer;

use super::{Check, Condition, Kind};

/// What an exchange came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// The answer is a yes.
    Accepted,
    /// This entry of `refuse` holds.
    Refused(usize),
    /// No usable answer.
    Unavailable(Kind, String),
}

/// Reads an answer in the order of design §3: unavailable, refused, accepted, else unavailable.
/// `names.response` is the answer.
#[must_use]
pub fn conclude(check: &Check, status: u16, names: &Names<'_>) -> Conclusion {
    let refuses = |number: u16| {
        check
            .refuse
            .iter()
            .any(|refusal| matches!(refusal.when, Condition::Status(status) if status == number))
    };
    if !refuses(status) {
        if status == 429 {
            return Conclusion::Unavailable(Kind::RateLimited, "status 429".to_owned());
        }
        if (500..600).contains(&status) {
            return Conclusion::Unavailable(Kind::Status5xx, format!("status {status}"));
        }
    }
    match read(check, status, names) {
        Ok(conclusion) => conclusion,
        Err((place, error)) => Conclusion::Unavailable(
            Kind::UnexpectedAnswer,
            format!("`{place}`, status {status}: {error}"),
        ),
    }
}

fn read(
    check: &Check,
    status: u16,
    names: &Names<'_>,
) -> Result<Conclusion, (String, EvaluationError)> {
    if let Some(when) = &check.unavailable.when
        && when
            .holds(names)
            .map_err(|error| ("unavailable.when".to_owned(), error))?
    {
        return Ok(Conclusion::Unavailable(
            Kind::Declared,
            "`unavailable.when` holds".to_owned(),
        ));
    }
    for (index, refusal) in check.refuse.iter().enumerate() {
        if holds(&refusal.when, status, names)
            .map_err(|error| (format!("refuse[{index}].when"), error))?
        {
            return Ok(Conclusion::Refused(index));
        }
    }
    let accepted = match &check.accept {
        None => (200..300).contains(&status),
        Some(accept) => {
            holds(accept, status, names).map_err(|error| ("accept".to_owned(), error))?
        }
    };
    Ok(if accepted {
        Conclusion::Accepted
    } else {
        Conclusion::Unavailable(
            Kind::UnexpectedAnswer,
            format!("neither refused nor accepted, status {status}"),
        )
    })
}

fn holds(condition: &Condition, status: u16, names: &Names<'_>) -> Result<bool, EvaluationError> {
    match condition {
        Condition::Status(number) => Ok(*number == status),
        Condition::Expression(expression) => expression.holds(names),
    }
}

/// What no answer at all comes to.
#[must_use]
pub fn without_answer(none: NoAnswer) -> Conclusion {
    let kind = match none {
        NoAnswer::Timeout => Kind::Timeout,
        NoAnswer::Connection | NoAnswer::ForbiddenAddress | NoAnswer::UnknownService => {
            Kind::Connection
        }
        NoAnswer::TooLarge => Kind::UnexpectedAnswer,
    };
    Conclusion::Unavailable(kind, none.to_string())
}
