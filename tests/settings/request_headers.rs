//! `hooks.headers` and `hooks.client_ip`, and what the settings need of the body of a call.

use vestibule::kratos::{ClientIpHeader, Flow};

use crate::read;

#[test]
fn headers_have_the_form_of_kratos_and_each_is_needed_once() {
    for (hooks, expected) in [
        ("{}", vec![]),
        ("{headers: []}", vec![]),
        (
            "{headers: [x-country, X-COUNTRY, DNT]}",
            vec!["Dnt", "X-Country"],
        ),
        (
            "{headers: [accept-language, User-Agent, True-Client-IP]}",
            vec![],
        ),
        ("{headers: [\"${env:NAME:-x-tenant}\"]}", vec!["X-Tenant"]),
        ("{client_ip: {header: True-Client-Ip}}", vec![]),
        (
            "{client_ip: {header: x-forwarded-for}}",
            vec!["X-Forwarded-For"],
        ),
        (
            "{headers: [X-Forwarded-For, X-Country], client_ip: {header: X-Forwarded-For}}",
            vec!["X-Country", "X-Forwarded-For"],
        ),
    ] {
        let settings = read(&format!("hooks: {hooks}")).unwrap();
        assert_eq!(settings.hooks.body_needs.headers, expected, "{hooks}");
        assert_eq!(settings.hooks.body_needs.key, None, "{hooks}");
    }
}

#[test]
fn one_proxy_is_trusted_by_default() {
    for (trusted_proxies, expected) in [
        ("", 1),
        (", trusted_proxies: 1", 1),
        (", trusted_proxies: 10", 10),
        (", trusted_proxies: \"3\"", 3),
        (", trusted_proxies: \"${env:PROXIES:-2}\"", 2),
    ] {
        let text = format!("hooks: {{client_ip: {{header: x-forwarded-for{trusted_proxies}}}}}");
        let client_ip = read(&text).unwrap().hooks.client_ip;
        let expected = ClientIpHeader {
            name: "X-Forwarded-For".to_owned(),
            trusted_proxies: expected,
        };
        assert_eq!(client_ip, Some(expected), "{text}");
    }
    assert_eq!(
        read("hooks: {headers: [X-Forwarded-For]}")
            .unwrap()
            .hooks
            .client_ip,
        None
    );
}

#[test]
fn listed_headers_can_be_read_and_need_no_guard_in_the_file() {
    let text = "hooks: {headers: [x-country], client_ip: {header: X-Real-IP}}\n\
        checks:\n  a: {when: \"request.headers['X-Country'] != 'DE' && request.headers['X-Real-Ip'] != request.client_ip\"}\n  \
        b: {when: \"request.headers['Accept-Language'] == request.headers['True-Client-Ip']\"}\n  \
        c: {when: \"request.headers[method] == '' || size(request.headers) > 1 || request == {}\"}\n";
    read(text).unwrap_or_else(|problems| panic!("{problems}"));
}

/// Each entry reads a key at another place of the file.
#[test]
fn a_key_that_version_1_of_the_body_lacks_is_needed_wherever_it_is_read() {
    let check = |check: &str| format!("checks: {{a: {{{check}}}}}");
    let subscription = |rest: &str| {
        format!("subscriptions: {{a: {{events: [identity.created, identity.updated], {rest}}}}}")
    };
    for (text, expected) in [
        (
            check("when: \"flow.request_url == ''\""),
            Some("flow.request_url"),
        ),
        (check("when: \"has(flow.provider)\""), Some("flow.provider")),
        (
            check("when: \"flow.?provider.orValue('') == 'a'\""),
            Some("flow.provider"),
        ),
        (
            check("when: \"flow[?'request_url'].hasValue()\""),
            Some("flow.request_url"),
        ),
        (
            check("refuse: [{when: \"query_parameter(flow.request_url, 'a') == null\"}]"),
            Some("flow.request_url"),
        ),
        (
            check("refuse: [{when: \"true\", message: \"Sorry, {flow.provider}.\"}]"),
            Some("flow.provider"),
        ),
        (
            check("ask: {get: \"http://a/{query_parameter(flow.request_url, 'a')}\"}"),
            Some("flow.request_url"),
        ),
        (
            check("ask: {get: \"http://a/\", query: {p: \"{flow.provider}\"}}"),
            Some("flow.provider"),
        ),
        (
            check("set: {metadata_public.a: \"{flow.provider}\"}"),
            Some("flow.provider"),
        ),
        (
            check("flows: [settings], when: \"previous.state == 'active'\""),
            Some("previous.state"),
        ),
        (
            subscription(
                "when: \"previous.?state_changed_at.hasValue()\", send: {post: \"http://a/\"}",
            ),
            Some("previous.state_changed_at"),
        ),
        (
            subscription("send: {post: \"http://a/\", json: {a: [{b: \"{flow.request_url}\"}]}}"),
            Some("flow.request_url"),
        ),
        (
            subscription("send: {post: \"http://a/\", form: {a: \"{flow.request_url}\"}}"),
            Some("flow.request_url"),
        ),
        (
            subscription("send: {post: \"http://a/\", headers: {X-Provider: \"{flow.provider}\"}}"),
            Some("flow.provider"),
        ),
        (
            check("when: \"flow.return_to == '' && flow.transient_payload.a\""),
            None,
        ),
        (
            subscription("send: {post: \"http://a/\", json: {flow: \"{flow}\"}}"),
            None,
        ),
        (
            check("flows: [settings], when: \"previous.traits.a == previous.metadata_public.b\""),
            None,
        ),
    ] {
        let settings = read(&text).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(settings.hooks.body_needs.key.as_deref(), expected, "{text}");
    }
}

#[test]
fn a_check_of_data_that_only_a_registration_has_runs_at_registration() {
    for when in [
        "flow.transient_payload.captcha == ''",
        "query_parameter(flow.request_url, 'invite') == null",
        "flow.provider == 'google'",
        "flow[?'provider'].orValue('') == identity.traits.company",
    ] {
        let text = format!(
            "checks: {{a: {{field: traits.a, when: \"{when}\", refuse: [{{when: \"true\"}}]}}}}"
        );
        let settings = read(&text).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(settings.checks[0].flows, [Flow::Registration], "{when}");
        let both = text.replace("field:", "flows: [registration, settings], field:");
        let settings = read(&both).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(settings.checks[0].flows, Flow::CHECKED, "{when}");
    }
}
