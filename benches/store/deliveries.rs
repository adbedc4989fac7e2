//! What is stored and carried.

use uuid::Uuid;
use vestibule::base::clock::Timestamp;
use vestibule::model::delivery::{Action, Event, NewDelivery};
use vestibule::model::request::{Body, Method, Request};

/// One of 1 KB, due at once.
pub fn due() -> NewDelivery {
    let id = Uuid::now_v7();
    NewDelivery {
        id,
        subscription: "crm".to_owned(),
        event: Event::IdentityCreated,
        unique_key: id.to_string(),
        identity_id: id,
        action: Ok(Action::Send(Request {
            method: Method::Post,
            path: "/contacts".to_owned(),
            headers: Vec::new(),
            body: Some(Body {
                content_type: "application/json".to_owned(),
                text: "x".repeat(1000),
            }),
        })),
        context: None,
        created_at: Timestamp::UNIX_EPOCH,
        due_at: Timestamp::UNIX_EPOCH,
        keep_trying_until: far(),
    }
}

/// The same, which no worker takes up.
pub fn not_due() -> NewDelivery {
    NewDelivery {
        subscription: "erp".to_owned(),
        due_at: far(),
        ..due()
    }
}

fn far() -> Timestamp {
    Timestamp::from_timestamp(100_000_000_000, 0).expect("a moment")
}
