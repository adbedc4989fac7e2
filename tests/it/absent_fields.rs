//! What an absent field means: `when` first, then `absent`, `required` and the rest of the check.

use serde_json::{Value, json};

use crate::support::app::Reply;
use crate::support::payload::Payload;
use crate::support::{FakeService, TestApp, payload};

const REQUIRED: u64 = 4_900_003;
const NOT_VALID: u64 = 4_900_002;
const TRY_AGAIN: u64 = 4_900_001;

/// What each value of the key `absent` does with an absent field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Admitted,
    /// Refused with this message on the field.
    Refused(u64),
}

use Expected::{Admitted, Refused};

fn assert_result(reply: &Reply, expected: Expected, place: &str, case: &str) {
    match expected {
        Admitted => assert!(reply.is_admitted(), "{case}: {reply:?}"),
        Refused(id) => assert_eq!(reply.refused(), [(place.to_owned(), id)], "{case}"),
    }
}

fn sign_up(traits: Value) -> Payload {
    payload().with("/identity/traits", traits)
}

fn change(before: Value, after: Value) -> Payload {
    sign_up(after).changed_from(&before)
}

/// The check of the issue: the number of a company, which a private person does not have.
const COMPANY: &str =
    "field: traits.vat_number, required: true, when: identity.traits.kind == 'company'";

#[tokio::test]
async fn when_is_evaluated_before_an_absent_field_is_refused() {
    let nested =
        "field: traits.company.vat, required: true, when: identity.traits.company.kind == 'firm'";
    let listed =
        "field: traits.members.0, absent: refuse, when: \"'team' in identity.traits.plans\"";
    let number = "field: traits.seats, required: true, when: identity.traits.size > 1";
    let flag = "field: traits.terms, required: true, when: has(identity.traits.newsletter) && identity.traits.newsletter";
    #[rustfmt::skip]
    let table = [
        (COMPANY, json!({"kind": "private"}), Admitted),
        (COMPANY, json!({"kind": "private", "vat_number": " "}), Admitted),
        (COMPANY, json!({"kind": "company"}), Refused(REQUIRED)),
        (COMPANY, json!({"kind": "company", "vat_number": null}), Refused(REQUIRED)),
        (COMPANY, json!({"kind": "company", "vat_number": "DE1"}), Admitted),
        (nested, json!({"company": {"kind": "none"}}), Admitted),
        (nested, json!({"company": {"kind": "firm"}}), Refused(REQUIRED)),
        (nested, json!({"company": {"kind": "firm", "vat": {}}}), Refused(REQUIRED)),
        (listed, json!({"plans": ["solo"]}), Admitted),
        (listed, json!({"plans": ["team"]}), Refused(REQUIRED)),
        (listed, json!({"plans": ["team"], "members": []}), Refused(REQUIRED)),
        (listed, json!({"plans": ["team"], "members": ["a"]}), Admitted),
        (number, json!({"size": 1}), Admitted),
        (number, json!({"size": 2}), Refused(REQUIRED)),
        (number, json!({"size": 2, "seats": 0}), Admitted),
        (flag, json!({}), Admitted),
        (flag, json!({"newsletter": false}), Admitted),
        (flag, json!({"newsletter": true}), Refused(REQUIRED)),
        (flag, json!({"newsletter": true, "terms": false}), Admitted),
    ];
    for (check, traits, expected) in table {
        let app = TestApp::with(&format!("checks: {{c: {{{check}}}}}"))
            .start()
            .await;
        let case = format!("{check} {traits}");
        let body = sign_up(traits).with("/nodes", json!([{"name": "traits.vat_number"}]));
        let place = if check == COMPANY {
            "#/traits/vat_number"
        } else {
            "#/"
        };
        assert_result(&app.pre(&body).await, expected, place, &case);
        // Without the previous identity, a change in settings counts as if everything had changed.
        assert_result(
            &app.settings(&body.clone().saved()).await,
            expected,
            place,
            &case,
        );
        let path = "/hooks/registration/pre?method=oidc";
        assert_result(
            &app.call(path, body.to_string()).await,
            expected,
            place,
            &case,
        );
    }
}

#[tokio::test]
async fn a_change_of_the_condition_alone_makes_an_absent_field_required() {
    let conditional = "field: traits.vat_number, required: identity.traits.kind == 'company'";
    let of_public = "field: traits.vat_number, required: identity.metadata_public.plan == 'gold'";
    let private = json!({"kind": "private"});
    let company = json!({"kind": "company"});
    #[rustfmt::skip]
    let table = [
        (COMPANY, private.clone(), company.clone(), Refused(REQUIRED)),
        (COMPANY, private.clone(), json!({"kind": "company", "vat_number": "\u{200b}"}), Refused(REQUIRED)),
        (COMPANY, private.clone(), json!({"kind": "company", "vat_number": "DE1"}), Admitted),
        (COMPANY, company.clone(), private.clone(), Admitted),
        (COMPANY, company.clone(), json!({"kind": "company", "name": "new"}), Admitted),
        (COMPANY, json!({"kind": "company", "vat_number": "DE1"}), company.clone(), Refused(REQUIRED)),
        (COMPANY, json!({"kind": "company", "vat_number": "DE1"}), private.clone(), Admitted),
        (conditional, private.clone(), company.clone(), Refused(REQUIRED)),
        (conditional, private.clone(), json!({"kind": "club"}), Admitted),
        (conditional, company.clone(), json!({"kind": "company", "name": "new"}), Admitted),
        (conditional, company.clone(), json!({}), Refused(REQUIRED)),
    ];
    for (check, before, after, expected) in table {
        let app = TestApp::with(&format!("checks: {{c: {{{check}}}}}"))
            .start()
            .await;
        let case = format!("{check} {before} → {after}");
        let reply = app.settings(&change(before, after)).await;
        assert_result(&reply, expected, "#/traits/vat_number", &case);
    }
    let app = TestApp::with(&format!("checks: {{c: {{{of_public}}}}}"))
        .start()
        .await;
    let becomes_gold = change(json!({}), json!({}))
        .with("/previous/metadata_public", json!({"plan": "free"}))
        .with("/identity/metadata_public", json!({"plan": "gold"}));
    assert_eq!(app.settings(&becomes_gold).await.refused()[0].1, REQUIRED);
}

#[tokio::test]
async fn the_key_absent_says_what_an_absent_field_means() {
    let refuses_null = "refuse: [{when: value == null, message: not_possible}]";
    let absent_values = [
        json!({}),
        json!({"invite": null}),
        json!({"invite": ""}),
        json!({"invite": "\u{a0}\u{200b}"}),
        json!({"invite": []}),
        json!({"invite": {}}),
    ];
    let table = [
        ("", Admitted),
        ("absent: skip", Admitted),
        ("required: false", Admitted),
        ("absent: skip, required: false", Admitted),
        ("absent: refuse", Refused(REQUIRED)),
        ("required: true", Refused(REQUIRED)),
        ("absent: refuse, required: true", Refused(REQUIRED)),
        ("absent: check", Refused(4_900_004)),
        ("absent: check, required: false", Refused(4_900_004)),
        // The condition first, and `absent` where it does not hold.
        ("required: 'true'", Refused(REQUIRED)),
        ("required: method == 'password'", Refused(REQUIRED)),
        ("required: method == 'oidc'", Admitted),
        ("required: method == 'oidc', absent: skip", Admitted),
        (
            "required: method == 'oidc', absent: check",
            Refused(4_900_004),
        ),
        (
            "required: method == 'password', absent: check",
            Refused(REQUIRED),
        ),
        // A condition that fails refuses.
        ("required: identity.traits.none == 1", Refused(REQUIRED)),
        (
            "required: identity.traits.none, absent: check",
            Refused(REQUIRED),
        ),
        ("required: value.size() > 1", Refused(REQUIRED)),
        ("required: value == 'x'", Admitted),
        ("required: value == null", Refused(REQUIRED)),
        (
            "required: identity.traits.none == 1, on_unavailable: {expression: accept}",
            Refused(REQUIRED),
        ),
    ];
    for (keys, expected) in table {
        for traits in &absent_values {
            let keys = if keys.is_empty() {
                String::new()
            } else {
                format!("{keys}, ")
            };
            let yaml = format!("checks: {{c: {{field: traits.invite, {keys}{refuses_null}}}}}");
            let app = TestApp::with(&yaml).start().await;
            let reply = app.pre(&sign_up(traits.clone())).await;
            assert_result(
                &reply,
                expected,
                "#/traits/invite",
                &format!("{keys} {traits}"),
            );
            let present = app.pre(&sign_up(json!({"invite": "a"}))).await;
            assert_eq!(present.status, 204, "{keys}");
        }
    }
}

#[tokio::test]
async fn with_absent_check_the_value_is_null_wherever_it_is_read() {
    let service = FakeService::start();
    let yaml = r#"
checks:
  asked:
    field: traits.nick
    absent: check
    when: value == null || value.startsWith('a')
    ask: {post: "${env:SERVICE}/a", json: {nick: "{value}", length: "{value == null ? 0 : size(value)}"}}
    refuse: [{when: "value == null && response.body.full", message: "Please choose a nick name."}]
    set: {metadata_public.nick: "{value}", metadata_public.has_nick: "{value != null}"}
  path: {field: traits.nick, absent: check, when: identity.traits.path, ask: {get: "${env:SERVICE}/{value}"}}
  text: {field: traits.nick, absent: check, when: identity.traits.text, refuse: [{when: value.startsWith('x')}]}
"#;
    let app = TestApp::with(yaml)
        .service("SERVICE", &service)
        .start()
        .await;
    for absent in [json!(null), json!(""), json!("\u{200b}"), json!([])] {
        service.respond_with(200, &json!({"full": false}));
        let traits = json!({"nick": absent, "path": false, "text": false});
        let reply = app.pre(&sign_up(traits.clone())).await;
        assert_eq!(
            service.next_call().await.json(),
            json!({"nick": null, "length": 0}),
            "{absent}"
        );
        assert_eq!(
            reply.json()["identity"]["metadata_public"],
            json!({"has_nick": false})
        );
        service.respond_with(200, &json!({"full": true}));
        let reply = app.pre(&sign_up(traits)).await;
        assert_eq!(
            reply.messages()[0].2,
            "Please choose a nick name.",
            "{absent}"
        );
        service.next_call().await;
    }
    service.respond_with(200, &json!({"full": false}));
    // A value that is null cannot be in a path, and is no text.
    for (path, text) in [(true, false), (false, true)] {
        let traits = json!({"path": path, "text": text});
        assert_eq!(
            app.pre(&sign_up(traits)).await.refused(),
            [("#/".to_owned(), NOT_VALID)]
        );
        service.next_call().await;
    }
    let present = json!({"nick": "ada", "path": false, "text": false});
    assert_eq!(app.pre(&sign_up(present)).await.status, 200);
    assert_eq!(
        service.next_call().await.json(),
        json!({"nick": "ada", "length": 3})
    );
}

#[tokio::test]
async fn a_missing_response_of_another_check_does_not_make_a_field_required() {
    let service = FakeService::start();
    service.respond_with(503, &json!({}));
    let yaml = r#"
checks:
  kind: {field: traits.kind, ask: {get: "${env:SERVICE}/kinds/{value}"}, on_unavailable: accept}
  number: {field: traits.vat_number, required: "checks.kind.response.body.needs_number"}
"#;
    let app = TestApp::with(yaml)
        .service("SERVICE", &service)
        .start()
        .await;
    // Without a kind there is no response, which no later input of the number repairs.
    let reply = app.pre(&sign_up(json!({}))).await;
    assert_eq!(
        reply.refused(),
        [("#/traits/vat_number".to_owned(), TRY_AGAIN)]
    );
    for (needs_number, expected) in [(true, Refused(REQUIRED)), (false, Admitted)] {
        service.respond_with(200, &json!({ "needs_number": needs_number }));
        let reply = app.pre(&sign_up(json!({"kind": "firm"}))).await;
        assert_result(
            &reply,
            expected,
            "#/traits/vat_number",
            "the response decides",
        );
    }
    // A response without that member is an error on the field.
    service.respond_with(200, &json!({}));
    let reply = app.pre(&sign_up(json!({"kind": "firm"}))).await;
    assert_eq!(reply.refused()[0].1, REQUIRED);
}
