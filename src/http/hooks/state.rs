//! The state shared by all hook handlers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use crate::base::clock::{Clock, Deadline, Timestamp, milliseconds};
use crate::base::secret::Secret;
use crate::base::telemetry::Metrics;
use crate::base::telemetry::metrics::{HookLabels, ReasonLabels};
use crate::checks::activity::ActivityLog;
use crate::checks::follow_up::InForce;
use crate::checks::refused_identities::RefusedIdentities;
use crate::checks::{Evaluator, MessageRenderer, Rules};
use crate::expression::Variables;
use crate::http::hooks::idempotency::IdempotencyCache;
use crate::http::hooks::log_limits::LogLimits;
use crate::http::hooks::pending::PendingPolicy;
use crate::http::hooks::response::HookResponse;
use crate::kratos::form::FORM_LEVEL;
use crate::kratos::reply::{PlacedMessages, RefusalStatus};
use crate::kratos::{BodyNeeds, ClientIpHeader, Hook, Message, Payload, Reply, Stage};
use crate::model::message::MessageTemplate;
use crate::store::Store;
use crate::store::decision_log::DecisionLog;
use crate::store::flow_reader::FlowReader;
use crate::store::guard::GuardProof;
use crate::store::known_identities::IdentityTracker;
use crate::store::outbox::Outbox;

/// The state shared by all hook handlers.
pub struct HookState {
    /// The keys of Kratos; a call needs one of them.
    pub keys: Vec<Secret>,
    /// The time within which `pre` must answer.
    pub deadline: Duration,
    /// The header with the visitor's address.
    pub client_ip: Option<ClientIpHeader>,
    /// What the rules need of the body of a call.
    pub body_needs: BodyNeeds,
    /// The rules.
    pub rules: Arc<Rules>,
    /// Evaluates the checks.
    pub evaluator: Evaluator,
    /// Decides which accepted submissions are recorded.
    pub pending: PendingPolicy,
    /// The time from which the checks that reserve or defer are in force. A later account without a recorded sign-up is
    /// a fault.
    pub in_force: InForce,
    /// Whether Kratos stores Vestibule's `external_id`.
    pub proof: Arc<GuardProof>,
    /// Until when no record of a flow is read, because the database did not answer.
    pub record_unreadable_until: Mutex<Option<Deadline>>,
    /// The outbox, which stores deliveries.
    pub outbox: Outbox,
    /// Reads what is recorded of flows.
    pub flow_reader: FlowReader,
    /// The store of reservations and deferred checks.
    pub store: Arc<dyn Store>,
    /// The identities that were refused after their creation.
    pub refused: Arc<RefusedIdentities>,
    /// The log of identities that may have changed; `None` if nothing is ever written into identities.
    pub activity: Option<ActivityLog>,
    /// Whether these settings write into identities through the admin API.
    pub writes_identities: bool,
    /// Records what hooks report about identities; `None` if no subscription wants what no hook reports.
    pub tracker: Option<Arc<IdentityTracker>>,
    /// Requests a look-up of every recent sign-up without a `post`.
    pub sweep_now: Arc<Notify>,
    /// Limits the log lines that any client can cause.
    pub log_limits: LogLimits,
    /// The log of decisions.
    pub recorder: DecisionLog,
    /// The calls in progress, and the recent answers.
    pub idempotency: Arc<IdempotencyCache>,
    /// How many logins and recoveries may close flows at the same moment.
    pub closings: Arc<Semaphore>,
    /// The clock.
    pub clock: Clock,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

impl HookState {
    /// Returns a refusal at form level, for a wrong call without a known visitor.
    #[must_use]
    pub fn reject(&self, status: RefusalStatus, message: &MessageTemplate) -> Reply {
        self.refuse_in(status, message, None)
    }

    /// Returns a refusal at form level, in the visitor's language.
    #[must_use]
    pub fn refuse_visitor(&self, payload: &Payload, message: &MessageTemplate) -> Reply {
        let language = payload.header("Accept-Language");
        self.refuse_in(RefusalStatus::BadRequest, message, language)
    }

    /// Returns a built-in message in the visitor's language.
    #[must_use]
    pub fn visitor_message(&self, payload: &Payload, message: &MessageTemplate) -> Message {
        self.message(message, payload.header("Accept-Language"), None)
    }

    fn refuse_in(
        &self,
        status: RefusalStatus,
        message: &MessageTemplate,
        accept_language: Option<&str>,
    ) -> Reply {
        let message = self.message(message, accept_language, None);
        Reply::Refused {
            status,
            messages: vec![PlacedMessages::new(FORM_LEVEL, message)],
        }
    }

    /// Returns a built-in message.
    #[must_use]
    pub fn message(
        &self,
        message: &MessageTemplate,
        accept_language: Option<&str>,
        check: Option<&str>,
    ) -> Message {
        let variables = Variables {
            identity: None,
            previous: None,
            value: None,
            flow: None,
            request: None,
            method: "",
            now: self.clock.now(),
            response: None,
            checks: None,
            taken: None,
            lists: self.rules.lists(),
        };
        let reader = self.reader(accept_language);
        reader.message(
            message,
            &self.rules.messages().not_possible,
            &variables,
            check,
            None,
        )
    }

    /// Returns the renderer of messages for a visitor.
    #[must_use]
    pub fn reader<'a>(&'a self, accept_language: Option<&'a str>) -> MessageRenderer<'a> {
        self.rules.renderer(accept_language)
    }

    /// Returns the response to an internal error: a message for `pre`, a request to retry for `post`.
    #[must_use]
    pub fn internal_error(&self, hook: &Hook) -> HookResponse {
        let reply = match hook.stage {
            Stage::Pre => self.reject(RefusalStatus::BadRequest, &self.rules.messages().try_again),
            Stage::Post => Reply::Retry,
        };
        HookResponse::new(reply, "internal_error")
    }

    /// Reports to the operator that a hook in kratos.yml is misconfigured, and what to change.
    pub fn report_misconfiguration(&self, hook: &Hook, reason: &'static str, help: &str) {
        self.metrics
            .hook_misconfigurations
            .get_or_create(&ReasonLabels { reason })
            .inc();
        tracing::error!(
            reason, hook.flow = %hook.flow, hook.stage = %hook.stage, hook.method = hook.method,
            "Misconfigured hook in kratos.yml: {help}"
        );
    }

    /// Reports a body that lacks what the settings need. Returns whether it does.
    pub fn report_old_template(&self, hook: &Hook, payload: &Payload) -> bool {
        let Some(missing) = self.body_needs.missing_in(payload) else {
            return false;
        };
        let fix = format!(
            "the settings need {missing}, which the template of {} does not send, because it is old or was printed for \
             other settings; print it again with `vestibule kratos hooks --config FILE`, and replace it",
            hook.config_path()
        );
        self.report_misconfiguration(hook, "old_template", &fix);
        true
    }

    /// Counts a `post` of which nothing could be stored.
    pub fn count_lost_post(&self, reason: &'static str) {
        self.metrics
            .lost_posts
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }

    /// Counts the response to a call that arrived `at`.
    pub fn count_answer(&self, hook: &Hook, at: Timestamp, answer: &HookResponse) {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of one call")]
        let seconds = milliseconds(at, self.clock.now()) as f64 / 1000.0;
        let (flow, stage, outcome) = (hook.flow.as_str(), hook.stage.as_str(), answer.outcome);
        self.metrics
            .hook_requests
            .get_or_create(&HookLabels {
                flow,
                stage,
                outcome,
            })
            .inc();
        let labels = crate::base::telemetry::metrics::StageLabels { flow, stage };
        self.metrics
            .hook_seconds
            .get_or_create(&labels)
            .observe(seconds);
    }

    /// Counts a call to a path that is no hook. Such a call has no duration.
    pub fn count_not_found(&self) {
        let labels = HookLabels {
            flow: "",
            stage: "",
            outcome: "not_found",
        };
        self.metrics.hook_requests.get_or_create(&labels).inc();
    }

    /// Adds `client_ip` to the visitor's request, if the settings want it: the visitor's address, or null.
    pub fn add_client_ip(&self, payload: &mut Payload) {
        let Some(header) = &self.client_ip else {
            return;
        };
        let value = payload.header(&header.name);
        let address = value.and_then(|value| header.address(value));
        if address.is_none() {
            self.report_missing_client_ip(header);
        }
        if let Some(request) = payload.request.as_object_mut() {
            let address = address.map(|address| address.to_string());
            request.insert("client_ip".to_owned(), address.into());
        }
    }

    fn report_missing_client_ip(&self, header: &ClientIpHeader) {
        let reason = "without_client_ip";
        self.metrics
            .hook_misconfigurations
            .get_or_create(&ReasonLabels { reason })
            .inc();
        let name = &header.name;
        let limit = &self.log_limits.without_client_ip;
        if limit.to_log(name, self.clock.now()).is_some() {
            tracing::warn!(
                header = name,
                trusted_proxies = header.trusted_proxies,
                "A visitor's request has no address at its place in `{name}`, so `request.client_ip` is null; check that your proxies \
                 write this header, that `hooks.client_ip.trusted_proxies` is their number, and that `clients.web_hook.header_allowlist` \
                 in kratos.yml has the header"
            );
        }
    }
}
