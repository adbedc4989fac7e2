//! Handles hook calls that show that Kratos has saved an account or a change whose `post` has not arrived.
//!
//! Vestibule processes such a call like the `post`, so that no visitor evades a check in the seconds before the
//! look-up.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::base::clock::{Timestamp, saturating_add};
use crate::base::telemetry::Trace;
use crate::checks::OpenDeferrals;
use crate::checks::follow_up::reports_traits;
use crate::http::hooks::call::HookCall;
use crate::http::hooks::report::{Account, report};
use crate::http::hooks::state::HookState;
use crate::kratos::fingerprint::{GUARD_PREFIX, fingerprint};
use crate::kratos::{Flow, Payload};
use crate::model::delivery::Queue;
use crate::model::pending::PendingSignUp;
use crate::store::group_commit::WriteResult;
use crate::store::known_identities::write_found;
use crate::store::{self, FlowState};

/// The time limit for reading one row, which is longer than a working database takes.
pub const READ_RECORD_WITHIN: Duration = Duration::from_millis(250);
/// The maximum number of logins and recoveries that close flows in parallel. Look-ups find the accounts of the others.
pub const MAX_CONCURRENT_CLOSES: usize = 16;
/// The time limit for closing a flow, which is longer than a working database takes.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// How many times a settings call reads a flow that changes at the same moment.
const ROUNDS: usize = 4;
/// The age after which an identity's flow is no longer known, with a margin.
const KNOWN_FOR: Duration = Duration::from_hours(24 * 8);

/// Closes the flow before a settings call. The call waits up to [`READ_RECORD_WITHIN`], because the checks must
/// know what is deferred. Returns whether everything that follows from a lost `post` is stored now. If not, the deferred
/// checks of the identity are unknown.
pub async fn close_before_settings(state: &HookState, call: &HookCall, payload: &Payload) -> bool {
    let changes = state.rules.needs_flow_state() || state.pending.wants_updates;
    if call.hook.flow != Flow::Settings || !changes {
        return true;
    }
    let Some(identity) = before_change(payload) else {
        return true;
    };
    let known = Known {
        state,
        trace: call.trace,
        identity_id: payload.identity_id,
        identity: &identity,
    };
    let until = state.clock.deadline(READ_RECORD_WITHIN).min(call.until);
    let closed = async {
        for _ in 1..ROUNDS {
            match known.close().await {
                Err(error) if matches!(*error, store::Error::Conflict) => {}
                closed => return closed,
            }
        }
        known.close().await
    };
    match state.clock.timeout_at(until, closed).await {
        Some(Ok(())) => return true,
        Some(Err(error)) => known.failed(&error.error_chain()),
        None => known.failed("the database did not answer in time"),
    }
    false
}

/// Closes the flow after a login or a recovery. The answer comes from memory and does not wait for this task.
pub fn close_after_sign_in(state: &Arc<HookState>, call: &HookCall, payload: Payload) {
    let Some(identity) = payload.identity else {
        return;
    };
    if !state.rules.needs_flow_state() || !can_have_open_flow(&identity, call.at) {
        return;
    }
    let (trace, identity_id) = (call.trace, payload.identity_id);
    let Ok(permit) = Arc::clone(&state.closings).try_acquire_owned() else {
        tracing::warn!(identity.id = %identity_id, "Skipped the search for a lost `post` of this account: too many logins wait for the database");
        return;
    };
    let idempotency = Arc::clone(&state.idempotency);
    let state = Arc::clone(state);
    idempotency.spawn(async move {
        let known = Known {
            state: &state,
            trace,
            identity_id,
            identity: &identity,
        };
        let until = state.clock.deadline(CLOSE_WITHIN);
        match state.clock.timeout_at(until, known.close_sign_up()).await {
            Some(Ok(())) => {}
            Some(Err(error)) => known.failed(&error.error_chain()),
            None => known.failed("the database did not answer in time"),
        }
        drop(permit);
    });
}

/// Returns whether the identity has the id of a flow that may still be recorded.
fn can_have_open_flow(identity: &Value, now: Timestamp) -> bool {
    let created_at = identity["created_at"].as_str();
    let created_at = created_at.and_then(|text| text.parse::<Timestamp>().ok());
    guard_id_of(identity).is_some()
        && created_at.is_none_or(|created_at| now < saturating_add(created_at, KNOWN_FOR))
}

fn guard_id_of(identity: &Value) -> Option<&str> {
    let external_id = identity["external_id"].as_str()?;
    external_id.starts_with(GUARD_PREFIX).then_some(external_id)
}

/// Returns the identity before the change.
fn before_change(payload: &Payload) -> Option<Value> {
    let mut identity = payload.identity.clone()?;
    let previous = payload.previous.as_ref()?;
    for part in ["traits", "metadata_public"] {
        identity[part] = previous[part].clone();
    }
    Some(identity)
}

/// An existing identity in the payload of a call.
struct Known<'a> {
    state: &'a HookState,
    trace: Trace,
    identity_id: Uuid,
    identity: &'a Value,
}

impl Known<'_> {
    async fn close(&self) -> WriteResult<()> {
        self.close_sign_up().await?;
        self.attribute_changes().await
    }

    /// Closes the flow of the identity, which its `external_id` names.
    async fn close_sign_up(&self) -> WriteResult<()> {
        let Some(external_id) = guard_id_of(self.identity) else {
            return Ok(());
        };
        if !self.state.rules.needs_flow_state() {
            return Ok(());
        }
        let Some(flow_id) = self.state.store.open_flow(external_id).await? else {
            return Ok(());
        };
        let flow_state = self.state.store.flow(flow_id).await?;
        match flow_state.pending.last() {
            Some(newest) => self.found(newest, &flow_state).await,
            None => Ok(()),
        }
    }

    /// Attributes the saved changes in settings: those that gave the identity the traits that it had before this
    /// call.
    async fn attribute_changes(&self) -> WriteResult<()> {
        let hash = fingerprint(&self.identity["traits"]);
        let store = &self.state.store;
        for flow_id in store.flows_of_change(self.identity_id, &hash).await? {
            let flow_state = store.flow(flow_id).await?;
            if let Some(saved) = saved_change(&flow_state, &hash) {
                self.found(saved, &flow_state).await?;
            }
        }
        Ok(())
    }

    async fn found(&self, one: &PendingSignUp, flow_state: &FlowState) -> WriteResult<()> {
        let state = self.state;
        let attributed = if one.flow == Flow::Settings {
            state.store.attributed_to(self.identity_id).await?
        } else {
            Vec::new()
        };
        let found = (self.identity_id, self.identity);
        let now = state.clock.now();
        let follow_up = state
            .rules
            .on_found(one, found, flow_state, &attributed, now);
        if follow_up.is_stale {
            return Err(Arc::new(store::Error::Conflict));
        }
        let found = match &state.tracker {
            Some(tracker) if reports_traits(one.flow, &one.method) => {
                tracker.state_of(self.identity, now).await?
            }
            _ => None,
        };
        let stored = write_found(&state.outbox, follow_up.batch.clone(), found).await?;
        let flow_id = one.key.flow_id;
        if stored > 0 {
            tracing::warn!(
                flow.id = %flow_id, identity.id = %self.identity_id, trace.id = %self.trace, stored,
                "Recovered a lost `post` from a later hook call of the account: stored {stored} deliveries"
            );
        }
        let account = Account {
            flow_id,
            identity_id: self.identity_id,
            trace: self.trace,
            method: &one.method,
        };
        report(state, &account, &follow_up);
        Ok(())
    }

    fn failed(&self, error: &str) {
        tracing::warn!(identity.id = %self.identity_id, trace.id = %self.trace, error, "Could not find out whether a `post` of this account was lost");
    }
}

/// Returns the newest submission of a settings flow that gave the identity these traits, and that is not attributed yet.
/// A submission that left the traits as they were proves nothing.
fn saved_change<'s>(flow_state: &'s FlowState, hash: &str) -> Option<&'s PendingSignUp> {
    let changed = |one: &&PendingSignUp| {
        let previous = one.details.context.previous.as_ref();
        previous.is_some_and(|previous| fingerprint(&previous["traits"]) != hash)
    };
    flow_state
        .pending
        .iter()
        .filter(|one| one.identity_id.is_none() && one.hash.traits == hash)
        .filter(changed)
        .max_by_key(|one| one.accepted_at)
}

/// Returns the checks that are deferred for this identity. Without `is_known`, a deferred check of a lost `post` may not
/// be stored yet.
pub async fn open_deferrals(
    state: &HookState,
    call: &HookCall,
    payload: &Payload,
    is_known: bool,
) -> OpenDeferrals {
    if call.hook.flow != Flow::Settings || !state.rules.defers() {
        return OpenDeferrals::default();
    }
    let read = async {
        // An abandoned question has no answer either.
        let unfinished = state.store.unfinished_queues(payload.identity_id);
        let until = state.clock.deadline(READ_RECORD_WITHIN).min(call.until);
        state.clock.timeout_at(until, unfinished).await
    };
    let Some(Ok(queues)) = (if is_known { read.await } else { None }) else {
        tracing::warn!(
            trace.id = %call.trace, flow.id = %payload.flow_id, identity.id = %payload.identity_id,
            "Could not read whether a check is deferred for this identity; every check that can be deferred must accept the change"
        );
        return OpenDeferrals {
            is_unknown: true,
            ..OpenDeferrals::default()
        };
    };
    let checks = queues.iter().filter_map(|queue| match Queue::named(queue) {
        Queue::DeferredCheck(check) => Some(check.to_owned()),
        _ => None,
    });
    OpenDeferrals {
        checks: checks.collect(),
        is_unknown: false,
    }
}
