//! The rules, and their evaluation: [`Evaluator::evaluate`] runs all checks of a sign-up in parallel under one deadline,
//! and returns a verdict.

mod absent;
pub mod account_lookup;
pub mod activity;
pub mod deferred;
mod evaluate;
pub mod follow_up;
pub mod interpret;
pub mod messages;
pub mod observe;
pub mod reads;
pub mod refused_identities;
pub mod reserve;
pub mod reserver;
pub mod rule;
mod rules;
pub mod set;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::expression::{EvaluationError, Expression, JsonTemplate, Variable, Variables};
use crate::kratos::{Field, Flow};
use crate::model::delivery::Event;
use crate::model::message::MessageTemplate;
use crate::model::request;

pub use crate::model::late_refusal::OnLateRefusal;
pub use absent::Absent;
pub use evaluate::{
    AskService, CheckInput, DeferredCheck, Evaluated, Evaluator, OpenDeferrals, response_in,
};
pub use messages::{BuiltinMessages, MessageCatalog, MessageRenderer};
pub use reads::Reads;
pub use reserver::Reserver;
pub use rules::Rules;

/// One check, as in the settings.
#[derive(Clone, Debug)]
pub struct Check {
    /// The check's name in settings, logs and metrics.
    pub name: String,
    /// The flows in which the check runs.
    pub flows: Vec<Flow>,
    /// The field that the check is about.
    pub field: Option<Field>,
    /// What an absent field means.
    pub absent: Absent,
    /// The condition of `required: "<expression>"`. An absent field is refused if the condition is true or fails.
    pub required_if: Option<Expression>,
    /// Whether a value that was present can be neither changed nor removed in settings.
    pub immutable: bool,
    /// The condition under which the check applies. Everything below it, `absent`, `required_if` and `immutable`
    /// included, counts only if it is true.
    pub when: Option<Expression>,
    /// The question to a service, if the check asks one.
    pub ask: Option<request::RequestTemplate>,
    /// What the check reserves for the flow, in place of a question.
    pub reserve: Option<Reserve>,
    /// What happens if there is no usable answer.
    pub on_unavailable: OnUnavailable,
    /// What happens if the check refuses after the account was created. `None`: the default of
    /// [`Check::on_late_refusal`].
    pub on_late_refusal: Option<OnLateRefusal>,
    /// What happens if a deferred check expires without a usable answer.
    pub on_expiry: OnExpiry,
    /// Reasons to refuse, in order.
    pub refuse: Vec<Refusal>,
    /// The condition under which an answer is an acceptance; by default a status 2xx.
    pub accept: Option<Condition>,
    /// The message for a value on which an expression fails, or that makes the service reject the request. The default
    /// is the built-in `not_valid`.
    pub invalid_message: Option<Arc<MessageTemplate>>,
    /// What Vestibule writes into the identity if the check accepts.
    pub set: Vec<Set>,
    /// Whether the check decides, or only observes.
    pub mode: Mode,
    /// Checks that must have accepted before this check runs.
    pub after: Vec<String>,
}

/// The entry `reserve` of a check.
#[derive(Clone, Debug)]
pub struct Reserve {
    /// The request that takes the reservation. Vestibule evaluates its answer like that of a question.
    pub take: request::RequestTemplate,
    /// The request that notifies the service that the account exists.
    pub confirm: Option<request::RequestTemplate>,
    /// The request that releases the reservation.
    pub release: request::RequestTemplate,
}

/// What happens if a deferred check expires without a usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnExpiry {
    /// The question is kept as a dead letter, and the mark stays in the identity.
    #[default]
    Keep,
    /// The check refuses late.
    Refuse,
    /// The check accepts, and Vestibule removes the mark.
    Accept,
}

/// One entry of `refuse`.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The condition under which the entry refuses.
    pub when: Condition,
    /// The message; by default the built-in `not_valid`.
    pub message: Option<Arc<MessageTemplate>>,
}

/// A condition: an expression, or a status.
#[derive(Clone, Debug)]
pub enum Condition {
    /// The answer has this status.
    Status(u16),
    /// The expression is true.
    Expression(Expression),
}

impl Condition {
    /// Returns the expression, unless the condition is a status.
    fn expression(&self) -> Option<&Expression> {
        match self {
            Self::Expression(expression) => Some(expression),
            Self::Status(_) => None,
        }
    }
}

/// Whether a check decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The outcome of the check counts.
    Enforce,
    /// Vestibule only records the outcome of the check.
    Observe,
}

/// What happens if a service is unavailable, for each kind.
#[derive(Clone, Debug, Default)]
pub struct OnUnavailable {
    /// Vestibule treats an answer as unavailable if this expression is true (`declared`).
    pub when: Option<Expression>,
    /// The policies that the settings name for single kinds.
    pub chosen: BTreeMap<Kind, Policy>,
    /// The key `default`: the policy for what the service caused.
    pub default: Policy,
}

/// Why there was no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The answer did not arrive in time.
    Timeout,
    /// The service was not reached, or the connection was cut off.
    Connection,
    /// Status 5xx.
    Status5xx,
    /// Status 429.
    RateLimited,
    /// Status 401 or 407: the service rejects Vestibule's credentials.
    RejectedCredentials,
    /// The expression `on_unavailable.when` is true.
    Declared,
    /// A status 4xx that the settings do not name. A gateway or a firewall answers so to a value that the visitor
    /// chose.
    RejectedQuestion,
    /// The answer is neither refused nor accepted, or an expression failed on the answer.
    UnexpectedAnswer,
    /// The question could not be built, or an expression failed without an answer or on what the visitor sent.
    Expression,
    /// A deferred check or a reservation could not be stored before the response.
    NotStored,
}

impl Kind {
    /// Returns the name of this kind in settings, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Status5xx => "status_5xx",
            Self::RateLimited => "rate_limited",
            Self::RejectedCredentials => "rejected_credentials",
            Self::RejectedQuestion => "rejected_question",
            Self::Declared => "declared",
            Self::UnexpectedAnswer => "unexpected_answer",
            Self::Expression => "expression",
            Self::NotStored => "not_stored",
        }
    }
}

impl OnUnavailable {
    /// Returns the policy for this kind. If the settings do not name a kind that `default` does not cover, Vestibule
    /// refuses.
    ///
    /// With `accept`, `default` covers what only the service or the network can cause. With `defer`, Vestibule repeats
    /// the question, so `default` covers more. A visitor chooses the value to which a gateway answers 400, or
    /// on which an expression fails. So neither policy covers these kinds.
    #[must_use]
    pub fn policy(&self, kind: Kind) -> Policy {
        if let Some(policy) = self.chosen.get(&kind) {
            return *policy;
        }
        let only_if_named = matches!(
            kind,
            Kind::RejectedQuestion | Kind::Expression | Kind::NotStored
        );
        let not_by_accept = matches!(kind, Kind::RateLimited | Kind::UnexpectedAnswer);
        if only_if_named || (not_by_accept && self.default == Policy::Accept) {
            Policy::Refuse
        } else {
            self.default
        }
    }
}

impl Check {
    /// Returns the checks that must be finished before this check starts: those in `after`, and those read as
    /// `checks.<name>`.
    #[must_use]
    pub fn waits_for(&self) -> Vec<String> {
        let read = self
            .expressions()
            .into_iter()
            .flat_map(Expression::checks_read);
        let mut names: Vec<String> = self.after.iter().chain(read).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// Returns the checks whose response this check reads.
    #[must_use]
    pub fn checks_read(&self) -> Vec<String> {
        Reads::of(self).checks
    }

    /// Returns whether the check asks no service and has no loop. Such a check needs only microseconds for a short input.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        self.asks().is_none() && !self.expressions().into_iter().any(Expression::loops)
    }

    /// Returns the request that the check sends to a service: its question, or the `take` of its reservation.
    #[must_use]
    pub fn asks(&self) -> Option<&request::RequestTemplate> {
        self.ask
            .as_ref()
            .or_else(|| self.reserve.as_ref().map(|reserve| &reserve.take))
    }

    /// Returns whether the check can be deferred.
    #[must_use]
    pub fn defers(&self) -> bool {
        self.on_unavailable.default == Policy::Defer
            || self
                .on_unavailable
                .chosen
                .values()
                .any(|policy| *policy == Policy::Defer)
    }

    /// Returns whether an entry of `refuse` names this status.
    #[must_use]
    pub fn refuses_status(&self, status: u16) -> bool {
        let is_named =
            |entry: &Refusal| matches!(entry.when, Condition::Status(number) if number == status);
        self.refuse.iter().any(is_named)
    }

    /// Returns what a late refusal of this check does. Without a choice of the operator, Vestibule deactivates an
    /// account that should not have been created. A change in settings is only marked.
    #[must_use]
    pub fn on_late_refusal(&self, event: Event) -> OnLateRefusal {
        self.on_late_refusal.unwrap_or(match event {
            Event::IdentityCreated => OnLateRefusal::Deactivate,
            _ => OnLateRefusal::Mark,
        })
    }

    /// Returns whether the check can refuse an existing account: it defers, or its reservation can be taken again.
    #[must_use]
    pub fn can_refuse_late(&self) -> bool {
        self.defers() || self.reserve.is_some()
    }

    /// Returns whether a late refusal of this check can deactivate an account.
    #[must_use]
    pub fn can_deactivate(&self) -> bool {
        self.can_refuse_late()
            && match self.on_late_refusal {
                Some(chosen) => chosen == OnLateRefusal::Deactivate,
                None => self.flows.contains(&Flow::Registration),
            }
    }

    /// Returns the other checks whose answers are read together with the check's own answer.
    #[must_use]
    pub fn reads_late(&self) -> Vec<String> {
        self.read_with_the_answer()
            .into_iter()
            .flat_map(Expression::checks_read)
            .cloned()
            .collect()
    }

    /// Returns every expression that is ever evaluated for the check, including those of `reserve`.
    fn everything_read(&self) -> Vec<&Expression> {
        let afterwards = self.reserve.iter().flat_map(|reserve| {
            let confirm = reserve.confirm.iter();
            confirm.chain([&reserve.release])
        });
        self.expressions()
            .into_iter()
            .chain(afterwards.flat_map(request::RequestTemplate::expressions))
            .collect()
    }

    /// Returns whether an expression of the check, including those of `reserve`, reads this variable.
    #[must_use]
    pub fn reads(&self, root: Variable) -> bool {
        self.everything_read()
            .into_iter()
            .any(|one| one.reads(root))
    }

    /// Returns an error if the check uses a list or an object where a text is expected. `when` is excluded, because its
    /// expression may test for a list or an object. Messages are excluded, because a message has a fallback.
    pub fn expects_texts(&self, variables: &Variables<'_>) -> Result<(), EvaluationError> {
        let reserve = self.reserve.iter().flat_map(|reserve| {
            let confirm = reserve.confirm.iter();
            confirm.chain([&reserve.take, &reserve.release])
        });
        let mut requests = self.ask.iter().chain(reserve);
        requests.try_for_each(|request| request.expects_texts(variables))?;
        let conditions = self.refuse.iter().map(|refusal| &refusal.when);
        let mut conditions = conditions
            .chain(&self.accept)
            .filter_map(Condition::expression)
            .chain(&self.on_unavailable.when);
        conditions.try_for_each(|condition| condition.expects_texts(variables))?;
        let mut set = self.set.iter();
        set.try_for_each(|set| set.value.expects_texts(variables))
    }

    /// Returns every expression that is evaluated for the check during a sign-up.
    fn expressions(&self) -> Vec<&Expression> {
        self.when
            .iter()
            .chain(&self.required_if)
            .chain(
                self.invalid_message
                    .iter()
                    .flat_map(|message| message.expressions()),
            )
            .chain(
                self.asks()
                    .into_iter()
                    .flat_map(request::RequestTemplate::expressions),
            )
            .chain(self.read_with_the_answer())
            .collect()
    }

    /// Returns the conditions of the check: `when`, and the expressions of `refuse`.
    pub fn conditions(&self) -> impl Iterator<Item = &Expression> {
        let refuse = self.refuse.iter().map(|refusal| &refusal.when);
        self.when
            .iter()
            .chain(refuse.filter_map(Condition::expression))
    }

    /// Returns the expressions that are evaluated on an answer.
    fn read_with_the_answer(&self) -> Vec<&Expression> {
        let conditions = self.refuse.iter().map(|refusal| &refusal.when);
        let conditions = conditions
            .chain(&self.accept)
            .filter_map(Condition::expression);
        let messages = self.refuse.iter().filter_map(|one| one.message.as_ref());
        self.on_unavailable
            .when
            .iter()
            .chain(conditions)
            .chain(messages.flat_map(|message| message.expressions()))
            .chain(self.set.iter().flat_map(|set| set.value.expressions()))
            .collect()
    }
}

/// What happens if there is no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// Vestibule refuses the sign-up, and asks the visitor to try again later.
    #[default]
    Refuse,
    /// The sign-up passes, and Vestibule counts it.
    Accept,
    /// The sign-up passes, and Vestibule repeats the question once the account exists.
    Defer,
}

impl Policy {
    /// Returns the name of this policy in settings and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Accept => "accept",
            Self::Defer => "defer",
        }
    }
}

/// One entry of `set`.
#[derive(Clone, Debug)]
pub struct Set {
    /// The path of the value: `["traits", "company"]` or `["metadata_public", "company", "name"]`.
    pub path: Vec<String>,
    /// The value that is written there.
    pub value: JsonTemplate,
}

impl Set {
    /// Returns the paths that the entry writes, each down to the deepest key in the settings.
    #[must_use]
    pub fn leaves(&self) -> Vec<Vec<String>> {
        self.value.leaves(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_covers_no_kind_that_a_visitor_can_cause() {
        use Policy::{Accept, Defer, Refuse};
        for (kind, by_accept, by_defer) in [
            (Kind::Timeout, Accept, Defer),
            (Kind::Connection, Accept, Defer),
            (Kind::Status5xx, Accept, Defer),
            (Kind::RejectedCredentials, Accept, Defer),
            (Kind::Declared, Accept, Defer),
            (Kind::RateLimited, Refuse, Defer),
            (Kind::UnexpectedAnswer, Refuse, Defer),
            (Kind::RejectedQuestion, Refuse, Refuse),
            (Kind::Expression, Refuse, Refuse),
            (Kind::NotStored, Refuse, Refuse),
        ] {
            for (default, expected) in [(Refuse, Refuse), (Accept, by_accept), (Defer, by_defer)] {
                let unavailable = OnUnavailable {
                    default,
                    ..OnUnavailable::default()
                };
                assert_eq!(unavailable.policy(kind), expected, "{kind:?} {default:?}");
                for chosen in [Refuse, Accept, Defer] {
                    let named = OnUnavailable {
                        chosen: BTreeMap::from([(kind, chosen)]),
                        ..unavailable.clone()
                    };
                    assert_eq!(named.policy(kind), chosen, "{kind:?}");
                }
            }
        }
    }
}
