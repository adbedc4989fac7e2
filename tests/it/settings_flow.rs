//! In settings, a check runs if a value that it reads has changed, and its set value is removed when the reason is gone.

use serde_json::{Value, json};

use crate::support::payload::Payload;
use crate::support::{FakeService, TestApp, payload};

const ASKS: &str = r#"
checks:
  vat_number:
    field: traits.vat_number
    required: true
    ask: {get: "${env:REGISTER}/{value}"}
    refuse: [{when: 404, message: "This number is not registered."}]
  registration_only: {refuse: [{when: "true", message: "Only at registration."}]}
  always:
    flows: [settings]
    refuse: [{when: "previous.traits.email != identity.traits.email", message: "The address stays."}]
"#;

#[tokio::test]
async fn an_unchanged_field_is_not_checked() {
    let (app, register) = TestApp::with_service(ASKS, "REGISTER").await;
    register.respond_with(404, &json!({}));
    let same = json!({"email": "canary@example.org", "vat_number": "DE-canary-1"});
    assert_eq!(
        app.settings(&payload().changed_from(&same)).await.status,
        204
    );
    assert!(register.received().is_empty());
}

#[tokio::test]
async fn a_changed_field_is_checked_and_refused_on_the_field() {
    let (app, register) = TestApp::with_service(ASKS, "REGISTER").await;
    register.respond_with(404, &json!({}));
    for before in [
        json!({"email": "canary@example.org", "vat_number": "DE-canary-0"}),
        json!({"email": "canary@example.org"}),
        json!({"email": "canary@example.org", "vat_number": null}),
    ] {
        let reply = app.settings(&payload().changed_from(&before)).await;
        assert_eq!(
            reply.refused(),
            [("#/traits/vat_number".to_owned(), 4_900_000)]
        );
    }
    assert_eq!(register.received().len(), 3);
}

#[tokio::test]
async fn a_required_field_may_stay_absent_but_not_be_emptied() {
    let (app, _register) = TestApp::with_service(ASKS, "REGISTER").await;
    for (before, after) in [
        (json!(null), json!("")),
        (json!(""), json!(" \u{200b}")),
        (json!([]), json!(null)),
        (json!({}), json!("\u{a0}")),
    ] {
        let was_absent = json!({"email": "canary@example.org", "vat_number": before});
        let stays = payload()
            .with_trait("vat_number", after)
            .changed_from(&was_absent);
        assert_eq!(app.settings(&stays).await.status, 204);
    }
    let was_there = json!({"email": "canary@example.org", "vat_number": "DE-canary-1"});
    for emptied in [json!(""), json!(null), json!("\u{2003}\u{200b}")] {
        let emptied = payload()
            .with_trait("vat_number", emptied)
            .changed_from(&was_there);
        assert_eq!(
            app.settings(&emptied).await.refused(),
            [("#/traits/vat_number".to_owned(), 4_900_003)]
        );
    }
    let removed = payload()
        .without("/identity/traits/vat_number")
        .changed_from(&was_there);
    assert_eq!(
        app.settings(&removed).await.refused(),
        [("#/traits/vat_number".to_owned(), 4_900_003)]
    );
}

#[tokio::test]
async fn without_previous_every_value_counts_as_changed() {
    let register = FakeService::start();
    register.respond_with(404, &json!({}));
    let yaml = ASKS.split("  always:").next().unwrap();
    let app = TestApp::with(yaml)
        .service("REGISTER", &register)
        .start()
        .await;
    let reply = app.settings(&payload().saved()).await;
    assert_eq!(
        reply.refused(),
        [("#/traits/vat_number".to_owned(), 4_900_000)]
    );
}

#[tokio::test]
async fn an_expression_can_read_the_previous_identity() {
    let (app, _register) = TestApp::with_service(ASKS, "REGISTER").await;
    let before = json!({"email": "canary-before@example.org", "vat_number": "DE-canary-1"});
    let messages = app
        .settings(&payload().changed_from(&before))
        .await
        .messages();
    assert_eq!(
        messages,
        [("#/".to_owned(), 4_900_000, "The address stays.".to_owned())]
    );
}

/// A change in settings: traits and `metadata_public`, before and after.
fn change(before: (Value, Value), after: (Value, Value)) -> Payload {
    payload()
        .saved()
        .with("/identity/traits", after.0)
        .with("/identity/metadata_public", after.1)
        .with("/previous/traits", before.0)
        .with("/previous/metadata_public", before.1)
}

fn change_of_traits(before: Value, after: Value) -> Payload {
    change((before, json!({})), (after, json!({})))
}

/// The visitor enters a bad number while the check is not applicable, and later changes what makes it applicable.
#[tokio::test]
async fn a_change_of_the_condition_alone_runs_the_check() {
    let (app, register) = TestApp::with_service(
        r#"
checks:
  vat_number:
    field: traits.vat_number
    required: true
    when: identity.traits.kind == 'company'
    ask: {get: "${env:REGISTER}/{value}"}
    refuse: [{when: 404, message: "This number is not registered."}]
"#,
        "REGISTER",
    )
    .await;
    register.respond_with(404, &json!({}));
    let sign_up = payload()
        .with_trait("kind", "private")
        .with_trait("vat_number", "DE0");
    assert_eq!(app.pre(&sign_up).await.status, 204);
    let private = json!({"kind": "private", "vat_number": "DE0"});
    let company = json!({"kind": "company", "vat_number": "DE0"});
    let reply = app
        .settings(&change_of_traits(private.clone(), company.clone()))
        .await;
    assert_eq!(
        reply.refused(),
        [("#/traits/vat_number".to_owned(), 4_900_000)]
    );
    assert_eq!(register.received().len(), 1);
    // In the other direction no service is asked. A company without a number gets the message that it is required.
    assert_eq!(
        app.settings(&change_of_traits(company, private))
            .await
            .status,
        204
    );
    let none = |kind: &str| json!({"kind": kind});
    let reply = app
        .settings(&change_of_traits(none("private"), none("company")))
        .await;
    assert_eq!(reply.refused()[0].1, 4_900_003);
    assert_eq!(register.received().len(), 1);
}

/// What a check reads, a change, and whether the check runs. A check that runs refuses.
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn a_check_runs_again_if_something_that_it_reads_has_changed() {
    let both = |before: Value, after: Value| change_of_traits(before, after);
    let no = |name: &str| format!("refuse: [{{when: \"{name} != 'none'\"}}]");
    let table: Vec<(&str, String, Payload, bool)> = vec![
        (
            "`ask` reads the country, and only the country changes",
            "field: traits.vat, ask: {get: \"${env:SERVICE}/{value}\", query: {country: \"{identity.traits.country}\"}}, refuse: [{when: 200}]".to_owned(),
            both(json!({"vat": "1", "country": "DE"}), json!({"vat": "1", "country": "AT"})),
            true,
        ),
        (
            "the same, and only something else changes",
            "field: traits.vat, ask: {get: \"${env:SERVICE}/{value}\", query: {country: \"{identity.traits.country}\"}}, refuse: [{when: 200}]".to_owned(),
            both(json!({"vat": "1", "country": "DE", "name": "A"}), json!({"vat": "1", "country": "DE", "name": "B"})),
            false,
        ),
        (
            "a check without a field",
            no("identity.traits.country"),
            both(json!({"country": "DE"}), json!({"country": "AT"})),
            true,
        ),
        (
            "a check without a field, and something else changes",
            no("identity.traits.country"),
            both(json!({"country": "DE", "a": 1}), json!({"country": "DE", "a": 2})),
            false,
        ),
        (
            "a nested trait",
            no("identity.traits.address.city"),
            both(json!({"address": {"city": "A", "zip": 1}}), json!({"address": {"city": "B", "zip": 1}})),
            true,
        ),
        (
            "a trait beside a nested trait",
            no("identity.traits.address.city"),
            both(json!({"address": {"city": "A", "zip": 1}}), json!({"address": {"city": "A", "zip": 2}})),
            false,
        ),
        (
            "the parent object of a nested trait is replaced",
            no("identity.traits.?address.?city"),
            both(json!({"address": {"city": "A"}}), json!({"address": "none"})),
            true,
        ),
        (
            "an entry of a list",
            no("identity.traits.tags[1]"),
            both(json!({"tags": ["a", "b"]}), json!({"tags": ["a", "c"]})),
            true,
        ),
        (
            "another entry of the list",
            no("identity.traits.tags[1]"),
            both(json!({"tags": ["a", "b"]}), json!({"tags": ["c", "b"]})),
            false,
        ),
        (
            "an entry by a computed index: the whole list counts",
            no("identity.traits.tags[identity.traits.tags.size() - 1]"),
            both(json!({"tags": ["a", "b"]}), json!({"tags": ["c", "b"]})),
            true,
        ),
        (
            "a loop over a list",
            "refuse: [{when: \"identity.traits.tags.exists(tag, tag != 'none')\"}]".to_owned(),
            both(json!({"tags": ["a"]}), json!({"tags": ["a", "b"]})),
            true,
        ),
        (
            "a field that is an entry of a list",
            "field: traits.tags.0, refuse: [{when: \"true\"}]".to_owned(),
            both(json!({"tags": ["a", "b"]}), json!({"tags": ["c", "b"]})),
            true,
        ),
        (
            "another entry than that of the field",
            "field: traits.tags.0, refuse: [{when: \"true\"}]".to_owned(),
            both(json!({"tags": ["a", "b"]}), json!({"tags": ["a", "c"]})),
            false,
        ),
        (
            "a key in quotes",
            no("identity.traits['odd key']"),
            both(json!({"odd key": 1}), json!({"odd key": 2})),
            true,
        ),
        (
            "a computed key: all traits count",
            no("identity.traits[method]"),
            both(json!({"profile": "a", "other": 1}), json!({"profile": "a", "other": 2})),
            true,
        ),
        (
            "all traits",
            "ask: {post: \"${env:SERVICE}/a\", json: \"{identity.traits}\"}, refuse: [{when: 200}]".to_owned(),
            both(json!({"a": {"b": [1]}}), json!({"a": {"b": [2]}})),
            true,
        ),
        (
            "the whole identity, and a trait changes",
            "ask: {post: \"${env:SERVICE}/a\", json: \"{identity}\"}, refuse: [{when: 200}]".to_owned(),
            both(json!({"a": 1}), json!({"a": 2})),
            true,
        ),
        (
            "the whole identity, and `metadata_public` changes",
            "ask: {post: \"${env:SERVICE}/a\", json: \"{identity}\"}, refuse: [{when: 200}]".to_owned(),
            change((json!({"a": 1}), json!({"plan": "free"})), (json!({"a": 1}), json!({"plan": "gold"}))),
            true,
        ),
        (
            "the whole identity, and nothing of the two changes",
            "ask: {post: \"${env:SERVICE}/a\", json: \"{identity}\"}, refuse: [{when: 200}]".to_owned(),
            both(json!({"a": 1}), json!({"a": 1})),
            false,
        ),
        (
            "`metadata_public`",
            no("identity.metadata_public.plan"),
            change((json!({}), json!({"plan": "free"})), (json!({}), json!({"plan": "gold"}))),
            true,
        ),
        (
            "a trait beside `metadata_public`",
            no("identity.metadata_public.plan"),
            change((json!({"a": 1}), json!({"plan": "free"})), (json!({"a": 2}), json!({"plan": "free"}))),
            false,
        ),
        (
            "whether a trait is present: it is removed",
            "refuse: [{when: \"!has(identity.traits.country)\"}]".to_owned(),
            both(json!({"country": "DE"}), json!({})),
            true,
        ),
        (
            "whether a trait is present: it becomes null",
            "refuse: [{when: has(identity.traits.country)}]".to_owned(),
            both(json!({}), json!({"country": null})),
            true,
        ),
        (
            "a number",
            no("identity.traits.age"),
            both(json!({"age": 17}), json!({"age": 18})),
            true,
        ),
        (
            "a number that becomes a text",
            no("identity.traits.age"),
            both(json!({"age": 17}), json!({"age": "17"})),
            true,
        ),
        (
            "a bool",
            "refuse: [{when: identity.traits.terms}]".to_owned(),
            both(json!({"terms": false}), json!({"terms": true})),
            true,
        ),
        (
            "a message",
            "field: traits.vat, refuse: [{when: \"true\", message: \"Not in {identity.traits.country}.\"}]".to_owned(),
            both(json!({"vat": "1", "country": "DE"}), json!({"vat": "1", "country": "AT"})),
            true,
        ),
        (
            "a value that is set",
            "field: traits.vat, refuse: [{when: \"true\"}], set: {metadata_public.country: \"{identity.traits.country}\"}".to_owned(),
            both(json!({"vat": "1", "country": "DE"}), json!({"vat": "1", "country": "AT"})),
            true,
        ),
        (
            "`accept`",
            "field: traits.vat, ask: {get: \"${env:SERVICE}/a\"}, accept: identity.traits.country == 'none'".to_owned(),
            both(json!({"vat": "1", "country": "DE"}), json!({"vat": "1", "country": "AT"})),
            true,
        ),
        (
            "`on_unavailable.when`",
            "field: traits.vat, ask: {get: \"${env:SERVICE}/a\"}, on_unavailable: {when: identity.traits.country != 'none'}".to_owned(),
            both(json!({"vat": "1", "country": "DE"}), json!({"vat": "1", "country": "AT"})),
            true,
        ),
        (
            "the release of a reservation",
            "field: traits.vat, reserve: {take: {post: \"${env:SERVICE}/{value}\"}, release: {delete: \"${env:SERVICE}/{identity.traits.country}\"}}, refuse: [{when: 200}]".to_owned(),
            both(json!({"vat": "1", "country": "DE"}), json!({"vat": "1", "country": "AT"})),
            true,
        ),
        (
            "the confirmation of a reservation",
            "field: traits.vat, reserve: {take: {post: \"${env:SERVICE}/{value}\"}, confirm: {post: \"${env:SERVICE}/c\", json: {c: \"{identity.traits.country}\"}}, release: {delete: \"${env:SERVICE}/d\"}}, refuse: [{when: 200}]".to_owned(),
            both(json!({"vat": "1", "country": "DE"}), json!({"vat": "1", "country": "AT"})),
            true,
        ),
        (
            "`previous` alone is no reason to run",
            "flows: [settings], refuse: [{when: \"previous.traits.a != identity.traits.b\"}]".to_owned(),
            both(json!({"a": 1, "b": 0}), json!({"a": 2, "b": 0})),
            false,
        ),
        (
            "a check for settings that reads nothing of the identity runs with each change",
            "flows: [settings], refuse: [{when: \"method != 'none'\"}]".to_owned(),
            both(json!({"a": 1}), json!({"a": 1})),
            true,
        ),
        (
            "a check that runs only at registration",
            "flows: [registration], field: traits.vat, refuse: [{when: \"true\"}]".to_owned(),
            both(json!({"vat": "1"}), json!({"vat": "2"})),
            false,
        ),
        (
            "a check that reads nothing of the identity runs only at registration",
            no("method"),
            both(json!({"vat": "1"}), json!({"vat": "2"})),
            false,
        ),
        (
            "a check that reads the transient payload runs only at registration",
            "field: traits.vat, refuse: [{when: flow.transient_payload.?note.orValue('') != 'none'}]".to_owned(),
            both(json!({"vat": "1"}), json!({"vat": "2"})),
            false,
        ),
    ];
    let service = FakeService::start();
    for (name, check, payload, runs) in table {
        let yaml = format!("checks: {{c: {{{check}}}}}");
        let app = TestApp::with(&yaml)
            .service("SERVICE", &service)
            .start()
            .await;
        let reply = app.settings(&payload).await;
        assert_eq!(reply.status, if runs { 400 } else { 204 }, "{name}");
    }
}

/// What a check reads through the response of another check counts as read, and that check runs too.
#[tokio::test]
async fn values_read_through_other_checks_count_as_read() {
    let chain = r#"
checks:
  score:
    ask: {get: "${env:SCORE}/{checks.company.response.body.name}"}
    refuse: [{when: 404, message: "No."}]
  company: {ask: {get: "${env:COMPANY}/{checks.number.response.body.number}"}}
  number: {field: traits.vat_number, ask: {get: "${env:NUMBER}/{value}"}}
  apart: {field: traits.invite, ask: {get: "${env:APART}/{value}"}}
"#;
    let [score, company, number, apart] = [(); 4].map(|()| FakeService::start());
    score.respond_with(404, &json!({}));
    company.respond_with(200, &json!({"name": "muster"}));
    number.respond_with(200, &json!({"number": "n1"}));
    let app = TestApp::with(chain)
        .service("SCORE", &score)
        .service("COMPANY", &company)
        .service("NUMBER", &number)
        .service("APART", &apart)
        .start()
        .await;
    let changed = change_of_traits(
        json!({"vat_number": "1", "invite": "a"}),
        json!({"vat_number": "2", "invite": "a"}),
    );
    assert_eq!(app.settings(&changed).await.refused().len(), 1);
    let counts = || [&score, &company, &number, &apart].map(|service| service.received().len());
    assert_eq!(counts(), [1, 1, 1, 0]);
    let other = change_of_traits(
        json!({"vat_number": "1", "invite": "a"}),
        json!({"vat_number": "1", "invite": "b"}),
    );
    assert_eq!(app.settings(&other).await.status, 204);
    assert_eq!(counts(), [1, 1, 1, 1]);
}

#[tokio::test]
async fn a_check_runs_if_another_running_check_reads_its_response() {
    let yaml = r#"
checks:
  score:
    when: identity.traits.country != 'none'
    ask: {get: "${env:SCORE}/{checks.number.response.body.number}"}
  number: {field: traits.vat_number, ask: {get: "${env:NUMBER}/{value}"}}
  policy: {ask: {get: "${env:POLICY}/current"}}
  age: {field: traits.age, refuse: [{when: "value < checks.policy.response.body.least", message: "Too young."}]}
"#;
    let [score, number, policy] = [(); 3].map(|()| FakeService::start());
    number.respond_with(200, &json!({"number": "n1"}));
    policy.respond_with(200, &json!({"least": 18}));
    let app = TestApp::with(yaml)
        .service("SCORE", &score)
        .service("NUMBER", &number)
        .service("POLICY", &policy)
        .start()
        .await;
    let counts = || [&score, &number, &policy].map(|service| service.received().len());
    let traits =
        |country: &str, age: u32| json!({"vat_number": "1", "country": country, "age": age});
    // Only the country changes. The number is asked about again, because the score depends on its response.
    let changed = change_of_traits(traits("DE", 20), traits("AT", 20));
    assert_eq!(app.settings(&changed).await.status, 204);
    assert_eq!(counts(), [1, 1, 0]);
    // Only the age changes. The policy is asked for, although it alone would run only at registration.
    let changed = change_of_traits(traits("DE", 20), traits("DE", 17));
    assert_eq!(app.settings(&changed).await.messages()[0].2, "Too young.");
    assert_eq!(counts(), [1, 1, 1]);
    let unchanged = change_of_traits(traits("DE", 20), traits("DE", 20));
    assert_eq!(app.settings(&unchanged).await.status, 204);
    assert_eq!(counts(), [1, 1, 1]);
}

#[tokio::test]
async fn by_default_a_check_runs_in_the_flows_that_have_the_values_it_reads() {
    let yaml = r#"
checks:
  field: {field: traits.invite, refuse: [{when: "true", message: "Field."}]}
  traits: {refuse: [{when: has(identity.traits.email), message: "Traits."}]}
  through: {refuse: [{when: "checks.asked.response.status == 200", message: "Through."}]}
  asked: {field: traits.email, ask: {get: "${env:SERVICE}/a"}}
  public: {refuse: [{when: "!has(identity.metadata_public.plan)", message: "Public."}]}
  nothing: {refuse: [{when: "method != 'none'", message: "Nothing."}]}
  only_id: {refuse: [{when: "identity.state != 'none'", message: "State."}]}
  transient: {field: traits.invite, refuse: [{when: has(flow.transient_payload), message: "Transient."}]}
  through_transient: {field: traits.invite, refuse: [{when: "checks.captcha.response.status == 200", message: "Captcha."}]}
  captcha: {ask: {get: "${env:SERVICE}/b", query: {code: "{flow.transient_payload.?code.orValue('none')}"}}}
"#;
    let (app, _service) = TestApp::with_service(yaml, "SERVICE").await;
    let texts = async |reply: crate::support::app::Reply| {
        let mut texts: Vec<String> = reply.messages().into_iter().map(|one| one.2).collect();
        texts.sort();
        texts
    };
    assert_eq!(
        texts(app.pre(&payload()).await).await,
        [
            "Captcha.",
            "Field.",
            "Nothing.",
            "Public.",
            "State.",
            "Through.",
            "Traits.",
            "Transient."
        ]
    );
    assert_eq!(
        texts(app.settings(&payload().saved()).await).await,
        ["Field.", "Public.", "Through.", "Traits."]
    );
}

const SETS: &str = r#"
checks:
  vat_number:
    field: traits.vat_number
    when: identity.traits.kind == 'company'
    ask: {get: "${env:REGISTER}/{value}"}
    refuse: [{when: 404, message: "No."}]
    on_unavailable: {status_5xx: accept}
    set:
      metadata_public.company: {name: "{response.body.name}", vat: {country: "{response.body.?country}"}}
      traits.company: "{response.body.name}"
"#;

/// Returns `metadata_public` and traits of the response; `None` if they do not change.
fn returned_changes(reply: &crate::support::app::Reply) -> (Option<Value>, Option<Value>) {
    if reply.status == 204 {
        return (None, None);
    }
    assert_eq!(reply.status, 200, "{reply:?}");
    let identity = reply.json()["identity"].clone();
    let part = |name: &str| identity.get(name).cloned();
    (part("metadata_public"), part("traits"))
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn a_set_value_is_removed_when_its_reason_is_gone() {
    let company =
        |number: Value| json!({"kind": "company", "vat_number": number, "company": "Old"});
    let had = json!({"plan": "free", "company": {"name": "Old", "vat": {"country": "DE"}}});
    let only = json!({"company": {"name": "Old", "vat": {"country": "DE"}}});
    let table = [
        (
            "the field is emptied",
            200,
            json!({}),
            (company(json!("1")), had.clone()),
            company(json!("")),
            Some(json!({"plan": "free"})),
        ),
        (
            "the field is removed",
            200,
            json!({}),
            (company(json!("1")), had.clone()),
            json!({"kind": "company", "company": "Old"}),
            Some(json!({"plan": "free"})),
        ),
        (
            "the field holds only white space now, and the last key is removed",
            200,
            json!({}),
            (company(json!("1")), only.clone()),
            company(json!("\u{200b} ")),
            Some(json!({})),
        ),
        (
            "`when` is no longer true",
            200,
            json!({}),
            (company(json!("1")), had.clone()),
            json!({"kind": "private", "vat_number": "1", "company": "Old"}),
            Some(json!({"plan": "free"})),
        ),
        (
            "the field has changed and the service fails: the old value is not valid for the new field",
            503,
            json!({}),
            (company(json!("1")), had.clone()),
            company(json!("2")),
            Some(json!({"plan": "free"})),
        ),
        (
            "the field has changed and the check accepts: the new value replaces the old one",
            200,
            json!({"name": "Old"}),
            (company(json!("1")), had.clone()),
            company(json!("2")),
            Some(json!({"plan": "free", "company": {"name": "Old"}})),
        ),
        (
            "the field has changed and the check sets the same value",
            200,
            json!({"name": "Old", "country": "DE"}),
            (company(json!("1")), had.clone()),
            company(json!("2")),
            None,
        ),
        (
            "values of other systems beside it stay",
            200,
            json!({}),
            (
                company(json!("1")),
                json!({"company": {"name": "Old", "vat": {"country": "DE", "theirs": 1}, "crm": 7}}),
            ),
            company(json!(null)),
            Some(json!({"company": {"vat": {"theirs": 1}, "crm": 7}})),
        ),
        (
            "nothing that the check reads changes",
            200,
            json!({}),
            (company(json!("1")), had.clone()),
            json!({"kind": "company", "vat_number": "1", "company": "Old", "name": "New"}),
            None,
        ),
        (
            "there is nothing to remove",
            200,
            json!({}),
            (company(json!("1")), json!({"plan": "free"})),
            company(json!("")),
            None,
        ),
        (
            "`when` was not true before",
            200,
            json!({}),
            (
                json!({"kind": "private", "vat_number": "", "company": "Old"}),
                had.clone(),
            ),
            json!({"kind": "club", "vat_number": "", "company": "Old"}),
            None,
        ),
        (
            "the field was absent before",
            200,
            json!({}),
            (company(json!("")), had.clone()),
            company(json!(null)),
            None,
        ),
    ];
    for (name, status, answer, (before, public), after, expected) in table {
        let (app, register) = TestApp::with_service(SETS, "REGISTER").await;
        register.respond_with(status, &answer);
        let reply = app
            .settings(&change((before, public.clone()), (after, public)))
            .await;
        let (public, traits) = returned_changes(&reply);
        assert_eq!(public, expected, "{name}");
        assert_eq!(traits, None, "{name}: traits are never removed");
    }
}

#[tokio::test]
async fn a_set_value_stays_if_the_change_is_refused_and_at_registration() {
    let (app, register) = TestApp::with_service(SETS, "REGISTER").await;
    register.respond_with(404, &json!({}));
    let public = json!({"company": {"name": "Old"}});
    let traits = |number: &str| json!({"kind": "company", "vat_number": number});
    let changed = change((traits("1"), public.clone()), (traits("2"), public.clone()));
    let reply = app.settings(&changed).await;
    assert!(reply.json().get("identity").is_none());
    assert_eq!(reply.refused().len(), 1);
    let sign_up = payload()
        .with("/identity/traits", json!({"kind": "private"}))
        .with("/identity/metadata_public", public);
    assert_eq!(app.pre(&sign_up).await.status, 204);
}

#[tokio::test]
async fn a_set_value_of_a_registration_check_is_removed_too() {
    let app = TestApp::with(
        r#"
checks:
  number: {flows: [registration], field: traits.vat_number, set: {metadata_public.number: "{value}"}}
  by_password: {flows: [registration], when: "method == 'password'", set: {metadata_public.by: password}}
  adult: {when: identity.traits.age >= 18, set: {metadata_public.adult: true}}
"#,
    )
    .start()
    .await;
    let public = json!({"number": "1", "by": "password", "adult": true});
    let traits = |number: &str, age: u32| json!({"vat_number": number, "age": age});
    for (before, after, expected) in [
        (
            traits("1", 20),
            traits("2", 20),
            Some(json!({"by": "password", "adult": true})),
        ),
        (
            traits("1", 20),
            traits("1", 17),
            Some(json!({"number": "1", "by": "password"})),
        ),
        (traits("1", 20), traits("1", 21), None),
    ] {
        let changed = change((before, public.clone()), (after, public.clone()));
        assert_eq!(returned_changes(&app.settings(&changed).await).0, expected);
    }
}

#[tokio::test]
async fn without_previous_a_set_value_is_removed_unless_it_is_set_again() {
    let app = TestApp::with(
        r#"
checks:
  vat_number: {field: traits.vat_number, set: {metadata_public.number: "{value}"}}
  invite: {field: traits.invite, set: {metadata_public.invited: true}}
"#,
    )
    .start()
    .await;
    let unknown = payload()
        .saved()
        .with("/identity/traits", json!({"invite": "a"}))
        .with(
            "/identity/metadata_public",
            json!({"number": "1", "invited": true, "plan": "free"}),
        );
    assert_eq!(
        returned_changes(&app.settings(&unknown).await).0,
        Some(json!({"invited": true, "plan": "free"}))
    );
}
