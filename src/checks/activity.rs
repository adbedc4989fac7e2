//! Passes on hook calls that show that an identity may have changed.

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::base::clock::Timestamp;

/// The number of hook calls that may wait to be recorded. Vestibule drops more, because the planned verifications
/// follow anyway.
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
    /// Creates both ends.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Activity>) {
        let (sender, activities) = mpsc::channel(WAITING);
        (Self(sender), activities)
    }

    /// Records the activity.
    pub fn note(&self, activity: Activity) {
        // If too many are waiting, the planned verifications are enough.
        let _ = self.0.try_send(activity);
    }
}
