//! Deliveries, decisions and times for the tests.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use uuid::Uuid;
use vestibule::base::clock::{Timestamp, saturating_add};
use vestibule::kratos::{Flow, Hook, Stage};
use vestibule::model::decision::{CheckRecord, Decision};
use vestibule::model::delivery::{Action, Claimed, DeliveryOrder, Event, NewDelivery, Outcome};
use vestibule::model::request::{Body, Method, Request};
use vestibule::store::{AttemptRecord, DeliveryStore, Error, Settlement, WriteSet};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_mins(1);
pub const DAY: Duration = Duration::from_hours(24);

/// The time this long after the start of the test.
pub fn at(since_start: Duration) -> Timestamp {
    saturating_add(Timestamp::UNIX_EPOCH + 20_000 * DAY, since_start)
}

/// The start of the test.
pub fn start() -> Timestamp {
    at(Duration::ZERO)
}

/// A delivery about this identity, created at the start and retried for a day. Its id grows with that of the identity.
pub fn delivery(subscription: &str, identity: u128) -> NewDelivery {
    NewDelivery {
        id: id_of(subscription, identity),
        subscription: subscription.to_owned(),
        event: Event::IdentityCreated,
        unique_key: Uuid::from_u128(identity).to_string(),
        identity_id: Uuid::from_u128(identity),
        action: Ok(Action::Send(Request {
            method: Method::Post,
            path: "/contacts?a=1".to_owned(),
            headers: vec![("X-Source".to_owned(), "sign-up".to_owned())],
            body: Some(Body {
                content_type: "application/json".to_owned(),
                text: format!(r#"{{"identity":"{identity}","quote":"\"\\ \u0000 ü"}}"#),
            }),
        })),
        order: DeliveryOrder::default(),
        context: None,
        created_at: start(),
        due_at: start(),
        keep_trying_until: at(DAY),
    }
}

/// An attempt that began and ended at this time.
pub fn tried(status: u16, moment: Timestamp) -> AttemptRecord {
    AttemptRecord {
        began_at: moment,
        ended_at: moment,
        status: Some(status),
        error: (status >= 300).then(|| format!("status {status}")),
    }
}

pub fn ids(held: &[Claimed]) -> Vec<Uuid> {
    held.iter().map(|claimed| claimed.id).collect()
}

pub fn decision(number: u128) -> Decision {
    Decision {
        hook: Hook {
            flow: Flow::Registration,
            stage: Stage::Pre,
            method: "password".to_owned(),
        },
        flow_id: Uuid::from_u128(number),
        at: start(),
        duration_ms: 12,
        outcome: "refused",
        checks: vec![CheckRecord {
            check: "vat_number".into(),
            outcome: "refused",
            kind: None,
            message_id: Some(4_900_101),
            observed: false,
            duration_ms: 11,
        }],
        identity_id: None,
    }
}

/// A temporary folder for a database.
pub struct TempFolder(TempDir);

impl TempFolder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn database(&self) -> PathBuf {
        self.0.path().join("vestibule.db")
    }

    pub fn folder(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

/// The id of the delivery about this identity for this subscription.
pub fn id_of(subscription: &str, identity: u128) -> Uuid {
    let subscription = subscription
        .bytes()
        .fold(0, |sum, byte| sum + u128::from(byte));
    Uuid::from_u128((identity << 64) + subscription)
}

/// Stores and settles without a write set or a list of settlements.
#[async_trait]
pub trait DeliveryStoreExt {
    /// Stores these deliveries; returns how many were new.
    async fn accept(&self, deliveries: Vec<NewDelivery>) -> Result<usize, Error>;
    /// Stores the result of one attempt. Returns `false` if the caller no longer holds the lease.
    async fn settle(
        &self,
        held: &Claimed,
        attempt: &AttemptRecord,
        outcome: &Outcome,
    ) -> Result<bool, Error>;
}

#[async_trait]
impl<S: DeliveryStore + ?Sized> DeliveryStoreExt for S {
    async fn accept(&self, deliveries: Vec<NewDelivery>) -> Result<usize, Error> {
        Ok(self.write(&WriteSet::of(deliveries)).await?.len())
    }

    async fn settle(
        &self,
        held: &Claimed,
        attempt: &AttemptRecord,
        outcome: &Outcome,
    ) -> Result<bool, Error> {
        let settlement = Settlement::of(held, attempt.clone(), outcome.clone());
        Ok(self.settle_all(&[settlement]).await?.contains(&held.id))
    }
}
