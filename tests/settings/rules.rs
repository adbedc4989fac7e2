//! Rules that never refuse what they should refuse.

use vestibule::config::schema;

use crate::paths::{checks, expect, review};

#[test]
fn every_section_knows_its_keys() {
    fn open(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
        if value["properties"].is_object()
            && value["additionalProperties"] != false
            && !value["additionalProperties"].is_object()
        {
            found.push(path.to_owned());
        }
        let members = value.as_object().into_iter().flatten();
        for (key, inner) in members {
            open(inner, &format!("{path}/{key}"), found);
        }
        for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
            open(inner, &format!("{path}/{index}"), found);
        }
    }
    let mut found = Vec::new();
    open(&schema::of_the_file(), "", &mut found);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn an_unknown_key_is_a_problem_in_every_section() {
    for (text, key, help) in [
        (
            "subscriptions: {a: {events: [identity.created], send: {post: \"http://a/\", josn: {only: \"{identity.id}\"}}}}",
            "`josn`",
            "did you mean `json`?",
        ),
        (
            "subscriptions: {a: {events: [identity.created], send: {post: \"http://a/\", tmieout: 1s}}}",
            "`tmieout`",
            "did you mean `timeout`?",
        ),
        (
            "subscriptions: {a: {events: [identity.created], send: {post: \"http://a/\", from: {a: b}}}}",
            "`from`",
            "`form`",
        ),
        (
            "checks: {a: {ask: {get: \"http://a/\", qeury: {a: b}}}}",
            "`qeury`",
            "did you mean `query`?",
        ),
        (
            "checks: {a: {reserve: {take: {post: \"http://a/\", josn: {}}, release: {delete: \"http://a/\"}}}}",
            "`josn`",
            "did you mean `json`?",
        ),
    ] {
        let review = review(None, text);
        let report = review.problems.to_string();
        assert_eq!(review.problems.len(), 1, "{text}\n{report}");
        assert!(
            report.contains(key) && report.contains(help),
            "{text}\n{report}"
        );
    }
}

#[test]
fn what_accept_does_not_accept_is_not_refused() {
    let message =
        "a response that is not accepted counts as unavailable, so nothing is ever refused";
    for (rest, help) in [
        (
            "accept: response.body.valid",
            Some("`refuse: [{when: \"!response.body.valid\"}]`"),
        ),
        (
            "accept: \"response.status == 200 && response.body.result == 'ok'\"",
            Some("refuse: [{when: "),
        ),
        ("accept: 404", Some("write `refuse: [{when: 200}]`")),
        ("accept: response.status == 404", Some("refuse: [{when: ")),
        (
            "accept: response.body.valid, refuse: [{when: \"!response.body.valid\"}]",
            None,
        ),
        (
            "accept: response.body.valid, on_unavailable: {unexpected_answer: refuse}",
            None,
        ),
        ("accept: response.body.valid, mode: observe", None),
        ("accept: has(response.body.id)", None),
        ("accept: 200", None),
        ("accept: response.status == 200", None),
        ("accept: response.status < 300", None),
    ] {
        let text = format!(
            "checks: {{a: {{field: traits.a, ask: {{get: \"http://a/{{value}}\"}}, {rest}}}}}"
        );
        let expected: Vec<_> = help
            .map(|help| ("warning", message, help))
            .into_iter()
            .collect();
        expect(&review(None, &text), rest, &expected);
    }
}

#[test]
fn a_setting_without_an_effect_is_a_warning() {
    for (text, message, help) in [
        (
            "checks: {a: {field: traits.a, refuse: [{when: \"value == 'x'\"}], on_unavailable: accept}}",
            "a check without a request is never without an answer",
            "{expression: accept}",
        ),
        (
            "checks: {a: {field: traits.a, ask: {get: \"http://a/\"}, refuse: [{when: 404}], accept: 404}}",
            "`refuse` has the status 404 too",
            "remove one",
        ),
        (
            "checks: {a: {field: traits.a, ask: {get: \"http://a/\"}, refuse: [{when: 404}], accept: 200}}",
            "",
            "",
        ),
        (
            "checks: {a: {field: traits.a, refuse: [{when: \"value == 'x'\"}], on_unavailable: {expression: accept}}}",
            "",
            "",
        ),
        (
            "subscriptions: {a: {events: [identity.created], send: {post: \"http://a/\", headers: {Idempotency-Key: x}}}}",
            "Vestibule adds its own `Idempotency-Key`",
            "choose another name",
        ),
        (
            "checks: {a: {ask: {get: \"http://a/\", headers: {Idempotency-Key: x}}}}",
            "",
            "",
        ),
        (
            "subscriptions: {a: {events: [registration.failed], send: {post: \"http://a/\"}, write_back: {metadata_admin.a: 1}}}",
            "`registration.failed` has no identity, so nothing is written",
            "add `identity.created`",
        ),
    ] {
        let text = format!("kratos: {{admin_url: \"http://k/\"}}\n{text}");
        let expected: Vec<_> = Some(("warning", message, help))
            .filter(|(_, message, _)| !message.is_empty())
            .into_iter()
            .collect();
        expect(&review(None, &text), &text, &expected);
    }
}

#[test]
fn accept_without_a_request_is_a_problem() {
    let message = "`accept` needs a response, and this check has no `ask`";
    for (accept, help) in [
        (
            "\"in_domains(value, lists.staff)\"",
            "write `refuse: [{when: \"!in_domains(value, lists.staff)\"}]`",
        ),
        (
            "\"value == 'x'\"",
            "write `refuse: [{when: \"!(value == 'x')\"}]`",
        ),
        ("\"!flow.provider\"", "flow.provider"),
    ] {
        let text = format!(
            "lists: {{staff: [example.com]}}\nchecks: {{a: {{field: traits.email, accept: {accept}}}}}"
        );
        expect(&review(None, &text), accept, &[("problem", message, help)]);
    }
}

#[test]
fn a_rule_about_an_absent_field_needs_the_check_to_run() {
    let never = "this is true only if `traits.user_name` is absent, and without its field the check does not run";
    let warning: &[_] = &[("warning", never, "write `required: true`")];
    for rule in [
        "value == null",
        "value == ''",
        "size(value) == 0",
        "value.size() < 1",
        "value.trim() == ''",
        "!has(identity.traits.user_name)",
        "identity.traits.user_name == ''",
        "value == '' || value == 'root'",
        "identity.traits.email == 'a' && value == null",
        "value in ['', null]",
    ] {
        let check = format!("field: traits.user_name, refuse: [{{when: \"{rule}\"}}]");
        checks(&[("flat", &check, warning)]);
    }
    checks(&[
        (
            "flat",
            "field: traits.user_name, when: value == null, ask: {get: \"http://a/\"}",
            warning,
        ),
        (
            "flat",
            "field: traits.user_name, absent: check, refuse: [{when: value == null}]",
            &[],
        ),
        (
            "flat",
            "field: traits.user_name, required: true, refuse: [{when: value == ''}]",
            &[],
        ),
        (
            "flat",
            "field: traits.user_name, refuse: [{when: value != null && value.startsWith('x')}]",
            &[],
        ),
        (
            "flat",
            "field: traits.user_name, refuse: [{when: size(value) < 3}]",
            &[],
        ),
        (
            "flat",
            "field: traits.user_name, refuse: [{when: \"value == 'x'\"}]",
            &[],
        ),
        (
            "flat",
            "field: traits.user_name, refuse: [{when: \"!has(identity.traits.vat_number)\"}]",
            &[],
        ),
    ]);
}

#[test]
fn the_id_of_an_identity_is_not_known_before_it_is_saved() {
    let nil = "before a registration, `identity.id` is `00000000-0000-0000-0000-000000000000`";
    for (check, expected) in [
        (
            "flows: [registration], ask: {get: \"http://a/{identity.id}\"}",
            vec![("warning", nil, "read `flow.id`")],
        ),
        (
            "ask: {post: \"http://a/\", json: {id: \"{identity.id}\"}}",
            vec![("warning", nil, "read `flow.id`")],
        ),
        (
            "field: traits.a, reserve: {take: {post: \"http://a/{identity.id}\"}, release: {delete: \"http://a/{value}\"}}",
            vec![("warning", nil, "read `flow.id`")],
        ),
        (
            "field: traits.a, ask: {get: \"http://a/\"}, set: {metadata_public.id: \"{identity.id}\"}",
            vec![("warning", nil, "read `flow.id`")],
        ),
        (
            "field: traits.a, reserve: {take: {post: \"http://a/{value}\"}, confirm: {post: \"http://a/{identity.id}\"}, release: {delete: \"http://a/{value}\"}}",
            vec![],
        ),
        (
            "flows: [settings], field: traits.a, ask: {get: \"http://a/{identity.id}\"}",
            vec![],
        ),
        // The account itself is left out of a search.
        (
            "field: traits.a, ask: {get: \"http://a/{value}\", query: {except: \"{identity.id}\"}}",
            vec![],
        ),
    ] {
        let text = format!("kratos: {{admin_url: \"http://k/\"}}\nchecks: {{a: {{{check}}}}}");
        expect(&review(None, &text), check, &expected);
    }
}
