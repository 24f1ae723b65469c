//! What can go wrong between us and a guest's agent.

use std::io;
use std::time::Duration;

use super::address::GuestAddress;
use super::connect::NotOwnSocket;
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
    /// The guest's policy forbids the call. That of confidential guests does not change while they run.
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

/// ttrpc's DEADLINE_EXCEEDED.
const DEADLINE_EXCEEDED: i32 = 4;

impl GuestError {
    /// Whether the guest is there and does not answer. Its shim would not hear from it either, and holds its lock
    /// while it waits: do not ask it.
    ///
    /// An AF_VSOCK connection to a guest that is stopped ends with ETIMEDOUT after two seconds, if nobody gives up
    /// earlier.
    pub fn is_hung(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Rpc { code, .. } => *code == DEADLINE_EXCEEDED,
            Self::Connect { source, .. } => source.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }
}
