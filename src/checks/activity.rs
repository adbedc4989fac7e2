//! Hook calls that show that an identity may have changed.

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::base::clock::Timestamp;

/// How many hook calls may wait to be noted. More are dropped: the planned verifications come all the same.
const WAITING: usize = 4096;

/// A hook call that shows that an identity may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The identity.
    pub identity_id: Uuid,
    /// When to verify what was written to it.
    pub verify_at: Timestamp,
    /// Whether a late refusal of it is in force, which is verified in any case.
    pub is_refused: bool,
}

/// Where hooks note activity, without waiting.
#[derive(Clone, Debug)]
pub struct ActivityLog(mpsc::Sender<Activity>);

impl ActivityLog {
    /// Both ends.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Activity>) {
        let (sender, activities) = mpsc::channel(WAITING);
        (Self(sender), activities)
    }

    /// Notes it.
    pub fn note(&self, activity: Activity) {
        // If too many are waiting, the planned verifications are enough.
        let _ = self.0.try_send(activity);
    }
}
