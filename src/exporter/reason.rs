//! Why an answer is missing or incomplete: for a label, and for people.

use shimstat::shim::ShimError;
use shimstat::survey::{AskError, MonitorError, NotRunning};

/// What a label says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The answer did not come in time.
    Timeout,
    /// An answer before came late: the sandbox is left alone for a while.
    Resting,
    /// It was not asked, because time ran out.
    Skipped,
    /// Its task has stopped.
    Stopped,
    /// Nobody listens.
    Gone,
    /// The shim does not know the task.
    Unknown,
    /// It would be at risk from being asked.
    Risk,
    /// The agent in its guest does not answer, so its shim was not asked.
    GuestHung,
    /// Its page lacks what only the guest can tell.
    NoGuest,
    /// What it sent cannot be read.
    Malformed,
    /// Its page is long, and there is no memory left for it.
    PageBudget,
    /// Its address is not known.
    NoAddress,
    /// Its virtual machine is being started.
    Starting,
    /// Its shim has no statistics of it.
    Unsupported,
    /// Something else.
    Error,
}

impl Reason {
    pub fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Resting => "resting",
            Self::Skipped => "skipped",
            Self::Stopped => "stopped",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
            Self::Risk => "risk",
            Self::GuestHung => "guest_hung",
            Self::NoGuest => "no_guest",
            Self::Malformed => "malformed",
            Self::PageBudget => "page_budget",
            Self::NoAddress => "no_address",
            Self::Starting => "starting",
            Self::Unsupported => "unsupported",
            Self::Error => "error",
        }
    }
}

impl From<&AskError> for Reason {
    fn from(error: &AskError) -> Self {
        match error.latest() {
            AskError::NotRunning(NotRunning::Stopped(_)) => Self::Stopped,
            AskError::NotRunning(NotRunning::Gone(_)) => Self::Gone,
            AskError::NotRunning(NotRunning::Unknown(_)) => Self::Unknown,
            AskError::Unanswered { .. } => Self::Timeout,
            AskError::Resting { .. } => Self::Resting,
            AskError::GuestHung { .. } => Self::GuestHung,
            AskError::NoGuest { .. } => Self::Error,
            AskError::NoAddress(_) => Self::NoAddress,
            AskError::Starting { .. } => Self::Starting,
            AskError::NoStatistics(_) => Self::Unsupported,
            AskError::Cgroup(_) => Self::Error,
            AskError::Decode { .. } => Self::Malformed,
            AskError::TooSoon { .. } => Self::Resting,
            AskError::Shim(error) => error.into(),
        }
    }
}

impl From<&MonitorError> for Reason {
    fn from(error: &MonitorError) -> Self {
        match error {
            MonitorError::Ask(error) => error.into(),
            MonitorError::Risk(_) => Self::Risk,
            MonitorError::NoAddress => Self::NoAddress,
            MonitorError::Shim(error) => error.into(),
        }
    }
}

impl From<&ShimError> for Reason {
    fn from(error: &ShimError) -> Self {
        match error {
            _ if error.is_gone() => Self::Gone,
            ShimError::Closed { .. }
            | ShimError::Malformed { .. }
            | ShimError::Status { .. }
            | ShimError::Encoding { .. }
            | ShimError::TooLarge { .. } => Self::Malformed,
            ShimError::Connect { .. }
            | ShimError::Io { .. }
            | ShimError::Rpc { .. }
            | ShimError::Remote { .. }
            | ShimError::NoTaskService { .. } => Self::Error,
        }
    }
}

impl From<&promtext::Error> for Reason {
    fn from(_: &promtext::Error) -> Self {
        Self::Malformed
    }
}

/// Why there is no answer.
#[derive(Debug, Clone)]
pub struct NoAnswer {
    pub reason: Reason,
    pub text: String,
}

impl NoAnswer {
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self {
            reason,
            text: text.into(),
        }
    }
}

impl<E: std::error::Error> From<E> for NoAnswer
where
    Reason: for<'a> From<&'a E>,
{
    fn from(error: E) -> Self {
        Self::new(Reason::from(&error), error.to_string())
    }
}
