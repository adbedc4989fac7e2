//! A reservation that is stored nowhere.

use uuid::Uuid;

use crate::base::clock::Timestamp;
use crate::checks::reserver::ReserveRequest;
use crate::model::reservation::{Details, Reservation, State};

/// Returns the reservation that this request takes.
pub(super) fn taking(request: ReserveRequest<'_>, id: Uuid, now: Timestamp) -> Box<Reservation> {
    Box::new(Reservation {
        id,
        flow_id: request.flow_id,
        check: request.check.name.clone(),
        request_hash: String::new(),
        state: State::Taking,
        details: Some(Details {
            take: request.take,
            context: request.context,
        }),
        release_reason: None,
        created_at: now,
        expires_at: request.expires_at,
        submission: request.submission.to_owned(),
        in_use_until: request.in_use_until,
    })
}
