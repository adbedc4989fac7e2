//! Resolves names of services, and leaves out addresses that Vestibule never calls.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::is_forbidden;

/// A resolver that uses the system's name service, and leaves out forbidden addresses.
#[derive(Debug)]
pub(super) struct AllowedAddresses;

/// A name that must not be called.
#[derive(Debug, thiserror::Error)]
#[error("the name resolves only to forbidden addresses")]
pub(super) struct Forbidden;

impl Resolve for AllowedAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found
                .iter()
                .copied()
                .filter(|address| !is_forbidden(address.ip()))
                .collect();
            if allowed.is_empty() && !found.is_empty() {
                return Err(Box::new(Forbidden) as Box<dyn std::error::Error + Send + Sync>);
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}
