//! A simulated node: shims, their monitors and the agents in their guests, over connections in memory, under tokio's
//! paused clock. What they do and when, and who asks them what, is drawn from a seed, so a run can be repeated exactly.
//!
//! Whatever happens, the survey has to keep its promises. They are checked at every step, from the outside: the shims
//! look at what they are asked, the askers at what they are told.
//!
//! - No answer later than its deadline.
//! - A healthy row never waits for a sick one.
//! - Never two calls in flight to one sandbox.
//! - No `Stats` where `State` did not answer, and none where the guest is known to hang.
//! - A rest after a call that was late.
//! - No number that nobody sent.
//! - In the end every lane is idle, and no connection and no task is left.
//!
//! The survey's own simulation is here ([`run`]). The exporter's gathering and the followers of `events` have theirs beside
//! them in the program, on the same nodes ([`World`]).

#![allow(clippy::restriction)] // A test may panic and print.

mod agent;
mod askers;
mod connect;
mod dice;
mod monitor;
mod mood;
mod place;
mod record;
mod run;
mod sandbox;
mod shim;
mod wire;
mod world;

pub use dice::Dice;
pub use record::{ASKERS, Event, Record};
pub use run::{Run, in_simulated_time, keeps_promises, repeats_itself, run, run_many};
pub use sandbox::{Sandbox, What};
pub use world::{Known, World};
