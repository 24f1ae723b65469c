//! The agent in a Kata sandbox's guest: asked over a connection of our own, beside its shim's.
//!
//! A sandbox's monitor tells where its agent listens ([`GuestAddress`]). An `AgentConnection` to it takes none of the
//! shim's locks, so it tells within milliseconds whether the guest lives, and it knows more than the shims pass on:
//! [`Survey`](crate::survey::Survey) adds that to a shim's statistics. `docs/guest-numbers.md` lists what each number is.
//!
//! A guest is untrusted. Only the calls of [`Method`] are made, all of which read; answers are limited in size, depth and
//! the length of texts; a hybrid socket is connected to only in the sandbox's own directory. Deadlines are the caller's.

mod address;
mod agent;
mod connect;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod merge;
pub(crate) mod messages;
mod method;
mod stats;
#[cfg(test)]
pub(crate) mod testing;

pub use address::{GuestAddress, GuestAddressError};
pub(crate) use agent::AgentConnection;
pub use agent::{GuestDetails, GuestInterface, VolumeStats, VolumeUsage};
pub(crate) use connect::GuestSockets;
pub use connect::{ConnectGuest, ConnectingGuest};
pub use error::{GuestError, NotOwnSocket};
pub(crate) use merge::merge;
pub use method::Method;
pub(crate) use stats::GuestStats;
