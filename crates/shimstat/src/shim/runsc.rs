//! The control socket of a gVisor sandbox: what `runsc` asks for `runsc events` and `runsc state`, asked without
//! starting a `runsc`.
//!
//! gVisor calls the protocol urpc
//! ([pkg/urpc/urpc.go](https://github.com/google/gvisor/blob/master/pkg/urpc/urpc.go)): one JSON value each way over a
//! stream socket, without framing, one call at a time. The sandbox serves any number of connections.
//!
//! **It is a control socket**: the same one starts, pauses, checkpoints and kills containers. Only the two methods of
//! `Method` are ever sent, and neither changes anything.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::address::Address;
use super::error::ShimError;
use crate::stats::GvisorEvent;

/// The longest reply that is read, in bytes. One has about 800, and grows by 90 for each container of the sandbox and
/// 150 for each network interface.
const REPLY_LIMIT: u64 = 1 << 20;

/// Room for most replies.
const REPLY: usize = 2 << 10;

/// The longest text of a sandbox's that an error passes on, in characters.
const TEXT_LIMIT: usize = 1000;

/// Everything that is ever asked (see `ContMgr…` in
/// [runsc/boot/controller.go](https://github.com/google/gvisor/blob/master/runsc/boot/controller.go)). Both methods read,
/// and take the id of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
enum ControlMethod {
    #[serde(rename = "containerManager.Event")]
    Event,
    /// Since April 2024.
    #[serde(rename = "containerManager.ContainerRuntimeState")]
    ContainerRuntimeState,
}

impl ControlMethod {
    fn name(self) -> &'static str {
        match self {
            Self::Event => "Event",
            Self::ContainerRuntimeState => "ContainerRuntimeState",
        }
    }
}

#[derive(Serialize)]
struct Request<'a> {
    method: ControlMethod,
    arg: &'a str,
}

#[derive(Deserialize)]
struct ControlReply<R> {
    success: bool,
    #[serde(default)]
    err: String,
    result: Option<R>,
}

/// What a sandbox says of one of its containers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeState {
    /// It has no process yet.
    Creating,
    /// Its first process was started and has not ended.
    Running,
    /// Its first process has ended, or the sandbox does not know it.
    Stopped,
}

/// A connection to a sandbox's control socket. It may be kept, and used for one call after another.
pub struct ControlConnection<S> {
    stream: S,
    address: Address,
    /// Set while an answer is outstanding. It stays set where the caller gives up, or the answer made no sense: what
    /// comes next on this connection is not the answer to the next question.
    in_call: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ControlConnection<S> {
    /// Takes a connection to `address`.
    pub fn new(stream: S, address: Address) -> Self {
        Self {
            stream,
            address,
            in_call: false,
        }
    }

    /// Whether another call can be made; where not, a new connection can.
    pub fn is_usable(&self) -> bool {
        !self.in_call
    }

    /// Asks what a container uses. An unknown container is an error of the sandbox's ([`ShimError::Remote`]), as is one
    /// that has just stopped; [`runtime_state`](Self::runtime_state) tells. Put a deadline around it.
    pub async fn event(&mut self, id: &str) -> Result<GvisorEvent, ShimError> {
        let event: GvisorEvent = self.call(ControlMethod::Event, id).await?;
        if event.id() != id {
            let answered = clip(event.id());
            return Err(self.malformed(format!(
                "asked for container {id:?}, it answered for {answered:?}"
            )));
        }
        Ok(event)
    }

    /// Asks for a container's state. A sandbox that does not know the method, from before April 2024, answers with an
    /// error ([`ShimError::Remote`]); there is no other reason for one. Put a deadline around it.
    pub async fn runtime_state(&mut self, id: &str) -> Result<RuntimeState, ShimError> {
        // `ContainerRuntimeState` of runsc/boot/loader.go.
        match self.call::<u64>(ControlMethod::ContainerRuntimeState, id).await? {
            1 => Ok(RuntimeState::Creating),
            2 => Ok(RuntimeState::Running),
            3 => Ok(RuntimeState::Stopped),
            other => Err(self.malformed(format!(
                "a container's state is {other}, which is none of gVisor's"
            ))),
        }
    }

    async fn call<R: DeserializeOwned>(&mut self, method: ControlMethod, id: &str) -> Result<R, ShimError> {
        if self.in_call {
            return Err(self.failed(std::io::Error::new(
                std::io::ErrorKind::NotConnected,
                "an earlier call on this connection was given up",
            )));
        }
        let request = serde_json::to_vec(&Request { method, arg: id })
            .map_err(|error| self.malformed(error.to_string()))?;
        self.in_call = true;
        self.stream
            .write_all(&request)
            .await
            .map_err(|source| self.failed(source))?;
        let reply = self.receive().await?;
        let reply: ControlReply<R> =
            serde_json::from_slice(&reply).map_err(|error| self.malformed(clip(&error.to_string())))?;
        let result = match reply {
            ControlReply {
                success: true,
                result: Some(result),
                ..
            } => Ok(result),
            ControlReply { success: true, .. } => {
                return Err(self.malformed("a reply without a result".into()));
            }
            ControlReply { err, .. } => Err(ShimError::Remote {
                address: self.address.clone(),
                method: method.name(),
                message: clip(&err),
            }),
        };
        self.in_call = false;
        result
    }

    /// Reads one JSON object, which ends where its last brace closes.
    async fn receive(&mut self) -> Result<Vec<u8>, ShimError> {
        let mut reply = Vec::with_capacity(REPLY);
        let mut scan = ObjectScan::default();
        let mut left = REPLY_LIMIT;
        loop {
            let known = reply.len();
            let read = match (&mut self.stream).take(left).read_buf(&mut reply).await {
                Ok(0) if left == 0 => {
                    return Err(ShimError::TooLarge {
                        address: self.address.clone(),
                        limit: REPLY_LIMIT as usize,
                    });
                }
                Ok(0) => return Err(self.closed()),
                Ok(read) => read as u64,
                Err(source) => return Err(self.failed(source)),
            };
            left = left.saturating_sub(read);
            match scan.feed(reply.get(known..).unwrap_or_default()) {
                Ok(None) => {}
                Ok(Some(rest)) if rest.iter().all(u8::is_ascii_whitespace) => return Ok(reply),
                Ok(Some(_)) => return Err(self.malformed("more than one reply to a call".into())),
                Err(NotAnObject) => return Err(self.malformed("a reply that is no JSON object".into())),
            }
        }
    }

    fn failed(&self, source: std::io::Error) -> ShimError {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        match source.kind() {
            BrokenPipe | ConnectionReset => self.closed(),
            _ => ShimError::Io {
                address: self.address.clone(),
                source,
            },
        }
    }

    fn closed(&self) -> ShimError {
        ShimError::Closed {
            address: self.address.clone(),
        }
    }

    fn malformed(&self, reason: String) -> ShimError {
        ShimError::Malformed {
            address: self.address.clone(),
            reason,
        }
    }
}

/// A sandbox's text, cut to a length that can be printed.
fn clip(text: &str) -> String {
    text.chars().take(TEXT_LIMIT).collect()
}

/// Looks for the end of a JSON object, however it arrives in pieces. It counts brackets and leaves everything else to
/// whoever parses it.
#[derive(Debug, Default)]
struct ObjectScan {
    depth: u64,
    in_string: bool,
    escaped: bool,
}

/// What came is not the beginning of a JSON object.
#[derive(Debug, PartialEq, Eq)]
struct NotAnObject;

impl ObjectScan {
    /// Takes the next piece. Where the object ends in it, gives back what follows.
    fn feed<'a>(&mut self, piece: &'a [u8]) -> Result<Option<&'a [u8]>, NotAnObject> {
        for (at, byte) in piece.iter().enumerate() {
            if self.escaped {
                self.escaped = false;
            } else if self.in_string {
                self.escaped = *byte == b'\\';
                self.in_string = *byte != b'"';
            } else {
                match byte {
                    b'{' => self.depth += 1,
                    _ if self.depth == 0 && !byte.is_ascii_whitespace() => return Err(NotAnObject),
                    b'[' => self.depth += 1,
                    b'"' => self.in_string = true,
                    b'}' | b']' => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            return Ok(piece.get(at + 1..));
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
