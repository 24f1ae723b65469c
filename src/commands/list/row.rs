//! What is told of one container.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shimstat::node::{Container, Role, Runtime};
use shimstat::shim::task::{TaskState, TaskStatus};
use shimstat::survey::{AskError, NotRunning};

pub struct Row {
    pub container: Arc<Container>,
    pub runtime: Option<Runtime>,
    /// One of `ctr`'s words (`running`, `stopped`, …), or what is wrong: `not answering`, `shim gone`, `error`.
    pub status: &'static str,
    pub exit_status: Option<u32>,
    /// Of the task's first process, where it has not stopped. Kata answers with its hypervisor's.
    pub pid: Option<u32>,
    pub created: Option<SystemTime>,
    /// What is wrong, at length.
    pub error: Option<String>,
}

impl Row {
    /// What files tell.
    pub fn read(container: Arc<Container>) -> Self {
        Self {
            runtime: container.runtime(),
            status: TaskStatus::Unknown.as_str(),
            exit_status: None,
            pid: None,
            created: container.bundle.created(),
            error: None,
            container,
        }
    }

    /// What its shim told as well, or did not.
    pub fn with(mut self, state: Result<TaskState, AskError>) -> Self {
        match state {
            Ok(state) => {
                self.status = state.status.as_str();
                if state.status == TaskStatus::Stopped {
                    self.exit_status = Some(state.exit_status);
                } else {
                    self.pid = Some(state.pid).filter(|pid| *pid != 0);
                }
            }
            Err(error) => {
                self.status = match error {
                    AskError::Unanswered { .. } | AskError::Resting { .. } => "not answering",
                    AskError::NotRunning(NotRunning::Gone(_)) => "shim gone",
                    // It is deleted just now, or (Kata) was killed and not deleted.
                    AskError::NotRunning(NotRunning::Unknown(_)) => TaskStatus::Unknown.as_str(),
                    AskError::NotRunning(NotRunning::Stopped(_)) => TaskStatus::Stopped.as_str(),
                    AskError::Shim(_) | AskError::NoAddress(_) | AskError::Decode { .. } => "error",
                };
                self.error = Some(error.to_string());
            }
        }
        self
    }

    /// How long ago it was created. A clock that was set back makes that 0.
    pub fn age(&self, now: SystemTime) -> Option<Duration> {
        Some(now.duration_since(self.created?).unwrap_or_default())
    }

    pub fn is_in_a_sandbox(&self) -> bool {
        matches!(self.container.role(), Role::InSandbox(_))
    }
}
