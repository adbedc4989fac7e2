//! Only the page itself may use what stands behind it: the program holds a key of Vestibule, and any site that the
//! visitor has open could call this address.

use std::net::SocketAddr;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HOST, HeaderValue, ORIGIN};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpResponse};
use serde_json::json;

/// Nothing from elsewhere, nothing inline, in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// The names by which the page may be called. Another one means that somebody's name was led to this machine.
pub struct Hosts([String; 2]);

impl Hosts {
    /// Of the page at `address`.
    pub fn of(address: SocketAddr) -> Self {
        Self([address.to_string(), format!("localhost:{}", address.port())])
    }

    /// Whether a request for `host` came from the page itself. A browser tells the `origin` with whatever changes
    /// something, and whose page it was in `site`; who tells neither is no browser.
    fn admit(&self, host: Option<&str>, origin: Option<&str>, site: Option<&str>) -> bool {
        let Some(host) = host.filter(|host| self.0.iter().any(|known| known == host)) else {
            return false;
        };
        origin.is_none_or(|origin| origin.strip_prefix("http://") == Some(host))
            && matches!(site, None | Some("same-origin" | "none"))
    }
}

/// Turns away who comes from elsewhere, and puts the headers on that keep the page closed.
pub async fn same_origin(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.map(|value| value.to_str().unwrap_or("not text"))
    };
    let site = header("sec-fetch-site");
    // A link or a bookmark may lead to the page, but to nothing behind it.
    let site = if request.path() == "/" { None } else { site };
    let admitted = request
        .app_data::<Data<Hosts>>()
        .is_some_and(|hosts| hosts.admit(header(HOST.as_str()), header(ORIGIN.as_str()), site));
    let mut response = if admitted {
        next.call(request).await?.map_into_left_body()
    } else {
        let answer = HttpResponse::Forbidden()
            .json(json!({"problem": "only the page of the demo may ask this"}));
        request.into_response(answer).map_into_right_body()
    };
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
    ] {
        response.headers_mut().insert(
            actix_web::http::header::HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_itself_is_admitted() {
        let hosts = Hosts::of("127.0.0.1:4470".parse().unwrap());
        let own = Some("127.0.0.1:4470");
        for (host, origin, site, expected) in [
            (own, None, None, true),
            (
                own,
                Some("http://127.0.0.1:4470"),
                Some("same-origin"),
                true,
            ),
            (
                Some("localhost:4470"),
                Some("http://localhost:4470"),
                None,
                true,
            ),
            (None, None, None, false),
            (Some("127.0.0.1:80"), None, None, false),
            (
                Some("rebound.example:4470"),
                Some("http://rebound.example:4470"),
                None,
                false,
            ),
            (own, Some("http://evil.example"), None, false),
            (own, Some("null"), None, false),
            (own, Some("https://127.0.0.1:4470"), None, false),
            (own, Some("http://localhost:4470"), None, false),
            (own, None, Some("cross-site"), false),
            (own, None, Some("same-site"), false),
        ] {
            assert_eq!(
                hosts.admit(host, origin, site),
                expected,
                "{host:?} {origin:?} {site:?}"
            );
        }
    }
}
