//! Asking shims without ever harming what they run.
//!
//! On a hung guest a `Stats` call is not harmless: Kata's Go shim holds a lock while it waits, so that every
//! other call to it, containerd's own kill too, waits up to a minute. So a lane stands before each shim: at most one
//! call in flight, `State` (which needs no guest) before `Stats`, no `Stats` where `State` does not answer in time,
//! nothing new while a call past its time has not ended, and a rest after one that was late.
//!
//! And before the shim of a Kata sandbox is asked for anything that takes its guest, the agent in the guest is asked
//! whether it lives, once a second at most: where it does not answer, the shim is left alone, and that is the answer
//! ([`AskError::GuestHung`]).
//!
//! Where asking a shim costs more than an answer is worth, others are asked: gVisor's shim starts two processes for a
//! sample, and the sandbox's control socket none. What still goes to such a shim is asked seldom, and a few at a time.
//!
//! A [`Survey`] asks many shims at once, each on its lane: a hung one costs its own answer, never the others'.

mod ask;
mod asking;
mod concurrency;
mod ended;
mod error;
mod facts;
mod guest;
mod gvisor;
mod kernel;
mod lane;
mod meter;
mod monitor;
mod monitor_call;
mod network;
mod paced;
mod pids;
mod question;
mod single_flight;
mod terms;
mod visit;

pub use ask::Survey;
pub use asking::Asking;
pub use concurrency::ConcurrencyLimit;
pub use error::{AskError, MonitorError, NoControlSocket, NoGuest, NotRunning, Silence};
pub use facts::{AgentFacts, GuestFacts};
pub use meter::InducedCost;
pub use monitor::GuestMetrics;
pub use monitor_call::{MonitorPage, MonitorQuestion};
pub use pids::Hidden;
pub use question::{
    LastStatistics, Network, Origin, Question, Sample, State, StateAndGuest, Statistics, Via,
};
pub use single_flight::{Flight, SingleFlight};

#[cfg(test)]
mod tests;
