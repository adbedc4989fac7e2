//! Resolves the headers of the visitor's request that Kratos passes to Vestibule.

use super::{Cursor, Resolver};
use crate::config::file;
use crate::config::tree::Kind;
use crate::kratos::ClientIpHeader;
use crate::kratos::template::{FORWARDED, canonical_header};

/// Headers with credentials of the visitor. Vestibule must never receive these.
const WITH_CREDENTIALS: [&str; 6] = [
    "Authorization",
    "Cookie",
    "Proxy-Authorization",
    "X-Csrf-Token",
    "X-Session-Cookie",
    "X-Session-Token",
];
/// The maximum number of trusted proxies.
const MAX_PROXIES: usize = 10;

impl Resolver<'_> {
    /// Returns the headers that the settings need besides those that every template sends, each once.
    pub(super) fn request_headers(
        &mut self,
        cursor: &Cursor<'_>,
        headers: &[file::Text],
        client_ip: Option<&ClientIpHeader>,
    ) -> Vec<String> {
        let mut needed = Vec::new();
        for (index, header) in headers.iter().enumerate() {
            needed.extend(self.request_header(&cursor.item(index), header));
        }
        needed.extend(client_ip.map(|client_ip| client_ip.name.clone()));
        needed.retain(|header| !FORWARDED.contains(&header.as_str()));
        needed.sort();
        needed.dedup();
        needed
    }

    /// Resolves `hooks.client_ip`.
    pub(super) fn client_ip(
        &mut self,
        cursor: &Cursor<'_>,
        file: &file::ClientIp,
    ) -> Option<ClientIpHeader> {
        let trusted_proxies = self.trusted_proxies(&cursor.key("trusted_proxies"), file);
        let place = cursor.key("header");
        let name = self.request_header(&place, &file.header)?;
        if name == "Forwarded" {
            self.report(
                &place,
                "the entries of `Forwarded` are not addresses",
                Some("use `X-Forwarded-For`".to_owned()),
            );
            return None;
        }
        Some(ClientIpHeader {
            name,
            trusted_proxies: trusted_proxies?,
        })
    }

    fn trusted_proxies(&mut self, cursor: &Cursor<'_>, file: &file::ClientIp) -> Option<usize> {
        let Some(file::Number(value)) = &file.trusted_proxies else {
            return Some(1);
        };
        let text = match value {
            serde_json::Value::String(text) => self.text(&file::Text(text.clone()))?,
            other => other.to_string(),
        };
        let number = text.parse().ok();
        let number = number.filter(|number| (1..=MAX_PROXIES).contains(number));
        if number.is_none() {
            self.report(
                cursor,
                format!("expected a number from 1 to {MAX_PROXIES}"),
                Some("write the number of your proxies before Kratos; the first of them writes the visitor's address".to_owned()),
            );
        }
        number
    }

    /// Returns the names in `request.headers`. A name with a problem of its own is known, so that it is reported once.
    pub(super) fn known_headers(&self) -> Vec<String> {
        let hooks = self.root.key("hooks");
        let written = |cursor: &Cursor<'_>| match cursor.node.map(|node| &node.kind) {
            Some(Kind::Text { text, .. }) => self.text(&file::Text(text.clone())),
            _ => None,
        };
        let headers = hooks.key("headers");
        let count = match headers.node.map(|node| &node.kind) {
            Some(Kind::List(items)) => items.len(),
            _ => 0,
        };
        let listed = (0..count).filter_map(|index| written(&headers.item(index)));
        let known = listed.chain(written(&hooks.key("client_ip").key("header")));
        let mut names: Vec<String> = known.map(|name| canonical_header(&name)).collect();
        names.retain(|name| !name.is_empty() && !FORWARDED.contains(&name.as_str()));
        names.sort();
        names.dedup();
        let forwarded = FORWARDED.into_iter().map(ToOwned::to_owned);
        forwarded.chain(names).collect()
    }

    /// Returns whether the name of a header is missing in the environment, so that `request.headers` may have any name.
    pub(super) fn lacks_a_header_name(&self) -> bool {
        let is_header =
            |path: &String| path.starts_with("hooks.headers[") || path == "hooks.client_ip.header";
        self.placeholders.iter().any(is_header)
    }

    /// Returns the name of a header in Kratos's form.
    fn request_header(&mut self, cursor: &Cursor<'_>, header: &file::Text) -> Option<String> {
        let name = self.text(header)?;
        if http::HeaderName::try_from(name.as_str()).is_err() {
            self.report(cursor, format!("`{name}` is not a header name"), None);
            return None;
        }
        let canonical = canonical_header(&name);
        if WITH_CREDENTIALS.contains(&canonical.as_str()) {
            self.report(
                cursor,
                format!(
                    "`{name}` holds credentials of the visitor, which Vestibule must not receive"
                ),
                Some("remove this header".to_owned()),
            );
            return None;
        }
        if canonical == "Host" {
            self.report(
                cursor,
                "Kratos does not pass `Host` to hooks",
                Some("let your proxy write it into `X-Forwarded-Host`".to_owned()),
            );
            return None;
        }
        Some(canonical)
    }
}
