//! Resolves names of services, and leaves out addresses that Vestibule never calls.
//!
//! The system's name service takes a thread for each look-up, and may answer late. So there is at most one look-up of a
//! name at a time, and its result is kept for a short time.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::is_forbidden;
use crate::base::clock::Clock;

/// How long a result is kept.
const KEEP: Duration = Duration::from_secs(5);
/// How long a failure is kept.
const KEEP_FAILURE: Duration = Duration::from_secs(1);

/// The addresses of a name; `None` if the look-up failed.
type Found = Option<Arc<[SocketAddr]>>;
/// A look-up that several calls wait for, and until when its result is kept, in monotonic time.
type Lookup = Shared<BoxFuture<'static, (Found, Duration)>>;
/// Asks the name service.
type Ask = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// A resolver that leaves out forbidden addresses.
pub(super) struct AllowedAddresses {
    clock: Clock,
    ask: Arc<Ask>,
    /// The latest look-up of each name. The settings have only so many names.
    lookups: Mutex<HashMap<String, Lookup>>,
}

/// A name that must not be called.
#[derive(Debug, thiserror::Error)]
#[error("the name resolves only to forbidden addresses")]
pub(super) struct Forbidden;

/// A name that could not be resolved.
#[derive(Debug, thiserror::Error)]
#[error("the name could not be resolved")]
struct NotResolved;

impl AllowedAddresses {
    /// Uses the system's name service.
    pub(super) fn new(clock: Clock) -> Self {
        Self::asking(clock, |name| {
            Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) })
        })
    }

    fn asking(
        clock: Clock,
        ask: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            clock,
            ask: Arc::new(ask),
            lookups: Mutex::default(),
        }
    }

    /// Returns the running look-up of this name or its result, or begins another one.
    fn lookup(&self, name: &str) -> Lookup {
        let mut lookups = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lookups.get(name)
            && known
                .peek()
                .is_none_or(|(_, until)| self.clock.monotonic() < *until)
        {
            return known.clone();
        }
        let (ask, clock, asked) = (Arc::clone(&self.ask), self.clock.clone(), name.to_owned());
        // A task, because the calls that wait may end before the look-up does.
        let task = tokio::spawn(async move {
            let found: Found = ask(asked).await.ok().map(Into::into);
            let keep = if found.is_some() { KEEP } else { KEEP_FAILURE };
            (found, clock.monotonic() + keep)
        });
        let lookup = task
            .map(|ended| ended.unwrap_or((None, Duration::ZERO)))
            .boxed()
            .shared();
        lookups.insert(name.to_owned(), lookup.clone());
        lookup
    }
}

impl Resolve for AllowedAddresses {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = self.lookup(name.as_str());
        Box::pin(async move {
            let (found, _) = lookup.await;
            let found = found.ok_or(NotResolved)?;
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::base::clock::Timestamp;

    async fn resolved(resolver: &AllowedAddresses, name: &str) -> Result<usize, String> {
        let found = resolver.resolve(name.parse().unwrap()).await;
        found
            .map(Iterator::count)
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_at_a_time_and_again_after_a_short_time() {
        let (clock, manual) = Clock::manual(Timestamp::UNIX_EPOCH);
        let (asked, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (count, gate) = (Arc::clone(&asked), Arc::clone(&answers));
        let resolver = AllowedAddresses::asking(clock, move |name| {
            count.fetch_add(1, Ordering::SeqCst);
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                gate.acquire().await.expect("open").forget();
                match name.as_str() {
                    "down.test" => Err(io::Error::other("injected")),
                    _ => Ok(vec!["10.0.0.1:0".parse().expect("an address")]),
                }
            })
        });
        // Calls that give up do not end the look-up.
        drop(resolver.resolve("a.test".parse().unwrap()));
        answers.add_permits(1);
        let all = join_all((0..50).map(|_| resolved(&resolver, "a.test"))).await;
        assert!(all.iter().all(|found| *found == Ok(1)), "{all:?}");
        manual.advance(Duration::from_millis(4999));
        assert_eq!(resolved(&resolver, "a.test").await, Ok(1));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        manual.advance(Duration::from_millis(1));
        answers.add_permits(1);
        assert_eq!(resolved(&resolver, "a.test").await, Ok(1));
        assert_eq!(asked.load(Ordering::SeqCst), 2);

        answers.add_permits(1);
        for _ in 0..2 {
            assert!(resolved(&resolver, "down.test").await.is_err());
        }
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        manual.advance(Duration::from_secs(1));
        answers.add_permits(1);
        assert!(resolved(&resolver, "down.test").await.is_err());
        assert_eq!(asked.load(Ordering::SeqCst), 4);
    }

    #[tokio::test]
    async fn forbidden_addresses_are_left_out() {
        let (clock, _) = Clock::manual(Timestamp::UNIX_EPOCH);
        let resolver = AllowedAddresses::asking(clock, |name| {
            let addresses = match name.as_str() {
                "both.test" => vec!["169.254.169.254:0", "10.0.0.1:0"],
                _ => vec!["169.254.169.254:0"],
            };
            let addresses = addresses
                .iter()
                .map(|text| text.parse().expect("an address"));
            let addresses = addresses.collect();
            Box::pin(async move { Ok(addresses) })
        });
        assert_eq!(resolved(&resolver, "both.test").await, Ok(1));
        let error = resolved(&resolver, "metadata.test").await.unwrap_err();
        assert_eq!(error, Forbidden.to_string());
    }
}
