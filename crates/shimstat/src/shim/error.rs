//! What can go wrong between us and a shim.

use std::io;

use super::address::Address;

/// A call that got no answer, or not the answer that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// The connection could not be made.
    #[error("connect to {address}: {}", dial_text(source))]
    Connect {
        /// The socket that was asked.
        address: Address,
        /// What the kernel reported.
        source: io::Error,
    },
    /// The connection failed while the call was sent or its answer read.
    #[error("{address}: {source}")]
    Io {
        /// The socket that was asked.
        address: Address,
        /// What the kernel reported.
        source: io::Error,
    },
    /// The connection ended before the answer came.
    #[error("{address} closed the connection before it answered")]
    Closed {
        /// The socket that was asked.
        address: Address,
    },
    /// The shim answered with an error of its own.
    #[error("{address} answered {method} with code {code}: {}", first_line(message))]
    Rpc {
        /// The socket that was asked.
        address: Address,
        /// The call.
        method: &'static str,
        /// The status code, which ttrpc has from gRPC.
        code: i32,
        /// What it said, whole. Untrusted.
        message: String,
    },
    /// A gVisor sandbox answered with an error of its own.
    #[error("{address} answered {method} with an error: {}", first_line(message))]
    Remote {
        /// The socket that was asked.
        address: Address,
        /// The call.
        method: &'static str,
        /// What it said, whole. Untrusted.
        message: String,
    },
    /// The shim knows neither generation of the task service.
    #[error("{address} serves neither containerd.task.v2.Task nor containerd.task.v3.Task")]
    NoTaskService {
        /// The socket that was asked.
        address: Address,
    },
    /// The answer breaks the protocol, or is about another container.
    #[error("{address} sent an answer that cannot be read: {reason}")]
    Malformed {
        /// The socket that was asked.
        address: Address,
        /// What is wrong with the answer.
        reason: String,
    },
    /// A monitor refused a request.
    #[error("{address} answered {path} with HTTP status {status}")]
    Status {
        /// The socket that was asked.
        address: Address,
        /// The path that was asked for.
        path: String,
        /// The HTTP status, not 200.
        status: u16,
    },
    /// A monitor compressed its answer without being asked to.
    #[error("{address} sent a body encoded as {encoding:?}, which was not asked for")]
    Encoding {
        /// The socket that was asked.
        address: Address,
        /// The `Content-Encoding` of the answer. Untrusted.
        encoding: String,
    },
    /// A monitor's answer is longer than the caller wants.
    #[error("{address} sent a body of more than {limit} bytes")]
    TooLarge {
        /// The socket that was asked.
        address: Address,
        /// The most that is read, in bytes.
        limit: usize,
    },
}

impl ShimError {
    /// Whether nobody listens at the address: the shim has gone, or was killed and left its socket behind.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Connect { source, .. }
            if matches!(source.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound))
    }

    /// Whether the shim itself gave up waiting (ttrpc code 4, DEADLINE_EXCEEDED), as Kata's Rust shim does
    /// when its guest does not answer within the time that the request names.
    pub(crate) fn is_deadline(&self) -> bool {
        matches!(self, Self::Rpc { code: 4, .. })
    }
}

/// The first line of what a shim says: Kata's Rust shim sends a backtrace of 2 KB along.
fn first_line(message: &str) -> &str {
    message
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("(no message)")
        .trim()
}

/// The words that Go's tools, and so people's runbooks and scripts, have for a failed connect:
/// `connection refused` where Rust says `Connection refused (os error 111)`.
pub fn dial_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_is_quoted_with_its_first_line() {
        let error = ShimError::Rpc {
            address: Address::Path("/s".into()),
            method: "State",
            code: 2,
            message: "\nother: not found\n\nStack backtrace:\n   0: anyhow\n".into(),
        };
        assert_eq!(
            error.to_string(),
            "/s answered State with code 2: other: not found"
        );
    }

    #[test]
    fn dial_errors_read_as_in_go() {
        for (errno, text) in [
            (111, "connection refused"),
            (2, "no such file or directory"),
            (13, "permission denied"),
        ] {
            assert_eq!(dial_text(&io::Error::from_raw_os_error(errno)), text);
        }
    }
}
