//! Mistakes in Vestibule's hooks at registration.

use serde_json::{Value, json};

use super::scene::{NOT_POSSIBLE, Report, Scene, Seen, hooks};
use crate::support::fields::{Fields, VAT_NUMBER};
use crate::support::visitor::Page;
use crate::support::{Client, company};

/// A mistake in the hooks of `password`: `pre`, `post` and `session`.
struct Mistake {
    rule: &'static str,
    makes: fn(&mut Vec<Value>),
    /// What becomes of a sign-up with a number that the register does not know.
    unknown: Seen,
    /// What becomes of a sign-up with a number that the register knows.
    known: Seen,
    /// How often Vestibule asks the register.
    asks: usize,
}

fn not_possible() -> Seen {
    Seen::Refused(vec![NOT_POSSIBLE])
}

fn mistakes() -> Vec<Mistake> {
    vec![
        // Kratos calls the hook after it has saved the identity.
        Mistake {
            rule: "pre-without-parse",
            makes: |hooks| remove(&mut hooks[0], "response"),
            unknown: Seen::Accepted,
            known: Seen::Accepted,
            asks: 0,
        },
        Mistake {
            rule: "pre-ignored",
            makes: |hooks| hooks[0]["config"]["response"] = json!({"ignore": true}),
            unknown: Seen::Accepted,
            known: Seen::Accepted,
            asks: 0,
        },
        Mistake {
            rule: "pre-can-interrupt",
            makes: |hooks| {
                remove(&mut hooks[0], "response");
                hooks[0]["config"]["can_interrupt"] = json!(true);
            },
            unknown: Seen::unknown_number(),
            known: Seen::Accepted,
            asks: 2,
        },
        Mistake {
            rule: "post-with-parse",
            makes: |hooks| hooks[1]["config"]["response"] = json!({"parse": true}),
            unknown: Seen::unknown_number(),
            known: Seen::Accepted,
            asks: 2,
        },
        Mistake {
            rule: "wrong-path",
            makes: |hooks| replace(&mut hooks[0], "/hooks/registration", "/hook/registration"),
            unknown: not_possible(),
            known: not_possible(),
            asks: 0,
        },
        Mistake {
            rule: "http-method",
            makes: |hooks| hooks[0]["config"]["method"] = json!("PUT"),
            unknown: not_possible(),
            known: not_possible(),
            asks: 0,
        },
        Mistake {
            rule: "key-missing",
            makes: |hooks| remove(&mut hooks[0], "auth"),
            unknown: not_possible(),
            known: not_possible(),
            asks: 0,
        },
        // Kratos has a variable HOME, and sends these seven characters.
        Mistake {
            rule: "key-placeholder",
            makes: |hooks| hooks[0]["config"]["auth"]["config"]["value"] = json!("${HOME}"),
            unknown: not_possible(),
            known: not_possible(),
            asks: 0,
        },
        Mistake {
            rule: "body-missing",
            makes: |hooks| remove(&mut hooks[0], "body"),
            unknown: Seen::Failed,
            known: Seen::Failed,
            asks: 0,
        },
    ]
}

fn remove(hook: &mut Value, key: &str) {
    let config = hook["config"].as_object_mut().expect("a section");
    config.remove(key);
}

fn replace(hook: &mut Value, old: &str, new: &str) {
    let url = hook["config"]["url"].as_str().expect("a URL");
    hook["config"]["url"] = json!(url.replace(old, new));
}

/// Each mistake is reported, and does what lint says. What lint prints makes the file correct again.
pub async fn each_mistake_in_a_hook_is_reported_and_has_its_effect() {
    let scene = Scene::start().await;
    is_correct(&scene).await;
    for mistake in mistakes() {
        let rule = mistake.rule;
        let report = has_its_effect(&scene, mistake).await;
        // The help of this rule is an environment variable of Kratos, as in files.rs.
        if rule != "key-placeholder" {
            let mut pasted = scene.pasted(&report, rule);
            let login = &scene.correct["selfservice"]["flows"]["login"];
            pasted["selfservice"]["flows"]["login"] = login.clone();
            assert_eq!(pasted, scene.correct, "{rule}");
        }
    }
    scene.change(|_| ()).await.assert_clean();
    is_correct(&scene).await;
}

/// Asserts that Kratos refuses an unknown number, and stores what the check of a known one sets.
async fn is_correct(scene: &Scene) {
    let unknown = scene.sign_up_with_unknown_number().await;
    assert_eq!(unknown, Seen::unknown_number());
    let typed = company();
    assert_eq!(scene.sign_up(&typed).await, Seen::Accepted);
    assert!(company_set_by_the_check(scene, &typed).await.is_string());
}

/// Makes the mistake, and asserts that lint reports it and that Kratos behaves accordingly.
async fn has_its_effect(scene: &Scene, mistake: Mistake) -> Report {
    let Mistake { rule, makes, .. } = mistake;
    let report = scene
        .change(|settings| makes(hooks(settings, "registration", "password")))
        .await;
    report.assert_reports(rule);
    let asked = scene.env.checked_vat_numbers().len();
    let unknown = scene.sign_up_with_unknown_number().await;
    assert_eq!(unknown, mistake.unknown, "{rule}");
    let typed = company();
    assert_eq!(scene.sign_up(&typed).await, mistake.known, "{rule}");
    let asked = scene.env.checked_vat_numbers().len() - asked;
    assert_eq!(asked, mistake.asks, "{rule}");
    if rule == "pre-can-interrupt" {
        let set = company_set_by_the_check(scene, &typed).await;
        assert_eq!(set, Value::Null, "the change is lost");
    }
    if rule == "post-with-parse" {
        let misconfigured = "vestibule_hook_requests_total{flow=\"registration\",stage=\"post\",outcome=\"misconfigured\"}";
        assert!(scene.env.vestibule.metric(misconfigured).await > 0.5);
    }
    report
}

/// What the check of the number has set.
async fn company_set_by_the_check(scene: &Scene, typed: &Fields) -> Value {
    let identities = scene.env.kratos.identities().await;
    let number = typed.text(VAT_NUMBER);
    let mut stored = identities.iter();
    let stored = stored.find(|one| one["traits"]["vat_number"] == number);
    stored.expect("an account")["metadata_public"]["company"].clone()
}

/// Without a hook, and with one under `before`.
pub async fn kratos_checks_no_sign_up_without_a_hook_and_opens_no_form_with_a_hook_under_before() {
    let scene = Scene::start().await;
    let report = scene
        .change(|settings| {
            for flow in ["registration", "settings"] {
                settings["selfservice"]["flows"][flow]["after"] = json!({});
            }
        })
        .await;
    report.assert_reports("no-hooks");
    assert_eq!(scene.sign_up_with_unknown_number().await, Seen::Accepted);
    assert_eq!(scene.calls("registration").await, [0, 0]);

    let report = scene
        .change(|settings| {
            let hook = hooks(settings, "registration", "password").remove(0);
            settings["selfservice"]["flows"]["registration"]["before"] = json!({"hooks": [hook]});
        })
        .await;
    report.assert_reports("before-hook");
    let page = scene
        .env
        .visitor(Client::Api)
        .try_open(Page::Registration)
        .await;
    assert_eq!(page.0, 500, "{page:?}");
    assert_eq!(page.1["ui"], Value::Null);
    assert!(!page.1.to_string().contains("4900004"), "{page:?}");
    assert_eq!(scene.calls("registration").await, [1, 0]);

    scene.change(|_| ()).await.assert_clean();
    assert_eq!(
        scene.sign_up_with_unknown_number().await,
        Seen::unknown_number()
    );
}
