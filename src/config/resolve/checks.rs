//! Resolves checks.

use std::collections::BTreeMap;

use serde_json::Value;

use super::messages::Messages;
use super::paths::{Place, Write};
use super::{Cursor, Resolver};
use crate::base::diagnostics::{Problem, did_you_mean, listed, quoted};
use crate::checks::{
    Check, Condition, Kind, Mode, OnExpiry, OnLateRefusal, OnUnavailable, Policy, Reads, Refusal,
    Reserve, Set,
};
use crate::config::file;
use crate::expression::{Scope, Variable};
use crate::kratos::field::has_leading_zero;
use crate::kratos::{Field, Flow};
use crate::model::delivery::{Event, Subscription};

/// The variables before a request, and after its response.
struct Scopes {
    before: Scope,
    after: Scope,
}

impl<'a> Resolver<'a> {
    /// Resolves every check, and returns each with its position.
    pub(super) fn checks(&mut self, messages: &Messages<'a>) -> Vec<(Check, Cursor<'a>)> {
        let cursor = self.root.key("checks");
        self.flows = self.flows(messages);
        let mut checks = Vec::new();
        for entry in cursor.entries() {
            let cursor = cursor.key(&entry.key);
            self.name(&cursor, entry, "a check");
            let Some(file) = self.decode::<file::Check>(&cursor) else {
                continue;
            };
            let flows = self.flows.get(&entry.key).cloned().unwrap_or_default();
            let subject = self.subject_of_check(&cursor, &file, &flows);
            if let Some(check) = self.check(&entry.key, &cursor, &file, messages, flows) {
                checks.push((check, cursor));
            }
            self.review(&subject);
        }
        checks
    }

    /// Returns the flows of each check. Those of a check without `flows` depend on what it reads, itself and through
    /// other checks. So every check is compiled once to find what it reads, and a second time with the variables of its
    /// flows, which reports the problems.
    fn flows(&mut self, messages: &Messages<'a>) -> BTreeMap<String, Vec<Flow>> {
        let cursor = self.root.key("checks");
        let (problems, warnings) = (self.problems.len(), self.warnings.len());
        let numbers = self.numbers.clone();
        let mut checks = Vec::new();
        let mut flows = BTreeMap::new();
        for entry in cursor.entries() {
            let cursor = cursor.key(&entry.key);
            let Some(file) = self.decode::<file::Check>(&cursor) else {
                continue;
            };
            let both = Flow::CHECKED.to_vec();
            flows.insert(
                entry.key.clone(),
                chosen_flows(&file).unwrap_or(both.clone()),
            );
            let compiled = self.check(&entry.key, &cursor, &file, messages, both);
            checks.extend(compiled.map(|check| (check, file.flows.is_some())));
        }
        self.problems.truncate(problems);
        self.warnings.truncate(warnings);
        self.uses.clear();
        self.writes.clear();
        self.numbers = numbers;
        let reads = Reads::of_all(checks.iter().map(|(check, _)| check));
        for ((check, is_chosen), reads) in checks.into_iter().zip(reads) {
            if !is_chosen && (reads.nothing_of_the_identity() || reads.registration_data.is_some())
            {
                flows.insert(check.name.clone(), vec![Flow::Registration]);
            }
            if let Some(data) = reads.registration_data {
                self.registration_data.insert(check.name, data);
            }
        }
        flows
    }

    fn check(
        &mut self,
        name: &str,
        cursor: &Cursor<'a>,
        file: &file::Check,
        messages: &Messages<'a>,
        flows: Vec<Flow>,
    ) -> Option<Check> {
        let before = self.problems.len();
        let field = file
            .field
            .as_ref()
            .and_then(|field| self.field(&cursor.key("field"), field));
        let scopes = self.scopes(name, file, &flows);
        let absent_field = self.absent_field(cursor, file, &flows, &scopes.before);
        let when = file
            .when
            .as_ref()
            .and_then(|when| self.expression(&cursor.key("when"), when, &scopes.before));
        let ask = file
            .ask
            .as_ref()
            .and_then(|ask| self.request(&cursor.key("ask"), ask, &scopes.before));
        let reserve = file.reserve.as_ref().and_then(|reserve| {
            self.reserve(&cursor.key("reserve"), file, reserve, &scopes.before)
        });
        let on_unavailable = self.on_unavailable(
            &cursor.key("on_unavailable"),
            file.on_unavailable.as_ref(),
            &scopes.after,
        );
        let asks = file.ask.is_some() || file.reserve.is_some();
        let mut refuse = Vec::new();
        for (index, refusal) in file.refuse.iter().enumerate() {
            let cursor = cursor.key("refuse").item(index);
            let when = self.condition(&cursor.key("when"), &refusal.when, asks, &scopes.after);
            let message = refusal.message.as_ref().and_then(|message| {
                self.message_template(&cursor.key("message"), message, &scopes.after, messages)
            });
            refuse.extend(when.map(|when| Refusal { when, message }));
        }
        let accept = self.accept(
            &cursor.key("accept"),
            file.accept.as_ref(),
            asks,
            &scopes.after,
        );
        let invalid_message = file.invalid_message.as_ref().and_then(|message| {
            self.message_template(
                &cursor.key("invalid_message"),
                message,
                &scopes.before,
                messages,
            )
        });
        let mode = match file.mode {
            file::Mode::Enforce => Mode::Enforce,
            file::Mode::Observe => Mode::Observe,
        };
        if mode == Mode::Observe && !file.set.is_empty() {
            let hint = "remove `set`, or use `mode: enforce`".to_owned();
            self.report(
                &cursor.key("set"),
                "a check with `mode: observe` cannot set values",
                Some(hint),
            );
        }
        let set = self.sets(&cursor.key("set"), &file.set, &scopes.after);
        let after = self.after(name, &cursor.key("after"), &file.after);
        if flows.is_empty() {
            self.report(
                &cursor.key("flows"),
                "a check without flows never runs",
                Some("name `registration`, `settings` or both".to_owned()),
            );
        }
        self.deferral(cursor, file, &on_unavailable);
        (self.problems.len() == before).then(|| Check {
            name: name.to_owned(),
            flows,
            field,
            absent: absent_field.absent,
            required_if: absent_field.required_if,
            immutable: absent_field.immutable,
            when,
            ask,
            reserve,
            on_unavailable,
            on_late_refusal: file.on_late_refusal.map(|chosen| match chosen {
                file::OnLateRefusal::Deactivate => OnLateRefusal::Deactivate,
                file::OnLateRefusal::Mark => OnLateRefusal::Mark,
                file::OnLateRefusal::Notify => OnLateRefusal::Notify,
            }),
            on_expiry: match file.on_expiry {
                Some(file::OnExpiry::Keep) | None => OnExpiry::Keep,
                Some(file::OnExpiry::Refuse) => OnExpiry::Refuse,
                Some(file::OnExpiry::Accept) => OnExpiry::Accept,
            },
            refuse,
            accept,
            invalid_message,
            set,
            mode,
            after,
        })
    }

    fn accept(
        &mut self,
        cursor: &Cursor<'a>,
        accept: Option<&file::Condition>,
        asks: bool,
        scope: &Scope,
    ) -> Option<Condition> {
        if let (Some(file::Condition::Expression(file::Expression(source))), false) = (accept, asks)
        {
            let hint = format!(
                "write `refuse: [{{when: {}}}]`",
                quoted(&negated(source.trim()))
            );
            self.report(
                cursor,
                "`accept` needs a response, and this check has no `ask`",
                Some(hint),
            );
            return None;
        }
        let since = self.uses.len();
        let accept = accept.and_then(|accept| self.condition(cursor, accept, asks, scope));
        self.place_uses(since, Place::Acceptance);
        accept
    }

    fn scopes(&self, name: &str, file: &file::Check, flows: &[Flow]) -> Scopes {
        let mut roots = vec![
            Variable::Identity,
            Variable::Flow,
            Variable::Request,
            Variable::Method,
            Variable::Now,
            Variable::Lists,
            Variable::Checks,
        ];
        if file.field.is_some() {
            roots.push(Variable::Value);
        }
        if flows.contains(&Flow::Settings) {
            roots.push(Variable::Previous);
        }
        let section = self.root.key("checks");
        let others = section.entries().iter().filter(|entry| {
            let asks = ["ask", "reserve"].map(|key| entry.value.get(key).is_some());
            entry.key != name && asks.contains(&true)
        });
        let others: Vec<String> = others.map(|entry| entry.key.clone()).collect();
        let before = self.scope(&roots, others.clone());
        if file.ask.is_some() || file.reserve.is_some() {
            roots.push(Variable::Response);
        }
        Scopes {
            before,
            after: self.scope(&roots, others),
        }
    }

    fn reserve(
        &mut self,
        cursor: &Cursor<'a>,
        check: &file::Check,
        file: &file::Reserve,
        before: &Scope,
    ) -> Option<Reserve> {
        if check.ask.is_some() {
            self.report(
                cursor,
                "a check cannot have both `ask` and `reserve`",
                Some("use two checks".to_owned()),
            );
        }
        if matches!(check.mode, file::Mode::Observe) {
            self.report(
                cursor,
                "a check with `mode: observe` cannot reserve",
                Some("use `mode: enforce`".to_owned()),
            );
        }
        // Responses of other checks are not stored.
        let roots: Vec<Variable> = before
            .roots
            .iter()
            .copied()
            .filter(|root| *root != Variable::Checks)
            .chain([Variable::Taken])
            .collect();
        let with_taken = self.scope(&roots, Vec::new());
        let take = self.request(&cursor.key("take"), &file.take, before);
        let confirm = file
            .confirm
            .as_ref()
            .and_then(|confirm| self.request(&cursor.key("confirm"), confirm, &with_taken));
        let release = self.request(&cursor.key("release"), &file.release, &with_taken);
        Some(Reserve {
            take: take?,
            confirm,
            release: release?,
        })
    }

    /// Reports settings that only deferred checks can have.
    fn deferral(
        &mut self,
        cursor: &Cursor<'a>,
        file: &file::Check,
        on_unavailable: &OnUnavailable,
    ) {
        let defers = |policy: &Policy| *policy == Policy::Defer;
        if !defers(&on_unavailable.default) && !on_unavailable.chosen.values().any(defers) {
            if file.on_late_refusal.is_some() && file.reserve.is_none() {
                self.report(
                    &cursor.key("on_late_refusal"),
                    "this check cannot refuse late",
                    Some("use it together with `on_unavailable: defer` or `reserve`".to_owned()),
                );
            }
            if file.on_expiry.is_some() {
                self.report(
                    &cursor.key("on_expiry"),
                    "this check is never deferred",
                    Some("use it together with `on_unavailable: defer`".to_owned()),
                );
            }
            return;
        }
        let cursor = cursor.key("on_unavailable");
        if file.reserve.is_some() {
            let hint = "choose `refuse` or `accept`".to_owned();
            self.report(
                &cursor,
                "a check with `reserve` cannot be deferred",
                Some(hint),
            );
        } else if file.ask.is_none() {
            let hint = "add `ask`, or choose `refuse` or `accept`".to_owned();
            self.report(
                &cursor,
                "a check without `ask` cannot be deferred",
                Some(hint),
            );
        }
        let expression = [Kind::Expression]
            .iter()
            .any(|kind| on_unavailable.chosen.get(kind).is_some_and(defers));
        if expression {
            let hint = "choose `refuse` or `accept`".to_owned();
            self.report(
                &cursor.key("expression"),
                "a request that cannot be built cannot be deferred",
                Some(hint),
            );
        }
        if matches!(file.mode, file::Mode::Observe) {
            self.report(
                &cursor,
                "a check with `mode: observe` cannot defer",
                Some("choose `refuse` or `accept`".to_owned()),
            );
        }
        if !self.has_admin_url() {
            self.needs_admin_url(&cursor, "`defer`");
        }
    }

    /// Reports late refusals without a subscription, and deferred checks that read responses that are not stored.
    pub(super) fn late_refusals(
        &mut self,
        checks: &[(Check, Cursor<'a>)],
        subscriptions: &[Subscription],
    ) {
        let heard = subscriptions
            .iter()
            .any(|subscription| subscription.events.contains(&Event::CheckRefused));
        for (check, cursor) in checks {
            let notifies = check.on_late_refusal == Some(OnLateRefusal::Notify);
            if notifies && check.can_refuse_late() && !heard {
                self.report(
                    &cursor.key("on_late_refusal"),
                    "no subscription has the event `check.refused`",
                    Some("add a subscription with `events: [check.refused]`".to_owned()),
                );
            }
            if !check.defers() {
                continue;
            }
            if let Some(other) = check.reads_late().first() {
                self.report(
                    cursor,
                    format!(
                        "the response of `{other}` is not stored, so a deferred check cannot read it"
                    ),
                    Some("read it only in `when` or `ask`, or choose `refuse` or `accept`".to_owned()),
                );
            }
        }
    }

    fn field(&mut self, cursor: &Cursor<'_>, field: &file::Text) -> Option<Field> {
        let text = self.text(field)?;
        match Field::parse(&text) {
            Ok(field) => Some(field),
            Err(error) => {
                let hint = field_instead_of(&text).map(|field| format!("write `{field}`"));
                self.report(cursor, error.to_string(), hint);
                None
            }
        }
    }

    fn condition(
        &mut self,
        cursor: &Cursor<'_>,
        condition: &file::Condition,
        asks: bool,
        scope: &Scope,
    ) -> Option<Condition> {
        match condition {
            file::Condition::Status(_) if !asks => {
                self.report(
                    cursor,
                    "a status needs a response, and this check has no `ask`",
                    Some(
                        "add `ask: {get: \"https://…/{value}\"}`, or write an expression, as in `when: \"value == 'x'\"`"
                            .to_owned(),
                    ),
                );
                None
            }
            file::Condition::Status(status) if !(100..=599).contains(status) => {
                self.report(cursor, format!("{status} is not an HTTP status"), None);
                None
            }
            file::Condition::Status(status) => Some(Condition::Status(*status)),
            file::Condition::Expression(file::Expression(text))
                if text.trim().parse::<u16>().is_ok() =>
            {
                let hint = format!("remove the quotes: {}", text.trim());
                self.report(cursor, "a status must be a number, not a text", Some(hint));
                None
            }
            file::Condition::Expression(expression) => self
                .expression(cursor, expression, scope)
                .map(Condition::Expression),
        }
    }

    fn on_unavailable(
        &mut self,
        cursor: &Cursor<'_>,
        file: Option<&file::OnUnavailable>,
        scope: &Scope,
    ) -> OnUnavailable {
        let policy = |policy: file::Policy| match policy {
            file::Policy::Refuse => Policy::Refuse,
            file::Policy::Accept => Policy::Accept,
            file::Policy::Defer => Policy::Defer,
        };
        match file {
            None => OnUnavailable::default(),
            Some(file::OnUnavailable::Always(always)) => OnUnavailable {
                default: policy(*always),
                ..OnUnavailable::default()
            },
            Some(file::OnUnavailable::PerKind(kinds)) => {
                let since = self.uses.len();
                let when = kinds
                    .when
                    .as_ref()
                    .and_then(|when| self.expression(&cursor.key("when"), when, scope));
                self.place_uses(since, Place::MayFail);
                let named = [
                    (Kind::Timeout, kinds.timeout),
                    (Kind::Connection, kinds.connection),
                    (Kind::Status5xx, kinds.status_5xx),
                    (Kind::RateLimited, kinds.rate_limited),
                    (Kind::RejectedCredentials, kinds.rejected_credentials),
                    (Kind::Declared, kinds.declared),
                    (Kind::RejectedQuestion, kinds.rejected_question),
                    (Kind::UnexpectedAnswer, kinds.unexpected_answer),
                    (Kind::Expression, kinds.expression),
                ];
                let chosen: BTreeMap<Kind, Policy> = named
                    .into_iter()
                    .filter_map(|(kind, chosen)| chosen.map(|chosen| (kind, policy(chosen))))
                    .collect();
                OnUnavailable {
                    when,
                    chosen,
                    default: kinds.default.map(policy).unwrap_or_default(),
                }
            }
        }
    }

    fn sets(
        &mut self,
        cursor: &Cursor<'a>,
        file: &indexmap::IndexMap<String, Value>,
        scope: &Scope,
    ) -> Vec<Set> {
        let mut sets = Vec::new();
        for (path, value) in file {
            let cursor = cursor.key(path);
            if value.is_null() {
                self.problems
                    .push(Problem::nothing(cursor.path.clone(), cursor.at));
                continue;
            }
            let names: Vec<String> = path.split('.').map(ToOwned::to_owned).collect();
            let value = self.json(&cursor, value, scope);
            match names.first().map(String::as_str) {
                _ if names.iter().any(String::is_empty) => {
                    self.report(&cursor, format!("`{path}` has an empty name in it"), None);
                }
                _ if names.iter().any(|name| has_leading_zero(name)) => {
                    self.bad_index(&cursor, path);
                }
                Some(whole @ ("traits" | "metadata_public")) if names.len() == 1 => {
                    let hint = format!("name one value, as in `{whole}.company`");
                    self.report(
                        &cursor,
                        format!("`set` cannot replace all of `{whole}`"),
                        Some(hint),
                    );
                }
                Some("traits" | "metadata_public") => {
                    self.writes
                        .push(Write::set(&cursor, &names, value.as_ref()));
                    sets.extend(value.map(|value| Set { path: names, value }));
                }
                Some("metadata_admin") => {
                    let message = "`metadata_admin` cannot be set before saving: Kratos does not show it to hooks, so the value would be lost";
                    self.report(
                        &cursor,
                        message,
                        Some("use `metadata_public`, or `write_back` in a subscription".to_owned()),
                    );
                }
                first => {
                    let hint =
                        did_you_mean(first.unwrap_or_default(), ["traits", "metadata_public"]);
                    self.report(
                        &cursor,
                        format!("`{path}` is not in `traits` or `metadata_public`"),
                        hint,
                    );
                }
            }
        }
        sets
    }

    pub(super) fn bad_index(&mut self, cursor: &Cursor<'_>, path: &str) {
        self.report(
            cursor,
            format!("`{path}` has a number with a leading zero, which is no index"),
            Some("write the index without zeros, counted from 0".to_owned()),
        );
    }

    fn after(&mut self, name: &str, cursor: &Cursor<'_>, file: &[file::Text]) -> Vec<String> {
        let known = self.names_of("checks");
        let mut after = Vec::new();
        for (index, other) in file.iter().enumerate() {
            let Some(other) = self.text(other) else {
                continue;
            };
            let cursor = cursor.item(index);
            if other == name {
                self.report(&cursor, format!("`{name}` waits for itself"), None);
            } else if known.contains(&other) {
                after.push(other);
            } else {
                let names = || {
                    known
                        .iter()
                        .map(String::as_str)
                        .filter(|known| *known != name)
                };
                let hint = did_you_mean(&other, names())
                    .unwrap_or_else(|| format!("the other checks are {}", listed(names())));
                self.report(&cursor, format!("there is no check `{other}`"), Some(hint));
            }
        }
        after
    }
}

/// Returns the field that was probably meant: `traits.emails.0` for `identity.traits.emails[0]`.
fn field_instead_of(text: &str) -> Option<String> {
    let text = text.trim_start_matches("#/").replace('/', ".");
    let path = text.strip_prefix("identity.").unwrap_or(&text);
    let path = path.strip_prefix("traits.").unwrap_or(path);
    if path.starts_with("metadata_") {
        return None;
    }
    let dotted = path.replace('[', ".").replace(['\'', '"', ']', '?'], "");
    let names = dotted
        .split('.')
        .map(|name| match name.trim_start_matches('0') {
            "" if !name.is_empty() => "0",
            shorter if has_leading_zero(name) => shorter,
            _ => name,
        });
    let names: Vec<&str> = names.collect();
    let field = format!("traits.{}", names.join("."));
    Field::parse(&field).ok().map(|_| field)
}

/// Returns the opposite of an expression.
fn negated(source: &str) -> String {
    let is_call = source
        .chars()
        .all(|character| character.is_alphanumeric() || "_.(),' @-".contains(character))
        && !source.contains(" in ");
    match source.strip_prefix('!') {
        _ if is_call => format!("!{source}"),
        Some(rest)
            if rest
                .chars()
                .all(|one| one.is_alphanumeric() || "_.".contains(one)) =>
        {
            rest.to_owned()
        }
        _ => format!("!({source})"),
    }
}

/// Returns the flows that the operator names.
fn chosen_flows(file: &file::Check) -> Option<Vec<Flow>> {
    let flows = file.flows.as_ref()?.iter().map(|flow| match flow {
        file::Flow::Registration => Flow::Registration,
        file::Flow::Settings => Flow::Settings,
    });
    Some(flows.collect())
}
