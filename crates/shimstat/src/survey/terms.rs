//! What all that a survey asks has in common.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::pids::HostPids;
use crate::guest::ConnectGuest;
use crate::shim::Connect;

/// A wake-up that is later than this means that this thread was busy or stopped, and not that who was asked is slow.
pub(super) const BUSY: Duration = Duration::from_millis(20);

/// In how many steps a deadline is waited for. Each tells whether this thread was stopped meanwhile: with one alone, a stop
/// that ended just after the deadline would look like a late answer.
const STEPS: u32 = 4;

/// Waits for something until a deadline, or for one step of a limit on the way there. When it should have ended, where there
/// is nothing by then.
pub(super) async fn step<T>(
    work: impl Future<Output = T>,
    deadline: Instant,
    limit: Duration,
) -> Result<T, Instant> {
    let due = deadline.min(Instant::now() + limit / STEPS);
    tokio::time::timeout_at(due, work).await.map_err(|_elapsed| due)
}

/// How a survey asks.
#[derive(Clone)]
pub(super) struct Terms {
    /// How long each answer is waited for.
    pub limit: Duration,
    /// Whether connections are kept for the next question.
    pub keep_connections: bool,
    /// Which of them: those with a descriptor below this.
    pub keep_below: RawFd,
    pub connect: Arc<dyn Connect>,
    pub guests: Arc<dyn ConnectGuest>,
    pub pids: HostPids,
}

impl Terms {
    /// Whether a connection with this descriptor may be kept, or its descriptor is to be left to others.
    pub fn may_keep(&self, descriptor: Option<RawFd>) -> bool {
        descriptor.is_none_or(|it| it < self.keep_below)
    }
}
