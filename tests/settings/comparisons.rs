//! Comparisons that are never true, and names that no answer has.

use crate::paths::{checks, expect, review};

#[test]
fn an_optional_value_never_equals_a_value() {
    let never = "is an optional value, which never equals another value";
    for (expression, help) in [
        (
            "identity.traits.?oc == 'bad'",
            Some("write `identity.traits.?oc.orValue('')`"),
        ),
        (
            "'bad' == identity.traits.?oc",
            Some("identity.traits.?oc.orValue('')"),
        ),
        (
            "identity.traits.?n != 3",
            Some("identity.traits.?n.orValue(0)"),
        ),
        (
            "identity.traits.?b == true",
            Some("identity.traits.?b.orValue(false)"),
        ),
        (
            "identity.traits.?oc == null",
            Some("identity.traits.?oc.orValue(null)"),
        ),
        (
            "identity.traits.?oc in lists.bad",
            Some("identity.traits.?oc.orValue(null)"),
        ),
        (
            "identity.traits.?oc in ['a', 'a']",
            Some("identity.traits.?oc.orValue('')"),
        ),
        (
            "flow.?return_to == 'x'",
            Some("flow.?return_to.orValue('')"),
        ),
        ("identity.traits.?oc.orValue('') == 'bad'", None),
        ("identity.traits.?oc == optional.of('bad')", None),
        ("identity.traits.?oc == identity.traits.?od", None),
    ] {
        let in_check =
            format!("lists: {{bad: [a]}}\nchecks: {{a: {{refuse: [{{when: \"{expression}\"}}]}}}}");
        let subscription = format!(
            "lists: {{bad: [a]}}\nsubscriptions: {{a: {{events: [identity.created], when: \"{expression}\", send: {{post: \"http://a/\"}}}}}}"
        );
        for text in [in_check, subscription] {
            let expected: Vec<_> = help
                .map(|help| ("warning", never, help))
                .into_iter()
                .collect();
            expect(&review(None, &text), expression, &expected);
        }
    }
}

#[test]
fn a_status_never_equals_a_text() {
    let text =
        "checks: {a: {ask: {get: \"http://a/\"}, refuse: [{when: \"response.status == '404'\"}]}}";
    expect(
        &review(None, text),
        text,
        &[(
            "warning",
            "`response.status` is a number",
            "`response.status == 404`",
        )],
    );
    let text = "checks: {a: {ask: {get: \"http://a/\"}, on_unavailable: {when: \"response.status in ['404']\"}}}";
    expect(
        &review(None, text),
        text,
        &[(
            "warning",
            "`response.status` is a number",
            "remove the quotes",
        )],
    );
    let text = "subscriptions: {a: {events: [identity.created], send: {post: \"http://a/\"}, success_when: \"response.status == '201'\"}}";
    expect(
        &review(None, text),
        text,
        &[(
            "warning",
            "`response.status` is a number",
            "remove the quotes",
        )],
    );
    let text = "checks: {a: {ask: {get: \"http://a/\"}, refuse: [{when: response.status == 404}]}}";
    expect(&review(None, text), text, &[]);
}

#[test]
fn a_trait_is_compared_with_values_that_its_schema_allows() {
    checks(&[
        (
            "enum",
            "refuse: [{when: \"identity.traits.kind == 'comapny'\"}]",
            &[(
                "warning",
                "does not allow 'comapny' as `identity.traits.kind`",
                "did you mean `company`?",
            )],
        ),
        (
            "enum",
            "field: traits.kind, refuse: [{when: \"value in ['private', 'firm']\"}]",
            &[(
                "warning",
                "does not allow 'firm' as `value`",
                "use 'private' or 'company'",
            )],
        ),
        (
            "enum",
            "refuse: [{when: \"identity.traits.kind == 'company' || identity.traits.kind == ''\"}]",
            &[],
        ),
        (
            "number",
            "refuse: [{when: \"identity.traits.age == '18'\"}]",
            &[(
                "warning",
                "`identity.traits.age` is a whole number in the identity schema, and never equals a text",
                "compare it with a whole number",
            )],
        ),
        (
            "number",
            "refuse: [{when: identity.traits.age == 18 || identity.traits.age == 18.0}]",
            &[],
        ),
        (
            "flat",
            "field: traits.email, refuse: [{when: value == true}]",
            &[(
                "warning",
                "`value` is a text in the identity schema",
                "compare it with a text",
            )],
        ),
        (
            "nullable",
            "field: traits.phone, refuse: [{when: value == 'x'}]",
            &[],
        ),
    ]);
}

#[test]
fn a_schema_id_is_compared_with_known_ids() {
    let kratos = |key: &str| {
        format!(
            "kratos: {{{key}}}\nchecks: {{a: {{field: traits.email, required: true, when: \"identity.schema_id == 'defualt'\"}}}}"
        )
    };
    let several = kratos("identity_schemas: {default: \"file://flat.json\"}");
    expect(
        &review(None, &several),
        &several,
        &[(
            "warning",
            "no identity schema has the id `defualt`",
            "did you mean `default`?",
        )],
    );
    let one = kratos("identity_schema: \"file://flat.json\"");
    expect(&review(None, &one), &one, &[]);
}

#[test]
fn the_name_of_a_responses_header_is_in_lower_case() {
    let check = |rest: &str| {
        format!(
            "checks: {{i: {{ask: {{get: \"http://a/\"}}}}, a: {{ask: {{get: \"http://a/\"}}, {rest}}}}}"
        )
    };
    for (text, help) in [
        (check("refuse: [{when: \"response.headers['X-Foo'] == 'x'\"}]"), "write `headers['x-foo']`"),
        (check("refuse: [{when: \"response.headers[?'X-Foo'].orValue('') == 'x'\"}]"), "write `headers['x-foo']`"),
        (check("refuse: [{when: \"has(response.headers.Warning)\"}]"), "write `headers['warning']`"),
        (check("refuse: [{when: \"checks.i.response.headers['X-Foo'] == 'x'\"}]"), "write `headers['x-foo']`"),
        ("subscriptions: {a: {events: [identity.created], send: {post: \"http://a/\"}, abandon_when: \"response.headers['X-Foo'] == 'x'\"}}".to_owned(), "write `headers['x-foo']`"),
        ("subscriptions: {a: {events: [identity.created], send: {post: \"http://a/\"}, success_when: \"response.headers['Location'] != ''\"}}".to_owned(), "write `headers['location']`"),
    ] {
        expect(&review(None, &text), &text, &[("problem", "the names of a response's headers are in lower case", help)]);
    }
    let right = check("refuse: [{when: \"response.headers['x-foo'] == 'x'\"}]");
    expect(&review(None, &right), &right, &[]);
}
