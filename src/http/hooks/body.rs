//! Reads the bodies of hook calls.

use std::time::Duration;

use actix_web::error::PayloadError;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};

use crate::base::clock::{Clock, Deadline};

/// The maximum length of a body, in bytes. Kratos sends at most 64 KiB.
pub const MAX_BODY: usize = 256 * 1024;

/// The time before the deadline that is kept free to write the answer.
pub const ANSWER_MARGIN: Duration = Duration::from_millis(50);

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// The body is longer than [`MAX_BODY`].
    #[error("the body is longer than {MAX_BODY} bytes")]
    TooLarge,
    /// The connection ended, or the time ran out, before the whole body arrived.
    #[error("the body is incomplete")]
    Incomplete,
}

/// Reads the body to its end, even if it is longer than `limit` and not kept. A client that is still writing would
/// not see the answer.
pub async fn read(
    mut payload: impl Stream<Item = Result<Bytes, PayloadError>> + Unpin,
    clock: &Clock,
    until: Deadline,
    limit: usize,
) -> Result<Bytes, BodyError> {
    let all = async {
        let mut body = BytesMut::new();
        let mut length = 0;
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| BodyError::Incomplete)?;
            length += chunk.len();
            if length <= limit {
                body.extend_from_slice(&chunk);
            } else {
                body = BytesMut::new();
            }
        }
        if length <= limit {
            Ok(body.freeze())
        } else {
            Err(BodyError::TooLarge)
        }
    };
    clock
        .timeout_at(until, all)
        .await
        .unwrap_or(Err(BodyError::Incomplete))
}
