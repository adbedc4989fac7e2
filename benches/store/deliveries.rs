//! The deliveries of the benchmarks.

use uuid::Uuid;
use vestibule::base::clock::Timestamp;
use vestibule::model::delivery::{Action, DeliveryOrder, Event, NewDelivery};
use vestibule::model::request::{Body, Method, Request};

/// A delivery of 1 KB that is due immediately.
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
        order: DeliveryOrder {
            updated_at: Some(Timestamp::UNIX_EPOCH),
            ..DeliveryOrder::default()
        },
        context: None,
        created_at: Timestamp::UNIX_EPOCH,
        due_at: Timestamp::UNIX_EPOCH,
        keep_trying_until: far_future(),
    }
}

/// A delivery of 1 KB that no dispatcher claims.
pub fn not_due() -> NewDelivery {
    NewDelivery {
        subscription: "erp".to_owned(),
        due_at: far_future(),
        ..due()
    }
}

fn far_future() -> Timestamp {
    Timestamp::from_timestamp(100_000_000_000, 0).expect("a valid time")
}
