//! What is told of one container.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kata_runtime::node::{Container, Role, Runtime};
use kata_runtime::shim::task::{TaskState, TaskStatus};
use kata_runtime::survey::{AskError, NotRunning};

pub struct Row {
    pub container: Arc<Container>,
    pub runtime: Option<Runtime>,
    /// One of `ctr`'s words (`running`, `stopped`, …), or what is wrong: `not answering`, `shim gone`, `error`.
    pub status: &'static str,
    pub exit_status: Option<u32>,
    /// Of the task's first process, where it has not stopped. Kata answers with its hypervisor's.
    pub pid: Option<u32>,
    pub created: Option<SystemTime>,
    pub age: Option<Duration>,
    /// What is wrong, at length.
    pub error: Option<String>,
}

impl Row {
    pub fn new(container: &Arc<Container>, state: Result<TaskState, AskError>, now: SystemTime) -> Self {
        let created = container.bundle.created();
        let status = match &state {
            Ok(state) => state.status.as_str(),
            Err(AskError::Unanswered { .. } | AskError::Resting { .. }) => "not answering",
            Err(AskError::NotRunning(NotRunning::Gone(_))) => "shim gone",
            // It is deleted just now, or (Kata) was killed and not deleted.
            Err(AskError::NotRunning(NotRunning::Unknown(_))) => "unknown",
            Err(AskError::NotRunning(NotRunning::Stopped(_))) => "stopped",
            Err(AskError::Shim(_) | AskError::NoAddress(_) | AskError::Decode { .. }) => "error",
        };
        let (error, state) = match state {
            Ok(state) => (None, Some(state)),
            Err(error) => (Some(error.to_string()), None),
        };
        let stopped = state.as_ref().filter(|state| state.status == TaskStatus::Stopped);
        Self {
            runtime: container.runtime(),
            status,
            exit_status: stopped.map(|state| state.exit_status),
            pid: state
                .as_ref()
                .filter(|state| state.status != TaskStatus::Stopped && state.pid != 0)
                .map(|state| state.pid),
            created,
            // A clock that was set back makes it 0.
            age: created.map(|created| now.duration_since(created).unwrap_or_default()),
            error,
            container: container.clone(),
        }
    }

    /// `namespace/name` of its pod, or as much of that as is known.
    pub fn pod(&self) -> Option<String> {
        let names = &self.container.names;
        let name = names.name.as_ref()?;
        Some(match &names.namespace {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name.clone(),
        })
    }

    pub fn is_in_a_sandbox(&self) -> bool {
        matches!(self.container.role, Role::InSandbox(_))
    }
}
