//! A shim's task service: `State` and `Stats` of one task, over ttrpc.
//!
//! Requests are framed here, one at a time on a connection, with `ttrpc`'s wire types. The generated clients
//! know one generation of the service each, and `ttrpc`'s own client forgets a call once its time is over: a
//! caller that must not ask a hung shim again needs to hear when the old call has ended.

use containerd_shim_protos::api::{StateRequest, StateResponse, StatsRequest, StatsResponse};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufReader};
use ttrpc::proto::{
    GenMessage, GenMessageError, MESSAGE_HEADER_LENGTH, MESSAGE_TYPE_RESPONSE, MessageHeader, Request,
    Response,
};

use super::address::{Address, Endpoint, TaskVersion};
use super::connect::{Connect, Connection};
use super::error::ShimError;
use crate::wire;

/// ttrpc's INVALID_ARGUMENT, NOT_FOUND and UNIMPLEMENTED: what servers answer for an unknown service.
const CODES_OF_AN_UNKNOWN_SERVICE: [i32; 3] = [3, 5, 12];

/// What a shim says of a task (`State`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskState {
    pub status: TaskStatus,
    /// The pid on the host of the task's first process. Kata answers with its hypervisor's.
    pub pid: u32,
    /// The exit status, where the task has stopped.
    pub exit_status: u32,
    /// Seconds since 1970 when the task stopped, where it did and the shim says so.
    pub exited_at: Option<i64>,
}

/// A task's status, as containerd names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskStatus {
    Unknown,
    Created,
    Running,
    Stopped,
    Paused,
    Pausing,
}

impl TaskStatus {
    /// The word that `ctr` prints, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Created => "created",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Paused => "paused",
            Self::Pausing => "pausing",
        }
    }

    fn from_wire(value: i32) -> Self {
        match value {
            1 => Self::Created,
            2 => Self::Running,
            3 => Self::Stopped,
            4 => Self::Paused,
            5 => Self::Pausing,
            _ => Self::Unknown,
        }
    }
}

/// Room for the replies of most calls: header and message come by one read. Longer messages do without it.
const REPLY: usize = 2 << 10;

/// A connection to a shim, with one call in flight at the most.
pub struct TaskConnection {
    stream: BufReader<Connection>,
    address: Address,
    version: TaskVersion,
    next_stream_id: u32,
}

impl TaskConnection {
    /// Connects to a shim. Put a deadline around it.
    pub async fn connect(endpoint: &Endpoint, connect: &dyn Connect) -> Result<Self, ShimError> {
        let stream = connect.connect(&endpoint.address).await?;
        Ok(Self {
            stream: BufReader::with_capacity(REPLY, stream),
            address: endpoint.address.clone(),
            version: endpoint.version,
            next_stream_id: 1,
        })
    }

    /// Asks for a task's state. It needs no guest, so a shim that does not answer this is stuck.
    ///
    /// `limit` is sent along as the time after which the shim may give up; not every shim minds it.
    pub async fn state(&mut self, id: &str, limit: Duration) -> Result<TaskState, ShimError> {
        let mut request = StateRequest::new();
        request.set_id(id.to_string());
        let reply: StateResponse = self.call("State", &request, limit).await?;
        // A shim that answers for another task would have us print its numbers under this one's name.
        if !reply.id.is_empty() && reply.id != id {
            return Err(self.malformed(format!(
                "asked for task {id:?}, it answered for {:?}",
                clip(&reply.id)
            )));
        }
        Ok(TaskState {
            status: TaskStatus::from_wire(reply.status.value()),
            pid: reply.pid,
            exit_status: reply.exit_status,
            exited_at: reply.exited_at.as_ref().map(|t| t.seconds).filter(|s| *s > 0),
        })
    }

    /// Asks for a task's statistics. On a Kata sandbox whose guest hangs this call holds up every other one to
    /// the shim, containerd's too: ask [`state`](Self::state) first, and never a second time while one waits.
    pub async fn stats(&mut self, id: &str, limit: Duration) -> Result<Any, ShimError> {
        let mut request = StatsRequest::new();
        request.set_id(id.to_string());
        let reply: StatsResponse = self.call("Stats", &request, limit).await?;
        reply
            .stats
            .into_option()
            .ok_or_else(|| self.malformed("the Stats reply has no statistics in it".into()))
    }

    /// One call; where the shim does not know the generation of the service, once more with the other one.
    async fn call<R: Message>(
        &mut self,
        method: &'static str,
        request: &impl Message,
        limit: Duration,
    ) -> Result<R, ShimError> {
        let payload = request
            .write_to_bytes()
            .map_err(|e| self.malformed(e.to_string()))?;
        let mut reply = self.round_trip(method, &payload, limit).await;
        if self.is_unknown_service(&reply) {
            self.version = match self.version {
                TaskVersion::V2 => TaskVersion::V3,
                TaskVersion::V3 => TaskVersion::V2,
            };
            reply = self.round_trip(method, &payload, limit).await;
            if self.is_unknown_service(&reply) {
                return Err(ShimError::NoTaskService {
                    address: self.address.clone(),
                });
            }
        }
        wire::parse(&reply?).map_err(|e| self.malformed(format!("{method}: {e}")))
    }

    async fn round_trip(
        &mut self,
        method: &'static str,
        payload: &[u8],
        limit: Duration,
    ) -> Result<Vec<u8>, ShimError> {
        let stream_id = self.next_stream_id;
        // ttrpc: a client's stream ids are odd and rise.
        self.next_stream_id = self.next_stream_id.wrapping_add(2);
        let mut request = Request::new();
        request.set_service(service(self.version).to_string());
        request.set_method(method.to_string());
        request.set_timeout_nano(i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX));
        request.set_payload(payload.to_vec());
        let body = request
            .write_to_bytes()
            .map_err(|e| self.malformed(e.to_string()))?;
        self.send(stream_id, &body).await?;
        let response = self.receive(stream_id).await?;
        let response = wire::parse::<Response>(&response)
            .map_err(|e| self.malformed(format!("{method}: no ttrpc response: {e}")))?;
        match response.status.as_ref() {
            Some(status) if status.code.value() != 0 => Err(ShimError::Rpc {
                address: self.address.clone(),
                method,
                code: status.code.value(),
                message: status.message.clone(),
            }),
            _ => Ok(response.payload),
        }
    }

    async fn send(&mut self, stream_id: u32, body: &[u8]) -> Result<(), ShimError> {
        let length =
            u32::try_from(body.len()).map_err(|_| self.malformed("the request is too long".into()))?;
        let mut frame = Vec::with_capacity(MESSAGE_HEADER_LENGTH + body.len());
        frame.extend(Vec::from(MessageHeader::new_request(stream_id, length)));
        frame.extend_from_slice(body);
        self.stream
            .write_all(&frame)
            .await
            .map_err(|source| match source.kind() {
                std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => ShimError::Closed {
                    address: self.address.clone(),
                },
                _ => ShimError::Io {
                    address: self.address.clone(),
                    source,
                },
            })
    }

    /// Reads frames until the answer to our call. Frames for other streams are none of ours: skipped.
    async fn receive(&mut self, stream_id: u32) -> Result<Vec<u8>, ShimError> {
        loop {
            let frame = match GenMessage::read_from(&mut self.stream).await {
                Ok(frame) => frame,
                // ttrpc gives I/O errors as texts; on a read they mean that the other side has closed.
                Err(GenMessageError::InternalError(_)) => {
                    return Err(ShimError::Closed {
                        address: self.address.clone(),
                    });
                }
                Err(GenMessageError::ReturnError(header, error)) if header.stream_id == stream_id => {
                    return Err(self.malformed(error.to_string()));
                }
                Err(GenMessageError::ReturnError(..)) => continue,
            };
            if frame.header.stream_id != stream_id {
                continue;
            }
            if frame.header.type_ != MESSAGE_TYPE_RESPONSE {
                return Err(self.malformed(format!(
                    "frame type {} where a response belongs",
                    frame.header.type_
                )));
            }
            return Ok(frame.payload);
        }
    }

    /// Go's ttrpc says UNIMPLEMENTED, a Rust server INVALID_ARGUMENT, gVisor's shim NOT_FOUND; the text names
    /// the service in each case, which tells them from an unknown task or argument.
    fn is_unknown_service(&self, reply: &Result<Vec<u8>, ShimError>) -> bool {
        match reply {
            Err(ShimError::Rpc { code: 12, .. }) => true,
            Err(ShimError::Rpc { code, message, .. }) => {
                let service = service(self.version);
                CODES_OF_AN_UNKNOWN_SERVICE.contains(code)
                    && (message.contains(&format!("/{service}/"))
                        || message.contains(&format!("service {service}")))
            }
            _ => false,
        }
    }

    fn malformed(&self, reason: String) -> ShimError {
        ShimError::Malformed {
            address: self.address.clone(),
            reason,
        }
    }
}

fn service(version: TaskVersion) -> &'static str {
    match version {
        TaskVersion::V2 => "containerd.task.v2.Task",
        TaskVersion::V3 => "containerd.task.v3.Task",
    }
}

/// A shim's text, cut to a length that can be printed.
fn clip(text: &str) -> String {
    text.chars().take(100).collect()
}
