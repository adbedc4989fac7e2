//! Warns about an `accept` without `refuse`: what it does not accept counts as unavailable, and is not refused.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{Cursor, Resolver};
use crate::base::clock::Timestamp;
use crate::checks::{Check, Condition, Kind, Mode};
use crate::expression::{Expression, Lists, Variable, Variables};

/// The response of a service that has found what it was asked for.
static FOUND: LazyLock<Value> = LazyLock::new(|| json!({"status": 200, "headers": {}, "body": {}}));

impl<'a> Resolver<'a> {
    pub(super) fn warn_about_acceptance(&mut self, check: &Check, cursor: &Cursor<'a>) {
        let names_the_kind = check
            .on_unavailable
            .chosen
            .contains_key(&Kind::UnexpectedAnswer);
        let asks = check.ask.is_some() || check.reserve.is_some();
        if !asks || !check.refuse.is_empty() || names_the_kind || check.mode == Mode::Observe {
            return;
        }
        let refuse = match &check.accept {
            Some(Condition::Status(status)) if !(200..300).contains(status) => {
                "write `refuse: [{when: 200}]` for the response that means \"no\"".to_owned()
            }
            Some(Condition::Expression(expression)) if is_verdict(expression, &self.lists) => {
                "write `refuse: [{when: \"…\"}]` for the response that means \"no\", as in `refuse: [{when: \"!response.body.valid\"}]`"
                    .to_owned()
            }
            _ => return,
        };
        self.warn(
            &cursor.key("accept"),
            "a response that is not accepted counts as unavailable, so nothing is ever refused: the visitor is asked to try again, or \
             is admitted by `on_unavailable`",
            refuse,
        );
    }
}

/// Returns whether the expression distinguishes "yes" from "no", and not a usable response from another one.
fn is_verdict(expression: &Expression, lists: &Lists) -> bool {
    let source = expression.source();
    let mut read = expression.values_of(Variable::Response);
    if read.any(|path| path.first_name() == Some("body")) {
        return !source.contains("type(");
    }
    let mut others = Variable::ALL
        .into_iter()
        .filter(|root| expression.reads(*root));
    let mut read = expression.reads_of(Variable::Response);
    let reads_only_the_status = others.all(|root| root == Variable::Response)
        && read.all(|read| read.path.first_name() == Some("status"));
    reads_only_the_status && expression.holds(&answered(lists)) == Ok(false)
}

fn answered(lists: &Lists) -> Variables<'_> {
    Variables {
        identity: None,
        previous: None,
        value: None,
        flow: None,
        request: None,
        method: "password",
        now: Timestamp::UNIX_EPOCH,
        response: Some(&FOUND),
        checks: None,
        taken: None,
        lists,
    }
}
