//! Hooks at login, recovery and in settings for late refusals, and the subject of tokens.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use vestibule_testing::fake_service::{Behaviour, FakeService};

use super::scene::{Report, Scene, Seen, hooks, move_to_all_methods, remove_hooks};
use crate::support::fields::{EMAIL, Fields};
use crate::support::test_env::{KEY, NEXT_KEY, TestEnvBuilder};
use crate::support::visitor::Visitor;
use crate::support::{Client, TestEnv, company, eventually};

const SETTINGS: &str = "nothing_is_lost.yaml";
const CREDENTIALS: [&str; 6] = [
    "password",
    "oidc",
    "totp",
    "webauthn",
    "passkey",
    "lookup_secret",
];

fn builder() -> TestEnvBuilder {
    TestEnv::builder()
        .with_settings(SETTINGS)
        .enforcing_late_refusals()
}

/// A visitor with an account and a session.
struct Account {
    visitor: Visitor,
    typed: Fields,
    id: String,
}

impl Account {
    async fn new(scene: &Scene) -> Self {
        let typed = company();
        let mut visitor = scene.env.visitor(Client::Api);
        let identity = visitor.sign_up(&typed.clone().by_password()).await;
        let id = identity["id"].as_str().expect("an id").to_owned();
        Self { visitor, typed, id }
    }

    /// Signs in on another device.
    async fn login(&self, scene: &Scene) -> Seen {
        let visitor = scene.env.visitor(Client::Api);
        let form = Fields::default()
            .with("identifier", self.typed.text(EMAIL))
            .by_password();
        Seen::of(&visitor.login().await.submit(&form).await)
    }

    /// Recovers the account with a code on another device, which gets a session.
    async fn recover(&self, scene: &Scene) {
        let before = scene.env.kratos.active_sessions(&self.id).await;
        let visitor = scene.env.visitor(Client::Api);
        let mut flow = visitor.recovery().await;
        let by_code = Fields::default().with("method", "code");
        let email = self.typed.text(EMAIL);
        flow.submit(&by_code.clone().with("email", email)).await;
        let code = eventually("Kratos mails a code", async || {
            scene.env.kratos.recovery_code(email).await
        })
        .await;
        flow.submit(&by_code.with("code", code)).await;
        let sessions = scene.env.kratos.active_sessions(&self.id).await;
        assert_eq!(sessions, before + 1, "recovery signs the owner in");
    }

    /// Changes the password. Kratos on SQLite refuses some changes because of other writes.
    async fn change_password(&self) {
        let password = Fields::default()
            .with("method", "password")
            .with("password", "another-long-Pa55phrase");
        eventually("Kratos saves the password", async || {
            let response = self.visitor.settings().await.submit(&password).await;
            (Seen::of(&response) == Seen::Accepted).then_some(())
        })
        .await;
    }
}

/// Whether Kratos has called `pre` at login, at recovery and in settings, while a visitor signs in, recovers the account and changes
/// the password.
async fn called(scene: &Scene) -> [bool; 3] {
    let account = Account::new(scene).await;
    let count = async || {
        let vestibule = &scene.env.vestibule;
        [
            vestibule.hook_calls("login", "pre").await,
            vestibule.hook_calls("recovery", "pre").await,
            vestibule.hook_calls("settings", "pre").await,
        ]
    };
    let before = count().await;
    assert_eq!(account.login(scene).await, Seen::Accepted);
    let login = count().await;
    assert_eq!([login[1], login[2]], [before[1], before[2]]);
    account.recover(scene).await;
    let recovery = count().await;
    assert_eq!(recovery[0], login[0], "recovery has no login hook");
    account.change_password().await;
    let settings = count().await;
    [
        login[0] > before[0],
        recovery[1] > login[1],
        settings[2] > recovery[2],
    ]
}

fn assert_reports_each(report: &Report, texts: &[&str]) {
    let said = report.assert_reports("late-refusals");
    for text in [
        "can sign in by",
        "recovery signs its owner in",
        "can change settings by",
    ] {
        assert_eq!(said.contains(text), texts.contains(&text), "{text}: {said}");
    }
}

/// Each of the three needs hooks of its own.
pub async fn an_owner_signs_in_recovers_and_changes_settings_without_a_call_if_hooks_are_missing() {
    let scene = Scene::of(builder()).await;
    assert_eq!(called(&scene).await, [true; 3]);
    let remove = |settings: &mut Value, flows: &[&str]| {
        for flow in flows {
            settings["selfservice"]["flows"][flow]["after"] = json!({});
        }
    };
    let report = scene
        .change(|settings| {
            remove(settings, &["login", "recovery"]);
            for method in CREDENTIALS {
                remove_hooks(settings, "settings", method);
            }
        })
        .await;
    let all = [
        "can sign in by",
        "recovery signs its owner in",
        "can change settings by",
    ];
    assert_reports_each(&report, &all);
    assert_eq!(called(&scene).await, [false; 3]);
    // The `pre` in settings needs a `post`, which lint prints then.
    let report = scene.paste(&report, "late-refusals").await;
    scene.paste(&report, "post-missing").await.assert_clean();
    assert_eq!(called(&scene).await, [true; 3]);

    let report = scene
        .change(|settings| remove(settings, &["recovery"]))
        .await;
    assert_reports_each(&report, &all[1..2]);
    assert_eq!(called(&scene).await, [true, false, true]);
}

/// At login too, a list of a method replaces the list for all methods.
pub async fn kratos_does_not_call_a_login_hook_that_a_list_of_the_method_shadows() {
    let scene = Scene::of(builder()).await;
    let login_calls = async || {
        let account = Account::new(&scene).await;
        let before = scene.env.vestibule.hook_calls("login", "pre").await;
        assert_eq!(account.login(&scene).await, Seen::Accepted);
        scene.env.vestibule.hook_calls("login", "pre").await - before
    };
    let only_general = |settings: &mut Value| {
        settings["selfservice"]["flows"]["login"]["after"] = json!({"hooks": [], "password":
            settings["selfservice"]["flows"]["login"]["after"]["password"]});
        move_to_all_methods(settings, "login", "password", 0);
        remove_hooks(settings, "login", "password");
    };
    let report = scene.change(only_general).await;
    report.assert_clean();
    assert_eq!(login_calls().await, 1);

    let report = scene
        .change(|settings| {
            only_general(settings);
            let hook = json!({"hook": "revoke_active_sessions"});
            hooks(settings, "login", "password").push(hook);
        })
        .await;
    report.assert_reports("shadowed-list");
    assert_reports_each(&report, &["can sign in by"]);
    assert_eq!(login_calls().await, 0);
    scene
        .paste(&report, "late-refusals")
        .await
        .assert_clean_of("late-refusals");
    assert_eq!(login_calls().await, 1);
}

/// Without `response.parse`, the owner of a refused account sees an error in place of the message.
pub async fn a_refused_login_is_an_error_without_a_message_if_kratos_does_not_parse_the_answer() {
    const REFUSED: u64 = 4_900_007;
    let scene = Scene::of(builder()).await;
    let account = Account::new(&scene).await;
    let vestibule = FakeService::start();
    let message = json!({"id": REFUSED, "text": "No.", "type": "error"});
    let messages = json!({"messages": [{"instance_ptr": "#/", "messages": [message]}]});
    vestibule.set_behaviour(Behaviour::Answers(403, messages.to_string()));
    let report = scene
        .change(|settings| {
            let config = &mut hooks(settings, "login", "password")[0]["config"];
            config["url"] = json!(format!(
                "{}/hooks/login/pre?method=password",
                vestibule.url()
            ));
            let config = config.as_object_mut().expect("a section");
            config.remove("response");
        })
        .await;
    let said = report.assert_reports("pre-without-parse");
    assert!(said.contains("the visitor sees an error page"), "{said}");
    assert_eq!(account.login(&scene).await, Seen::Failed);
    scene.paste(&report, "pre-without-parse").await;
    assert_eq!(account.login(&scene).await, Seen::Refused(vec![REFUSED]));
}

/// The subject in a token for the session of the visitor; the whole answer if there is no token.
async fn subject(scene: &Scene, visitor: &Visitor) -> Value {
    let url = format!(
        "{}/sessions/whoami?tokenize_as=app",
        scene.env.kratos.public
    );
    let session = visitor.fetch_json(&url).await;
    let Some(token) = session["tokenized"].as_str() else {
        return session;
    };
    let claims = token.split('.').nth(1).expect("claims");
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).expect("base64url");
    let claims: Value = serde_json::from_slice(&claims).expect("JSON");
    claims["sub"].clone()
}

/// The subject of tokens is the hash that Vestibule sets as `external_id`.
pub async fn the_subject_of_a_token_is_the_external_id_that_vestibule_sets() {
    let mut scene = Scene::of(builder()).await;
    let key = BASE64_URL_SAFE_NO_PAD.encode("a-key-for-the-tests-only-0123456789");
    let keys =
        json!({"keys": [{"kty": "oct", "kid": "a", "use": "sig", "alg": "HS256", "k": key}]});
    let keys = format!("base64://{}", BASE64_STANDARD.encode(keys.to_string()));
    let with_source = |source: &str| {
        let template = json!({"jwks_url": keys, "subject_source": source});
        move |settings: &mut Value| {
            settings["session"]["whoami"]["tokenizer"] = json!({"templates": {"app": template}});
        }
    };
    scene.change(with_source("id")).await.assert_clean();
    let account = Account::new(&scene).await;
    assert_eq!(subject(&scene, &account.visitor).await, account.id);

    let report = scene.change(with_source("external_id")).await;
    report.assert_reports("tokenizer-subject");
    let found = subject(&scene, &account.visitor).await;
    let found = found.as_str().expect("a subject");
    assert!(found.starts_with("vestibule:"), "{found}");

    let never = Some(("EXTERNAL_ID", "never"));
    let vestibule = &mut scene.env.vestibule;
    vestibule
        .restart_with_settings(SETTINGS, [NEXT_KEY, KEY], never)
        .await;
    scene.report().assert_clean_of("tokenizer-subject");
    let account = Account::new(&scene).await;
    let stored = scene.env.kratos.identity(&account.id).await;
    assert_eq!(stored["external_id"], Value::Null);
    let found = subject(&scene, &account.visitor).await;
    assert!(
        found["error"]["reason"].to_string().contains("external ID"),
        "{found}"
    );
}
