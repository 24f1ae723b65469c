//! Why there is no answer.

use std::sync::Arc;
use std::time::Duration;

use crate::guest::{GuestAddress, GuestAddressError, GuestError};
use crate::node::BundleError;
use crate::node::cgroup::CgroupError;
use crate::node::hypervisor::Risk;
use crate::shim::ShimError;
use crate::shim::address::Address;
use crate::shim::task::TaskState;
use crate::stats::DecodeError;

/// Why a task is not running.
#[derive(Debug, thiserror::Error)]
pub enum NotRunning {
    #[error("its shim is gone: {0}")]
    Gone(ShimError),
    #[error("its shim does not know it: {0}")]
    Unknown(ShimError),
    #[error("its task has stopped{} and was not deleted", with_status(.0))]
    Stopped(TaskState),
}

/// The exit status in parentheses, where it is known.
fn with_status(state: &TaskState) -> String {
    state
        .exit_status
        .map(|status| format!(" (exit status {status})"))
        .unwrap_or_default()
}

/// Why there is no answer about a container.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    NotRunning(NotRunning),
    /// A call got no answer in time. It is left waiting, and nothing new is sent until it has ended.
    #[error("the shim at {address} has not answered {call} for {}", go_duration::show(*waited))]
    Unanswered {
        address: Address,
        call: &'static str,
        waited: Duration,
    },
    /// Its virtual machine is being started, and its shim does not answer before that is done.
    #[error("it is starting: the shim at {address} answers when its virtual machine is up")]
    Starting { address: Address },
    /// The last answer came late, and may have held others up meanwhile: the shim is left alone for as long.
    #[error(
        "the shim at {address} took {} for its last {call}: it is asked again in {}",
        go_duration::show(*took),
        go_duration::show(*rest)
    )]
    Resting {
        address: Address,
        call: &'static str,
        took: Duration,
        rest: Duration,
    },
    /// The guest's agent does not answer. The shim would wait for it, and may hold up whoever wants to end the sandbox
    /// meanwhile, so it was asked for the task's state alone.
    #[error(
        "the guest hangs: its agent at {} has not answered for {}, and its shim was not asked",
        silence.address,
        go_duration::show(silence.waited)
    )]
    GuestHung {
        silence: Silence,
        state: Option<TaskState>,
    },
    /// The guest was to be asked itself, and cannot be.
    #[error("its guest cannot be asked: {why}")]
    NoGuest {
        why: Arc<NoGuest>,
        state: Option<TaskState>,
    },
    #[error(transparent)]
    Shim(ShimError),
    #[error("its shim's address cannot be told: {0}")]
    NoAddress(Arc<BundleError>),
    /// It runs, and its shim has no statistics of it: a sandbox that the shim manages.
    #[error("it runs, and its shim has no statistics of the sandbox itself, only of the containers in it")]
    NoStatistics(TaskState),
    /// It has no shim, and its cgroup cannot be told.
    #[error("it has no shim, and the kernel does not tell more: {0}")]
    Cgroup(CgroupError),
    #[error("the shim at {address}: {source}")]
    Decode { address: Address, source: DecodeError },
}

/// A guest that does not answer.
#[derive(Debug, Clone)]
pub struct Silence {
    /// Where its agent listens.
    pub address: GuestAddress,
    /// How long it was waited for.
    pub waited: Duration,
}

impl Silence {
    pub(super) fn error(self, state: Option<TaskState>) -> AskError {
        AskError::GuestHung { silence: self, state }
    }
}

/// Why a guest's agent cannot be asked, or did not tell what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum NoGuest {
    #[error("it does not run in a Kata sandbox")]
    NotKata,
    #[error("nothing tells where its sandbox's monitor listens")]
    NoMonitor,
    #[error("its sandbox's monitor does not tell where the agent listens: {0}")]
    Monitor(Box<MonitorError>),
    #[error(
        "its sandbox's monitor has not answered GET /agent-url for {}",
        go_duration::show(*limit)
    )]
    SilentMonitor { limit: Duration },
    #[error("{monitor} answered GET /agent-url: {source}")]
    Address {
        monitor: Address,
        source: GuestAddressError,
    },
    #[error(transparent)]
    Agent(GuestError),
}

impl NoGuest {
    /// Whether it will most likely be the same in a moment.
    pub(super) fn is_lasting(&self) -> bool {
        !matches!(self, Self::Agent(_))
    }
}

/// Why a sandbox's monitor gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// Its shim was asked first whether the sandbox runs: it does not, or it did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("{0}")]
    Risk(Risk),
    /// Nothing tells where its monitor listens.
    #[error("no address is known for its monitor")]
    NoAddress,
    #[error(transparent)]
    Shim(ShimError),
}
