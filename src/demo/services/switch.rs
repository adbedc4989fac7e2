//! The behaviour of an example service: it works, or fails in one of several ways.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};

/// The response time of a slow service. It is longer than the check waits.
pub const SLOW: Duration = Duration::from_secs(10);

/// The behaviours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// Answers.
    #[default]
    Works,
    /// Answers after 10 s.
    Slow,
    /// Answers that the register is busy.
    Busy,
    /// Answers with an HTML page and status 500.
    Broken,
    /// Refuses connections.
    Down,
}

/// The switch of one service.
#[derive(Default)]
pub struct Switch(Mutex<Behaviour>);

impl Switch {
    /// Returns the current behaviour.
    pub fn behaviour(&self) -> Behaviour {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, to: Behaviour) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }
}

/// Returns a response that ends before its first byte. One service alone cannot refuse connections on a shared port.
pub fn cut_off() -> HttpResponse {
    let nothing = stream::once(async { Err::<Bytes, _>(std::io::Error::other("down")) });
    HttpResponse::Ok().no_chunking(1).streaming(nothing)
}
