//! Decides which requests may show or change deliveries, late refusals and jobs.
//!
//! An operator's browser can reach the admin port. A web page of another site can make a name of its own resolve to this
//! port (DNS rebinding), and would then be of the same origin. So the `Host` of a request must be an IP address,
//! `localhost` or a name of the settings, and a browser's `Origin` must be that host.

use std::net::{Ipv4Addr, Ipv6Addr};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};
use actix_web::http::uri::Authority;
use actix_web::middleware::Next;
use actix_web::web::Data;

use super::AdminState;
use super::error::ApiError;
use crate::base::secret::Secret;

/// Who may call the operations that show or change data.
#[derive(Debug, Default)]
pub struct AdminAccess {
    /// Host names by which operators call the port, besides IP addresses and `localhost`; in lower case.
    pub allowed_hosts: Vec<String>,
    /// The token that each request must have. `None`: none.
    pub token: Option<Secret>,
}

/// Rejects a request that may not show or change data.
pub(super) async fn check_access(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    if let Some(state) = request.app_data::<Data<AdminState>>() {
        state.access.check(request.headers())?;
    }
    next.call(request).await
}

impl AdminAccess {
    /// Checks the headers of a request.
    fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(host) = only(headers, &HOST).and_then(parse) else {
            return Err(ApiError::forbidden_host(""));
        };
        if !self.allows_host(host.host()) {
            return Err(ApiError::forbidden_host(host.host()));
        }
        if headers.contains_key(ORIGIN) {
            let origin = only(headers, &ORIGIN);
            if !origin.is_some_and(|origin| self.allows_origin(origin, &host)) {
                return Err(ApiError::forbidden_origin());
            }
        }
        match &self.token {
            Some(token) if !has_token(headers, token) => Err(ApiError::no_token()),
            _ => Ok(()),
        }
    }

    fn allows_host(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host);
        let in_brackets = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        in_brackets.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
            || host.parse::<Ipv4Addr>().is_ok()
            || host.eq_ignore_ascii_case("localhost")
            || self.names(host)
    }

    /// Returns whether the origin is the called host, or a host of the settings: a proxy may change the `Host`.
    fn allows_origin(&self, origin: &str, host: &Authority) -> bool {
        let origin = origin.split_once("://").and_then(|(_, rest)| parse(rest));
        origin.is_some_and(|origin| origin == *host || self.names(origin.host()))
    }

    fn names(&self, host: &str) -> bool {
        let mut allowed = self.allowed_hosts.iter();
        allowed.any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// Returns the value of a header that occurs once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name);
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn parse(text: &str) -> Option<Authority> {
    let authority: Authority = text.parse().ok()?;
    (!authority.as_str().contains('@')).then_some(authority)
}

fn has_token(headers: &HeaderMap, token: &Secret) -> bool {
    let value = only(headers, &AUTHORIZATION).and_then(|value| value.split_once(' '));
    value.is_some_and(|(scheme, sent)| {
        scheme.eq_ignore_ascii_case("bearer") && token.matches(sent.trim().as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    fn access() -> AdminAccess {
        AdminAccess {
            allowed_hosts: vec!["admin.example.com".to_owned()],
            token: None,
        }
    }

    fn headers(of: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_host_is_an_address_localhost_or_a_name_of_the_settings() {
        for (host, expected) in [
            ("127.0.0.1:4481", true),
            ("10.1.2.3", true),
            ("[::1]:4481", true),
            ("[fd00::1]", true),
            ("localhost", true),
            ("LocalHost:4481", true),
            ("localhost.:4481", true),
            ("admin.example.com", true),
            ("Admin.Example.com:4481", true),
            ("evil.example", false),
            ("evil.example:4481", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1@evil.example", false),
            ("evil.example@127.0.0.1", false),
            ("2130706433", false),
            ("::1", false),
            ("", false),
        ] {
            let checked = access().check(&headers(&[(HOST, host)]));
            assert_eq!(checked.is_ok(), expected, "{host}");
        }
        assert!(access().check(&HeaderMap::new()).is_err());
        let two = headers(&[(HOST, "127.0.0.1"), (HOST, "evil.example")]);
        assert!(access().check(&two).is_err());
    }

    #[test]
    fn an_origin_is_the_called_host_or_a_name_of_the_settings() {
        for (host, origin, expected) in [
            ("127.0.0.1:4481", "http://127.0.0.1:4481", true),
            ("admin.example.com", "https://admin.example.com", true),
            ("127.0.0.1:4481", "https://admin.example.com", true),
            ("127.0.0.1:4481", "http://127.0.0.1:3000", false),
            ("127.0.0.1:4481", "http://localhost:4481", false),
            ("127.0.0.1:4481", "https://evil.example", false),
            ("127.0.0.1:4481", "null", false),
            ("127.0.0.1:4481", "", false),
        ] {
            let checked = access().check(&headers(&[(HOST, host), (ORIGIN, origin)]));
            assert_eq!(checked.is_ok(), expected, "{host} {origin}");
        }
    }
}
