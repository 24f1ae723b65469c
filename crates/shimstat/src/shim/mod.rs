//! The two sockets of a shim: its task service and, where it has one, its sandbox service ([`task`], ttrpc or gRPC), and its
//! monitor ([`monitor`], HTTP). And the control socket of a gVisor sandbox ([`runsc`]), which has fewer numbers.
//!
//! Nothing here reads a file or knows where sockets are: addresses come from [`crate::node`]. A call has no
//! deadline of its own, because a caller that watches a hung shim has to keep waiting for the call that it
//! made (a second one would make matters worse); every caller puts its own around it.

pub mod address;
mod connect;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "grpc")]
mod grpc;
mod http;
pub mod monitor;
pub mod runsc;
mod sandbox;
pub(crate) mod socket;
pub mod task;
pub(crate) mod ttrpc;
pub(crate) mod vsock;

pub(crate) use connect::connection;
pub use connect::{Connect, Connecting, Connection, ShimSockets, Stream};
pub use error::{ShimError, dial_text};
