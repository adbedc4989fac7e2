//! A Kratos whose kratos.yml a test case changes again and again, and the report of lint about each version.

use std::pin::pin;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::TimeDelta;
use futures_util::FutureExt as _;
use futures_util::future::{Either, select};
use serde_json::{Value, json};
use vestibule::kratos::snippet::ExtraEvent;
use vestibule_testing::fake_service::{Behaviour, FakeService};

use super::paste;
use crate::support::fields::{Fields, VAT_NUMBER, company_with_unknown_number};
use crate::support::message::VAT_UNKNOWN;
use crate::support::test_env::TestEnvBuilder;
use crate::support::visitor::FormResponse;
use crate::support::{Client, TestEnv, company, eventually};

/// Vestibule cannot process a call: its key, its URL or its body is wrong.
pub const NOT_POSSIBLE: u64 = 4_900_004;

/// Vestibule and a Kratos with a correct kratos.yml.
pub struct Scene {
    pub env: TestEnv,
    /// The correct kratos.yml.
    pub correct: Value,
    /// Makes the lifespan of login flows different in each version of kratos.yml.
    version: AtomicI64,
}

/// What becomes of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Kratos accepts the form.
    Accepted,
    /// Kratos shows the form again, with messages that have these ids.
    Refused(Vec<u64>),
    /// Kratos shows an error in place of a form.
    Failed,
}

impl Seen {
    /// What becomes of the form of a native app.
    pub fn of(response: &FormResponse) -> Self {
        if response.is_shown_again() && response.status != 200 {
            let ids = response.errors().into_iter().map(|(_, id)| id);
            return Self::Refused(ids.collect());
        }
        match response.status {
            200 => Self::Accepted,
            _ => Self::Failed,
        }
    }

    /// The refusal of a number that the register does not know.
    pub fn unknown_number() -> Self {
        Self::Refused(vec![VAT_UNKNOWN])
    }
}

impl Scene {
    /// Starts Vestibule with lint/vestibule.yaml, and a Kratos about which lint reports nothing.
    pub async fn start() -> Self {
        Self::of(Self::builder()).await
    }

    /// The options of [`Scene::start`].
    pub fn builder() -> TestEnvBuilder {
        TestEnv::builder()
            .with_settings("lint/vestibule.yaml")
            .with_headers(&["X-Tenant"])
            .with_extra_events(&[ExtraEvent::Credentials])
    }

    /// Starts Vestibule, and a Kratos about which lint reports nothing.
    pub async fn of(builder: TestEnvBuilder) -> Self {
        let env = builder.start().await;
        let correct = env.kratos.settings();
        let scene = Self {
            env,
            correct,
            version: AtomicI64::new(0),
        };
        scene.report().assert_clean();
        scene
    }

    /// Gives the correct kratos.yml with this change to Kratos. Returns the report of lint about it.
    pub async fn change(&self, change: impl FnOnce(&mut Value)) -> Report {
        let mut settings = self.correct.clone();
        change(&mut settings);
        self.replace(settings).await
    }

    /// Gives a kratos.yml to Kratos, and waits until Kratos uses it. Returns the report of lint about it.
    pub async fn replace(&self, mut settings: Value) -> Report {
        let lifespan = 60 + self.version.fetch_add(1, Ordering::SeqCst);
        settings["selfservice"]["flows"]["login"]["lifespan"] = json!(format!("{lifespan}m"));
        self.env.kratos.replace_settings(&settings);
        eventually("Kratos uses the new kratos.yml", async || {
            let visitor = self.env.visitor(Client::Api);
            let found = visitor.login().await.lifespan();
            (found == TimeDelta::minutes(lifespan)).then_some(())
        })
        .await;
        self.report()
    }

    /// Gives the kratos.yml of a report to Kratos, with the help of a rule pasted. Returns the report about it, without this rule.
    pub async fn paste(&self, report: &Report, rule: &str) -> Report {
        let pasted = self.pasted(report, rule);
        let report = self.replace(pasted).await;
        report.assert_clean_of(rule);
        report
    }

    /// The kratos.yml of a report, with the help of a rule pasted.
    pub fn pasted(&self, report: &Report, rule: &str) -> Value {
        let mut settings = self.env.kratos.settings();
        for finding in report.of_rule(rule) {
            paste::paste(&mut settings, &finding, &self.env.kratos.folder);
        }
        settings
    }

    /// The report of lint about the kratos.yml of the running Kratos.
    pub fn report(&self) -> Report {
        let file = self.env.kratos.file();
        self.lint(&["-c", file.to_str().expect("a path")])
    }

    /// The report of lint about these files.
    pub fn lint(&self, arguments: &[&str]) -> Report {
        Report(self.env.vestibule.lint(arguments))
    }

    /// What becomes of a sign-up by password.
    pub async fn sign_up(&self, typed: &Fields) -> Seen {
        let visitor = self.env.visitor(Client::Api);
        let mut flow = visitor.registration().await;
        let seen = Seen::of(&flow.submit(&typed.clone().by_password()).await);
        if seen == Seen::Accepted {
            assert!(self.has_account(typed).await, "{typed:?}");
        }
        seen
    }

    /// What becomes of a sign-up by password with a number that the register does not know.
    pub async fn sign_up_with_unknown_number(&self) -> Seen {
        self.sign_up(&company_with_unknown_number()).await
    }

    /// What becomes of a sign-up by password with a number that the register knows.
    pub async fn sign_up_with_known_number(&self) -> Seen {
        self.sign_up(&company()).await
    }

    /// What becomes of a sign-up whose last hook calls a service that hangs until `release`. Asserts that Kratos saves the account
    /// before the call, and waits.
    pub async fn sign_up_that_waits_for(
        &self,
        service: &FakeService,
        release: impl FnOnce(),
    ) -> Seen {
        service.set_behaviour(Behaviour::Hangs);
        let typed = company();
        let visitor = self.env.visitor(Client::Api);
        let mut flow = visitor.registration().await;
        let typed = typed.by_password();
        let mut sign_up = pin!(flow.submit(&typed));
        match select(&mut sign_up, pin!(service.next_call())).await {
            Either::Left((response, _)) => panic!("Kratos does not wait: {response:?}"),
            Either::Right(_) => assert!(self.has_account(&typed).await),
        }
        let response = sign_up.as_mut().now_or_never();
        assert!(response.is_none(), "Kratos does not wait: {response:?}");
        release();
        Seen::of(&sign_up.await)
    }

    /// Whether Kratos has an account with this VAT number.
    pub async fn has_account(&self, typed: &Fields) -> bool {
        let number = typed.text(VAT_NUMBER);
        let identities = self.env.kratos.identities().await;
        let mut numbers = identities.iter().map(|one| &one["traits"]["vat_number"]);
        numbers.any(|stored| stored == number)
    }

    /// The number of calls of `pre` and of `post` of a flow so far.
    pub async fn calls(&self, flow: &str) -> [usize; 2] {
        let vestibule = &self.env.vestibule;
        [
            vestibule.hook_calls(flow, "pre").await,
            vestibule.hook_calls(flow, "post").await,
        ]
    }
}

/// A report of lint.
#[derive(Debug)]
pub struct Report(Value);

impl Report {
    /// The findings of this rule.
    pub fn of_rule(&self, rule: &str) -> Vec<Value> {
        let all = self.findings();
        all.filter(|finding| finding["rule"] == rule)
            .cloned()
            .collect()
    }

    fn findings(&self) -> impl Iterator<Item = &Value> {
        ["problems", "warnings", "notes"]
            .into_iter()
            .flat_map(move |key| self.0[key].as_array().expect("a list"))
    }

    /// Asserts that the rule reports something, and returns the messages.
    pub fn assert_reports(&self, rule: &str) -> String {
        let found = self.of_rule(rule);
        assert!(!found.is_empty(), "{rule} reports nothing: {:#}", self.0);
        let messages = found
            .iter()
            .filter_map(|finding| finding["message"].as_str());
        messages.collect::<Vec<_>>().join("\n")
    }

    /// Asserts that the rule reports nothing.
    pub fn assert_clean_of(&self, rule: &str) {
        let found = self.of_rule(rule);
        assert!(found.is_empty(), "{found:#?}");
    }

    /// Asserts that no rule reports anything.
    pub fn assert_clean(&self) {
        assert_eq!(self.findings().next(), None, "{:#}", self.0);
    }
}

/// The hooks of a method under `after`; an empty name means the list for all methods. The list is added if it is missing.
pub fn hooks<'s>(settings: &'s mut Value, flow: &str, method: &str) -> &'s mut Vec<Value> {
    let after = &mut settings["selfservice"]["flows"][flow]["after"];
    let section = if method.is_empty() {
        after
    } else {
        &mut after[method]
    };
    if section["hooks"].is_null() {
        section["hooks"] = json!([]);
    }
    section["hooks"].as_array_mut().expect("a list")
}

/// Removes the hooks of a method.
pub fn remove_hooks(settings: &mut Value, flow: &str, method: &str) {
    let after = &mut settings["selfservice"]["flows"][flow]["after"];
    let after = after.as_object_mut().expect("methods");
    after.remove(method);
}

/// Moves a hook from the list of a method to the list for all methods, without `?method=`.
pub fn move_to_all_methods(settings: &mut Value, flow: &str, method: &str, index: usize) {
    let mut hook = hooks(settings, flow, method).remove(index);
    let url = hook["config"]["url"].as_str().expect("a URL");
    let url = url.split('?').next().unwrap_or_default().to_owned();
    hook["config"]["url"] = json!(url);
    hooks(settings, flow, "").push(hook);
}
