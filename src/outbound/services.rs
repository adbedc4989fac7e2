//! An external system: name, address, credentials, patience.

pub mod address;
pub mod client;
pub mod sign;

use std::time::Duration;

use url::Url;

use crate::base::secret::Secret;

pub use sign::SigningKey;

/// A service as the settings describe it.
#[derive(Clone, Debug)]
pub struct Service {
    /// How the settings, logs and metrics name it.
    pub name: String,
    /// Where it is; a request's path is put behind it.
    pub url: Url,
    /// The longest that one exchange may take.
    pub timeout: Duration,
    /// Sent with each request. Values may be secret.
    pub headers: Vec<(String, Secret)>,
    /// How we prove who we are.
    pub auth: Option<Auth>,
    /// How many deliveries it takes.
    pub limit: Limit,
    /// What deliveries to it are signed with; several during a rotation, none if they are not signed.
    pub signing_keys: Vec<SigningKey>,
}

/// How many deliveries a service takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limit {
    /// So many at once.
    pub concurrent: Option<usize>,
    /// So many begin in a second.
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
    /// A header, a query parameter or a cookie of the service's own.
    ApiKey {
        /// Its name.
        name: String,
        /// Its value.
        value: Secret,
        /// Where it goes.
        place: ApiKeyPlace,
    },
}

/// Where an API key goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiKeyPlace {
    /// `in: header`
    Header,
    /// `in: query`
    Query,
    /// `in: cookie`
    Cookie,
}
