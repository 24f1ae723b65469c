//! What is listed about one container.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use shimstat::node::{Container, ReadError, Role, Runtime, Source, hypervisor, monitor};
use shimstat::shim::task::{TaskState, TaskStatus};
use shimstat::survey::{AskError, NotRunning};

use crate::guest_side::GuestSide;
use crate::show::field::Facts;
use crate::show::time;

/// The status of a container of which something else is wrong than there is a word for.
pub const ERROR: &str = "error";

pub struct ListRow {
    pub container: Arc<Container>,
    pub runtime: Option<Runtime>,
    /// One of `ctr`'s words (`running`, `stopped`, …), or what is wrong: `not answering`,
    /// `guest hung`, `shim gone`, `error`.
    pub status: &'static str,
    pub exit_status: Option<u32>,
    /// Of the task's first process, where it has not stopped. Kata answers with its hypervisor's.
    pub pid: Option<u32>,
    pub created: Option<SystemTime>,
    /// Why that is not known.
    pub unread: Option<ReadError>,
    /// What is wrong, in full.
    pub error: Option<String>,
    /// What the guest of a Kata sandbox tells, where it was asked.
    pub guest: Option<GuestSide>,
}

impl ListRow {
    /// What files say.
    pub fn read(container: Arc<Container>) -> Self {
        let created = container.bundle.created();
        Self {
            runtime: container.runtime(),
            status: TaskStatus::Unknown.as_str(),
            exit_status: None,
            pid: None,
            created: created.as_ref().ok().copied(),
            unread: created.err().filter(|error| !error.is_missing()),
            error: None,
            guest: None,
            container,
        }
    }

    /// Adds what its shim said, or why it did not.
    pub fn with(mut self, state: Result<TaskState, AskError>) -> Self {
        match state {
            Ok(state) => {
                self.status = state.status.as_str();
                if state.status == TaskStatus::Stopped {
                    self.exit_status = state.exit_status;
                } else {
                    self.pid = Some(state.pid).filter(|pid| *pid != 0);
                }
            }
            Err(error) => {
                if let AskError::GuestHung {
                    state: Some(state), ..
                } = &error
                {
                    self.pid = Some(state.pid).filter(|pid| *pid != 0);
                }
                self.status = match error.latest() {
                    AskError::Unanswered { .. } | AskError::Resting { .. } => "not answering",
                    AskError::GuestHung { .. } => "guest hung",
                    AskError::Starting { .. } => "starting",
                    AskError::NotRunning(NotRunning::Gone(_)) => "shim gone",
                    // It is being deleted, or (Kata) was killed and not deleted.
                    AskError::NotRunning(NotRunning::Unknown(_)) => TaskStatus::Unknown.as_str(),
                    AskError::NotRunning(NotRunning::Stopped(_)) => TaskStatus::Stopped.as_str(),
                    AskError::Shim(_)
                    | AskError::NoGuest { .. }
                    | AskError::NoAddress(_)
                    | AskError::Decode { .. }
                    | AskError::Cgroup(_)
                    | AskError::TooSoon { .. }
                    // Nobody was asked for statistics.
                    | AskError::NoStatistics(_) => ERROR,
                };
                self.error = Some(error.to_string());
            }
        }
        self
    }

    /// As it is shown once its bundle is gone.
    pub fn removed(mut self) -> Self {
        self.status = "removed";
        self.pid = None;
        self.error = None;
        self
    }

    /// Whether a later row of the same bundle says the same, apart from its age.
    pub fn looks_like(&self, other: &Self) -> bool {
        let said = |row: &Self| (row.created, row.status, row.exit_status, row.pid);
        said(self) == said(other)
    }

    /// How long ago it was created. A clock that was set back makes that 0.
    fn age(&self, now: SystemTime) -> Option<Duration> {
        Some(now.duration_since(self.created?).unwrap_or_default())
    }

    /// For the table's columns.
    pub fn facts(&self, now: SystemTime) -> Facts<'_> {
        Facts {
            runtime: self.runtime.as_ref(),
            status: Some(self.status),
            exit_status: self.exit_status,
            pid: self.pid,
            age: self.age(now),
            guest: self.guest.as_ref(),
            ..Facts::of(&self.container)
        }
    }

    pub fn object(&self, now: SystemTime) -> Object<'_> {
        let (bundle, names) = (&self.container.bundle, self.container.names());
        let endpoint = self.container.endpoint();
        let runtime = self.runtime.as_ref();
        let is_sandbox = self.container.is_sandbox();
        Object {
            age_seconds: self.age(now).map(|age| age.as_secs()),
            bundle: bundle.path.to_string_lossy().into(),
            container: names.container.as_deref(),
            created_at: self.created.and_then(time::rfc3339_of),
            error: self.error.as_deref(),
            exit_status: self.exit_status,
            guest: self.guest.as_ref(),
            hypervisor: self
                .runtime
                .as_ref()
                .and_then(|runtime| runtime.hypervisor.as_deref()),
            id: &bundle.id,
            kata_shim: runtime.and_then(Runtime::kata_shim_word),
            machine: runtime.and_then(Runtime::machine_word),
            monitor: is_sandbox
                .then(|| monitor::known(&bundle.id, Some(bundle)).ok())
                .flatten()
                .and_then(|addresses| Some(addresses.first()?.to_string())),
            name: names.own.as_deref(),
            namespace: &bundle.namespace,
            network_namespace: self.container.network_namespace(),
            pid: self.pid,
            pod: names.name.as_deref(),
            pod_namespace: names.namespace.as_deref(),
            pod_uid: names.uid.as_deref(),
            role: match self.container.role() {
                Role::Sandbox => "sandbox",
                Role::InSandbox(_) => "container",
                Role::Plain => "plain",
            },
            runtime: self.runtime.as_ref().map(|runtime| runtime.name.as_str()),
            sandbox: self.container.sandbox_id(),
            shim: endpoint.map(|endpoint| endpoint.address.to_string()),
            source: matches!(self.container.source, Ok(Source::Cgroup)).then_some("cgroup"),
            status: self.status,
            vmm_pid: is_sandbox
                .then(|| hypervisor::virtual_machine(&bundle.id).ok()?)
                .flatten()
                .and_then(|machine| machine.vmm_pid),
        }
    }
}

/// A row as JSON, with its keys in alphabetical order. What is not known is left out.
#[derive(Serialize)]
pub struct Object<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    age_seconds: Option<u64>,
    bundle: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_status: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    guest: Option<&'a GuestSide>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hypervisor: Option<&'a str>,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kata_shim: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<&'static str>,
    /// Where the sandbox's monitor listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    monitor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    namespace: &'a str,
    /// A path, as the spec has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    network_namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_uid: Option<&'a str>,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    runtime: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shim: Option<String>,
    /// Left out where a shim is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'static str>,
    status: &'static str,
    /// As Kata's shim noted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    vmm_pid: Option<u32>,
}
