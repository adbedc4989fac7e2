//! Reports `identity.id` where Kratos has not assigned it yet.

use super::{Context, Finding, Use};
use crate::config::resolve::Resolver;
use crate::expression::{Expression, Variable};
use crate::kratos::Flow;

impl Resolver<'_> {
    /// Before Kratos has saved an identity, its id is all zeros. A check for both flows can use it to exclude the account
    /// itself from a search, but not to keep or to reserve something.
    pub(super) fn review_identity_id(
        &mut self,
        context: &Context<'_>,
        one: &Use,
        expression: &Expression,
    ) {
        let subject = context.subject;
        let is_id = |first: Option<&str>| first == Some("id");
        let mut reads = expression.reads_of(Variable::Identity);
        let Some(read) = reads.find(|read| is_id(read.path.first_name())) else {
            return;
        };
        let key = one.path.strip_prefix(&subject.path).unwrap_or_default();
        // These requests are sent once the account exists, or never did.
        let is_later = [".reserve.confirm", ".reserve.release"];
        let is_kept = key.starts_with(".reserve.take") || key.starts_with(".set.");
        if !subject.flows.contains(&Flow::Registration)
            || is_later.iter().any(|later| key.starts_with(later))
            || subject.flows.contains(&Flow::Settings) && !is_kept
        {
            return;
        }
        let at = self.position(one, expression, read.offset);
        let finding = Finding::warning(
            "before a registration, `identity.id` is `00000000-0000-0000-0000-000000000000`: Kratos assigns it later",
            "read `flow.id`, which the calls before and after saving have in common",
        );
        self.add(&one.path, at, finding);
    }
}
