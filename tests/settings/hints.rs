//! Mistakes that operators make often: each gives one problem or one warning, with the right form as `help:`.

use std::path::Path;

use vestibule::config;

use crate::environment;

/// Compares the only problem, or the only warning, of each text.
fn each(kind: &str, table: &[(&str, &str, &str)]) {
    for (text, message, help) in table {
        let review = config::review_text(text, Path::new("vestibule.yaml"), &environment());
        let report = format!("{}{}", review.problems, review.warnings);
        let (list, other) = match kind {
            "problem" => (&review.problems, &review.warnings),
            _ => (&review.warnings, &review.problems),
        };
        assert_eq!(list.len(), 1, "{text}\n{report}");
        assert!(kind == "problem" || other.is_empty(), "{text}\n{report}");
        let found = list.iter().next().expect("one");
        assert!(
            found.message.contains(message),
            "{text}\n{message}\n{report}"
        );
        let hint = found.hint.clone().unwrap_or_default();
        assert!(hint.contains(help), "{text}\n{help}\n{report}");
    }
}

#[test]
fn credentials_outside_of_config_are_one_problem() {
    let service = |auth: &str| format!("services: {{a: {{url: \"http://a\", auth: {auth}}}}}");
    for (auth, message, help) in [
        (
            "{type: bearer, token: x}",
            "`token` belongs into `config`",
            "write `auth: {type: bearer, config: {token: \"${env:TOKEN}\"}}`",
        ),
        (
            "{type: basic_auth, user: u, password: p}",
            "`user` belongs into `config`",
            "write `auth: {type: basic_auth, config: {user: …, password: \"${env:PASSWORD}\"}}`",
        ),
        (
            "{type: api_key, name: X-Key, value: v, in: header}",
            "`name` belongs into `config`",
            "write `auth: {type: api_key, config: {name: …, value: \"${env:API_KEY}\", in: header}}`",
        ),
        (
            "{type: bearer}",
            "`config` is missing",
            "write `auth: {type: bearer, config: {token: ",
        ),
        (
            "{type: basic, config: {user: u, password: p}}",
            "expected one of `bearer`, `basic_auth` and `api_key`, found the text `basic`",
            "write `auth: {type: basic_auth, ",
        ),
        (
            "{type: jwt, config: {token: x}}",
            "found the text `jwt`",
            "write `auth: {type: bearer, ",
        ),
        (
            "{token: x}",
            "`type` is missing",
            "write `auth: {type: bearer, ",
        ),
        (
            "{user: u, password: p}",
            "`type` is missing",
            "write `auth: {type: basic_auth, ",
        ),
        (
            "{bearer: {token: x}}",
            "`type` is missing",
            "write `auth: {type: bearer, ",
        ),
        (
            "bearer",
            "expected a section of keys, found the text `bearer`",
            "write `auth: {type: bearer, ",
        ),
        (
            "Basic dTpw",
            "expected a section of keys",
            "write `auth: {type: basic_auth, ",
        ),
    ] {
        each("problem", &[(&service(auth), message, help)]);
    }
    let kratos = "kratos: {admin_url: \"http://kratos:4434\", auth: {type: bearer, token: x}}";
    each(
        "problem",
        &[(
            kratos,
            "`token` belongs into `config`",
            "write `auth: {type: bearer, ",
        )],
    );
}

#[test]
fn a_variable_in_the_form_of_another_program_is_one_problem() {
    each(
        "problem",
        &[
            (
                "services: {a: {url: \"${API_URL}\"}}",
                "`${API_URL}` is neither `${env:NAME}` nor `${file:/path}`",
                "write `${env:API_URL}`",
            ),
            (
                "services: {a: {url: \"${API_URL:-http://a}\"}}",
                "is neither",
                "write `${env:API_URL:-http://a}`",
            ),
            (
                "services: {a: {url: \"http://${env.HOST}/\"}}",
                "is neither",
                "write `${env:HOST}`",
            ),
            (
                "hooks: {keys: [\"${/run/secrets/key}\"]}",
                "is neither",
                "write `${file:/run/secrets/key}`",
            ),
            (
                "checks: {a: {field: traits.a, ask: {get: \"http://a/${value}\"}}}",
                "is neither",
                "write `{value}`",
            ),
        ],
    );
}

#[test]
fn functions_and_names_of_other_languages_are_one_problem() {
    for (expression, message, help) in [
        (
            "value.toUpperCase() == 'A'",
            "there is no function `toUpperCase`",
            "write `x.upperAscii()`",
        ),
        (
            "value.toLowerCase() == 'a'",
            "there is no function `toLowerCase`",
            "write `x.lowerAscii()`",
        ),
        (
            "value.includes('a')",
            "there is no function `includes`",
            "write `x.contains(",
        ),
        (
            "value.length() > 3",
            "there is no function `length`",
            "write `size(x)`",
        ),
        (
            "len(value) > 3",
            "there is no function `len`",
            "write `size(x)`",
        ),
        (
            "value.hasPrefix('a')",
            "there is no function `hasPrefix`",
            "write `x.startsWith(",
        ),
        (
            "value.test('a')",
            "there is no function `test`",
            "write `x.matches(",
        ),
        (
            "parseInt(value) > 3",
            "there is no function `parseInt`",
            "write `int(x)`",
        ),
        (
            "value == undefined",
            "there is no name `undefined`",
            "write `null`",
        ),
        ("value == None", "there is no name `None`", "write `null`"),
        ("value == True", "there is no name `True`", "write `true`"),
        (
            "value === 'a'",
            "is not valid in an expression",
            "equality is written `==`",
        ),
        (
            "value == 'a' and true",
            "`and` is not expected here",
            "write `&&`",
        ),
    ] {
        let text =
            format!("checks: {{a: {{field: traits.a, refuse: [{{when: \"{expression}\"}}]}}}}");
        each("problem", &[(&text, message, help)]);
    }
}

#[test]
fn a_list_in_place_of_named_entries_is_one_problem() {
    each(
        "problem",
        &[
            (
                "checks: [{name: vat, field: traits.vat, required: true}]",
                "expected a section of keys, found a list",
                "`checks: {vat: {field: traits.vat, required: true}}`",
            ),
            (
                "checks:\n  - field: traits.vat\n    required: true\n",
                "expected a section of keys, found a list",
                "`checks: {vat_number: {field: traits.vat, required: true}}`",
            ),
            (
                "services: [{name: crm, url: \"http://a\"}]",
                "found a list",
                "`services: {crm: {url: \"http://a\"}}`",
            ),
            (
                "subscriptions: [{id: crm, events: [identity.created], send: {post: \"http://a/\"}}]",
                "found a list",
                "`subscriptions: {crm: {events: [identity.created], send: {post: \"http://a/\"}}}`",
            ),
            (
                "messages: [{id: 4900101, en: \"No.\"}]",
                "found a list",
                "`messages: {vat_unknown: {",
            ),
            (
                "checks: {a: {ask: {get: \"http://a/\", headers: [{X-A: b}, {X-C: d}]}}}",
                "found a list",
                "`headers: {X-A: b, X-C: d}`",
            ),
            (
                "checks: {a: {ask: [{get: \"http://a/\"}]}}",
                "found a list",
                "remove the brackets or the `-`: `ask: {get: \"http://a/\"}`",
            ),
        ],
    );
}

#[test]
fn one_value_in_place_of_a_list_or_a_section_is_one_problem() {
    each(
        "problem",
        &[
            (
                "checks: {a: {field: traits.a, refuse: {when: \"value == 'x'\"}}}",
                "expected a list, found a section of keys",
                "`refuse: [{when: \"value == 'x'\"}]`",
            ),
            (
                "checks: {a: {field: traits.a, required: true, flows: settings}}",
                "expected a list, found the text `settings`",
                "`flows: [settings]`",
            ),
            (
                "checks: {a: {field: traits.a, required: true, flows: \"registration, settings\"}}",
                "expected a list",
                "`flows: [registration, settings]`",
            ),
            (
                "subscriptions: {a: {events: identity.created, send: {post: \"http://a/\"}}}",
                "expected a list",
                "`events: [identity.created]`",
            ),
            (
                "checks: {a: {ask: {get: \"http://a/\"}, refuse: [404]}}",
                "expected a section of keys, found the number `404`",
                "write `refuse: [{when: 404}]`",
            ),
            (
                "checks: {a: {ask: \"http://a/\"}}",
                "expected a section of keys",
                "write `ask: {get: \"http://a/\"}`",
            ),
            (
                "subscriptions: {a: {events: [identity.created], send: \"http://a/\"}}",
                "expected a section of keys",
                "write `send: {post: \"http://a/\"}`",
            ),
            (
                "services: {crm: \"http://a\"}",
                "expected a section of keys",
                "write `crm: {url: \"http://a\"}`",
            ),
            (
                "serve: {hooks: 4480}",
                "expected a section of keys",
                "write `hooks: {port: 4480}`",
            ),
            (
                "serve: {admin: \"127.0.0.1:4481\"}",
                "expected a section of keys",
                "write `admin: {host: \"127.0.0.1\", port: 4481}`",
            ),
        ],
    );
}

#[test]
fn a_status_in_the_wrong_place_is_one_problem() {
    each(
        "problem",
        &[
            (
                "checks: {a: {field: traits.a, refuse: [{when: 404}]}}",
                "a status needs a response, and this check has no `ask`",
                "add `ask: {get: \"https://…/{value}\"}`",
            ),
            (
                "checks: {a: {field: traits.a, accept: 200}}",
                "a status needs a response",
                "add `ask: {get:",
            ),
            (
                "checks: {a: {ask: {get: \"http://a/\"}, when: 404}}",
                "expected an expression, found the number `404`",
                "write a status as `refuse: [{when: 404}]`",
            ),
            (
                "checks: {a: {ask: {get: \"http://a/\"}, on_unavailable: {when: 503}}}",
                "expected an expression",
                "write `when: response.status == 503`",
            ),
            (
                "subscriptions: {a: {events: [identity.created], send: {post: \"http://a/\"}, success_when: 200}}",
                "expected an expression",
                "write `success_when: response.status == 200`",
            ),
            (
                "subscriptions: {a: {events: [identity.created], send: {post: \"http://a/\"}, when: 404}}",
                "expected an expression",
                "write a condition",
            ),
            (
                "checks: {a: {ask: {get: \"http://a/\"}, refuse: [{when: \"404\"}]}}",
                "a status must be a number, not a text",
                "remove the quotes: 404",
            ),
        ],
    );
}

#[test]
fn a_text_of_one_word_needs_its_key() {
    each(
        "problem",
        &[
            (
                "checks: {a: {field: traits.a, refuse: [{when: \"value == 'x'\", message: refused}]}}",
                "there is no message `refused`",
                "ext of one word, write `{text: \"refused\"}`",
            ),
            (
                "checks: {a: {field: traits.a, required: true, invalid_message: nope}}",
                "there is no message `nope`",
                "for a text of one word, write `{text: \"nope\"}`",
            ),
            (
                "messages: {known: {id: 4900101, en: \"No.\"}}\nchecks: {a: {field: traits.a, refuse: [{when: \"value == 'x'\", message: knwon}]}}",
                "there is no message `knwon`",
                "did you mean `known`? For a text of one word, write `{text: \"knwon\"}`",
            ),
            (
                "checks: {a: {field: traits.a, refuse: [{when: \"value == 'x'\", message: {text: No, en: No}}]}}",
                "`text` cannot be used together with texts by language",
                "write its language in place of `text`",
            ),
            (
                "checks: {a: {field: traits.a, refuse: [{when: \"value == 'x'\", message: {text: \"\"}}]}}",
                "the message is empty",
                "write what the visitor must correct",
            ),
        ],
    );
    let text = "messages: {known: {id: 4900101, text: \"No {value}.\"}}
checks:
  a: {field: traits.a, refuse: [{when: \"value == 'x'\", message: {text: refused}}], invalid_message: {id: 4900102, text: \"Not {value}\"}}
  b: {field: traits.a, refuse: [{when: \"value == 'x'\", message: known}]}
";
    let review = config::review_text(text, Path::new("vestibule.yaml"), &environment());
    let settings = review
        .settings
        .unwrap_or_else(|| panic!("{}", review.problems));
    assert!(review.warnings.is_empty(), "{}", review.warnings);
    let message = settings.checks[0].refuse[0]
        .message
        .as_ref()
        .expect("a message");
    assert_eq!(message.id, 4_900_000);
    assert_eq!(message.texts[0].0, "");
    assert_eq!(message.texts[0].1.constant(), Some("refused"));
    let named = settings.checks[1].refuse[0]
        .message
        .as_ref()
        .expect("a message");
    assert_eq!((named.id, named.texts[0].0.as_str()), (4_900_101, ""));
}

#[test]
fn doubled_braces_around_a_value_are_a_warning() {
    let check = |rest: &str| format!("checks: {{a: {{field: traits.a, {rest}}}}}");
    for (rest, message, help) in [
        (
            "ask: {get: \"http://a/{{value}}\"}",
            "`{{value}}` inserts no value",
            "write `{value}`",
        ),
        (
            "ask: {get: \"http://a/\", query: {q: \"{{ value }}\"}}",
            "`{{ value }}` inserts no value",
            "write `{value}`",
        ),
        (
            "ask: {get: \"http://a/\", headers: {X-Flow: \"{{flow.id}}\"}}",
            "`{{flow.id}}`",
            "write `{flow.id}`",
        ),
        (
            "ask: {post: \"http://a/\", json: {a: [\"{{identity.traits.?a}}\"]}}",
            "`{{identity.traits.?a}}`",
            "write `{identity.traits.?a}`",
        ),
        (
            "ask: {post: \"http://a/\", form: {a: \"x {{value}}\"}}",
            "`{{value}}`",
            "write `{value}`",
        ),
        (
            "refuse: [{when: \"value == 'x'\", message: \"Not {{value}}.\"}]",
            "`{{value}}`",
            "write `{value}`",
        ),
    ] {
        each("warning", &[(&check(rest), message, help)]);
    }
    for rest in [
        "ask: {post: \"http://a/\", json: {template: \"Dear {{name}}, {{response}} {{}}\"}}",
        "ask: {get: \"http://a/{value}\"}",
        "ask: {post: \"http://a/\", json: {a: \"{{\\\"value\\\": \\\"{value}\\\"}}\"}}",
    ] {
        let review = config::review_text(&check(rest), Path::new("v.yaml"), &environment());
        assert!(
            review.warnings.is_empty() && review.problems.is_empty(),
            "{rest}\n{}{}",
            review.warnings,
            review.problems
        );
    }
}

#[test]
fn a_language_that_no_browser_asks_for_is_a_warning() {
    each(
        "warning",
        &[
            (
                "messages: {a: {id: 4900101, english: \"No.\"}}",
                "no browser asks for the language `english`",
                "write `en`",
            ),
            (
                "messages: {a: {id: 4900101, en: \"No.\", Deutsch: \"Nein.\"}}",
                "the language `Deutsch`",
                "write `de`",
            ),
            (
                "messages: {a: {id: 4900101, jp: \"No.\"}}",
                "the language `jp`",
                "write `ja`",
            ),
            (
                "messages: {a: {id: 4900101, deu-AT: \"Nein.\"}}",
                "the language `deu-AT`",
                "write `de-AT`",
            ),
            (
                "hooks: {default_language: english}",
                "the language `english`",
                "write `en`",
            ),
            (
                "checks: {a: {field: traits.a, required: true, invalid_message: {french: \"Non.\"}}}",
                "the language `french`",
                "write `fr`",
            ),
        ],
    );
    each(
        "problem",
        &[(
            "messages: {a: {id: 4900101, en_US: \"No.\"}}",
            "`en_US` is not a BCP 47 language tag",
            "write `en-US`",
        )],
    );
}

#[test]
fn html_in_a_message_is_a_warning() {
    each(
        "warning",
        &[
            (
                "messages: {a: {id: 4900101, en: \"<b>No.</b>\"}}",
                "a message is plain text",
                "write `No.`",
            ),
            (
                "messages: {a: {id: 4900101, en: \"Ask <a href='https://example.com'>us</a>.\"}}",
                "a message is plain text",
                "write `Ask us.`",
            ),
            (
                "messages: {a: {id: 4900101, en: \"No.<br/>Really.\"}}",
                "a message is plain text",
                "write `No. Really.`",
            ),
            (
                "messages: {a: {id: 4900101, en: \"Ask us&nbsp;again.\"}}",
                "a message is plain text",
                "write `Ask us again.`",
            ),
            (
                "checks: {a: {field: traits.a, refuse: [{when: \"value == 'x'\", message: \"This is <strong>wrong</strong>.\"}]}}",
                "a message is plain text",
                "write `This is wrong.`",
            ),
            (
                "checks: {a: {field: traits.a, refuse: [{when: \"value == 'x'\", message: {text: \"<p>No</p>\"}}]}}",
                "a message is plain text",
                "write `No`",
            ),
        ],
    );
    for text in ["a < b and c > d", "R&D; AT&T", "<your name>", "1 <2"] {
        let text = format!("messages: {{a: {{id: 4900101, en: \"{text}\"}}}}");
        let review = config::review_text(&text, Path::new("v.yaml"), &environment());
        assert!(review.warnings.is_empty(), "{text}\n{}", review.warnings);
    }
}

#[test]
fn a_check_that_never_refuses_is_a_warning() {
    let message = "this check never refuses and never changes a sign-up";
    let help = "add `required: true`, `refuse`, `ask` or `set`, or remove the check";
    for check in [
        "field: traits.a",
        "field: traits.a, required: false",
        "field: traits.a, refuse: []",
        "field: traits.a, when: \"value == 'x'\", flows: [registration]",
        "field: traits.a, invalid_message: \"It is wrong.\"",
        "mode: observe",
    ] {
        let text = format!("checks: {{a: {{{check}}}}}");
        each("warning", &[(&text, message, help)]);
    }
    for check in [
        "field: traits.a, required: true",
        "field: traits.a, refuse: [{when: \"value == 'x'\"}]",
        "ask: {get: \"http://a/\"}",
        "set: {metadata_public.a: 1}",
    ] {
        let text = format!("checks: {{a: {{{check}}}}}");
        let review = config::review_text(&text, Path::new("v.yaml"), &environment());
        assert!(review.warnings.is_empty(), "{check}\n{}", review.warnings);
    }
}

#[test]
fn a_form_that_is_shown_is_valid() {
    each(
        "problem",
        &[
            (
                "checks: {a: {ask: {get: \"http://a/\"}, refuse: 404}}",
                "expected a list",
                "write `refuse: [{when: 404}]`",
            ),
            (
                "checks: {a: {field: traits.a, refuse: \"value == 'x'\"}}",
                "expected a list",
                "write `refuse: [{when: \"value == 'x'\"}]`",
            ),
            (
                "subscriptions: {a: {events: all, send: {post: \"http://a/\"}}}",
                "expected a list",
                "`events: [identity.created, identity.updated]`",
            ),
            (
                "checks: {a: {field: traits.a, required: true, flows: both}}",
                "expected a list",
                "`flows: [registration, settings]`",
            ),
            (
                "retention: {deliveries: 90}",
                "`90` has no unit",
                "write `90d` for days",
            ),
            (
                "retention: {decisions: 30}",
                "`30` has no unit",
                "write `30d` for days",
            ),
            (
                "services: {a: {url: \"http://a\", timeout: 5}}",
                "`5` has no unit",
                "write `5s` for seconds",
            ),
            (
                "kratos: {identity_schemas: [{id: default, url: \"file://a.json\"}]}",
                "found a list",
                "write each schema under its id: `identity_schemas: {default: \"file://a.json\"}`",
            ),
        ],
    );
    let proxies = "hooks: {client_ip: {header: X-Forwarded-For, trusted_proxies: true}}";
    let review = config::review_text(proxies, Path::new("v.yaml"), &environment());
    let report = review.problems.to_string();
    assert!(
        report.contains("expected a whole number") && !report.contains("quote it"),
        "{report}"
    );
}

#[test]
fn html_is_replaced_by_what_it_means() {
    let message = "a message is plain text";
    each(
        "warning",
        &[
            (
                "messages: {a: {id: 4900101, en: \"Terms &amp; conditions\"}}",
                message,
                "write `Terms & conditions`",
            ),
            (
                "messages: {a: {id: 4900101, en: \"It isn&#39;t &quot;x&quot;.\"}}",
                message,
                "write `It isn't \"x\".`",
            ),
            (
                "messages: {a: {id: 4900101, en: \"<br>\"}}",
                message,
                "write what the visitor must correct",
            ),
            (
                "messages: {a: {id: 4900101, en: \"<p>One.</p><p>Two.</p>\"}}",
                message,
                "write `One. Two.`",
            ),
        ],
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_name_or_an_address_in_another_form_has_the_right_one_as_help() {
    each(
        "problem",
        &[
            (
                "checks: {a: {field: \"emails[0]\", required: true}}",
                "is not a trait",
                "write `traits.emails.0`",
            ),
            (
                "checks: {a: {field: email, required: true}}",
                "is not a trait",
                "write `traits.email`",
            ),
            (
                "checks: {a: {field: identity.traits.x, required: true}}",
                "is not a trait",
                "write `traits.x`",
            ),
            (
                "checks: {a: {field: \"traits.emails[0]\", required: true}}",
                "a name that is empty",
                "write `traits.emails.0`",
            ),
            (
                "checks: {a: {field: traits.emails.01, required: true}}",
                "a number with a leading zero",
                "write `traits.emails.1`",
            ),
            (
                "checks: {a: {field: traits.emails.00, required: true}}",
                "a number with a leading zero",
                "write `traits.emails.0`",
            ),
            (
                "checks: {a: {set: {traits.emails.01: x}}}",
                "a number with a leading zero",
                "without zeros",
            ),
            (
                "checks: {a: {field: traits.a, refuse: [{when: has(value)}]}}",
                "",
                "write `value != null`",
            ),
            (
                "hooks: {client_ip: X-Forwarded-For}",
                "expected a section of keys",
                "write `client_ip: {header: X-Forwarded-For}`",
            ),
            (
                "checks: {a: {ask: {get: \"http://a/\"}, on_unavailable: allow}}",
                "expected one of",
                "write `accept`",
            ),
            (
                "checks: {a: {ask: {get: \"http://a/\"}, on_unavailable: {timeout: deny}}}",
                "expected one of",
                "write `refuse`",
            ),
            (
                "subscriptions: {a: {events: [created], send: {post: \"http://a/\"}}}",
                "expected one of",
                "write `identity.created`",
            ),
            (
                "services: {a: {url: $API_URL}}",
                "not a URL",
                "write `${env:API_URL}`",
            ),
            (
                "kratos: {admin_url: \"kratos:4434\"}",
                "expected an http or https URL",
                "write `http://kratos:4434`",
            ),
            (
                "services: {a: {url: \"http://a/{value}\"}}",
                "cannot contain an expression",
                "in the path of the request",
            ),
            (
                "checks: {a: {field: traits.a, ask: {get: \"/x/{value}\"}}}",
                "expected a whole http or https URL",
                "name a `service`",
            ),
            (
                "checks: {a: {field: traits.a, ask: {get: \"x.com/{value}\"}}}",
                "expected a whole http or https URL",
                "write `https://x.com/{value}`",
            ),
            (
                "checks: {a: {field: traits.a, ask: {get: \"http://{value}.com/\"}}}",
                "the host cannot contain an expression",
                "",
            ),
            (
                "dsn: \"postgres://\"",
                "not an address of a PostgreSQL database",
                "as in postgres://",
            ),
            (
                "messages: {m: {idd: 4900101, en: No.}}",
                "there is no key `idd` here",
                "did you mean `id`?",
            ),
            (
                "checks: {a: {ask: {service: crm, get: /x}}}",
                "there is no service `crm`",
                "add it: `services: {crm: {url: ",
            ),
            (
                "checks: {a: {ask: {get: \"http://a/\"}, after: [b]}, b: {ask: {get: \"http://b/\"}, after: [a]}}",
                "in a circle",
                "remove `after`",
            ),
            (
                "checks: {a: {refuse: [{when: \"now - timestamp(identity.created_at) > duration('1d')\"}]}}",
                "`1d` is not a duration",
                "write `duration('24h')`",
            ),
            (
                "services: {a: {url: \"http://a\", auth: {type: bearer, config: {token: Bearer abc}}}}",
                "this token has it too",
                "only what follows",
            ),
            (
                "services: {a: {url: \"http://a\", auth: {type: bearer, config: {token: \"\"}}}}",
                "the token is empty",
                "",
            ),
        ],
    );
    let level = "log: {level: no}";
    let review = config::review_text(level, Path::new("v.yaml"), &environment());
    let report = review.problems.to_string();
    assert!(!report.contains("did you mean"), "{report}");
}

#[test]
fn an_expression_without_braces_is_a_warning() {
    let used = "is used as this text, because an expression needs braces";
    each(
        "warning",
        &[
            (
                "subscriptions: {a: {events: [identity.created], send: {post: \"http://a/\", json: {email: identity.traits.email}}}}",
                used,
                "write `{identity.traits.email}`",
            ),
            (
                "subscriptions: {a: {events: [identity.created], send: {post: \"http://a/\", query: {h: md5(identity.traits.email)}}}}",
                used,
                "write `{md5(identity.traits.email)}`",
            ),
            (
                "kratos: {admin_url: \"http://k\"}\nsubscriptions: {a: {events: [identity.created], send: {post: \"http://a/\"}, write_back: {metadata_admin.id: response.body.id}}}",
                used,
                "write `{response.body.id}`",
            ),
            (
                "checks: {a: {ask: {get: \"http://a/\"}, set: {metadata_public.a: response.body.name}}}",
                used,
                "write `{response.body.name}`",
            ),
            (
                "services: {a: {url: \"http://a\", headers: {X-User: \"{identity.traits.email}\"}}}",
                "inserts no value",
                "in the request",
            ),
            (
                "kratos: {admin_url: \"http://k/admin\"}",
                "Vestibule adds `/admin` itself",
                "remove `/admin`",
            ),
        ],
    );
    for json in [
        "{event: identity.created, kind: value, text: \"flow. Another\", now: now, host: response.example.com}",
        "[\"Please read the flow.\", \"identity.traits.email is used\"]",
    ] {
        let text = format!(
            "subscriptions: {{a: {{events: [identity.created], send: {{post: \"http://a/\", json: {json}}}}}}}"
        );
        let review = config::review_text(&text, Path::new("v.yaml"), &environment());
        assert!(review.warnings.is_empty(), "{json}\n{}", review.warnings);
    }
}

#[test]
fn immutable_names_what_settings_lack() {
    let message = "`immutable` has an effect in settings only";
    for (read, data) in [
        ("refuse: [{when: flow.provider == 'x'}]", "provider"),
        ("refuse: [{when: flow.request_url == 'x'}]", "request_url"),
        (
            "refuse: [{when: flow.transient_payload.a == 'x'}]",
            "transient_payload",
        ),
        (
            "refuse: [{when: checks.other.response.body.a == 'x'}]",
            "provider",
        ),
    ] {
        let text = format!(
            "checks: {{a: {{field: traits.a, immutable: true, {read}}}, other: {{ask: {{post: \"http://a/\", json: {{p: \"{{flow.provider}}\"}}}}}}}}"
        );
        each(
            "problem",
            &[(
                &text,
                message,
                &format!("reads `flow.{data}`, which settings lack"),
            )],
        );
    }
    each(
        "problem",
        &[(
            "checks: {a: {field: traits.a, immutable: true, flows: [registration]}}",
            message,
            "write `flows: [registration, settings]`",
        )],
    );
}
