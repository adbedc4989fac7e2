//! Paths of `identity` and `previous` compared with the identity schemas: names, types, and values that may be absent.

use std::path::Path;

use vestibule::config::{self, Review};

use crate::{environment, file};

/// A kind of finding, a part of its message, and a part of its `help:`.
pub type Expected = (&'static str, &'static str, &'static str);

/// Checks settings with the identity schema of this shape, or without one.
pub fn review(shape: Option<&str>, text: &str) -> Review {
    let kratos =
        shape.map(|shape| format!("kratos: {{identity_schema: \"file://{shape}.json\"}}\n"));
    let text = format!("{}{text}", kratos.unwrap_or_default());
    let path = file("tests/fixtures/identity-schemas/vestibule.yaml");
    config::review_text(&text, Path::new(&path), &environment())
}

/// Compares the findings, in the order of the file: problems first.
pub fn expect(review: &Review, about: &str, expected: &[Expected]) {
    let found: Vec<(&str, String, String)> =
        [("problem", &review.problems), ("warning", &review.warnings)]
            .into_iter()
            .flat_map(|(kind, problems)| {
                problems.iter().map(move |problem| {
                    let help = problem.hint.clone().unwrap_or_default();
                    (kind, problem.message.clone(), help)
                })
            })
            .collect();
    let report = format!("{}{}", review.problems, review.warnings);
    assert_eq!(found.len(), expected.len(), "{about}\n{report}");
    for ((kind, message, help), (wanted, part, help_part)) in found.iter().zip(expected) {
        assert_eq!(kind, wanted, "{about}\n{report}");
        assert!(message.contains(part), "{about}\n{part}\n{report}");
        assert!(help.contains(help_part), "{about}\n{help_part}\n{report}");
        assert!(!help.is_empty(), "{about}\n{report}");
    }
}

/// Checks a table of (schema, one check, findings).
pub fn checks(table: &[(&str, &str, &[Expected])]) {
    for (shape, check, expected) in table {
        let text = format!("checks:\n  a: {{{check}}}\n");
        expect(&review(Some(shape), &text), check, expected);
    }
}

/// Checks a table of (schema, one subscription, findings).
pub fn subscriptions(table: &[(&str, &str, &[Expected])]) {
    for (shape, subscription, expected) in table {
        let text = format!(
            "kratos: {{admin_url: \"http://kratos:4434\", identity_schema: \"file://{shape}.json\"}}\nsubscriptions:\n  a: {{{subscription}}}\n"
        );
        expect(&review(None, &text), subscription, expected);
    }
}

#[test]
fn a_field_that_no_schema_has_is_a_problem_with_the_nearest_trait() {
    checks(&[
        ("flat", "field: traits.vat_number, required: true", &[]),
        (
            "flat",
            "field: traits.vat_nubmer, required: true",
            &[(
                "problem",
                "the identity schema has no `traits.vat_nubmer`",
                "did you mean `traits.vat_number`?",
            )],
        ),
        (
            "nested",
            "field: traits.address.cty, required: true",
            &[(
                "problem",
                "has no `traits.address.cty`",
                "did you mean `traits.address.city`?",
            )],
        ),
        (
            "nested",
            "field: traits.adress.city, required: true",
            &[(
                "problem",
                "has no `traits.adress.city`",
                "did you mean `traits.address.city`?",
            )],
        ),
        (
            "number",
            "field: traits.shoe_size, required: true",
            &[(
                "problem",
                "has no `traits.shoe_size`",
                "add it to the identity schema, or use one of its traits: `traits.email`, `traits.age`",
            )],
        ),
        (
            "flat",
            "field: traits.email.domain, required: true",
            &[(
                "problem",
                "`traits.email` is a text in the identity schema, so it has no `domain`",
                "read `traits.email`",
            )],
        ),
        ("if-then", "field: traits.company, required: true", &[]),
        ("references", "field: traits.name.last, required: true", &[]),
    ]);
}

#[test]
fn an_index_is_checked_against_the_items_of_the_list() {
    checks(&[
        ("texts", "field: traits.emails.0, required: true", &[]),
        ("texts", "field: traits.tags.3, required: true", &[]),
        (
            "objects",
            "field: traits.projects.0.name, required: true",
            &[],
        ),
        (
            "objects",
            "field: traits.projects.0.nmae, required: true",
            &[(
                "problem",
                "has no `traits.projects.0.nmae`",
                "did you mean `traits.projects.0.name`?",
            )],
        ),
        (
            "objects",
            "field: traits.projects.name, required: true",
            &[(
                "problem",
                "`traits.projects` is a list in the identity schema, so it has no `name`",
                "read `traits.projects`",
            )],
        ),
        (
            "flat",
            "field: traits.email.0, required: true",
            &[(
                "problem",
                "`traits.email` is a text in the identity schema, so it has no `0`",
                "read `traits.email`",
            )],
        ),
        (
            "texts",
            "refuse: [{when: \"identity.traits.emails[0].endsWith('.invalid')\"}]",
            &[],
        ),
        (
            "objects",
            "refuse: [{when: \"identity.traits.?projects[?0].?nmae.orValue('') == 'x'\"}]",
            &[(
                "problem",
                "has no `traits.projects.0.nmae`",
                "did you mean `traits.projects.0.name`?",
            )],
        ),
        (
            "objects",
            "refuse: [{when: \"identity.traits.projects.name == 'x'\"}]",
            &[(
                "problem",
                "`traits.projects` is a list in the identity schema, so it has no `name`",
                "name an entry, as in `traits.projects.0.name`",
            )],
        ),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_path_in_an_expression_or_a_template_is_checked() {
    checks(&[
        (
            "flat",
            "refuse: [{when: \"identity.traits.emial == 'x'\"}]",
            &[(
                "problem",
                "has no `traits.emial`",
                "did you mean `traits.email`?",
            )],
        ),
        (
            "flat",
            "when: has(identity.traits.vat), required: true, field: traits.email",
            &[(
                "problem",
                "has no `traits.vat`",
                "did you mean `traits.vat_number`?",
            )],
        ),
        (
            "flat",
            "flows: [settings], refuse: [{when: \"previous.traits.emial != identity.traits.email\"}]",
            &[(
                "problem",
                "has no `traits.emial`",
                "did you mean `traits.email`?",
            )],
        ),
        (
            "flat",
            "ask: {get: \"http://a/\", query: {q: \"{identity.traits.emial}\"}}",
            &[(
                "problem",
                "has no `traits.emial`",
                "did you mean `traits.email`?",
            )],
        ),
        (
            "flat",
            "ask: {post: \"http://a/\", json: {deep: [\"{identity.traits['e-mail']}\"]}}",
            &[(
                "problem",
                "has no `traits.e-mail`",
                "did you mean `traits.email`?",
            )],
        ),
        (
            "flat",
            "refuse: [{when: \"identity.traits.email == 'x'\", message: \"Not {identity.traits.emial}.\"}]",
            &[(
                "problem",
                "has no `traits.emial`",
                "did you mean `traits.email`?",
            )],
        ),
        (
            "flat",
            "ask: {get: \"http://a/\"}, refuse: [{when: 404}], accept: \"response.body.ok && identity.traits.emial != ''\"",
            &[(
                "problem",
                "has no `traits.emial`",
                "did you mean `traits.email`?",
            )],
        ),
        (
            "flat",
            "field: traits.user_name, refuse: [{when: \"value.length > 3\"}]",
            &[(
                "problem",
                "`traits.user_name` is a text in the identity schema, so it has no `length`",
                "write `size(value)`",
            )],
        ),
        (
            "flat",
            "refuse: [{when: \"identity.traits.email.length > 3\"}]",
            &[(
                "problem",
                "so it has no `length`",
                "write `size(identity.traits.email)`",
            )],
        ),
        (
            "nested",
            "field: traits.name, refuse: [{when: \"value.last == value.first\"}]",
            &[],
        ),
        (
            "nested",
            "field: traits.name, refuse: [{when: \"value.lsat == 'x'\"}]",
            &[(
                "problem",
                "has no `traits.name.lsat`",
                "did you mean `traits.name.last`?",
            )],
        ),
        // A loop or a computed key reads the list or the object as a whole.
        (
            "objects",
            "refuse: [{when: \"has(identity.traits.projects) && identity.traits.projects.exists(p, p.nmae == 'x')\"}]",
            &[],
        ),
        (
            "flat",
            "refuse: [{when: \"identity.traits[method] == 'x'\"}]",
            &[],
        ),
    ]);
    subscriptions(&[
        (
            "flat",
            "events: [identity.created], when: \"identity.traits.emial != ''\", send: {post: \"http://a/\"}",
            &[(
                "problem",
                "has no `traits.emial`",
                "did you mean `traits.email`?",
            )],
        ),
        (
            "flat",
            "events: [identity.created], send: {post: \"http://a/{identity.traits.emial}\"}",
            &[(
                "problem",
                "has no `traits.emial`",
                "did you mean `traits.email`?",
            )],
        ),
        (
            "flat",
            "events: [identity.updated], send: {post: \"http://a/\", form: {was: \"{previous.traits.emial}\"}}",
            &[(
                "problem",
                "has no `traits.emial`",
                "did you mean `traits.email`?",
            )],
        ),
        (
            "flat",
            "events: [identity.created], send: {post: \"http://a/\"}, success_when: \"response.body.email == identity.traits.emial\"",
            &[(
                "problem",
                "has no `traits.emial`",
                "did you mean `traits.email`?",
            )],
        ),
    ]);
}

#[test]
fn the_problem_is_at_the_path_in_the_file() {
    let text = "checks:\n  a:\n    refuse:\n      - when: >-\n          has(identity.traits.email)\n          && identity.traits.emial == 'x'\n  b: {ask: {get: \"http://a/\", query: {q: \"é {identity.traits.email} {identity.traits.emial}\"}}}\n";
    let review = review(Some("flat"), text);
    let found: Vec<String> = review
        .problems
        .iter()
        .map(|problem| format!("{} {}:{}", problem.path, problem.at.line, problem.at.column))
        .collect();
    assert_eq!(
        found,
        ["checks.a.refuse[0].when 6:11", "checks.b.ask.query.q 8:70"]
    );
}

/// One schema is for customers, and one for companies.
fn of_two(text: &str) -> Review {
    let text = format!(
        "kratos: {{admin_url: \"http://kratos:4434\", identity_schemas: {{customer: \"file://flat.json\", person: \"file://nested.json\"}}}}\n{text}"
    );
    review(None, &text)
}

#[test]
fn a_path_in_some_schemas_is_a_warning_unless_when_reads_the_schema() {
    let in_one = (
        "warning",
        "the identity schema `person` has no `traits.vat_number`",
        "add `when: \"identity.schema_id == 'customer'\"`",
    );
    for (check, expected) in [
        ("field: traits.email, required: true", vec![]),
        ("field: traits.vat_number, required: true", vec![in_one]),
        (
            "field: traits.vat_number, required: true, when: \"identity.schema_id == 'customer'\"",
            vec![],
        ),
        (
            "refuse: [{when: \"identity.schema_id == 'customer' && has(identity.traits.vat_number)\"}]",
            vec![],
        ),
        (
            "refuse: [{when: \"has(identity.traits.vat_number)\"}]",
            vec![in_one],
        ),
        (
            "ask: {get: \"http://a/\", query: {q: \"{identity.traits.?vat_number.orValue('')}\"}}",
            vec![in_one],
        ),
        (
            "field: traits.nothing, required: true, when: \"identity.schema_id == 'customer'\"",
            vec![(
                "problem",
                "no identity schema has `traits.nothing`",
                "use one of its traits",
            )],
        ),
        (
            "ask: {get: \"http://a/\"}, set: {traits.vat_number: \"{response.body.vat}\"}",
            vec![(
                "warning",
                "`person` forbids `traits.vat_number`, so Kratos would refuse every sign-up with it",
                "add `when: \"identity.schema_id == 'customer'\"`",
            )],
        ),
        (
            "when: \"identity.schema_id == 'customer'\", ask: {get: \"http://a/\"}, set: {traits.vat_number: \"{response.body.vat}\"}",
            vec![],
        ),
    ] {
        let review = of_two(&format!("checks: {{a: {{{check}}}}}"));
        expect(&review, check, &expected);
    }
    let subscription = "events: [identity.created], when: has(identity.traits.vat_number), send: {post: \"http://a/\"}";
    let review = of_two(&format!("subscriptions: {{a: {{{subscription}}}}}"));
    expect(&review, subscription, &[in_one]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn set_cannot_write_what_kratos_refuses() {
    let refused = "so Kratos would refuse every sign-up";
    checks(&[
        (
            "flat",
            "set: {traits.user_name: ada, metadata_public.x: {y: 1}}",
            &[],
        ),
        (
            "flat",
            "set: {traits.not_there: x}",
            &[(
                "problem",
                "the identity schema forbids `traits.not_there` (`additionalProperties: false`), so Kratos would refuse every sign-up",
                "use one of its traits",
            )],
        ),
        (
            "flat",
            "set: {traits.vat_nubmer: x}",
            &[(
                "problem",
                "forbids `traits.vat_nubmer`",
                "did you mean `traits.vat_number`?",
            )],
        ),
        (
            "default",
            "set: {traits.language: x}",
            &[(
                "problem",
                "the identity schema has no `traits.language`",
                "use one of its traits",
            )],
        ),
        (
            "flat",
            "set: {traits.email.local: x}",
            &[(
                "problem",
                "`traits.email` is a text in the identity schema, so it has no `local`",
                "read `traits.email`",
            )],
        ),
        (
            "pattern",
            "set: {traits.labels.colour: red}",
            &[("problem", "forbids `traits.labels.colour`", "")],
        ),
        ("pattern", "set: {traits.labels.x_colour: red}", &[]),
        (
            "number",
            "set: {traits.age: \"42\"}",
            &[(
                "problem",
                "`traits.age` is a whole number in the identity schema, and this is a text, so Kratos would refuse every sign-up",
                "remove the quotes: 42",
            )],
        ),
        ("number", "set: {traits.age: 42}", &[]),
        (
            "number",
            "set: {traits.age: 4.5}",
            &[("problem", refused, "write a whole number")],
        ),
        (
            "number",
            "ask: {get: \"http://a/\"}, set: {traits.height: \"{response.body.cm} cm\"}",
            &[(
                "problem",
                "`traits.height` is a number in the identity schema, and this is a text",
                "write a number",
            )],
        ),
        (
            "number",
            "ask: {get: \"http://a/\"}, set: {traits.height: \"{response.body.cm}\"}",
            &[],
        ),
        (
            "boolean",
            "set: {traits.consents: {terms: \"true\", ads: false}}",
            &[(
                "problem",
                "`traits.consents.terms` is `true` or `false` in the identity schema, and this is a text",
                "remove the quotes: true",
            )],
        ),
        (
            "flat",
            "set: {traits.user_name: 7}",
            &[(
                "problem",
                "`traits.user_name` is a text in the identity schema, and this is a whole number",
                "quote it: \"7\"",
            )],
        ),
        (
            "texts",
            "set: {traits.tags: [a, 1]}",
            &[(
                "problem",
                "`traits.tags.1` is a text in the identity schema, and this is a whole number",
                "quote it: \"1\"",
            )],
        ),
        ("texts", "set: {traits.tags: [a, b]}", &[]),
        (
            "texts",
            "set: {traits.tags: a}",
            &[(
                "problem",
                "`traits.tags` is a list in the identity schema, and this is a text",
                "write a list",
            )],
        ),
        // An entry of a list can be set, if it is there.
        ("texts", "set: {traits.tags.0: a}", &[]),
        ("objects", "set: {traits.projects.0.name: a}", &[]),
        (
            "texts",
            "set: {traits.tags.0: 1}",
            &[("problem", "`traits.tags.0` is a text", "quote it: \"1\"")],
        ),
        (
            "objects",
            "set: {traits.projects.0.nmae: a}",
            &[(
                "problem",
                "`traits.projects.0.nmae`",
                "did you mean `traits.projects.0.name`?",
            )],
        ),
        (
            "enum",
            "set: {traits.kind: firm}",
            &[(
                "problem",
                "the identity schema does not allow \"firm\" as `traits.kind`",
                "use \"private\" or \"company\"",
            )],
        ),
        ("enum", "set: {traits.kind: company}", &[]),
    ]);
    subscriptions(&[
        (
            "flat",
            "events: [identity.created], send: {post: \"http://a/\"}, write_back: {traits.crm_id: \"{response.body.id}\"}",
            &[(
                "problem",
                "forbids `traits.crm_id` (`additionalProperties: false`), so Kratos would refuse the change",
                "",
            )],
        ),
        (
            "objects",
            "events: [identity.created], send: {post: \"http://a/\"}, write_back: {traits.projects.0.subject_id: \"{response.body.id}\", metadata_admin.crm: 1}",
            &[],
        ),
        (
            "objects",
            "events: [identity.created], send: {post: \"http://a/\"}, write_back: {traits.projects.0.subject: \"{response.body.id}\"}",
            &[("problem", "has no `traits.projects.0.subject`", "")],
        ),
    ]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn an_optional_trait_without_a_guard_in_a_condition_is_a_warning() {
    let optional = "`traits.user_name` is optional in the identity schema, and this expression fails without it";
    checks(&[
        (
            "flat",
            "refuse: [{when: \"identity.traits.user_name == 'root'\"}]",
            &[(
                "warning",
                optional,
                "write `has(identity.traits.user_name) && identity.traits.user_name == 'root'`, or read `identity.traits.?user_name.orValue('')`",
            )],
        ),
        (
            "flat",
            "required: true, field: traits.email, when: \"identity.traits.user_name == 'root'\"",
            &[(
                "warning",
                optional,
                "write `has(identity.traits.user_name) && ",
            )],
        ),
        (
            "flat",
            "refuse: [{when: \"has(identity.traits.user_name) && identity.traits.user_name == 'root'\"}]",
            &[],
        ),
        (
            "flat",
            "refuse: [{when: \"identity.traits.user_name == 'root' && has(identity.traits.user_name)\"}]",
            &[],
        ),
        (
            "flat",
            "refuse: [{when: \"!has(identity.traits.user_name) || identity.traits.user_name == 'root'\"}]",
            &[],
        ),
        (
            "flat",
            "refuse: [{when: \"has(identity.traits.user_name) ? identity.traits.user_name == 'root' : false\"}]",
            &[],
        ),
        (
            "flat",
            "refuse: [{when: \"identity.traits.?user_name.orValue('') == 'root'\"}]",
            &[],
        ),
        (
            "flat",
            "refuse: [{when: \"identity.traits.?user_name.hasValue() && identity.traits.user_name == 'root'\"}]",
            &[],
        ),
        // The condition of the check excludes it.
        (
            "flat",
            "when: has(identity.traits.user_name), refuse: [{when: \"identity.traits.user_name == 'root'\"}]",
            &[],
        ),
        // A check with this field does not run without it.
        (
            "flat",
            "field: traits.user_name, refuse: [{when: \"identity.traits.user_name == 'root'\"}]",
            &[],
        ),
        (
            "flat",
            "field: traits.email, refuse: [{when: \"identity.traits.user_name == 'root' || value == 'x'\"}]",
            &[(
                "warning",
                optional,
                "write `(has(identity.traits.user_name) && identity.traits.user_name == 'root') || value == 'x'`",
            )],
        ),
        (
            "nested",
            "refuse: [{when: \"has(identity.traits.address) && identity.traits.address.city == 'x'\"}]",
            &[(
                "warning",
                "`traits.address.city` is optional",
                "read `identity.traits.address.?city.orValue('')`",
            )],
        ),
        (
            "nested",
            "refuse: [{when: \"identity.traits.address.city == 'x'\"}]",
            &[(
                "warning",
                "`traits.address` is optional",
                "read `identity.traits.?address.?city.orValue('')`",
            )],
        ),
        (
            "nested",
            "refuse: [{when: \"identity.traits.name.last == 'x'\"}]",
            &[],
        ),
        (
            "texts",
            "refuse: [{when: \"identity.traits.emails[1] == 'x'\"}]",
            &[(
                "warning",
                "`traits.emails[1]` is optional",
                "write `identity.traits.emails[?1].hasValue() && ",
            )],
        ),
        (
            "boolean",
            "refuse: [{when: \"!identity.traits.newsletter\"}]",
            &[(
                "warning",
                "`traits.newsletter` is optional",
                "read `identity.traits.?newsletter.orValue(false)`",
            )],
        ),
        (
            "number",
            "refuse: [{when: \"identity.traits.age < 18 || identity.traits.height > 2.5\"}]",
            &[("warning", "`traits.height` is optional", "orValue(0)`")],
        ),
        (
            "if-then",
            "refuse: [{when: \"identity.traits.kind == 'company' && identity.traits.vat_number == ''\"}]",
            &[(
                "warning",
                "`traits.vat_number` is optional",
                "write `has(identity.traits.vat_number) && ",
            )],
        ),
        (
            "nullable",
            "refuse: [{when: \"identity.traits.phone.startsWith('+')\"}]",
            &[(
                "warning",
                "`traits.phone` can be null in the identity schema",
                "write `identity.traits.phone != null && identity.traits.phone.startsWith('+')`",
            )],
        ),
        (
            "nullable",
            "refuse: [{when: \"identity.traits.phone == '+49'\"}]",
            &[],
        ),
        (
            "nullable",
            "refuse: [{when: \"identity.traits.phone != null && identity.traits.phone.startsWith('+')\"}]",
            &[],
        ),
        (
            "nullable",
            "refuse: [{when: \"identity.traits.address.city == 'x'\"}]",
            &[(
                "warning",
                "`traits.address` can be null",
                "identity.traits.address != null && ",
            )],
        ),
        (
            "flat",
            "flows: [settings], refuse: [{when: \"previous.traits.user_name != identity.traits.email\"}]",
            &[("warning", optional, "has(previous.traits.user_name)")],
        ),
        // A failure does not matter there, or another message is shown.
        (
            "flat",
            "ask: {get: \"http://a/\"}, on_unavailable: {when: \"identity.traits.user_name == 'x'\"}",
            &[],
        ),
        (
            "flat",
            "refuse: [{when: \"true\", message: \"Not {identity.traits.user_name}.\"}]",
            &[],
        ),
    ]);
    subscriptions(&[
        (
            "flat",
            "events: [identity.created], when: \"identity.traits.user_name == 'x'\", send: {post: \"http://a/\"}",
            &[("warning", optional, "has(identity.traits.user_name) && ")],
        ),
        (
            "flat",
            "events: [identity.created], when: has(identity.traits.user_name), send: {post: \"http://a/{identity.traits.user_name}\"}",
            &[],
        ),
    ]);
}

#[test]
fn metadata_without_a_guard_is_a_warning_with_and_without_a_schema() {
    let check = "checks: {a: {refuse: [{when: \"identity.metadata_public.plan == 'free'\"}]}}";
    let warning = (
        "warning",
        "`metadata_public.plan` may be absent, and this expression fails without it",
        "write `has(identity.metadata_public.plan) && identity.metadata_public.plan == 'free'`",
    );
    expect(&review(None, check), check, &[warning]);
    expect(&review(Some("flat"), check), check, &[warning]);
    let set = "checks: {a: {ask: {get: \"http://a/\"}, set: {metadata_public.plan: \"{response.body.plan}\"}}}
subscriptions: {b: {events: [identity.created], send: {post: \"http://a/\", json: {plan: \"{identity.metadata_public.plan}\"}}}}";
    expect(&review(None, set), set, &[]);
}

#[test]
fn a_text_that_needs_an_optional_trait_is_a_warning() {
    let cannot = "is optional in the identity schema, and this cannot be built without it";
    subscriptions(&[
        (
            "flat",
            "events: [identity.created], send: {post: \"http://a/u/{identity.traits.user_name}\"}",
            &[(
                "warning",
                cannot,
                "add `when: has(identity.traits.user_name)`",
            )],
        ),
        (
            "flat",
            "events: [identity.created], send: {post: \"http://a/\", headers: {X-User: \"{identity.traits.user_name}\"}}",
            &[(
                "warning",
                cannot,
                "add `when: has(identity.traits.user_name)`, or write `{identity.traits.?user_name.orValue('')}`",
            )],
        ),
        (
            "flat",
            "events: [identity.created], send: {post: \"http://a/\", json: {hello: \"Dear {identity.traits.user_name}\"}}",
            &[(
                "warning",
                cannot,
                "add `when: has(identity.traits.user_name)`",
            )],
        ),
        (
            "flat",
            "events: [identity.created], send: {post: \"http://a/\", json: {name: \"{identity.traits.user_name.upperAscii()}\"}}",
            &[(
                "warning",
                cannot,
                "add `when: has(identity.traits.user_name)`",
            )],
        ),
        // A value that is nothing but one path becomes null, or is left out.
        (
            "flat",
            "events: [identity.created], send: {post: \"http://a/\", json: {name: \"{identity.traits.user_name}\"}}",
            &[],
        ),
        (
            "flat",
            "events: [identity.created], send: {post: \"http://a/\", query: {name: \"{identity.traits.user_name}\"}, form: {name: \"{identity.traits.user_name}\"}}",
            &[],
        ),
    ]);
}

#[test]
fn without_a_schema_a_value_without_a_guard_is_a_warning() {
    let unknown = "without an identity schema, Vestibule does not know whether `traits.phone` is always present, and this cannot be built without it";
    for (subscription, expected) in [
        (
            "events: [identity.created], send: {post: \"http://a/\", json: {phone: \"{identity.traits.phone}\"}}",
            vec![(
                "warning",
                unknown,
                "set `kratos.identity_schema`, or write `{identity.traits.?phone}`",
            )],
        ),
        (
            "events: [identity.created], send: {post: \"http://a/{identity.traits.phone}\"}",
            vec![(
                "warning",
                unknown,
                "set `kratos.identity_schema`, or add `when: has(identity.traits.phone)`",
            )],
        ),
        (
            "events: [identity.created], send: {post: \"http://a/\", json: {phone: \"{identity.traits.?phone}\"}}",
            vec![],
        ),
        (
            "events: [identity.created], when: has(identity.traits.phone), send: {post: \"http://a/{identity.traits.phone}\"}",
            vec![],
        ),
        (
            "events: [identity.created], send: {post: \"http://a/{identity.id}\", json: {flow: \"{flow.id}\", all: \"{identity}\"}}",
            vec![],
        ),
        (
            "events: [identity.created], when: \"identity.traits.phone != ''\", send: {post: \"http://a/\"}",
            vec![],
        ),
    ] {
        let text = format!("subscriptions: {{a: {{{subscription}}}}}");
        expect(&review(None, &text), subscription, &expected);
    }
    let check =
        "checks: {a: {field: traits.phone, ask: {get: \"http://a/{identity.traits.phone}\"}}}";
    expect(&review(None, check), check, &[]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn previous_without_a_guard_where_a_registration_comes_is_a_problem() {
    let sign_up = "a registration has no `previous`, so this fails for every sign-up";
    let created = "`identity.created` has no `previous`, so this fails for every such event";
    for (text, expected) in [
        (
            "checks: {a: {refuse: [{when: \"previous.traits.email != identity.traits.email\"}]}}",
            vec![(
                "problem",
                sign_up,
                "write `has(previous.traits.email) && previous.traits.email != identity.traits.email`, or `flows: [settings]`",
            )],
        ),
        (
            "checks: {a: {flows: [registration, settings], when: \"previous.traits.a == 'x' || method == 'code'\", field: traits.a, required: true}}",
            vec![(
                "problem",
                sign_up,
                "write `(has(previous.traits.a) && previous.traits.a == 'x') || method == 'code'`, or `flows: [settings]`",
            )],
        ),
        (
            "checks: {a: {field: traits.a, ask: {get: \"http://a/\", query: {was: \"{previous.traits.a}\"}}}}",
            vec![(
                "problem",
                sign_up,
                "write `{previous.traits.?a}`, or `flows: [settings]`",
            )],
        ),
        (
            "checks: {a: {field: traits.a, ask: {get: \"http://a/{previous.traits.a}\"}}}",
            vec![(
                "problem",
                sign_up,
                "add `when: has(previous.traits.a)`, or `flows: [settings]`",
            )],
        ),
        (
            "checks: {a: {field: traits.a, refuse: [{when: \"previous.metadata_public.plan == 'x'\"}]}}",
            vec![("problem", sign_up, "has(previous.metadata_public.plan)")],
        ),
        (
            "subscriptions: {a: {events: [identity.created, identity.updated], when: \"previous.traits.email != identity.traits.email\", send: {post: \"http://a/\"}}}",
            vec![(
                "problem",
                created,
                "write `has(previous.traits.email) && previous.traits.email != identity.traits.email`, or `events: [identity.updated]`",
            )],
        ),
        (
            "subscriptions: {a: {events: [credentials.changed, identity.verified], when: \"previous.traits.email != 'x'\", send: {post: \"http://a/\"}}}",
            vec![(
                "problem",
                "`identity.verified` has no `previous`",
                "has(previous.traits.email)",
            )],
        ),
        (
            "subscriptions: {a: {events: [identity.created, identity.updated], send: {post: \"http://a/\", json: {was: \"{previous.traits.email}\"}}}}",
            vec![(
                "problem",
                created,
                "write `{previous.traits.?email}`, or `events: [identity.updated]`",
            )],
        ),
        (
            "subscriptions: {a: {events: [identity.created, identity.updated], send: {post: \"http://a/{previous.traits.email}\"}}}",
            vec![("problem", created, "add `when: has(previous.traits.email)`")],
        ),
        // Guarded, or only settings.
        (
            "checks: {a: {field: traits.a, refuse: [{when: \"has(previous.traits.email) && previous.traits.email != value\"}]}}",
            vec![],
        ),
        (
            "checks: {a: {field: traits.a, absent: check, when: has(previous.traits), refuse: [{when: \"previous.traits.email != value\"}]}}",
            vec![],
        ),
        (
            "checks: {a: {refuse: [{when: \"method == 'profile' && previous.traits.email != identity.traits.email\"}]}}",
            vec![],
        ),
        (
            "checks: {a: {refuse: [{when: \"method in ['profile', 'totp'] && previous.traits.email != identity.traits.email\"}]}}",
            vec![],
        ),
        (
            "checks: {a: {refuse: [{when: \"previous.?traits.?email.orValue('') == identity.traits.email\"}]}}",
            vec![],
        ),
        (
            "checks: {a: {flows: [settings], refuse: [{when: \"previous.traits.email != 'x'\"}]}}",
            vec![],
        ),
        (
            "checks: {a: {refuse: [{when: \"identity.traits.x == 'x'\", message: \"It was {previous.traits.x}.\"}]}}",
            vec![],
        ),
        (
            "subscriptions: {a: {events: [identity.updated, credentials.changed], when: \"previous.traits.email != 'x'\", send: {post: \"http://a/\"}}}",
            vec![],
        ),
        (
            "subscriptions: {a: {events: [identity.created, identity.updated], when: has(previous.traits.email), send: {post: \"http://a/{previous.traits.email}\"}}}",
            vec![],
        ),
        // `password` is a method of both flows.
        (
            "checks: {a: {refuse: [{when: \"method == 'password' && previous.traits.email != identity.traits.email\"}]}}",
            vec![("problem", sign_up, "has(previous.traits.email)")],
        ),
    ] {
        expect(&review(None, text), text, &expected);
    }
}

#[test]
fn previous_without_a_guard_is_a_warning_where_reconciliation_finds_changes() {
    let found =
        "a change that reconciliation finds has no `previous`, so its delivery cannot be built";
    let send = |json: &str| {
        format!(
            "events: [identity.updated], send: {{post: \"http://a/\", json: {{was: \"{json}\"}}}}"
        )
    };
    for (reconcile, subscription, expected) in [
        (
            "every: 1h",
            send("{previous.traits.email}"),
            vec![("warning", found, "write `{previous.traits.?email}`")],
        ),
        (
            "every: 1h",
            send("It was {previous.traits.email}."),
            vec![(
                "warning",
                found,
                "add `when: has(previous.traits.email)`, or `when: has(previous.traits)`",
            )],
        ),
        ("every: 1h", send("{previous.traits.?email}"), vec![]),
        ("every: 1h", send("{identity.id}"), vec![]),
        (
            "every: 1h",
            format!(
                "when: has(previous.traits.email), {}",
                send("{previous.traits.email}")
            ),
            vec![],
        ),
        // Reconciliation leaves out a subscription whose `when` reads `previous`.
        (
            "every: 1h",
            format!(
                "when: \"previous.traits.email != 'x'\", {}",
                send("{previous.traits.email}")
            ),
            vec![],
        ),
        (
            "every: 1h",
            send("{previous.state}").replace("identity.updated", "credentials.changed"),
            vec![],
        ),
        ("per_second: 5", send("{previous.state}"), vec![]),
    ] {
        let text = format!(
            "kratos: {{admin_url: \"http://k/\"}}\nreconcile: {{{reconcile}}}\nsubscriptions: {{a: {{{subscription}}}}}"
        );
        expect(&review(None, &text), &text, &expected);
    }
}

#[test]
fn the_roots_of_the_variables_are_known_without_a_schema() {
    for (expression, message, help) in [
        (
            "identity.trait.x == 'y'",
            "`identity` has no `trait`",
            "did you mean `traits`? `identity` has `traits`, `metadata_public`",
        ),
        (
            "identity.email == 'y'",
            "`identity` has no `email`",
            "write `identity.traits.email`; `identity` has `traits`",
        ),
        (
            "has(identity.email)",
            "`identity` has no `email`",
            "write `identity.traits.email`",
        ),
        (
            "identity['email'] == 'y'",
            "`identity` has no `email`",
            "write `identity.traits.email`",
        ),
        (
            "identity.?email.orValue('') == 'y'",
            "`identity` has no `email`",
            "write `identity.traits.email`",
        ),
        (
            "identity.metadata.plan == 'y'",
            "`identity` has no `metadata`",
            "`metadata_public`",
        ),
        (
            "identity.metadata_admin.plan == 'y'",
            "`identity` has no `metadata_admin`",
            "Kratos does not show `metadata_admin` to hooks",
        ),
        (
            "identity.schema == 'y'",
            "`identity` has no `schema`",
            "`schema_id`",
        ),
        (
            "identity[0] == 'y'",
            "`identity` is not a list",
            "it has `traits`",
        ),
        (
            "previous.email == 'y'",
            "`previous` has no `email`",
            "write `previous.traits.email`; `previous` has `traits`",
        ),
        (
            "previous.traitz.email == 'y'",
            "`previous` has no `traitz`",
            "did you mean `traits`?",
        ),
        (
            "flow.transient_payloads.x == 'y'",
            "`flow` has no `transient_payloads`",
            "did you mean `transient_payload`?",
        ),
        (
            "flow.invite == 'y'",
            "`flow` has no `invite`",
            "write `flow.transient_payload.invite`; `flow` has `id`",
        ),
        (
            "request.header['x'] == 'y'",
            "`request` has no `header`",
            "did you mean `headers`?",
        ),
        (
            "traits.email == 'y'",
            "there is no name `traits`",
            "write `identity.traits`",
        ),
    ] {
        for text in [
            format!("checks: {{a: {{flows: [settings], refuse: [{{when: \"{expression}\"}}]}}}}"),
            format!(
                "subscriptions: {{a: {{events: [identity.updated], when: \"{expression}\", send: {{post: \"http://a/\"}}}}}}"
            ),
            format!(
                "subscriptions: {{a: {{events: [identity.updated], send: {{post: \"http://a/\", json: {{x: \"{{{expression}}}\"}}}}}}}}"
            ),
        ] {
            expect(&review(None, &text), &text, &[("problem", message, help)]);
        }
    }
}

/// Builds the request of the only subscription.
fn built(shape: &str, send: &str, identity: &serde_json::Value) -> Result<String, String> {
    let text = format!(
        "kratos: {{identity_schema: \"file://{shape}.json\"}}\nsubscriptions:\n  a: {{events: [identity.created, identity.updated], send: {send}}}\n"
    );
    let review = review(None, &text);
    let settings = review
        .settings
        .unwrap_or_else(|| panic!("{}", review.problems));
    let lists = vestibule::expression::Lists::default();
    let variables = vestibule::expression::Variables {
        identity: Some(identity),
        previous: None,
        value: None,
        flow: None,
        request: None,
        method: "password",
        now: "2026-11-23T14:32:52Z".parse().expect("a time"),
        response: None,
        checks: None,
        taken: None,
        lists: &lists,
    };
    let request = settings.subscriptions[0].send.build(&variables);
    let request = request.map_err(|error| error.to_string())?;
    let body = request.body.map(|body| body.text).unwrap_or_default();
    Ok(format!("{} {body}", request.path))
}

#[test]
fn a_value_that_the_schema_knows_as_optional_is_null_or_left_out() {
    let identity =
        serde_json::json!({"id": "1", "traits": {"email": "ada@example.org", "phone": null}});
    for (shape, send, expected) in [
        (
            "flat",
            "{post: \"http://a/\", json: {name: \"{identity.traits.user_name}\", mail: \"{identity.traits.email}\"}}",
            Some("/ {\"name\":null,\"mail\":\"ada@example.org\"}"),
        ),
        (
            "flat",
            "{post: \"http://a/\", query: {name: \"{identity.traits.user_name}\", mail: \"{identity.traits.email}\"}, form: {name: \"{identity.traits.user_name}\", vat: \"{identity.traits.?vat_number}\"}}",
            Some("/?mail=ada%40example.org "),
        ),
        (
            "nested",
            "{post: \"http://a/\", json: [\"{identity.traits.address.geo.lat}\", \"{identity.traits.address}\"]}",
            Some("/ [null,null]"),
        ),
        (
            "nullable",
            "{post: \"http://a/\", json: [\"{identity.traits.phone}\", \"{identity.traits.address.city}\"], query: {phone: \"{identity.traits.phone}\"}}",
            Some("/ [null,null]"),
        ),
        (
            "objects",
            "{post: \"http://a/\", json: [\"{identity.traits.projects[0].name}\"]}",
            Some("/ [null]"),
        ),
        // `previous` does not exist at registration.
        (
            "flat",
            "{post: \"http://a/\", json: [\"{previous.traits.user_name}\", \"{previous.traits.?email}\"]}",
            Some("/ [null,null]"),
        ),
        // The schema requires these, or a text needs the value.
        (
            "nested",
            "{post: \"http://a/\", json: [\"{identity.traits.name.last}\"]}",
            None,
        ),
        (
            "flat",
            "{post: \"http://a/\", json: [\"Dear {identity.traits.user_name}\"]}",
            None,
        ),
        (
            "flat",
            "{post: \"http://a/{identity.traits.user_name}\"}",
            None,
        ),
        (
            "flat",
            "{post: \"http://a/\", headers: {X-User: \"{identity.traits.user_name}\"}}",
            None,
        ),
    ] {
        let found = built(shape, send, &identity);
        assert_eq!(found.as_deref().ok(), expected, "{send}: {found:?}");
    }
}

#[test]
fn an_entry_of_a_required_list_is_not_null_without_its_mark() {
    let subscription = |template: &str| {
        format!("events: [identity.created], send: {{post: \"http://a/\", json: [\"{template}\"]}}")
    };
    let second = subscription("{identity.traits.emails[1]}");
    let marked = subscription("{identity.traits.emails[?1]}");
    let first = subscription("{identity.traits.emails[0]}");
    subscriptions(&[
        (
            "texts",
            &second,
            &[(
                "warning",
                "`traits.emails[1]` is optional in the identity schema, and this cannot be built without it",
                "write `{identity.traits.emails[?1]}`",
            )],
        ),
        ("texts", &marked, &[]),
        ("texts", &first, &[]),
    ]);
}
