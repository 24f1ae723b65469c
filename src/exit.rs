//! How a command ends without an answer: what it says, what to do about it, and its exit status.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use shimstat::node::cgroup::CgroupError;
use shimstat::node::{BundleError, FindError, ReadError};
use shimstat::shim::ShimError;
use shimstat::survey::{AskError, MonitorError};

use crate::show::columns::UnknownColumn;

/// What is missing where the host's pids mean nothing, as in a pod without them.
pub const HIDDEN_PIDS: &str = "the processes of containers cannot be seen from here, and so neither can their network: \
                               this is another pid namespace than the shims' (set hostPID: true, or run with --pid=host)";

/// The answer could not be given.
const NO_ANSWER: u8 = 1;

/// The command line is wrong; clap uses the same status.
const WRONG_USAGE: u8 = 2;

/// Lines for stderr and an exit status.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    lines: Vec<String>,
    status: u8,
}

impl Failure {
    /// The answer could not be given, for this reason.
    pub fn new(line: impl Into<String>) -> Self {
        Self {
            lines: vec![line.into()],
            status: NO_ANSWER,
        }
    }

    /// The answer could not be given because of an error about `subject` (`container x`). What to do about it is added,
    /// if that is known.
    pub fn of(subject: &str, error: &(impl Remedy + ?Sized)) -> Self {
        let failure = Self::new(format!("{subject}: {error}"));
        match error.remedy() {
            Some(remedy) => failure.and(remedy),
            None => failure,
        }
    }

    /// The command line is wrong.
    pub fn usage(line: impl Into<String>) -> Self {
        Self {
            lines: vec![line.into()],
            status: WRONG_USAGE,
        }
    }

    /// The reader has gone away, and nothing went wrong.
    pub fn quiet() -> Self {
        Self {
            lines: Vec::new(),
            status: 0,
        }
    }

    /// The answer could not be given, or not all of it, and the reasons have been reported.
    pub fn reported() -> Self {
        Self {
            lines: Vec::new(),
            status: NO_ANSWER,
        }
    }

    /// Adds a line: what was found, or what to do.
    pub fn and(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// What to write to stderr. Untrusted text.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    pub fn status(&self) -> ExitCode {
        ExitCode::from(self.status)
    }
}

/// A directory on the node could not be read.
impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        let failure = Self::new(error.to_string());
        match error.remedy() {
            Some(remedy) => failure.and(remedy),
            None => failure,
        }
    }
}

/// The command line names a column that is not there.
impl From<UnknownColumn> for Failure {
    fn from(error: UnknownColumn) -> Self {
        Self::usage(error.to_string())
    }
}

/// What to do about an error, if anything can be done.
pub trait Remedy: std::error::Error {
    fn remedy(&self) -> Option<&'static str>;
}

const NOT_ROOT: &str = "only root may read containerd's state and connect to shims: run this as root";

fn of_io(error: &io::Error) -> Option<&'static str> {
    (error.kind() == io::ErrorKind::PermissionDenied).then_some(NOT_ROOT)
}

impl Remedy for ReadError {
    fn remedy(&self) -> Option<&'static str> {
        of_io(&self.source)
    }
}

impl Remedy for FindError {
    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Read(error) => error.remedy(),
            Self::Creating(_) => Some("try again in a moment"),
            Self::Missing | Self::Ambiguous { .. } => None,
        }
    }
}

impl Remedy for BundleError {
    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Read(error) => error.remedy(),
            Self::Address { .. } | Self::Spec { .. } => None,
        }
    }
}

impl Remedy for ShimError {
    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Connect { source, .. } | Self::Io { source, .. } => of_io(source),
            _ => None,
        }
    }
}

impl Remedy for AskError {
    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Shim(error) => error.remedy(),
            Self::NoAddress(error) => error.remedy(),
            Self::Cgroup(CgroupError::Read(error)) => error.remedy(),
            Self::TooSoon { error, .. } => error.remedy(),
            Self::Starting { .. } => Some("try again in a moment"),
            Self::NotRunning(_)
            | Self::Unanswered { .. }
            | Self::Resting { .. }
            | Self::GuestHung { .. }
            | Self::NoGuest { .. }
            | Self::NoStatistics(_)
            | Self::Decode { .. }
            | Self::Cgroup(_) => None,
        }
    }
}

impl Remedy for MonitorError {
    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Ask(AskError::GuestHung { .. }) => {
                Some("--force asks the shim all the same, which waits for its guest")
            }
            Self::Ask(error) => error.remedy(),
            Self::Shim(error) => error.remedy(),
            Self::Risk(_) => {
                Some("--force asks anyway, at the risk of killing the sandbox and everything in it")
            }
            Self::NoAddress => None,
        }
    }
}

/// What to do about a shim that does not answer within the timeout.
pub fn wait_longer(timeout: Duration) -> String {
    format!(
        "the shim may be stopped, or its guest hung; wait longer than {} with --timeout (Kata gives up on a hung \
         guest after 10 to 60s)",
        go_duration::show(timeout)
    )
}
