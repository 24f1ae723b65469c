//! What can go wrong between us and a guest's agent.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::address::GuestAddress;
use super::method::Method;
use crate::shim::dial_text;

/// A call that got no answer from the guest, or not the answer that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The socket that the shim named was not connected to.
    #[error("{address} is not connected to: {reason}")]
    NotOwnSocket {
        address: GuestAddress,
        reason: NotOwnSocket,
    },
    #[error("connect to {address}: {}", dial_text(source))]
    Connect {
        address: GuestAddress,
        source: io::Error,
    },
    /// The hypervisor did not connect us to the agent.
    #[error("{address} answered CONNECT with {answer:?}, where OK and a number belong")]
    Handshake { address: GuestAddress, answer: String },
    /// Nothing came back in time. A hung guest looks like this.
    #[error("{address} did not answer within {limit:?}")]
    Timeout { address: GuestAddress, limit: Duration },
    #[error("{address}: {source}")]
    Io {
        address: GuestAddress,
        source: io::Error,
    },
    #[error("{address} closed the connection before it answered")]
    Closed { address: GuestAddress },
    /// The guest's policy forbids the call, as that of a confidential guest may.
    #[error("the policy of the guest at {address} does not allow {method}")]
    Forbidden { address: GuestAddress, method: Method },
    /// The agent is too old for the call.
    #[error("the agent at {address} does not know {method}")]
    Unsupported { address: GuestAddress, method: Method },
    /// The agent does not have the container (any more).
    #[error("the agent at {address} has no container {id}")]
    NoContainer { address: GuestAddress, id: String },
    /// The agent answered with another error of its own.
    #[error("{address} answered {method} with code {code}: {message}")]
    Rpc {
        address: GuestAddress,
        method: Method,
        code: i32,
        /// Its first characters.
        message: String,
    },
    #[error("{address} sent an answer that cannot be read: {reason}")]
    Malformed { address: GuestAddress, reason: String },
    #[error("{address} sent more than {limit} bytes in answer to {method}")]
    TooLarge {
        address: GuestAddress,
        method: Method,
        limit: usize,
    },
}

/// Why a socket is not connected to.
#[derive(Debug, thiserror::Error)]
pub enum NotOwnSocket {
    #[error("no part of its path is sandbox {id}'s own directory")]
    NoDirectory { id: String },
    /// The sandbox's directory, or what it links to.
    #[error("{} is not below /run/vc or /run/kata", directory.display())]
    OtherRoot { directory: PathBuf },
    #[error("it leads to {}, outside of {}", path.display(), directory.display())]
    Outside { path: PathBuf, directory: PathBuf },
    #[error("it is no socket")]
    NoSocket,
}

/// ttrpc's DEADLINE_EXCEEDED.
const DEADLINE_EXCEEDED: i32 = 4;

impl GuestError {
    /// Whether the guest exists and does not answer. It would not answer its shim either, and the shim may hold a
    /// lock while it waits, so do not ask the shim.
    ///
    /// The kernel ends an attempt to connect to a stopped guest over AF_VSOCK with ETIMEDOUT after two seconds.
    pub fn is_hung(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Rpc { code, .. } => *code == DEADLINE_EXCEEDED,
            Self::Connect { source, .. } => source.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    /// Whether the agent answered, with something other than what was asked for: it lives, and can be asked for more
    /// over the same connection.
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Forbidden { .. } | Self::Unsupported { .. } | Self::NoContainer { .. } => true,
            Self::Rpc { .. } => !self.is_hung(),
            _ => false,
        }
    }
}
