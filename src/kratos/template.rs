//! The template of the body: what it sends, what the settings need of it, and the request headers for which it is
//! printed.

use super::payload::{Payload, VERSION};

/// The template of the body, in Jsonnet: a function of Kratos's `ctx`. It sends the headers of [`FORWARDED`].
pub const TEMPLATE: &str = include_str!("../../kratos-config/vestibule.jsonnet");

/// The request headers that every template sends, in canonical form.
pub const FORWARDED: [&str; 3] = ["Accept-Language", "User-Agent", "True-Client-Ip"];

/// The default of `clients.web_hook.header_allowlist` in Kratos v26.2.0: the headers that Kratos passes to a template.
pub const KRATOS_ALLOWLIST: [&str; 17] = [
    "Accept",
    "Accept-Encoding",
    "Accept-Language",
    "Content-Length",
    "Content-Type",
    "Origin",
    "Priority",
    "Referer",
    "Sec-Ch-Ua",
    "Sec-Ch-Ua-Mobile",
    "Sec-Ch-Ua-Platform",
    "Sec-Fetch-Dest",
    "Sec-Fetch-Mode",
    "Sec-Fetch-Site",
    "Sec-Fetch-User",
    "True-Client-Ip",
    "User-Agent",
];

/// What the settings need of the body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyNeeds {
    /// The request headers besides those of [`FORWARDED`], in canonical form.
    pub headers: Vec<String>,
    /// A key that only a body of version 2 has, such as `flow.request_url`.
    pub key: Option<String>,
}

impl BodyNeeds {
    /// Returns what the body lacks because its template is old or was printed for other settings; `None` if the body
    /// has everything.
    #[must_use]
    pub fn missing_in(&self, payload: &Payload) -> Option<String> {
        if payload.version < VERSION
            && let Some(key) = &self.key
        {
            return Some(format!("`{key}`"));
        }
        let is_sent = |header: &String| payload.forwarded_headers.contains(header);
        let missing = self.headers.iter().find(|header| !is_sent(header));
        missing.map(|header| format!("the request header `{header}`"))
    }
}

/// Returns the template that also sends these request headers.
#[must_use]
pub fn template(headers: &[String]) -> String {
    let all = FORWARDED
        .into_iter()
        .chain(headers.iter().map(String::as_str));
    TEMPLATE.replace(&forwarding(FORWARDED.into_iter()), &forwarding(all))
}

/// Returns the value for `clients.web_hook.header_allowlist`, which replaces Kratos's default. `None` if the default
/// has all these headers.
#[must_use]
pub fn header_allowlist(headers: &[String]) -> Option<Vec<&str>> {
    let others = headers.iter().map(String::as_str);
    let others: Vec<&str> = others
        .filter(|header| !KRATOS_ALLOWLIST.contains(header))
        .collect();
    (!others.is_empty()).then(|| KRATOS_ALLOWLIST.into_iter().chain(others).collect())
}

/// Returns the name of a header as Kratos writes it: `X-Forwarded-For`.
#[must_use]
pub fn canonical_header(name: &str) -> String {
    let mut is_first = true;
    let letters = name.chars().map(|letter| {
        let letter = if is_first {
            letter.to_ascii_uppercase()
        } else {
            letter.to_ascii_lowercase()
        };
        is_first = letter == '-';
        letter
    });
    letters.collect()
}

/// Returns the line of the template that lists the headers.
fn forwarding<'a>(headers: impl Iterator<Item = &'a str>) -> String {
    let headers: Vec<String> = headers
        .map(|header| serde_json::Value::from(header).to_string())
        .collect();
    format!("local forwarded = [{}];", headers.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn owned(headers: &[&str]) -> Vec<String> {
        headers.iter().map(|header| (*header).to_owned()).collect()
    }

    #[test]
    fn the_printed_template_sends_the_listed_headers() {
        assert_eq!(template(&[]), TEMPLATE);
        let printed = template(&owned(&["X-Forwarded-For", "Cf-Ipcountry"]));
        let list = r#"["Accept-Language", "User-Agent", "True-Client-Ip", "X-Forwarded-For", "Cf-Ipcountry"]"#;
        assert_eq!(printed.matches(list).count(), 1, "{printed}");
    }

    #[test]
    fn the_allowlist_holds_the_default_and_the_listed_headers() {
        assert_eq!(header_allowlist(&[]), None);
        assert_eq!(header_allowlist(&owned(&["Origin", "User-Agent"])), None);
        let headers = owned(&["Origin", "X-Forwarded-For", "Cf-Ipcountry"]);
        let allowlist = header_allowlist(&headers).expect("an allowlist");
        assert_eq!(allowlist[..17], KRATOS_ALLOWLIST);
        assert_eq!(allowlist[17..], ["X-Forwarded-For", "Cf-Ipcountry"]);
        for header in FORWARDED {
            assert!(KRATOS_ALLOWLIST.contains(&header), "{header}");
        }
    }

    #[test]
    fn headers_have_the_canonical_form_of_kratos() {
        for (written, expected) in [
            ("x-forwarded-for", "X-Forwarded-For"),
            ("CF-IPCountry", "Cf-Ipcountry"),
            ("DNT", "Dnt"),
            ("x--a", "X--A"),
            ("x_real_ip", "X_real_ip"),
            ("1a-2b", "1a-2b"),
            ("", ""),
        ] {
            assert_eq!(canonical_header(written), expected);
        }
        for header in FORWARDED.iter().chain(&KRATOS_ALLOWLIST) {
            assert_eq!(canonical_header(header), *header);
        }
    }

    #[test]
    fn an_old_template_lacks_what_the_settings_need() {
        let body = |version: u32, headers: serde_json::Value| {
            let id = uuid::Uuid::nil();
            let body =
                json!({"version": version, "forwarded_headers": headers, "flow": {"id": id}});
            Payload::parse(body.to_string().as_bytes()).expect("a body")
        };
        let needs = |headers: &[&str], key: Option<&str>| BodyNeeds {
            headers: owned(headers),
            key: key.map(ToOwned::to_owned),
        };
        let sent = json!(["Accept-Language", "X-Forwarded-For"]);
        let url = Some("flow.request_url");
        let x = &["X-Forwarded-For"];
        for (needs, version, headers, expected) in [
            (needs(&[], None), 1, json!(null), None),
            (needs(&[], None), 2, json!([]), None),
            (needs(&[], url), 1, json!(null), Some("`flow.request_url`")),
            (needs(&[], url), 2, json!([]), None),
            (
                needs(x, None),
                1,
                json!(null),
                Some("the request header `X-Forwarded-For`"),
            ),
            // A body of version 1 does not list its headers.
            (
                needs(x, None),
                1,
                sent.clone(),
                Some("the request header `X-Forwarded-For`"),
            ),
            (
                needs(x, None),
                2,
                json!(["Accept-Language"]),
                Some("the request header `X-Forwarded-For`"),
            ),
            (needs(x, url), 2, sent.clone(), None),
            (
                needs(&["X-Forwarded-For", "Dnt"], url),
                2,
                sent,
                Some("the request header `Dnt`"),
            ),
        ] {
            let missing = needs.missing_in(&body(version, headers.clone()));
            assert_eq!(
                missing.as_deref(),
                expected,
                "{needs:?} {version} {headers}"
            );
        }
    }
}
