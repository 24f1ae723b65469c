//! What can be asked about a container, and what comes back.

use std::sync::Arc;
use std::time::Instant;

use super::error::{AskError, NoControlSocket, NoGuest, NotRunning};
use crate::guest::GuestAddress;
use crate::shim::address::Address;
use crate::shim::task::TaskState;
use crate::stats::Stats;

/// A question about a container: its state or its statistics. The shim is always asked for the state first.
pub trait Question: Copy + Send + 'static {
    /// What comes back.
    type Answer: Send + 'static;

    /// What the shim is asked for.
    #[doc(hidden)]
    fn calls(self) -> Calls;

    /// How much of the network is looked up where the reply has none.
    #[doc(hidden)]
    fn network(self) -> Network {
        Network::None
    }

    /// The answer in what the shim replied.
    #[doc(hidden)]
    fn answer(reply: Reply) -> Result<Self::Answer, AskError>;
}

/// Whether the task runs, its pid, how it ended.
#[derive(Debug, Clone, Copy)]
pub struct State;

/// The same, and whether the guest of a Kata sandbox lives: where it hangs, that is the answer
/// ([`AskError::GuestHung`]), with the state.
#[derive(Debug, Clone, Copy)]
pub struct StateAndGuest;

/// The statistics of a running task.
#[derive(Debug, Clone, Copy)]
pub struct Statistics {
    /// What is looked up in the task's network namespace, where the shim's reply has no network.
    pub network: Network,
    /// Who is asked, where the container runs in a Kata guest.
    pub via: Via,
}

/// Who is asked for the statistics of a container in a Kata guest. Of other containers it is always the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Via {
    /// The guest's agent first. Where it does not answer, the shim is not asked; where it cannot be asked, the shim is
    /// asked alone. `docs/guest-numbers.md` lists whose number each field has.
    #[default]
    Both,
    /// The shim alone, whether the guest lives or not.
    Shim,
    /// The guest's agent alone. The shim is asked for the task's state.
    Guest,
}

/// The statistics of a task even where it has stopped: runc's shim still has the last ones then, until the task is
/// deleted. Not for Kata's: its shims would look for the guest, and that may be gone.
#[derive(Debug, Clone, Copy)]
pub struct LastStatistics;

/// How much of a task's network is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Nothing.
    None,
    /// The interfaces' counters.
    Interfaces,
    /// The sockets are counted as well, which can cost 20 ms of CPU time.
    InterfacesAndSockets,
}

/// A task's state and statistics.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The task's state, just before.
    pub state: TaskState,
    /// What the container uses.
    pub stats: Stats,
    /// When the statistics arrived.
    pub taken: Instant,
    /// Who told them.
    pub origin: Origin,
}

/// Where statistics come from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// The shim. There is no guest, or it was not to be asked.
    Shim,
    /// The shim alone, because the guest's agent could not be asked, or did not tell.
    ShimWithoutGuest(Arc<NoGuest>),
    /// The shim; these fields of [`Stats`] from the guest's agent.
    Both {
        /// Where the agent listens.
        agent: GuestAddress,
        /// Their paths in [`Stats`], such as `memory.swap`.
        fields: Vec<&'static str>,
    },
    /// The files of its cgroup: it has no shim.
    Cgroup,
    /// The guest's agent.
    Guest {
        /// Where the agent listens.
        agent: GuestAddress,
    },
    /// A gVisor sandbox, on its control socket.
    ControlSocket(Address),
    /// gVisor's shim, which starts two processes for it, because the sandbox was not asked.
    GvisorShim(Arc<NoControlSocket>),
}

/// The calls that a question takes, after `State`.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Calls {
    StateAlone,
    /// The guest's agent is asked whether it lives, where the task has not stopped.
    StateAndGuest,
    /// `Stats`, where the task has not stopped.
    StatsOfRunning(Via),
    /// `Stats`, even where it has.
    StatsOfAny,
}

impl Calls {
    /// Whether it takes more than a state.
    pub(super) fn wants_statistics(self) -> bool {
        match self {
            Self::StateAlone | Self::StateAndGuest => false,
            Self::StatsOfRunning(_) | Self::StatsOfAny => true,
        }
    }
}

/// What a shim replied.
#[doc(hidden)]
#[derive(Debug, Clone)]
pub struct Reply {
    pub state: TaskState,
    pub stats: ReplyStats,
}

/// The statistics in a reply.
#[doc(hidden)]
#[derive(Debug, Clone)]
pub enum ReplyStats {
    /// They were not asked for: the task has stopped, or its state was enough.
    None,
    /// They were, and the shim has none.
    Unsupported,
    Taken(Box<Stats>, Instant, Origin),
}

impl Question for State {
    type Answer = TaskState;

    fn calls(self) -> Calls {
        Calls::StateAlone
    }

    fn answer(reply: Reply) -> Result<TaskState, AskError> {
        Ok(reply.state)
    }
}

impl Question for StateAndGuest {
    type Answer = TaskState;

    fn calls(self) -> Calls {
        Calls::StateAndGuest
    }

    fn answer(reply: Reply) -> Result<TaskState, AskError> {
        Ok(reply.state)
    }
}

impl Question for Statistics {
    type Answer = Sample;

    fn calls(self) -> Calls {
        Calls::StatsOfRunning(self.via)
    }

    fn network(self) -> Network {
        self.network
    }

    fn answer(reply: Reply) -> Result<Sample, AskError> {
        sample(reply)
    }
}

impl Question for LastStatistics {
    type Answer = Sample;

    fn calls(self) -> Calls {
        Calls::StatsOfAny
    }

    fn answer(reply: Reply) -> Result<Sample, AskError> {
        sample(reply)
    }
}

/// A shim is not asked for the statistics of a task that has stopped.
fn sample(Reply { state, stats }: Reply) -> Result<Sample, AskError> {
    match stats {
        ReplyStats::Taken(stats, taken, origin) => Ok(Sample {
            state,
            stats: *stats,
            taken,
            origin,
        }),
        ReplyStats::Unsupported => Err(AskError::NoStatistics(state)),
        ReplyStats::None => Err(AskError::NotRunning(NotRunning::Stopped(state))),
    }
}
