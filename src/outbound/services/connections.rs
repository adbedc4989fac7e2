//! Sends requests over kept-alive connections, and repeats a request once if a service closed such a connection.
//!
//! A service may close an idle connection at the moment when Vestibule sends a request over it. Then the request was
//! not answered, although the service works. Such a request is repeated once, on a new connection, if a repetition has
//! no second effect: a GET, or a request with an `Idempotency-Key`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpInfo;
use reqwest::{Client, ClientBuilder, Method, Request, Response};

use super::resolver::AllowedAddresses;
use crate::base::clock::{Clock, Timestamp, earlier};

/// The header that makes a repetition harmless.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// How long an idle connection is kept. Node.js, a common server, closes an idle connection after 5 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// How long Vestibule remembers that a connection had an answer. No connection is idle for so long, and no response
/// takes so long.
const REMEMBERED: Duration = Duration::from_mins(2);

/// How many connections are remembered before old ones are forgotten.
const MANY: usize = 256;

/// Both ends of a connection. They identify the connection while it lasts.
type Ends = (SocketAddr, SocketAddr);

/// The connections to all services.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    /// Keeps connections alive.
    kept_alive: Client,
    /// Opens a new connection for each request.
    fresh: Client,
    answered: Arc<AnsweredConnections>,
}

/// A response, or why there is none; and whether the request was repeated.
pub(super) struct Sent {
    pub(super) response: Result<Response, reqwest::Error>,
    pub(super) is_repeated: bool,
}

impl Connections {
    /// Opens no connection yet.
    pub(super) fn new(clock: &Clock) -> Result<Self, reqwest::Error> {
        let resolver = Arc::new(AllowedAddresses::new(clock.clone()));
        Ok(Self {
            kept_alive: builder(&resolver).pool_idle_timeout(IDLE_TIMEOUT).build()?,
            fresh: builder(&resolver).pool_max_idle_per_host(0).build()?,
            answered: Arc::new(AnsweredConnections {
                clock: clock.clone(),
                since: Mutex::default(),
            }),
        })
    }

    /// Sends a request, and returns the response as soon as its head has arrived.
    pub(super) async fn send(&self, request: Request) -> Sent {
        let copy = may_repeat(&request).then(|| request.try_clone()).flatten();
        let response = self.kept_alive.execute(request).await;
        let broke = match &response {
            Ok(response) => {
                self.answered.remember(response);
                false
            }
            Err(error) => broken_connection(error).is_some_and(|ends| self.answered.contains(ends)),
        };
        match copy {
            Some(copy) if broke => Sent {
                response: self.fresh.execute(copy).await,
                is_repeated: true,
            },
            _ => Sent {
                response,
                is_repeated: false,
            },
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place where HTTP clients are built"
)]
fn builder(resolver: &Arc<AllowedAddresses>) -> ClientBuilder {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .dns_resolver(Arc::clone(resolver))
        .user_agent(concat!("vestibule/", env!("CARGO_PKG_VERSION")))
}

/// Returns whether a repetition of the request has no second effect.
fn may_repeat(request: &Request) -> bool {
    request.method() == Method::GET || request.headers().contains_key(IDEMPOTENCY_KEY)
}

/// Returns the connection that broke before the response began. `None` if the error has another cause.
fn broken_connection(error: &reqwest::Error) -> Option<Ends> {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<legacy::Error>() {
            return broken_before_response(error);
        }
        source = cause.source();
    }
    None
}

fn broken_before_response(error: &legacy::Error) -> Option<Ends> {
    let cause = std::error::Error::source(error)?.downcast_ref::<hyper::Error>()?;
    if cause.is_parse() || cause.is_user() {
        return None;
    }
    let mut extras = http::Extensions::new();
    error.connect_info()?.get_extras(&mut extras);
    extras.get::<HttpInfo>().map(ends)
}

fn ends(connection: &HttpInfo) -> Ends {
    (connection.local_addr(), connection.remote_addr())
}

/// The connections on which a response has arrived: a later request on one of them used a kept-alive connection.
#[derive(Debug)]
struct AnsweredConnections {
    clock: Clock,
    since: Mutex<HashMap<Ends, Timestamp>>,
}

impl AnsweredConnections {
    fn remember(&self, response: &Response) {
        let Some(connection) = response.extensions().get::<HttpInfo>() else {
            return;
        };
        let now = self.clock.now();
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.insert(ends(connection), now);
        if since.len() > MANY {
            let oldest = earlier(now, REMEMBERED);
            since.retain(|_, last| *last >= oldest);
        }
    }

    /// Returns whether the connection had a response before.
    fn contains(&self, connection: Ends) -> bool {
        let oldest = earlier(self.clock.now(), REMEMBERED);
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.get(&connection).is_some_and(|last| *last >= oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_get_or_a_request_with_an_idempotency_key_is_repeated() {
        let url: url::Url = "http://127.0.0.1:9/".parse().unwrap();
        for (method, has_key, expected) in [
            (Method::GET, false, true),
            (Method::POST, true, true),
            (Method::PATCH, true, true),
            (Method::POST, false, false),
            (Method::PATCH, false, false),
            (Method::DELETE, false, false),
        ] {
            let mut request = Request::new(method.clone(), url.clone());
            if has_key {
                let headers = request.headers_mut();
                headers.insert(IDEMPOTENCY_KEY, "key".parse().unwrap());
            }
            assert_eq!(may_repeat(&request), expected, "{method} {has_key}");
        }
    }
}
