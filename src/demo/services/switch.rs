//! How an example service behaves: as it should, or in one of the ways in which services fail.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};

/// How long a slow service takes: longer than the check waits.
pub const SLOW: Duration = Duration::from_secs(10);

/// Ways to behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behaviour {
    /// Answers.
    #[default]
    Works,
    /// Answers after 10 s.
    Slow,
    /// Answers that it cannot tell now.
    Busy,
    /// Answers with a page for status 500.
    Broken,
    /// Refuses connections.
    Down,
}

/// The switch of one service.
#[derive(Default)]
pub struct Switch(Mutex<Behaviour>);

impl Switch {
    /// How it behaves now.
    pub fn behaviour(&self) -> Behaviour {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set(&self, to: Behaviour) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }
}

/// An answer that ends before its first byte: where services share a port, one alone cannot refuse connections.
pub fn cut_off() -> HttpResponse {
    let nothing = stream::once(async { Err::<Bytes, _>(std::io::Error::other("down")) });
    HttpResponse::Ok().no_chunking(1).streaming(nothing)
}
