//! Why there is no answer.

use std::sync::Arc;
use std::time::Duration;

use crate::node::BundleError;
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
    #[error("its task has stopped (exit status {}) and was not deleted", .0.exit_status)]
    Stopped(TaskState),
}

/// Why a container's shim gave no answer.
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
    #[error(transparent)]
    Shim(ShimError),
    #[error("its shim's address cannot be told: {0}")]
    NoAddress(Arc<BundleError>),
    #[error("the shim at {address}: {source}")]
    Decode { address: Address, source: DecodeError },
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
