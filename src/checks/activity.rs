//! Queues notes about identities that may have changed, from hook calls to the verifier.

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::base::clock::Timestamp;

/// The maximum number of notes in the queue. Vestibule drops further notes, because the planned verifications follow
/// anyway.
const WAITING: usize = 4096;

/// A hook call that shows that an identity may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The identity.
    pub identity_id: Uuid,
    /// When to verify what was written into the identity.
    pub verify_at: Timestamp,
    /// Whether a late refusal of the identity is in force. Such an identity is verified in any case.
    pub is_refused: bool,
}

/// The log in which hooks record activity without waiting.
#[derive(Clone, Debug)]
pub struct ActivityLog(mpsc::Sender<Activity>);

impl ActivityLog {
    /// Creates the log and the receiver of its notes.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Activity>) {
        let (sender, activities) = mpsc::channel(WAITING);
        (Self(sender), activities)
    }

    /// Records the activity.
    pub fn note(&self, activity: Activity) {
        // If the queue is full, the planned verifications are enough.
        let _ = self.0.try_send(activity);
    }
}
