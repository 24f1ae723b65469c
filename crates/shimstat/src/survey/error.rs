//! Why there is no answer.

use std::sync::Arc;
use std::time::Duration;

use crate::guest::{GuestAddress, GuestAddressError, GuestError};
use crate::node::BundleError;
use crate::node::cgroup::CgroupError;
use crate::node::gvisor::GvisorError;
use crate::node::hypervisor::Risk;
use crate::shim::ShimError;
use crate::shim::address::Address;
use crate::shim::task::TaskState;
use crate::stats::DecodeError;

/// Why a task is not running.
#[derive(Debug, thiserror::Error)]
pub enum NotRunning {
    /// Nobody listens at its shim's address; what became of the connection.
    #[error("its shim is gone: {0}")]
    Gone(ShimError),
    /// Its shim has no task of this id; what it answered.
    #[error("its shim does not know it: {0}")]
    Unknown(ShimError),
    /// Its first process has ended, and nobody has deleted the task.
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
    /// There is no running task to ask about.
    #[error(transparent)]
    NotRunning(NotRunning),
    /// A call got no answer in time. It is left waiting, and nothing new is sent until it has ended.
    #[error("the shim at {address} has not answered {call} for {}", go_duration::show(*waited))]
    Unanswered {
        /// The socket that was asked.
        address: Address,
        /// The call, as a person knows it: `State`, `GET /metrics`.
        call: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Its virtual machine is being started, and its shim does not answer before that is done.
    #[error("it is starting: the shim at {address} answers when its virtual machine is up")]
    Starting {
        /// The shim's socket.
        address: Address,
    },
    /// The last answer came late, and may have held others up meanwhile: the shim is left alone for as long.
    #[error(
        "the shim at {address} took {} for its last {call}: it is asked again in {}",
        go_duration::show(*took),
        go_duration::show(*rest)
    )]
    Resting {
        /// The shim's socket.
        address: Address,
        /// The call that was late.
        call: &'static str,
        /// How long its answer took.
        took: Duration,
        /// For how much longer the shim is left alone.
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
        /// Who did not answer, and for how long.
        silence: Silence,
        /// The task's state, which needs no guest; `None` where that was not asked for or the shim is gone.
        state: Option<TaskState>,
    },
    /// The guest was to be asked itself, and cannot be.
    #[error("its guest cannot be asked: {why}")]
    NoGuest {
        /// Why not.
        why: Arc<NoGuest>,
        /// The task's state, where its shim told it.
        state: Option<TaskState>,
    },
    /// The call failed, or the shim answered with an error.
    #[error(transparent)]
    Shim(ShimError),
    /// Its bundle does not say where its shim listens.
    #[error("its shim's address is not known: {0}")]
    NoAddress(Arc<BundleError>),
    /// It runs, and its shim has no statistics of it: a sandbox that the shim manages.
    #[error("it runs, and its shim has no statistics of the sandbox itself, only of the containers in it")]
    NoStatistics(TaskState),
    /// It has no shim, and its cgroup cannot be told.
    #[error("it has no shim, and its cgroup cannot be read: {0}")]
    Cgroup(CgroupError),
    /// It was asked a moment ago, with this result, and asking costs too much to do it again so soon.
    #[error("{error} (asked again in {})", go_duration::show(*rest))]
    TooSoon {
        /// What came of asking.
        error: Arc<AskError>,
        /// How long it is not asked again.
        rest: Duration,
    },
    /// The shim answered `Stats` with something that is not known.
    #[error("the shim at {address}: {source}")]
    Decode {
        /// The shim's socket.
        address: Address,
        /// What is wrong with the answer.
        source: DecodeError,
    },
}

impl AskError {
    /// What came of asking the last time, where it is too early to ask again; else the error itself.
    pub fn latest(&self) -> &Self {
        let mut error = self;
        while let Self::TooSoon { error: last, .. } = error {
            error = last;
        }
        error
    }
}

/// Why a gVisor sandbox was not asked on its control socket.
#[derive(Debug, thiserror::Error)]
pub enum NoControlSocket {
    /// The shim was to be asked.
    #[error("it was not to be asked")]
    Unwanted,
    /// gVisor has left no state file of the container.
    #[error("gVisor has no state of the container where its shim says that it is kept")]
    NoState,
    /// What gVisor has left cannot be used.
    #[error(transparent)]
    State(#[from] GvisorError),
    /// The control socket gave no answer that can be used.
    #[error(transparent)]
    Socket(#[from] ShimError),
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
    /// It runs in no guest, or in one that has no agent of Kata's.
    #[error("it does not run in a Kata sandbox")]
    NotKata,
    /// The monitor, which knows the agent's address, was not found.
    #[error("it is not known where its sandbox's monitor listens")]
    NoMonitor,
    /// The monitor refused to tell the agent's address, or could not be asked.
    #[error("its sandbox's monitor does not tell where the agent listens: {0}")]
    Monitor(Box<MonitorError>),
    /// The monitor did not answer in time.
    #[error(
        "its sandbox's monitor has not answered GET /agent-url for {}",
        go_duration::show(*limit)
    )]
    SilentMonitor {
        /// How long it was waited for.
        limit: Duration,
    },
    /// The monitor told an address that is not connected to.
    #[error("{monitor} answered GET /agent-url: {source}")]
    Address {
        /// Where the monitor listens.
        monitor: Address,
        /// What is wrong with the agent's address.
        source: GuestAddressError,
    },
    /// The agent was asked, and did not tell.
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
    /// The sandbox may die of the question, which was not asked.
    #[error("{0}")]
    Risk(Risk),
    /// Nothing tells where its monitor listens.
    #[error("no address is known for its monitor")]
    NoAddress,
    /// The monitor could not be reached, or refused the request.
    #[error(transparent)]
    Shim(ShimError),
}
