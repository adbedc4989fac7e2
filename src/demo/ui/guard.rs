//! Restricts the API of the page to the page itself. The program holds a key of Vestibule, and any site that the
//! visitor has open could call this address.

use std::net::SocketAddr;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HOST, HeaderValue, ORIGIN};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpResponse};
use serde_json::json;

/// Nothing from other origins, nothing inline, and no frame around the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

/// The host names of the page. Any other name means that a foreign name resolves to this machine (DNS rebinding).
pub struct Hosts([String; 2]);

impl Hosts {
    /// Returns the host names of the page at `address`.
    pub fn of(address: SocketAddr) -> Self {
        Self([address.to_string(), format!("localhost:{}", address.port())])
    }

    /// Returns whether a request for `host` came from the page itself. A browser sends the `origin` with every change,
    /// and the relation to the calling page in `site`. A client that sends neither is not a browser.
    fn admit(&self, host: Option<&str>, origin: Option<&str>, site: Option<&str>) -> bool {
        let Some(host) = host.filter(|host| self.0.iter().any(|known| known == host)) else {
            return false;
        };
        origin.is_none_or(|origin| origin.strip_prefix("http://") == Some(host))
            && matches!(site, None | Some("same-origin" | "none"))
    }
}

/// Rejects requests of other sites, and sets the headers that isolate the page.
pub async fn same_origin(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.map(|value| value.to_str().unwrap_or("not text"))
    };
    let site = header("sec-fetch-site");
    // A link or a bookmark may lead to the page, but not to its API.
    let site = if request.path() == "/" { None } else { site };
    let admitted = request
        .app_data::<Data<Hosts>>()
        .is_some_and(|hosts| hosts.admit(header(HOST.as_str()), header(ORIGIN.as_str()), site));
    let mut response = if admitted {
        next.call(request).await?.map_into_left_body()
    } else {
        let answer = HttpResponse::Forbidden()
            .json(json!({"problem": "only the page of the demo may call this address"}));
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
    fn only_requests_of_the_page_itself_are_admitted() {
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
