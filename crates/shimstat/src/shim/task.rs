//! A shim's task service: `State` and `Stats` of one task, over ttrpc or gRPC. Its sandbox service is asked over the same
//! connection.
//!
//! The generated clients know one generation of the service each, and `ttrpc`'s own client forgets a call once its
//! time is over: a caller that must not ask a hung shim again needs to hear when the old call has ended.

use std::os::fd::RawFd;

use containerd_shim_protos::api::{StateRequest, StateResponse, StatsRequest, StatsResponse};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use std::time::Duration;

use super::address::{Address, Endpoint, Protocol, TaskVersion};
use super::connect::{Connect, Connection};
use super::error::ShimError;
#[cfg(feature = "grpc")]
use super::grpc;
use super::ttrpc::{self, Call, CallError};
use crate::wire;

/// What a shim says of a task (`State`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskState {
    /// Whether it runs.
    pub status: TaskStatus,
    /// The pid on the host of the task's first process. Kata answers with its hypervisor's. 0: there is none, or it
    /// cannot be seen from here.
    pub pid: u32,
    /// The exit status, where the task has stopped and the status is known.
    pub exit_status: Option<u32>,
    /// Seconds since 1970 when the task stopped, where it did and the shim says so.
    pub exited_at: Option<i64>,
}

/// A task's status, as containerd names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskStatus {
    /// The shim does not say, or says something that containerd has not used so far.
    Unknown,
    /// Set up, and its first process was not started.
    Created,
    /// Its first process runs.
    Running,
    /// Its first process has ended, and the task was not deleted.
    Stopped,
    /// Its processes are frozen.
    Paused,
    /// Its processes are being frozen.
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

/// A client of what the shim speaks.
enum ShimClient {
    Ttrpc(ttrpc::Client<Connection>),
    #[cfg(feature = "grpc")]
    Grpc(Box<grpc::GrpcClient<Connection>>),
}

/// A connection to a shim, with at most one call in flight.
pub(crate) struct TaskConnection {
    client: ShimClient,
    peer_pid: Option<i32>,
    descriptor: Option<RawFd>,
    address: Address,
    version: TaskVersion,
    /// Whether it has answered a call of that generation. What it does not know then is the method.
    answers: bool,
}

impl TaskConnection {
    /// Connects to a shim. Put a deadline around it.
    pub async fn connect(endpoint: &Endpoint, connect: &dyn Connect) -> Result<Self, ShimError> {
        let stream = connect.connect(&endpoint.address).await?;
        let (peer_pid, descriptor) = (stream.peer_pid(), stream.descriptor());
        let client = match endpoint.protocol {
            #[cfg(feature = "grpc")]
            Protocol::Grpc => {
                let begun = grpc::GrpcClient::begin(stream).await;
                let begun = begun.map_err(|error| of_call(&endpoint.address, "HTTP/2", error))?;
                ShimClient::Grpc(Box::new(begun))
            }
            Protocol::Ttrpc => ShimClient::Ttrpc(ttrpc::Client::new(stream)),
        };
        Ok(Self {
            descriptor,
            peer_pid,
            client,
            address: endpoint.address.clone(),
            version: endpoint.version,
            answers: false,
        })
    }

    /// The pid of the process that made the shim's socket, which may have ended; 0 for one in another pid namespace, and
    /// `None` where that cannot be told.
    pub fn peer_pid(&self) -> Option<i32> {
        self.peer_pid
    }

    /// The descriptor of its socket, where it has one.
    pub fn descriptor(&self) -> Option<RawFd> {
        self.descriptor
    }

    /// Asks for a task's state. It needs no guest, so a shim that does not answer this is stuck.
    ///
    /// `limit` is sent along as the time after which the shim may give up; not every shim does.
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
        let status = TaskStatus::from_wire(reply.status.value());
        Ok(TaskState {
            status,
            pid: reply.pid,
            exit_status: (status == TaskStatus::Stopped).then_some(reply.exit_status),
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
        let mut reply = self
            .round_trip(service(self.version), method, &payload, limit)
            .await;
        if !self.answers && self.is_unknown_service(&reply) {
            self.version = match self.version {
                TaskVersion::V2 => TaskVersion::V3,
                TaskVersion::V3 => TaskVersion::V2,
            };
            reply = self
                .round_trip(service(self.version), method, &payload, limit)
                .await;
            if self.is_unknown_service(&reply) {
                return Err(ShimError::NoTaskService {
                    address: self.address.clone(),
                });
            }
        }
        let reply = reply?;
        self.answers = true;
        wire::parse(&reply).map_err(|e| self.malformed(format!("{method}: {e}")))
    }

    /// One call to any of the shim's services.
    pub(super) async fn round_trip(
        &mut self,
        service: &'static str,
        method: &'static str,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, ShimError> {
        let call = Call {
            service,
            method,
            payload,
            timeout,
            limit: ttrpc::LONGEST,
        };
        let answer = match &mut self.client {
            ShimClient::Ttrpc(client) => client.call(call).await,
            #[cfg(feature = "grpc")]
            ShimClient::Grpc(client) => client.call(call).await,
        };
        answer.map_err(|error| of_call(&self.address, method, error))
    }

    fn is_unknown_service(&self, reply: &Result<Vec<u8>, ShimError>) -> bool {
        match reply {
            Err(ShimError::Rpc { code, message, .. }) => {
                ttrpc::is_unknown(*code, message, service(self.version))
            }
            _ => false,
        }
    }

    pub(super) fn malformed(&self, reason: String) -> ShimError {
        ShimError::Malformed {
            address: self.address.clone(),
            reason,
        }
    }
}

fn of_call(address: &Address, method: &'static str, error: CallError) -> ShimError {
    let address = address.clone();
    match error {
        CallError::Io(source) => ShimError::Io { address, source },
        CallError::Closed => ShimError::Closed { address },
        CallError::Status { code, message } => ShimError::Rpc {
            address,
            method,
            code,
            message,
        },
        CallError::Malformed(reason) => ShimError::Malformed { address, reason },
        CallError::TooLarge { limit } => ShimError::Malformed {
            address,
            reason: format!("{method}: it is longer than {limit} bytes"),
        },
    }
}

fn service(version: TaskVersion) -> &'static str {
    match version {
        TaskVersion::V2 => "containerd.task.v2.Task",
        TaskVersion::V3 => "containerd.task.v3.Task",
    }
}

/// A shim's text, cut to a length that can be printed.
pub(super) fn clip(text: &str) -> String {
    text.chars().take(100).collect()
}
