//! Reports `previous` that is read without a guard where it can be absent.

use super::absence::is_excluded;
use super::guards::{Guard, guarded};
use super::{Context, Finding, Place, Use};
use crate::config::file;
use crate::config::resolve::{Cursor, Resolver};
use crate::expression::{Assumption, Compared, Expression, Read, ReadPath, Variable};
use crate::kratos::Flow;

/// Why `previous` can be absent, and what excludes that.
pub(super) struct WithoutPrevious {
    reason: String,
    instead: String,
    /// Whether the section is used without `previous` for sure. Otherwise only reconciliation does, and it leaves out a
    /// subscription whose `when` reads `previous`.
    pub is_certain: bool,
}

impl WithoutPrevious {
    pub fn of_flows(flows: &[Flow]) -> Option<Self> {
        let both = flows.contains(&Flow::Registration) && flows.contains(&Flow::Settings);
        both.then(|| Self {
            reason: "a registration has no `previous`, so this fails for every sign-up".to_owned(),
            instead: "`flows: [settings]`".to_owned(),
            is_certain: true,
        })
    }

    pub fn of_events(
        cursor: &Cursor<'_>,
        file: &file::Subscription,
        reconciles: bool,
    ) -> Option<Self> {
        let written = cursor.key("events");
        let events = file.events.iter().enumerate();
        let named = events.filter_map(|(index, event)| {
            let name = written.item(index).node?.to_value();
            Some((has_previous(*event), name.as_str()?.to_owned()))
        });
        let (with, without): (Vec<_>, Vec<_>) = named.partition(|(has, _)| *has);
        let Some((_, name)) = without.into_iter().next() else {
            return Self::of_reconciliation(file, reconciles);
        };
        let with: Vec<String> = with.into_iter().map(|(_, name)| name).collect();
        Some(Self {
            reason: format!("`{name}` has no `previous`, so this fails for every such event"),
            instead: format!("`events: [{}]`", with.join(", ")),
            is_certain: true,
        })
    }

    /// A change through the admin API has no `previous`.
    fn of_reconciliation(file: &file::Subscription, reconciles: bool) -> Option<Self> {
        let updates = file
            .events
            .iter()
            .any(|event| matches!(event, file::Event::IdentityUpdated));
        (reconciles && updates).then(|| Self {
            reason: "a change that reconciliation finds has no `previous`, so its delivery cannot be built"
                .to_owned(),
            instead: "`when: has(previous.traits)`, with which reconciliation leaves out this subscription"
                .to_owned(),
            is_certain: false,
        })
    }
}

fn has_previous(event: file::Event) -> bool {
    matches!(
        event,
        file::Event::IdentityUpdated | file::Event::CredentialsChanged
    )
}

impl Resolver<'_> {
    /// Reports `previous` that is read without a guard where it can be absent. Returns whether it was reported.
    pub(super) fn review_previous(
        &mut self,
        context: &Context<'_>,
        one: &Use,
        expression: &Expression,
    ) -> bool {
        let Some(without) = context.without_previous else {
            return false;
        };
        let missing = Assumption::missing(Variable::Previous, ReadPath::of_names(&[]));
        let reads: Vec<Read> = expression.reads_of(Variable::Previous).collect();
        let Some(read) = reads.first() else {
            return false;
        };
        if self.becomes_null(one.place, expression)
            || is_excluded(context, &missing)
            || !one.place.fails_by(expression.under(&missing))
        {
            return false;
        }
        let longest = reads.iter().max_by_key(|read| read.path.steps().count());
        let path = longest.map_or(&read.path, |read| &read.path);
        let help = format!(
            "{}, or {}",
            instead_of(one.place, path, expression),
            without.instead
        );
        let at = self.position(one, expression, read.offset);
        let finding = if without.is_certain {
            Finding::problem(without.reason.clone(), help)
        } else {
            Finding::warning(without.reason.clone(), help)
        };
        self.add(&one.path, at, finding);
        true
    }
}

fn instead_of(place: Place, path: &ReadPath, expression: &Expression) -> String {
    let guard = Guard::has(path, Variable::Previous);
    if place.is_condition() {
        if is_compared_with_null(expression) {
            return "write `!has(previous.traits)` for `previous == null`, and `has(previous.traits)` for `previous != null`"
                .to_owned();
        }
        return format!("write `{}`", guarded(&guard, place, expression, "previous"));
    }
    let can_be_null = matches!(place, Place::Value | Place::Parameter);
    match expression.single_path() {
        Some((_, path)) if can_be_null && !path.is_root() => {
            let mark = path.steps().count() - 1;
            format!("write `{{{}}}`", path.written(Variable::Previous, mark))
        }
        _ => format!("add `when: {}`", guard.holds),
    }
}

fn is_compared_with_null(expression: &Expression) -> bool {
    expression.comparisons().iter().any(|one| {
        one.root == Variable::Previous
            && one.path.is_root()
            && one.with == Compared::Constant(serde_json::Value::Null)
    })
}
