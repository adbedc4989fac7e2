//! The client of Kratos's admin API: reads, lists and patches identities.

pub mod call_limit;
pub mod hook_view;
pub mod in_force;
pub mod patch;

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

use call_limit::CallLimit;

use crate::base::clock::Clock;
use crate::model::request::{Body, Method, Request};
use crate::outbound::services::client::{Answer, CallError, Services, TimeLimit};
use crate::outbound::services::{Auth, Service};

/// The name of the admin API among the services. Operators cannot give this name to a service.
pub const SERVICE: &str = "kratos admin api";
/// The number of identities on a page. An identity may have some kilobytes, and an answer is limited to one megabyte.
pub const PAGE: u32 = 100;

/// The maximum duration of a call.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The client of Kratos's admin API.
#[derive(Clone, Debug)]
pub struct KratosAdmin {
    services: Arc<Services>,
    clock: Clock,
    limit: Limited,
    /// The maximum duration of a call.
    timeout: Duration,
}

/// How the calls of a handle are limited.
#[derive(Clone, Debug)]
enum Limited {
    Not,
    IsCounted(Arc<CallLimit>),
    Waits(Arc<CallLimit>),
}

/// A page of identities, in the order of their ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The identities as Kratos returns them.
    pub identities: Vec<Value>,
    /// The token of the next page; `None` after the last page.
    pub next: Option<String>,
}

/// Why Kratos's admin API gave no result. Never holds values of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Kratos did not answer.
    #[error("Kratos's admin API did not answer")]
    CallError(#[from] CallError),
    /// Kratos answered with this status.
    #[error("Kratos's admin API answered with status {0}")]
    Status(u16),
    /// Another request changed the same rows at the same moment, and Kratos wrote nothing.
    #[error(
        "Kratos wrote nothing, because another request changed the same rows at the same moment"
    )]
    Concurrent,
    /// The response does not come from Kratos.
    #[error(
        "unexpected answer from Kratos's admin API; check that `kratos.admin_url` is its address"
    )]
    NotUnderstood,
}

/// Describes the admin API as a service.
#[must_use]
pub fn service(url: Url, auth: Option<Auth>) -> Service {
    Service {
        timeout: Some(TIMEOUT),
        auth,
        ..Service::without_credentials(SERVICE.to_owned(), url)
    }
}

impl KratosAdmin {
    /// Returns a client. `services` must hold [`service`].
    #[must_use]
    pub fn new(services: Arc<Services>, clock: Clock) -> Self {
        Self {
            services,
            clock,
            limit: Limited::Not,
            timeout: TIMEOUT,
        }
    }

    /// Returns a handle whose calls take no longer than this.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Returns a handle whose calls count for this limit, and do not wait.
    #[must_use]
    pub fn counted_by(&self, limit: &Arc<CallLimit>) -> Self {
        Self {
            limit: Limited::IsCounted(Arc::clone(limit)),
            ..self.clone()
        }
    }

    /// Returns a handle whose calls wait until this limit permits them.
    #[must_use]
    pub fn limited_by(&self, limit: &Arc<CallLimit>) -> Self {
        Self {
            limit: Limited::Waits(Arc::clone(limit)),
            ..self.clone()
        }
    }

    /// Returns the identity with this id; `None` if it does not exist.
    pub async fn get(&self, id: Uuid) -> Result<Option<Value>, Error> {
        found(self.ask(get(format!("/admin/identities/{id}"))).await?)
    }

    /// Returns the identity with this `external_id`, which the operator's systems assign.
    pub async fn with_external_id(&self, external_id: &str) -> Result<Option<Value>, Error> {
        let external_id = encoded(external_id);
        found(
            self.ask(get(format!("/admin/identities/by/external/{external_id}")))
                .await?,
        )
    }

    /// Returns the identities with this identifier: an e-mail address or a user name.
    pub async fn with_identifier(&self, identifier: &str) -> Result<Vec<Value>, Error> {
        let identifier = encoded(identifier);
        let answer = self
            .ask(get(format!(
                "/admin/identities?credentials_identifier={identifier}"
            )))
            .await?;
        list(answer)
    }

    /// Returns the page with the token `from`, a [`Page::next`]; the first page without a token. If identities are
    /// large, the page holds fewer.
    pub async fn page(&self, from: Option<&str>) -> Result<Page, Error> {
        let mut size = PAGE;
        loop {
            match self.page_of(size, from).await {
                Err(Error::CallError(CallError::TooLarge)) if size > 1 => size /= 2,
                page => return page,
            }
        }
    }

    async fn page_of(&self, size: u32, from: Option<&str>) -> Result<Page, Error> {
        let from = from.map_or(String::new(), |token| {
            format!("&page_token={}", encoded(token))
        });
        let answer = self
            .ask(get(format!("/admin/identities?page_size={size}{from}")))
            .await?;
        let link = answer.response["headers"]["link"].as_str();
        let next = link.and_then(next_page);
        Ok(Page {
            next,
            identities: list(answer)?,
        })
    }

    /// Applies a JSON Patch (RFC 6902). Returns the identity after it; `None` if the identity does not exist.
    pub async fn patch(
        &self,
        id: Uuid,
        operations: &[patch::Operation],
    ) -> Result<Option<Value>, Error> {
        let answer = self
            .ask(Request {
                method: Method::Patch,
                path: format!("/admin/identities/{id}"),
                headers: Vec::new(),
                body: Some(Body {
                    content_type: "application/json".to_owned(),
                    text: serde_json::to_string(operations).map_err(|_| Error::NotUnderstood)?,
                }),
            })
            .await?;
        found(answer)
    }

    /// Deletes all sessions of an identity. The identity may have none.
    pub async fn delete_sessions(&self, id: Uuid) -> Result<(), Error> {
        let answer = self
            .ask(Request {
                method: Method::Delete,
                path: format!("/admin/identities/{id}/sessions"),
                headers: Vec::new(),
                body: None,
            })
            .await?;
        match answer.status {
            204 => Ok(()),
            404 if answer.response["body"]["error"].is_object() => Ok(()),
            200 | 404 => Err(Error::NotUnderstood),
            status => Err(Error::Status(status)),
        }
    }

    async fn ask(&self, request: Request) -> Result<Answer, Error> {
        match &self.limit {
            Limited::Not => {}
            Limited::IsCounted(limit) => limit.count(),
            Limited::Waits(limit) => limit.wait().await,
        }
        let limit = TimeLimit {
            of_request: None,
            otherwise: self.timeout,
            until: self.clock.deadline(self.timeout),
        };
        let headers = [("accept", "application/json".to_owned())];
        let answer = self
            .services
            .call(SERVICE, &request, &headers, limit)
            .await?;
        if is_concurrent(&answer) {
            return Err(Error::Concurrent);
        }
        Ok(answer)
    }
}

/// Kratos answers a failed serialization with 400, the status of a malformed request.
fn is_concurrent(answer: &Answer) -> bool {
    let message = answer.response["body"]["error"]["message"].as_str();
    answer.status == 400 && message.is_some_and(|message| message.contains("serialize access"))
}

fn get(path: String) -> Request {
    Request {
        method: Method::Get,
        path,
        headers: Vec::new(),
        body: None,
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn found(mut answer: Answer) -> Result<Option<Value>, Error> {
    match answer.status {
        200 if is_identity(&answer.response["body"]) => Ok(Some(answer.response["body"].take())),
        // Kratos's own 404 is JSON. The 404 of a proxy or another service does not prove that the identity does not
        // exist.
        404 if answer.response["body"]["error"].is_object() => Ok(None),
        200 | 404 => Err(Error::NotUnderstood),
        status => Err(Error::Status(status)),
    }
}

fn list(mut answer: Answer) -> Result<Vec<Value>, Error> {
    if answer.status != 200 {
        return Err(Error::Status(answer.status));
    }
    match answer.response["body"].take() {
        Value::Array(identities) if identities.iter().all(is_identity) => Ok(identities),
        _ => Err(Error::NotUnderstood),
    }
}

fn is_identity(value: &Value) -> bool {
    value["id"]
        .as_str()
        .is_some_and(|id| Uuid::parse_str(id).is_ok())
        && value["schema_id"].is_string()
}

fn is_identity_schema(value: &Value) -> bool {
    value["id"].is_string() && value["schema"].is_object()
}

/// Returns the `page_token` of the link `rel="next"`.
fn next_page(links: &str) -> Option<String> {
    let next = links
        .split(',')
        .find(|link| link.contains("rel=\"next\""))?;
    let target = next.trim().strip_prefix('<')?.split('>').next()?;
    let query = target.split_once('?')?.1;
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(name, value)| name == "page_token" && !value.is_empty())
        .map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_next_page_is_read_from_the_link() {
        for (links, expected) in [
            (
                r#"</admin/identities?page_size=2&page_token=00000000-0000-0000-0000-000000000000>; rel="first",</admin/identities?page_size=2&page_token=3f6c>; rel="next""#,
                Some("3f6c"),
            ),
            (
                r#"<http://127.0.0.1:4434/admin/identities?page_size=2&page_token=a%2Fb>; rel="next""#,
                Some("a/b"),
            ),
            (
                r#"</admin/identities?page_size=2&page_token=0>; rel="first""#,
                None,
            ),
            (
                r#"</admin/identities?page_size=2&page_token=>; rel="next""#,
                None,
            ),
            ("", None),
        ] {
            assert_eq!(next_page(links).as_deref(), expected, "{links}");
        }
    }

    #[test]
    fn a_failed_serialization_is_recognised_by_status_and_message() {
        let answer = |status: u16, message: &str| Answer {
            status,
            response: json!({"body": {"error": {"code": status, "message": message}}}),
            retry_after: None,
        };
        let concurrent = "Unable to serialize access due to a concurrent update in another session";
        for (status, message, expected) in [
            (400, concurrent, true),
            (400, "The request was malformed", false),
            (409, concurrent, false),
        ] {
            let answer = answer(status, message);
            assert_eq!(is_concurrent(&answer), expected, "{status} {message}");
        }
    }

    #[test]
    fn only_responses_of_kratos_itself_count() {
        let identity = json!({"id": Uuid::from_u128(1), "schema_id": "default"});
        let answer = |status: u16, body: Value| Answer {
            status,
            response: json!({"status": status, "headers": {}, "body": body}),
            retry_after: None,
        };
        let not_found = json!({"error": {"code": 404, "status": "Not Found"}});
        for (status, body, expected) in [
            (200, identity.clone(), Ok(Some(identity.clone()))),
            (404, not_found, Ok(None)),
            (
                404,
                json!("<html>not found</html>"),
                Err(Error::NotUnderstood),
            ),
            (200, json!({"hello": "world"}), Err(Error::NotUnderstood)),
            (200, json!([identity]), Err(Error::NotUnderstood)),
            (503, json!({"error": {}}), Err(Error::Status(503))),
            (401, Value::Null, Err(Error::Status(401))),
        ] {
            assert_eq!(
                found(answer(status, body.clone())),
                expected,
                "{status} {body}"
            );
        }
        assert_eq!(
            list(answer(200, json!([identity]))),
            Ok(vec![identity.clone()])
        );
        assert_eq!(list(answer(200, json!([]))), Ok(Vec::new()));
        assert_eq!(list(answer(200, json!([{}]))), Err(Error::NotUnderstood));
        assert_eq!(list(answer(200, identity)), Err(Error::NotUnderstood));
        assert_eq!(list(answer(500, json!([]))), Err(Error::Status(500)));
    }
}
