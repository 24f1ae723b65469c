//! A shim's sandbox service, which stands in for its task service where the shim manages the sandbox itself
//! (`sandboxer = "shim"`, containerd 2.x): the sandbox is no task there.
//!
//! Field numbers are those of containerd's
//! [api/runtime/sandbox/v1/sandbox.proto](https://github.com/containerd/containerd/blob/main/api/runtime/sandbox/v1/sandbox.proto)
//! and `api/types/metrics.proto`. Seen on containerd 2.3.4 with Kata's Rust shim 4.1.0, which has no `SandboxMetrics`.

use std::time::Duration;

use protobuf::well_known_types::any::Any;

use super::error::ShimError;
use super::task::{TaskConnection, TaskState, TaskStatus, clip};
use crate::proto::{self, messages};

const SERVICE: &str = "containerd.runtime.sandbox.v1.Sandbox";

messages! {
    SandboxStatusResponse {
        1 => sandbox_id: String,
        2 => pid: u64,
        3 => state: String,
        6 => exited_at: Option<Timestamp>,
    }

    Timestamp {
        1 => seconds: u64,
    }

    SandboxMetricsResponse {
        1 => metrics: Option<Metric>,
    }

    Metric {
        3 => data: Option<AnyMessage>,
    }

    AnyMessage {
        1 => type_url: String,
        2 => value: Vec<u8>,
    }
}

impl TaskConnection {
    /// Asks for the state of a sandbox that the shim manages. The sandbox has no exit status.
    pub async fn sandbox_status(&mut self, id: &str, limit: Duration) -> Result<TaskState, ShimError> {
        const METHOD: &str = "SandboxStatus";
        let reply: SandboxStatusResponse = self.sandbox_call(METHOD, id, limit).await?;
        if !reply.sandbox_id.is_empty() && reply.sandbox_id != id {
            return Err(self.malformed(format!(
                "asked for sandbox {id:?}, it answered for {:?}",
                clip(&reply.sandbox_id)
            )));
        }
        Ok(reply.into())
    }

    /// Asks for the statistics of a sandbox that the shim manages. `Ok(None)`: the shim has none.
    pub async fn sandbox_metrics(&mut self, id: &str, limit: Duration) -> Result<Option<Any>, ShimError> {
        const METHOD: &str = "SandboxMetrics";
        match self
            .sandbox_call::<SandboxMetricsResponse>(METHOD, id, limit)
            .await
        {
            // NOT_FOUND "not supported" from Kata's Rust shim, UNIMPLEMENTED from others.
            Err(ShimError::Rpc { code: 5 | 12, .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(reply) => match reply.metrics.and_then(|metrics| metrics.data) {
                Some(data) => Ok(Some(data.into())),
                None => Err(self.malformed(format!("the {METHOD} reply has no metrics in it"))),
            },
        }
    }

    async fn sandbox_call<M: proto::Message>(
        &mut self,
        method: &'static str,
        id: &str,
        limit: Duration,
    ) -> Result<M, ShimError> {
        // All of the service's requests that are made here have the sandbox's id as their field 1.
        let request = proto::text_message(id).map_err(|error| self.malformed(error.to_string()))?;
        let reply = self.round_trip(SERVICE, method, &request, limit).await?;
        proto::parse(&reply).map_err(|error| self.malformed(format!("{method}: {error}")))
    }
}

impl From<SandboxStatusResponse> for TaskState {
    fn from(reply: SandboxStatusResponse) -> Self {
        let status = match reply.state.as_str() {
            "SANDBOX_READY" => TaskStatus::Running,
            "SANDBOX_NOTREADY" => TaskStatus::Stopped,
            _ => TaskStatus::Unknown,
        };
        Self {
            status,
            pid: u32::try_from(reply.pid).unwrap_or(0),
            exit_status: None,
            exited_at: reply
                .exited_at
                .and_then(|at| i64::try_from(at.seconds).ok())
                .filter(|seconds| *seconds > 0 && status == TaskStatus::Stopped),
        }
    }
}

impl From<AnyMessage> for Any {
    fn from(data: AnyMessage) -> Self {
        Self {
            type_url: data.type_url,
            value: data.value,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats;

    #[test]
    fn a_recorded_reply_has_statistics() {
        let bytes = include_bytes!("../../tests/fixtures/sandboxer-shim/sandbox-metrics-response.bin");
        let reply: SandboxMetricsResponse = proto::parse(bytes).unwrap();
        let any = Any::from(reply.metrics.unwrap().data.unwrap());
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let stats = stats::decode(&any.type_url, &any.value).unwrap();
        // The shim's own figures, which are a stub's: 123456789 ns, 8 MiB.
        assert_eq!(stats.cpu.usage.total, Some(123_456_789));
        assert_eq!(stats.memory.usage.usage, Some(8 << 20));
    }

    #[test]
    fn a_status_is_a_tasks() {
        for (state, expected) in [
            ("SANDBOX_READY", TaskStatus::Running),
            ("SANDBOX_NOTREADY", TaskStatus::Stopped),
            ("", TaskStatus::Unknown),
        ] {
            // Fields 1 to 3 and 6 by hand: string, varint, string, a message with a varint.
            let mut bytes = vec![0x0a, 2, b's', b'1', 0x10, 0xfb, 0x7e];
            bytes.extend([0x1a, state.len() as u8]);
            bytes.extend(state.as_bytes());
            bytes.extend([0x32, 2, 0x08, 9]);
            let reply: SandboxStatusResponse = proto::parse(&bytes).unwrap();
            assert_eq!(reply.sandbox_id, "s1");
            let state = TaskState::from(reply);
            assert_eq!(
                (state.status, state.pid, state.exit_status),
                (expected, 16_251, None)
            );
            let stopped = expected == TaskStatus::Stopped;
            assert_eq!(state.exited_at, stopped.then_some(9));
        }
        assert_eq!(proto::text_message("s1").unwrap(), b"\x0a\x02s1");
    }
}
