//! What all that a survey asks has in common.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use super::pids::HostPids;
use crate::guest::ConnectGuest;
use crate::shim::Connect;

/// A wake-up that is later than this means that this thread was busy or stopped, and not that who was asked is slow.
pub(super) const BUSY: Duration = Duration::from_millis(20);

/// In how many steps a deadline is waited for. Each tells whether this thread was stopped meanwhile: with one alone, a stop
/// that ended just after the deadline would look like a late answer.
pub(super) const STEPS: u32 = 4;

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
