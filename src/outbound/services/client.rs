//! Calls services, with limits for the time, the size of the response, and the address.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use serde_json::{Map, Value};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::address::is_forbidden;
use super::connections::Connections;
use super::resolver::Forbidden;
use super::sign::signature;
use super::{ApiKeyLocation, Auth, Service};
use crate::base::clock::{Clock, Deadline, Timestamp};
use crate::base::cpu;
use crate::base::json::without_byte_order_mark;
use crate::base::telemetry::Metrics;
use crate::base::telemetry::metrics::{ServiceLabels, ServiceName};
use crate::model::request::Request;

/// The maximum size of a response, in bytes.
pub const MAX_ANSWER: usize = 1024 * 1024;

/// The size of a response that is parsed in less than a millisecond, in bytes.
const QUICK_ANSWER: usize = 64 * 1024;

/// The maximum duration of a question before the identity is saved, if the settings give none.
pub const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);

/// The maximum duration of an attempt of a delivery, if the settings give none. Nobody waits for a delivery, and a
/// receiver that times out gets it again.
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(15);

/// The response of a service, parsed.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `{"status": …, "headers": {…}, "body": …}` for expressions. Header names are in lower case. A body that is not
    /// JSON is a string, and an empty body is null.
    pub response: Value,
    /// The header `Retry-After`.
    pub retry_after: Option<String>,
}

/// Why a call has no response. Never holds a URL, because a path may hold a value of the visitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No response in time.
    #[error("no response in time")]
    Timeout,
    /// The service was not reached, or the connection was closed.
    #[error("the connection failed")]
    Connection,
    /// Vestibule never calls this address.
    #[error("the address is link-local or a cloud's metadata service, which is never called")]
    ForbiddenAddress,
    /// The response is longer than [`MAX_ANSWER`].
    #[error("the response is longer than {MAX_ANSWER} bytes")]
    TooLarge,
    /// The settings do not have the service any more.
    #[error("the settings do not have the service")]
    UnknownService,
}

impl CallError {
    /// Returns the name of the error for metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::ForbiddenAddress => "forbidden_address",
            Self::TooLarge => "too_large",
            Self::UnknownService => "unknown_service",
        }
    }
}

/// How long a call may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimit {
    /// The maximum duration that the settings give to the request. It replaces that of the service.
    pub of_request: Option<Duration>,
    /// The maximum duration if the settings give none to the request and none to the service.
    pub otherwise: Duration,
    /// When the call ends at the latest.
    pub until: Deadline,
}

/// All services of the settings, and the HTTP client.
#[derive(Debug)]
pub struct Services {
    named: BTreeMap<String, Service>,
    /// The runtime on which calls run. A connection ends with the runtime that opened it, so the runtime that ends
    /// last opens all connections.
    runtime: Handle,
    connections: Connections,
    clock: Clock,
    metrics: Arc<Metrics>,
}

impl Services {
    /// Creates a client for these services. The current runtime is the one on which calls run.
    pub fn new(
        services: Vec<Service>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Result<Self, reqwest::Error> {
        let connections = Connections::new(&clock)?;
        let named = services
            .into_iter()
            .map(|service| (service.name.clone(), service))
            .collect();
        Ok(Self {
            named,
            runtime: Handle::current(),
            connections,
            clock,
            metrics,
        })
    }

    /// Returns a client of this service alone, which uses the same connections.
    #[must_use]
    pub fn alone(&self, service: Service) -> Self {
        Self {
            named: BTreeMap::from([(service.name.clone(), service)]),
            runtime: self.runtime.clone(),
            connections: self.connections.clone(),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Sends `request` to the service with this name and waits for the response. `extra` headers are added.
    pub async fn call(
        &self,
        name: &str,
        request: &Request,
        extra: &[(&'static str, String)],
        limit: TimeLimit,
    ) -> Result<Answer, CallError> {
        let service = self.named.get(name).ok_or(CallError::UnknownService)?;
        let started = self.clock.monotonic();
        let timeout = limit.of_request.or(service.timeout);
        let timeout = timeout.unwrap_or(limit.otherwise);
        let until = limit.until.min(self.clock.deadline(timeout));
        let answer = if self.clock.time_left(until).is_zero() {
            None
        } else {
            self.clock
                .timeout_at(until, self.send(service, request, extra))
                .await
        };
        let answer = answer.unwrap_or(Err(CallError::Timeout));
        let outcome = match &answer {
            Ok(answer) => format!("{}xx", answer.status / 100),
            Err(none) => none.as_str().to_owned(),
        };
        let service = service.name.clone();
        let seconds = self.clock.monotonic().saturating_sub(started).as_secs_f64();
        self.metrics
            .service_seconds
            .get_or_create(&ServiceName {
                service: service.clone(),
            })
            .observe(seconds);
        self.metrics
            .service_requests
            .get_or_create(&ServiceLabels { service, outcome })
            .inc();
        answer
    }

    /// Returns the service with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Service> {
        self.named.get(name)
    }

    /// Returns the header `webhook-signature` for a delivery to the service with this name. `None` if deliveries are
    /// not signed.
    #[must_use]
    pub fn signature(
        &self,
        name: &str,
        id: &str,
        at: Timestamp,
        request: &Request,
    ) -> Option<String> {
        let keys = &self.named.get(name)?.signing_keys;
        let body = request.body.as_ref().map_or("", |body| &body.text);
        (!keys.is_empty()).then(|| signature(keys, id, at, body))
    }

    async fn send(
        &self,
        service: &Service,
        request: &Request,
        extra: &[(&'static str, String)],
    ) -> Result<Answer, CallError> {
        let outgoing = outgoing(service, request, extra)?;
        let connections = self.connections.clone();
        let repeated = self.metrics.service_reconnects.clone();
        let service = service.name.clone();
        let call = async move {
            let sent = connections.send(outgoing).await;
            if sent.is_repeated {
                repeated.get_or_create(&ServiceName { service }).inc();
            }
            receive(sent.response).await
        };
        let mut task = AbortOnDrop(self.runtime.spawn(call));
        (&mut task.0).await.unwrap_or(Err(CallError::Connection))
    }
}

/// A call that is aborted when its caller is dropped.
struct AbortOnDrop(JoinHandle<Result<Answer, CallError>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads a response up to the maximum size.
async fn receive(answer: Result<reqwest::Response, reqwest::Error>) -> Result<Answer, CallError> {
    let answer = answer.map_err(|error| classify(&error))?;
    let status = answer.status().as_u16();
    let headers = answer.headers().clone();
    // A wrong length reserves at most `MAX_ANSWER`.
    let length = answer
        .content_length()
        .and_then(|length| usize::try_from(length).ok());
    let mut body = Vec::with_capacity(length.unwrap_or_default().min(MAX_ANSWER));
    let mut chunks = answer.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| classify(&error))?;
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(CallError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    let retry_after = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .map(ToOwned::to_owned);
    let parse = || to_expression_value(status, &headers, &body);
    Ok(Answer {
        status,
        response: if body.len() > QUICK_ANSWER {
            cpu::compute(parse)
        } else {
            parse()
        },
        retry_after,
    })
}

/// Builds the HTTP request with the service's address and credentials.
fn outgoing(
    service: &Service,
    request: &Request,
    extra: &[(&'static str, String)],
) -> Result<reqwest::Request, CallError> {
    let mut url = service.url.clone();
    if url.host().is_none_or(|host| host_is_forbidden(&host)) {
        return Err(CallError::ForbiddenAddress);
    }
    let (path, query) = match request.path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.path.as_str(), None),
    };
    let base = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("{base}{path}"));
    url.set_query(query);
    let mut headers = HeaderMap::new();
    for (name, value) in &service.headers {
        insert_header(&mut headers, name, value.expose(), true);
    }
    if let Some(auth) = &service.auth {
        apply_auth(auth, &mut headers, &mut url);
    }
    for (name, value) in &request.headers {
        insert_header(&mut headers, name, value, false);
    }
    for (name, value) in extra {
        insert_header(&mut headers, name, value, false);
    }
    let method = reqwest::Method::from_bytes(request.method.as_str().as_bytes())
        .map_err(|_| CallError::Connection)?;
    let mut outgoing = reqwest::Request::new(method, url);
    if let Some(body) = &request.body {
        if !headers.contains_key(CONTENT_TYPE) {
            insert_header(
                &mut headers,
                CONTENT_TYPE.as_str(),
                &body.content_type,
                false,
            );
        }
        *outgoing.body_mut() = Some(body.text.clone().into());
    }
    *outgoing.headers_mut() = headers;
    Ok(outgoing)
}

fn insert_header(headers: &mut HeaderMap, name: &str, value: &str, sensitive: bool) {
    // Names and values were validated when the settings were read and when the request was built.
    if let (Ok(name), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        value.set_sensitive(sensitive);
        headers.insert(name, value);
    }
}

fn apply_auth(auth: &Auth, headers: &mut HeaderMap, url: &mut url::Url) {
    match auth {
        Auth::Bearer { token } => {
            insert_header(
                headers,
                AUTHORIZATION.as_str(),
                &format!("Bearer {}", token.expose()),
                true,
            );
        }
        Auth::BasicAuth { user, password } => {
            let pair = STANDARD.encode(format!("{user}:{}", password.expose()));
            insert_header(
                headers,
                AUTHORIZATION.as_str(),
                &format!("Basic {pair}"),
                true,
            );
        }
        Auth::ApiKey {
            name,
            value,
            location: ApiKeyLocation::Header,
        } => insert_header(headers, name, value.expose(), true),
        Auth::ApiKey {
            name,
            value,
            location: ApiKeyLocation::Cookie,
        } => {
            insert_header(
                headers,
                COOKIE.as_str(),
                &format!("{name}={}", value.expose()),
                true,
            );
        }
        Auth::ApiKey {
            name,
            value,
            location: ApiKeyLocation::Query,
        } => {
            url.query_pairs_mut().append_pair(name, value.expose());
        }
    }
}

fn classify(error: &reqwest::Error) -> CallError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = source {
        if cause.is::<Forbidden>() {
            return CallError::ForbiddenAddress;
        }
        source = cause.source();
    }
    CallError::Connection
}

fn to_expression_value(status: u16, headers: &HeaderMap, body: &[u8]) -> Value {
    let mut named = Map::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let joined = match named.get(name.as_str()).and_then(Value::as_str) {
            Some(earlier) => format!("{earlier}, {value}"),
            None => value.into_owned(),
        };
        named.insert(name.as_str().to_owned(), Value::String(joined));
    }
    let body = without_byte_order_mark(body);
    let body = if body.iter().all(u8::is_ascii_whitespace) {
        Value::Null
    } else {
        serde_json::from_slice(body)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(body).into_owned()))
    };
    let mut response = Map::new();
    response.insert("status".to_owned(), status.into());
    response.insert("headers".to_owned(), Value::Object(named));
    response.insert("body".to_owned(), body);
    Value::Object(response)
}

fn host_is_forbidden(host: &url::Host<&str>) -> bool {
    match host {
        url::Host::Domain(_) => false,
        url::Host::Ipv4(address) => is_forbidden((*address).into()),
        url::Host::Ipv6(address) => is_forbidden((*address).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn headers_are_joined_and_a_body_is_json_text_or_null() {
        let mut headers = HeaderMap::new();
        headers.append("X-Two", HeaderValue::from_static("a"));
        headers.append("X-Two", HeaderValue::from_static("b"));
        let cases: [(&[u8], Value); 7] = [
            (b"\xef\xbb\xbf{\"valid\": true}", json!({"valid": true})),
            (b"\xef\xbb\xbf", Value::Null),
            (b"{\"valid\": true}", json!({"valid": true})),
            (b"<html>", json!("<html>")),
            (b"", Value::Null),
            (b" \r\n", Value::Null),
            (b"{\"cut\": ", json!("{\"cut\": ")),
        ];
        for (body, expected) in cases {
            let response = to_expression_value(200, &headers, body);
            assert_eq!(
                response,
                json!({"status": 200, "headers": {"x-two": "a, b"}, "body": expected})
            );
        }
    }
}
