//! Values that may be absent where a path, a text or a condition needs them, and the guards that exclude that.

use crate::paths::{checks, expect, review, subscriptions};

/// A request of a subscription for new identities.
fn created(send: &str) -> String {
    format!("events: [identity.created], send: {{{send}}}")
}

#[test]
fn a_mark_does_not_help_where_a_text_is_needed() {
    let cannot = "is optional in the identity schema, and this cannot be built without it";
    let when = "add `when: has(identity.traits.user_name)`";
    for (send, expected) in [
        (
            "post: \"http://a/{identity.traits.?user_name}\"",
            vec![("warning", cannot, when)],
        ),
        (
            "post: \"http://a/{identity.traits.?user_name.orValue('')}\"",
            vec![("warning", cannot, when)],
        ),
        (
            "post: \"http://a/u?name={identity.traits.?user_name}\"",
            vec![("warning", cannot, "orValue('')")],
        ),
        (
            "post: \"http://a/\", headers: {X-User: \"{identity.traits.?user_name}\"}",
            vec![("warning", cannot, "orValue('')")],
        ),
        (
            "post: \"http://a/\", query: {q: \"name {identity.traits.?user_name}\"}",
            vec![("warning", cannot, "orValue('')")],
        ),
        (
            "post: \"http://a/\", json: {q: \"name {identity.traits.?user_name}\"}",
            vec![("warning", cannot, "orValue('')")],
        ),
        (
            "post: \"http://a/\", form: {q: \"{identity.traits.?user_name.optMap(n, n.upperAscii())}\"}",
            vec![("warning", cannot, when)],
        ),
        (
            "post: \"http://a/u?name={identity.traits.?user_name.orValue('')}\"",
            vec![],
        ),
        (
            "post: \"http://a/{identity.traits.?user_name.orValue('none')}\"",
            vec![],
        ),
        (
            "post: \"http://a/\", headers: {X-User: \"{identity.traits.?user_name.orValue('')}\"}",
            vec![],
        ),
        (
            "post: \"http://a/\", json: {q: \"{identity.traits.?user_name.optMap(n, n.upperAscii())}\"}",
            vec![],
        ),
        (
            "post: \"http://a/\", query: {q: \"{identity.traits.?user_name}\"}",
            vec![],
        ),
    ] {
        subscriptions(&[("flat", &created(send), &expected)]);
    }
    let check = "field: traits.user_name, ask: {get: \"http://a/{identity.traits.?user_name}\"}";
    checks(&[("flat", check, &[])]);
}

#[test]
fn a_value_that_can_be_null_needs_another_guard() {
    let null = "`traits.phone` can be null in the identity schema";
    let guard = "write `identity.traits.phone != null && ";
    checks(&[
        (
            "nullable",
            "refuse: [{when: \"identity.traits.?phone.orValue('').startsWith('+')\"}]",
            &[("warning", null, guard)],
        ),
        (
            "nullable",
            "refuse: [{when: \"has(identity.traits.phone) && identity.traits.phone.startsWith('+')\"}]",
            &[("warning", null, "")],
        ),
        (
            "nullable",
            "refuse: [{when: \"identity.traits.?phone.orValue(null) != null && identity.traits.phone.startsWith('+')\"}]",
            &[],
        ),
        (
            "nullable",
            "refuse: [{when: \"type(identity.traits.?phone.orValue(null)) == string && identity.traits.phone.startsWith('+')\"}]",
            &[],
        ),
        (
            "nullable",
            "when: has(identity.traits.phone), ask: {get: \"http://a/{identity.traits.phone}\"}",
            &[("warning", null, "add `when: ")],
        ),
        (
            "nullable",
            "ask: {get: \"http://a/\", query: {q: \"x{identity.traits.?phone.orValue('none')}\"}}",
            &[("warning", null, "add `when: ")],
        ),
        (
            "nullable",
            "refuse: [{when: \"identity.traits.?company.orValue('').startsWith('x')\"}]",
            &[(
                "warning",
                "`traits.company` can be null",
                "write `identity.traits.?company.orValue(null) != null && ",
            )],
        ),
        (
            "nullable",
            "field: traits.phone, refuse: [{when: \"identity.traits.phone.startsWith('+')\"}]",
            &[],
        ),
    ]);
}

#[test]
fn a_guard_has_many_forms() {
    checks(&[
        (
            "nested",
            "refuse: [{when: \"'address' in identity.traits && 'city' in identity.traits.address && identity.traits.address.city == 'x'\"}]",
            &[],
        ),
        (
            "texts",
            "refuse: [{when: \"size(identity.traits.?tags.orValue([])) > 0 && identity.traits.tags[0] == 'x'\"}]",
            &[],
        ),
        (
            "texts",
            "refuse: [{when: \"has(identity.traits.tags) && identity.traits.tags.size() >= 2 && identity.traits.tags[1] == 'x'\"}]",
            &[],
        ),
        (
            "texts",
            "refuse: [{when: \"has(identity.traits.tags) && size(identity.traits.tags) != 0 && identity.traits.tags[0] == 'x'\"}]",
            &[],
        ),
        (
            "texts",
            "refuse: [{when: \"has(identity.traits.tags) && size(identity.traits.tags) > 0 && identity.traits.tags[1] == 'x'\"}]",
            &[("warning", "`traits.tags[1]` is optional", "")],
        ),
    ]);
}

#[test]
fn the_response_of_a_check_that_may_not_run_needs_a_guard() {
    let missing =
        "`checks.i.response` is missing for a sign-up for which `i` does not run, and this";
    let guard = "write `has(checks.i.response) && checks.i.response.body.ok == false`";
    for (i, rest, expected) in [
        (
            "field: traits.user_name, ",
            "refuse: [{when: checks.i.response.body.ok == false}]",
            vec![("warning", missing, guard)],
        ),
        (
            "flows: [settings], ",
            "field: traits.email, refuse: [{when: checks.i.response.body.ok == false}]",
            vec![("warning", missing, guard)],
        ),
        (
            "when: method == 'password', ",
            "refuse: [{when: checks.i.response.body.ok == false}]",
            vec![("warning", missing, guard)],
        ),
        (
            "field: traits.user_name, ",
            "ask: {get: \"http://b/{checks.i.response.body.id}\"}",
            vec![("warning", missing, "add `when: has(checks.i.response)`")],
        ),
        (
            "field: traits.user_name, ",
            "refuse: [{when: has(checks.i.response) && checks.i.response.body.ok == false}]",
            vec![],
        ),
        (
            "field: traits.user_name, ",
            "when: has(checks.i.response), refuse: [{when: checks.i.response.body.ok == false}]",
            vec![],
        ),
        (
            "field: traits.user_name, ",
            "field: traits.user_name, refuse: [{when: checks.i.response.body.ok == false}]",
            vec![],
        ),
        (
            "when: method == 'password', ",
            "when: method == 'password', refuse: [{when: checks.i.response.body.ok == false}]",
            vec![],
        ),
        (
            "field: traits.email, ",
            "refuse: [{when: checks.i.response.body.ok == false}]",
            vec![],
        ),
        (
            "",
            "refuse: [{when: checks.i.response.body.ok == false}]",
            vec![],
        ),
    ] {
        let text = format!("checks: {{i: {{{i}ask: {{get: \"http://a/\"}}}}, b: {{{rest}}}}}");
        expect(&review(Some("flat"), &text), &text, &expected);
    }
}

#[test]
fn metadata_is_present_only_if_its_check_always_runs() {
    let absent = "`metadata_public.company` may be absent";
    for (check, expected) in [
        ("ask: {get: \"http://a/\"}", vec![]),
        ("field: traits.email, ask: {get: \"http://a/\"}", vec![]),
        (
            "field: traits.vat_number, required: true, ask: {get: \"http://a/\"}",
            vec![],
        ),
        (
            "field: traits.vat_number, ask: {get: \"http://a/\"}",
            vec![(
                "warning",
                absent,
                "write `{identity.metadata_public.?company}`",
            )],
        ),
        (
            "when: method == 'password', ask: {get: \"http://a/\"}",
            vec![("warning", absent, "")],
        ),
        (
            "flows: [settings], ask: {get: \"http://a/{identity.traits.email}\"}",
            vec![("warning", absent, "")],
        ),
        (
            "ask: {get: \"http://a/\"}, on_unavailable: defer",
            vec![("warning", absent, "")],
        ),
    ] {
        let text = format!(
            "checks: {{vat: {{{check}, set: {{metadata_public.company: \"{{response.body.name}}\"}}}}}}
subscriptions: {{b: {{events: [identity.created], send: {{post: \"http://a/\", json: {{company: \"{{identity.metadata_public.company}}\"}}}}}}}}"
        );
        let kratos = "kratos: {admin_url: \"http://k/\", identity_schema: \"file://flat.json\"}";
        expect(
            &review(None, &format!("{kratos}\n{text}")),
            check,
            &expected,
        );
    }
}

#[test]
fn required_needs_a_guard_too() {
    let required = "is optional in the identity schema, and without it this expression fails, so the field is required";
    checks(&[
        (
            "flat",
            "field: traits.email, required: \"identity.traits.user_name == 'x'\"",
            &[(
                "warning",
                required,
                "write `has(identity.traits.user_name) && ",
            )],
        ),
        (
            "flat",
            "field: traits.email, required: \"has(identity.traits.user_name) && identity.traits.user_name == 'x'\"",
            &[],
        ),
        (
            "flat",
            "field: traits.vat_number, required: \"previous.traits.email == 'x'\"",
            &[(
                "problem",
                "a registration has no `previous`",
                "has(previous.traits.email)",
            )],
        ),
        (
            "flat",
            "field: traits.vat_number, flows: [settings], required: \"previous.traits.email == 'x'\"",
            &[],
        ),
        (
            "flat",
            "field: traits.vat_number, required: \"value == 'company'\"",
            &[(
                "warning",
                "so this expression is never true",
                "read other values",
            )],
        ),
        (
            "flat",
            "field: traits.vat_number, required: \"value.startsWith('x')\"",
            &[(
                "warning",
                "so this expression fails, and the field is always required",
                "read other values",
            )],
        ),
        (
            "flat",
            "field: traits.vat_number, required: \"identity.traits.email == 'x' || value == 'y'\"",
            &[],
        ),
    ]);
}

#[test]
fn a_check_that_runs_without_its_field_needs_a_guard_for_value() {
    let null = "with `absent: check`, `value` is null if the field is absent, and this";
    checks(&[
        (
            "flat",
            "field: traits.user_name, absent: check, refuse: [{when: value.size() > 5}]",
            &[("warning", null, "write `value != null && value.size() > 5`")],
        ),
        (
            "flat",
            "field: traits.user_name, absent: check, ask: {get: \"http://a/{value}\"}",
            &[("warning", null, "add `when: value != null`")],
        ),
        (
            "flat",
            "field: traits.user_name, absent: check, ask: {get: \"http://a/\", query: {q: \"{value}\"}}",
            &[("warning", null, "add `when: value != null`")],
        ),
        (
            "flat",
            "field: traits.user_name, absent: check, ask: {post: \"http://a/\", json: {q: \"{value}\"}}",
            &[],
        ),
        (
            "flat",
            "field: traits.user_name, absent: check, refuse: [{when: value == null || value == 'x'}]",
            &[],
        ),
        (
            "flat",
            "field: traits.user_name, absent: check, refuse: [{when: value != null && value.size() > 5}]",
            &[],
        ),
        (
            "flat",
            "field: traits.user_name, absent: check, when: value != null, ask: {get: \"http://a/{value}\"}",
            &[],
        ),
    ]);
}

#[test]
fn a_value_that_kratos_does_not_always_send_needs_a_guard() {
    for (check, expected) in [
        (
            "refuse: [{when: flow.provider.startsWith('g')}]",
            vec![(
                "warning",
                "`flow.provider` can be null",
                "write `flow.provider != null && flow.provider.startsWith('g')`",
            )],
        ),
        (
            "ask: {get: \"http://a/\", headers: {X-Return: \"{flow.return_to}\"}}",
            vec![(
                "warning",
                "`flow.return_to` may be absent",
                "add `when: has(flow.return_to)`, or write `{flow.?return_to.orValue('')}`",
            )],
        ),
        (
            "ask: {post: \"http://a/\", json: {to: \"{flow.return_to}\"}}",
            vec![(
                "warning",
                "`flow.return_to` may be absent",
                "write `{flow.?return_to}`",
            )],
        ),
        (
            "ask: {get: \"http://a/\", query: {ip: \"{request.client_ip}\"}}",
            vec![(
                "warning",
                "`request.client_ip` can be null",
                "write `{request.?client_ip}`",
            )],
        ),
        (
            "refuse: [{when: \"request.headers['Accept-Language'].startsWith('de')\"}]",
            vec![(
                "warning",
                "`request.headers['Accept-Language']` may be absent",
                "",
            )],
        ),
        (
            "flows: [registration, settings], refuse: [{when: flow.request_url.contains('x')}]",
            vec![(
                "warning",
                "`flow.request_url` can be null",
                "flow.request_url != null && ",
            )],
        ),
        (
            "flows: [registration, settings], refuse: [{when: flow.transient_payload.captcha == ''}]",
            vec![(
                "warning",
                "Kratos drops `flow.transient_payload.captcha` in settings",
                "has(flow.transient_payload.captcha) && ",
            )],
        ),
        ("refuse: [{when: flow.provider == 'google'}]", vec![]),
        ("refuse: [{when: flow.request_url.contains('x')}]", vec![]),
        (
            "flows: [registration, settings], refuse: [{when: \"query_parameter(flow.request_url, 'invite') == 'x'\"}]",
            vec![],
        ),
        (
            "refuse: [{when: flow.transient_payload.captcha == ''}]",
            vec![],
        ),
        (
            "refuse: [{when: \"!(query_parameter(flow.request_url, 'invite') == 'x')\"}]",
            vec![],
        ),
        (
            "refuse: [{when: \"request.headers['X-Country'] == 'x'\"}]",
            vec![],
        ),
        (
            "ask: {post: \"http://a/\", json: {ip: \"{request.client_ip}\", provider: \"{flow.provider}\"}}",
            vec![],
        ),
        (
            "ask: {get: \"http://a/\", query: {ip: \"{request.?client_ip}\", provider: \"{flow.?provider}\"}}",
            vec![],
        ),
    ] {
        let hooks = "hooks: {headers: [X-Country], client_ip: {header: X-Forwarded-For}}";
        let text = format!("{hooks}\nchecks: {{a: {{{check}}}}}");
        expect(&review(None, &text), check, &expected);
    }
}

#[test]
fn the_guard_of_what_accepts_lets_the_others_pass() {
    let sign_up = "a registration has no `previous`, so this fails for every sign-up";
    for (text, expected) in [
        (
            "checks: {a: {field: traits.a, ask: {get: \"http://a/\"}, refuse: [{when: 404}], accept: \"response.status == 200 && previous.traits.email == 'x'\"}}",
            (
                "problem",
                sign_up,
                "write `!has(previous.traits.email) || (response.status == 200 && previous.traits.email == 'x')`",
            ),
        ),
        (
            "subscriptions: {a: {events: [credentials.changed, identity.created], send: {post: \"http://a/\"}, success_when: response.body.was == previous.traits.email}}",
            (
                "problem",
                "`identity.created` has no `previous`",
                "write `!has(previous.traits.email) || response.body.was == previous.traits.email`, or `events: [credentials.changed]`",
            ),
        ),
        (
            "subscriptions: {a: {events: [identity.created, identity.updated], send: {post: \"http://a/\"}, abandon_when: response.body.was == previous.traits.email}}",
            (
                "problem",
                "`identity.created` has no `previous`",
                "write `has(previous.traits.email) && response.body.was",
            ),
        ),
        (
            "checks: {a: {field: traits.a, when: previous == null, required: true}}",
            (
                "problem",
                sign_up,
                "write `!has(previous.traits)` for `previous == null`",
            ),
        ),
        (
            "checks: {a: {field: traits.b, refuse: [{when: \"value == 'x' || previous.traits.a == value\"}]}}",
            (
                "problem",
                sign_up,
                "write `value == 'x' || (has(previous.traits.a) && previous.traits.a == value)`",
            ),
        ),
        (
            "subscriptions: {a: {events: [identity.created], when: \"previous.traits.email == 'x'\", send: {post: \"http://a/\"}}}",
            (
                "problem",
                "`previous` does not exist here",
                "only for the events `identity.updated` and `credentials.changed`",
            ),
        ),
    ] {
        expect(&review(None, text), text, &[expected]);
    }
}

#[test]
fn a_list_or_an_object_has_no_text() {
    subscriptions(&[
        (
            "texts",
            &created("post: \"http://a/\", query: {tags: \"{identity.traits.emails}\"}"),
            &[(
                "warning",
                "`identity.traits.emails` is a list, and cannot be inserted into a text",
                "write `{identity.traits.emails.join(',')}`",
            )],
        ),
        (
            "nested",
            &created("post: \"http://a/{identity.traits.name}\""),
            &[(
                "warning",
                "`identity.traits.name` is an object",
                "send it in `json`",
            )],
        ),
        (
            "nested",
            &created("post: \"http://a/\", headers: {X-Traits: \"{identity.traits}\"}"),
            &[("warning", "`identity.traits` is an object", "")],
        ),
        (
            "nested",
            &created("post: \"http://a/\", form: {who: \"{identity}\"}"),
            &[("warning", "`identity` is an object", "")],
        ),
        (
            "nested",
            &created(
                "post: \"http://a/\", json: {name: \"{identity.traits.name}\", who: \"{identity}\"}",
            ),
            &[],
        ),
        (
            "texts",
            &created("post: \"http://a/\", query: {tags: \"{identity.traits.emails.join(',')}\"}"),
            &[],
        ),
    ]);
}
