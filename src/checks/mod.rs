//! `Checks::judge(payload) -> Verdict`: all checks side by side under one deadline.

pub mod account_lookup;
pub mod activity;
pub mod deferred;
mod evaluate;
pub mod follow_up;
pub mod interpret;
pub mod messages;
pub mod reads;
pub mod refused_identities;
pub mod reserve;
mod reserver;
pub mod rule;
pub mod set;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::expression::{EvaluationError, Expression, JsonTemplate, Variable, Variables};
use crate::kratos::{Field, Flow};
use crate::model::delivery::Event;
use crate::model::message::MessageTemplate;
use crate::model::request;

pub use crate::model::late_refusal::OnLateRefusal;
pub use evaluate::{CheckInput, Checks, DeferredCheck, Judgement, OpenDeferrals};
pub use messages::{BuiltinMessages, MessageCatalog, MessageRenderer};
pub use reads::Reads;
pub use reserver::ReservationDeps;

/// One check as the settings describe it.
#[derive(Clone, Debug)]
pub struct Check {
    /// How settings, logs and metrics name it.
    pub name: String,
    /// The flows in which it runs.
    pub flows: Vec<Flow>,
    /// The field it is about.
    pub field: Option<Field>,
    /// Whether an absent field is refused.
    pub required: bool,
    /// Narrows when it runs.
    pub when: Option<Expression>,
    /// The question, if one is asked.
    pub ask: Option<request::RequestTemplate>,
    /// What is taken for the flow, in place of a question.
    pub reserve: Option<Reserve>,
    /// What happens when there is no usable answer.
    pub on_unavailable: OnUnavailable,
    /// What happens if it refuses when the account is there already. `None`: as [`Check::on_late_refusal`] says.
    pub on_late_refusal: Option<OnLateRefusal>,
    /// What happens if a deferred question has no answer in time.
    pub on_expiry: OnExpiry,
    /// Reasons to refuse, in order.
    pub refuse: Vec<Refusal>,
    /// What makes an answer a yes; by default a 2xx.
    pub accept: Option<Condition>,
    /// The words for a value that no question can be made of, or that the service rejects as a question; by default the
    /// built-in `not_valid`.
    pub invalid_message: Option<Arc<MessageTemplate>>,
    /// What is written into the identity when it accepts.
    pub set: Vec<Set>,
    /// Whether it decides, or only watches.
    pub mode: Mode,
    /// Checks that must have accepted before it runs.
    pub after: Vec<String>,
}

/// `reserve:`
#[derive(Clone, Debug)]
pub struct Reserve {
    /// Takes it; its answer is judged as that of a question.
    pub take: request::RequestTemplate,
    /// Tells the service that the account exists.
    pub confirm: Option<request::RequestTemplate>,
    /// Gives it back.
    pub release: request::RequestTemplate,
}

/// What happens when a deferred question is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnExpiry {
    /// The question is kept as a dead letter, and the mark stays in the identity.
    #[default]
    Keep,
    /// The check refuses late.
    Refuse,
    /// The check accepts, and the mark is removed.
    Accept,
}

/// One entry of `refuse`.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// When it holds.
    pub when: Condition,
    /// The words; by default the built-in `not_valid`.
    pub message: Option<Arc<MessageTemplate>>,
}

/// An expression, or a status number.
#[derive(Clone, Debug)]
pub enum Condition {
    /// The answer has this status.
    Status(u16),
    /// The expression is true.
    Expression(Expression),
}

impl Condition {
    /// The expression, unless it is a status.
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
    /// Its outcome counts.
    Enforce,
    /// Its outcome is only recorded.
    Observe,
}

/// What an unavailable service means, kind by kind.
#[derive(Clone, Debug, Default)]
pub struct OnUnavailable {
    /// An answer for which this holds is none (`declared`).
    pub when: Option<Expression>,
    /// What the operator chose for a kind by name.
    pub chosen: BTreeMap<Kind, Policy>,
    /// `default:`, for what the service did.
    pub default: Policy,
}

/// In what way there was no usable answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Not in time.
    Timeout,
    /// Not reached, or cut off.
    Connection,
    /// A 5xx.
    Status5xx,
    /// A 429.
    RateLimited,
    /// A 401 or 407: the service does not take Vestibule's credentials.
    RejectedCredentials,
    /// `on_unavailable.when` holds.
    Declared,
    /// A 4xx that the settings do not name. A gateway or a firewall answers so to a value that the visitor chose.
    RejectedQuestion,
    /// Neither refused nor accepted, or an expression failed on it.
    UnexpectedAnswer,
    /// The question could not be built, or an expression failed without an answer.
    Expression,
    /// What must be written down before the answer could not be.
    NotStored,
}

impl Kind {
    /// As the settings, logs and metrics write it.
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
    /// What the operator chose for this kind. What `default` does not cover is refused unless it is named.
    ///
    /// With `accept`, `default` covers what only the service or the network can bring about; with `defer`, the question is
    /// asked again, so that it covers more. A visitor chooses the value that makes a gateway answer 400 or an expression fail,
    /// so neither covers that.
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
    /// The checks that must be done before this one begins: named by `after`, or read as `checks.<name>`.
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

    /// The checks whose response it reads.
    #[must_use]
    pub fn checks_read(&self) -> Vec<String> {
        Reads::of(self).checks
    }

    /// Whether it asks nobody and has no loop, so that it takes some microseconds whatever the person sent.
    #[must_use]
    pub fn is_quick(&self) -> bool {
        self.asks().is_none() && !self.expressions().into_iter().any(Expression::loops)
    }

    /// What is put to a service: a question, or taking something.
    #[must_use]
    pub fn asks(&self) -> Option<&request::RequestTemplate> {
        self.ask
            .as_ref()
            .or_else(|| self.reserve.as_ref().map(|reserve| &reserve.take))
    }

    /// Whether it may pass without an answer, to be asked again.
    #[must_use]
    pub fn defers(&self) -> bool {
        self.on_unavailable.default == Policy::Defer
            || self
                .on_unavailable
                .chosen
                .values()
                .any(|policy| *policy == Policy::Defer)
    }

    /// Whether the check can have run for this sign-up: its field is there, and its condition holds or cannot be evaluated.
    #[must_use]
    pub fn could_apply(&self, names: &Variables<'_>) -> bool {
        let nobody = serde_json::Value::Null;
        let identity = names.identity.unwrap_or(&nobody);
        let value = self.field.as_ref().map(|field| field.value_in(identity));
        let is_absent =
            value.is_some_and(|value| value.is_none_or(crate::kratos::field::is_absent));
        let names = Variables {
            value: value.flatten(),
            ..*names
        };
        !is_absent
            && self
                .when
                .as_ref()
                .is_none_or(|when| when.holds(&names).unwrap_or(true))
    }

    /// What a late refusal of this check does. Without a choice of the operator, an account that should not have been created is
    /// deactivated, and a change in settings is only marked.
    #[must_use]
    pub fn on_late_refusal(&self, event: Event) -> OnLateRefusal {
        self.on_late_refusal.unwrap_or(match event {
            Event::IdentityCreated => OnLateRefusal::Deactivate,
            _ => OnLateRefusal::Mark,
        })
    }

    /// Whether it can refuse an account that exists: its question was deferred, or its reservation is taken again.
    #[must_use]
    pub fn can_refuse_late(&self) -> bool {
        self.defers() || self.reserve.is_some()
    }

    /// Whether a late refusal of this check can deactivate an account.
    #[must_use]
    pub fn can_deactivate(&self) -> bool {
        self.can_refuse_late()
            && match self.on_late_refusal {
                Some(chosen) => chosen == OnLateRefusal::Deactivate,
                None => self.flows.contains(&Flow::Registration),
            }
    }

    /// The other checks whose answers are read together with its own.
    #[must_use]
    pub fn reads_late(&self) -> Vec<String> {
        self.read_with_the_answer()
            .into_iter()
            .flat_map(Expression::checks_read)
            .cloned()
            .collect()
    }

    /// Every expression that is ever evaluated for it, those of `reserve` included.
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

    /// Whether one of its expressions, those of `reserve` included, reads a name that begins with this root.
    #[must_use]
    pub fn reads(&self, root: Variable) -> bool {
        self.everything_read()
            .into_iter()
            .any(|one| one.reads(root))
    }

    /// An error if something that is put into a text, or used as one, is a list or an object. `when` and the messages are left
    /// out: `when` may be about just that, and a message has other words to fall back on.
    pub fn expects_texts(&self, names: &Variables<'_>) -> Result<(), EvaluationError> {
        let reserve = self.reserve.iter().flat_map(|reserve| {
            let confirm = reserve.confirm.iter();
            confirm.chain([&reserve.take, &reserve.release])
        });
        let mut requests = self.ask.iter().chain(reserve);
        requests.try_for_each(|plan| plan.expects_texts(names))?;
        let conditions = self.refuse.iter().map(|refusal| &refusal.when);
        let mut conditions = conditions
            .chain(&self.accept)
            .filter_map(Condition::expression)
            .chain(&self.on_unavailable.when);
        conditions.try_for_each(|condition| condition.expects_texts(names))?;
        let mut set = self.set.iter();
        set.try_for_each(|set| set.value.expects_texts(names))
    }

    /// Every expression in it.
    fn expressions(&self) -> Vec<&Expression> {
        self.when
            .iter()
            .chain(
                self.invalid_message
                    .iter()
                    .flat_map(|wording| wording.expressions()),
            )
            .chain(
                self.asks()
                    .into_iter()
                    .flat_map(request::RequestTemplate::expressions),
            )
            .chain(self.read_with_the_answer())
            .collect()
    }

    /// The expressions that are evaluated on an answer.
    fn read_with_the_answer(&self) -> Vec<&Expression> {
        let conditions = self.refuse.iter().map(|refusal| &refusal.when);
        let conditions = conditions
            .chain(&self.accept)
            .filter_map(Condition::expression);
        let wordings = self.refuse.iter().filter_map(|one| one.message.as_ref());
        self.on_unavailable
            .when
            .iter()
            .chain(conditions)
            .chain(wordings.flat_map(|wording| wording.expressions()))
            .chain(self.set.iter().flat_map(|set| set.value.expressions()))
            .collect()
    }
}

/// What is done then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Policy {
    /// The person is told to try again later.
    #[default]
    Refuse,
    /// They pass, and it is counted.
    Accept,
    /// They pass, and the question is put again once the account exists.
    Defer,
}

impl Policy {
    /// As the settings and logs write it.
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
    /// `["traits", "company"]` or `["metadata_public", "company", "name"]`.
    pub path: Vec<String>,
    /// What is put there.
    pub value: JsonTemplate,
}

impl Set {
    /// The paths that it writes, each as far as the settings write it out.
    #[must_use]
    pub fn leaves(&self) -> Vec<Vec<String>> {
        self.value.leaves(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_covers_no_kind_that_a_visitor_can_bring_about() {
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
