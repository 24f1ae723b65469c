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
        /// Where the agent listens.
        address: GuestAddress,
        /// Why not.
        reason: NotOwnSocket,
    },
    /// The connection could not be made.
    #[error("connect to {address}: {}", dial_text(source))]
    Connect {
        /// Where the agent listens.
        address: GuestAddress,
        /// What the kernel reported.
        source: io::Error,
    },
    /// The hypervisor did not connect us to the agent.
    #[error("{address} answered CONNECT with {answer:?} instead of OK and a number")]
    Handshake {
        /// Where the agent listens.
        address: GuestAddress,
        /// What the hypervisor sent instead of `OK <port>`, cut short. Untrusted.
        answer: String,
    },
    /// Nothing came back in time. A hung guest looks like this.
    #[error("{address} did not answer within {limit:?}")]
    Timeout {
        /// Where the agent listens.
        address: GuestAddress,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The connection failed while the call was sent or its answer read.
    #[error("{address}: {source}")]
    Io {
        /// Where the agent listens.
        address: GuestAddress,
        /// What the kernel reported.
        source: io::Error,
    },
    /// The connection ended before the answer came.
    #[error("{address} closed the connection before it answered")]
    Closed {
        /// Where the agent listens.
        address: GuestAddress,
    },
    /// The guest's policy forbids the call, as that of a confidential guest may.
    #[error("the policy of the guest at {address} does not allow {method}")]
    Forbidden {
        /// Where the agent listens.
        address: GuestAddress,
        /// The call.
        method: Method,
    },
    /// The agent is too old for the call.
    #[error("the agent at {address} does not know {method}")]
    Unsupported {
        /// Where the agent listens.
        address: GuestAddress,
        /// The call.
        method: Method,
    },
    /// The agent does not have the container (any more).
    #[error("the agent at {address} has no container {id}")]
    NoContainer {
        /// Where the agent listens.
        address: GuestAddress,
        /// The container, as the agent was asked for it.
        id: String,
    },
    /// The agent answered with another error of its own.
    #[error("{address} answered {method} with code {code}: {message}")]
    Rpc {
        /// Where the agent listens.
        address: GuestAddress,
        /// The call.
        method: Method,
        /// ttrpc's status code, which is one of gRPC's.
        code: i32,
        /// The agent's words, cut to 256 characters. Untrusted.
        message: String,
    },
    /// An answer came that breaks the protocol, or is not the message that belongs there.
    #[error("{address} sent an answer that cannot be read: {reason}")]
    Malformed {
        /// Where the agent listens.
        address: GuestAddress,
        /// What is wrong with the answer.
        reason: String,
    },
    /// The answer is longer than any that makes sense.
    #[error("{address} sent more than {limit} bytes in answer to {method}")]
    TooLarge {
        /// Where the agent listens.
        address: GuestAddress,
        /// The call.
        method: Method,
        /// The most that is read of an answer to this call, in bytes.
        limit: usize,
    },
}

/// Why a socket is not connected to.
#[derive(Debug, thiserror::Error)]
pub enum NotOwnSocket {
    /// No directory in its path is named after the sandbox.
    #[error("no part of its path is sandbox {id}'s own directory")]
    NoDirectory {
        /// The sandbox.
        id: String,
    },
    /// The directory named after the sandbox is not where Kata's shims keep theirs.
    #[error("{} is not below /run/vc or /run/kata", directory.display())]
    OtherRoot {
        /// The directory, without links.
        directory: PathBuf,
    },
    /// A link leads out of the sandbox's directory.
    #[error("it leads to {}, outside of {}", path.display(), directory.display())]
    Outside {
        /// What the link leads to.
        path: PathBuf,
        /// The sandbox's directory, without links.
        directory: PathBuf,
    },
    /// The file is of another kind.
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
    pub(crate) fn is_hung(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Rpc { code, .. } => *code == DEADLINE_EXCEEDED,
            Self::Connect { source, .. } => source.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    /// Whether the agent answered, with something other than what was asked for: it lives, and can be asked for more
    /// over the same connection.
    pub(crate) fn is_answer(&self) -> bool {
        match self {
            Self::Forbidden { .. } | Self::Unsupported { .. } | Self::NoContainer { .. } => true,
            Self::Rpc { .. } => !self.is_hung(),
            _ => false,
        }
    }
}
