//! Services: the external systems of the settings.

pub mod address;
pub mod client;
mod connections;
pub mod diagnose;
mod resolver;
pub mod sign;

use std::time::Duration;

use url::Url;

use crate::base::secret::Secret;

pub use connections::IDEMPOTENCY_KEY;
pub use sign::SigningKey;

/// A service of the settings.
#[derive(Clone, Debug)]
pub struct Service {
    /// The name of the service in settings, logs and metrics.
    pub name: String,
    /// The base URL of the service. The path of a request is appended.
    pub url: Url,
    /// The maximum duration of one call. `None`: the default of the call.
    pub timeout: Option<Duration>,
    /// Headers that are sent with each request. Values may be secret.
    pub headers: Vec<(String, Secret)>,
    /// The credentials.
    pub auth: Option<Auth>,
    /// The limit for deliveries.
    pub limit: Limit,
    /// The keys that sign deliveries: several during a rotation, none if deliveries are not signed.
    pub signing_keys: Vec<SigningKey>,
    /// The request with which `vestibule doctor` checks the credentials.
    pub probe: Option<Probe>,
}

/// A harmless request that shows whether a service works and accepts the credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The path of a GET, with its query.
    pub path: String,
    /// The expected statuses; any 2xx if there are none.
    pub expected: Vec<u16>,
}

impl Service {
    /// Returns a service with nothing but an address.
    #[must_use]
    pub fn without_credentials(name: String, url: Url) -> Self {
        Self {
            name,
            url,
            timeout: None,
            headers: Vec::new(),
            auth: None,
            limit: Limit::default(),
            signing_keys: Vec::new(),
            probe: None,
        }
    }
}

impl Probe {
    /// Returns whether this status is expected.
    #[must_use]
    pub fn expects(&self, status: u16) -> bool {
        if self.expected.is_empty() {
            (200..300).contains(&status)
        } else {
            self.expected.contains(&status)
        }
    }
}

/// The limit for deliveries to a service.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limit {
    /// How many deliveries run in parallel.
    pub concurrent: Option<usize>,
    /// How many deliveries begin in a second.
    pub per_second: Option<f64>,
}

/// Credentials.
#[derive(Clone, Debug)]
pub enum Auth {
    /// `Authorization: Bearer …`
    Bearer {
        /// The token.
        token: Secret,
    },
    /// `Authorization: Basic …`
    BasicAuth {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A header, query parameter or cookie with an API key.
    ApiKey {
        /// The name of the header, parameter or cookie.
        name: String,
        /// The key.
        value: Secret,
        /// The part of the request that holds the key.
        location: ApiKeyLocation,
    },
}

/// The part of a request that holds an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKeyLocation {
    /// `in: header`
    Header,
    /// `in: query`
    Query,
    /// `in: cookie`
    Cookie,
}
