//! Checks subscriptions to `identity.deleted`, whose identity does not exist any more.

use super::{Cursor, Resolver};
use crate::expression::{Expression, ReadPath, Variable};
use crate::model::delivery::{Event, Subscription};

/// The variables that have a value for a deleted identity. Of the identity, only the id is known.
const ROOTS: [Variable; 3] = [Variable::Now, Variable::Lists, Variable::Response];

impl Resolver<'_> {
    /// Reports what a subscription to `identity.deleted` cannot do, and warns if nothing looks for deletions by itself.
    pub(super) fn identity_deleted(&mut self, cursor: &Cursor<'_>, subscription: &Subscription) {
        let mut events = subscription.events.iter();
        let Some(index) = events.position(|event| *event == Event::IdentityDeleted) else {
            return;
        };
        let event = cursor.key("events").item(index);
        if !self.has_admin_url() {
            self.needs_admin_url(&event, "`identity.deleted`");
        } else if self.root.key("reconcile").key("every").node.is_none() {
            self.warn(
                &event,
                "deletions are only found by `vestibule reconcile`, because `reconcile.every` is not set",
                "set `reconcile: {every: 1h}`",
            );
        }
        let write_back = cursor.key("write_back");
        if !subscription.write_back.is_empty() {
            self.report(
                &write_back,
                "after `identity.deleted` there is no identity to write into",
                Some(OWN_SUBSCRIPTION.to_owned()),
            );
        }
        for (key, expressions) in expressions(subscription) {
            self.reads_only_the_id(&cursor.key(key), &expressions);
        }
    }

    fn reads_only_the_id(&mut self, cursor: &Cursor<'_>, expressions: &[&Expression]) {
        let id = ReadPath::of_names(&["id"]);
        let mut read: Vec<String> = Vec::new();
        for expression in expressions {
            let of_identity = expression.paths(Variable::Identity);
            let others = of_identity.filter(|path| *path != id);
            read.extend(others.map(|path| {
                if path.is_root() {
                    "identity".to_owned()
                } else {
                    format!("identity.{path}")
                }
            }));
            let roots = Variable::ALL.into_iter();
            let absent = roots.filter(|root| {
                *root != Variable::Identity && !ROOTS.contains(root) && expression.reads(*root)
            });
            read.extend(absent.map(|root| root.name().to_owned()));
        }
        read.sort();
        read.dedup();
        if read.is_empty() {
            return;
        }
        let read: Vec<String> = read.iter().map(|path| format!("`{path}`")).collect();
        self.report(
            cursor,
            format!(
                "reads {}, and of a deleted identity only `identity.id` is known",
                read.join(", ")
            ),
            Some(OWN_SUBSCRIPTION.to_owned()),
        );
    }
}

const OWN_SUBSCRIPTION: &str = "write a subscription of its own for `identity.deleted`, as in `{events: [identity.deleted], send: {delete: \
                                \"https://crm.example.com/contacts/{identity.id}\"}}`";

/// Returns the expressions of a subscription by their key in the settings, without `write_back`.
fn expressions(subscription: &Subscription) -> [(&'static str, Vec<&Expression>); 4] {
    [
        ("when", subscription.when.iter().collect()),
        ("send", subscription.send.expressions()),
        ("success_when", subscription.success_when.iter().collect()),
        ("abandon_when", subscription.abandon_when.iter().collect()),
    ]
}
