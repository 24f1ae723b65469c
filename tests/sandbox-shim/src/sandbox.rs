//! The sandbox service, for `sandboxer = "shim"`: containerd has this shim manage the sandbox, which is no task then. A
//! process that sleeps stands for its virtual machine. Like Kata's Rust shim this one has no `SandboxMetrics`.

use std::{
    io,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use async_trait::async_trait;
use containerd_shim_protos::{
    sandbox_api::{
        CreateSandboxRequest, CreateSandboxResponse, PingRequest, PingResponse, PlatformRequest,
        PlatformResponse, SandboxStatusRequest, SandboxStatusResponse, ShutdownSandboxRequest,
        ShutdownSandboxResponse, StartSandboxRequest, StartSandboxResponse, StopSandboxRequest,
        StopSandboxResponse, WaitSandboxRequest, WaitSandboxResponse,
    },
    sandbox_async::Sandbox,
};
use protobuf::MessageField;
use tokio::{
    process::{Child, Command},
    sync::watch,
};
use ttrpc::{Result, r#async::TtrpcContext};

use crate::{
    monitor::Monitor,
    service::{Pod, failed},
};

/// The sandbox.
pub struct ManagedSandbox {
    pod: Arc<Pod>,
    monitor: Arc<Monitor>,
    machine: Mutex<Option<Child>>,
    started: Mutex<Option<SystemTime>>,
    stopped: watch::Sender<Option<SystemTime>>,
}

impl ManagedSandbox {
    pub fn new(pod: Arc<Pod>, monitor: Arc<Monitor>) -> Self {
        Self {
            pod,
            monitor,
            machine: Mutex::default(),
            started: Mutex::default(),
            stopped: watch::Sender::new(None),
        }
    }

    fn start(&self) -> io::Result<u32> {
        let child = Command::new("sleep")
            .arg("1000000")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().unwrap_or(0);
        self.monitor.sandbox_created(pid)?;
        *lock(&self.machine) = Some(child);
        *lock(&self.started) = Some(SystemTime::now());
        Ok(pid)
    }

    fn stop(&self) -> io::Result<()> {
        if let Some(mut machine) = lock(&self.machine).take() {
            machine.start_kill()?;
            self.monitor.sandbox_stopped()?;
        }
        self.stopped
            .send_if_modified(|at| at.replace(SystemTime::now()).is_none());
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Sandbox for ManagedSandbox {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        _: CreateSandboxRequest,
    ) -> Result<CreateSandboxResponse> {
        Ok(CreateSandboxResponse::new())
    }

    async fn start_sandbox(&self, _: &TtrpcContext, _: StartSandboxRequest) -> Result<StartSandboxResponse> {
        let pid = self.start().map_err(failed)?;
        Ok(StartSandboxResponse {
            pid,
            created_at: MessageField::some(SystemTime::now().into()),
            ..Default::default()
        })
    }

    async fn platform(&self, _: &TtrpcContext, _: PlatformRequest) -> Result<PlatformResponse> {
        let mut response = PlatformResponse::new();
        let platform = response.platform.mut_or_insert_default();
        platform.os = "linux".to_owned();
        platform.architecture = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "amd64",
        }
        .to_owned();
        Ok(response)
    }

    async fn stop_sandbox(&self, _: &TtrpcContext, _: StopSandboxRequest) -> Result<StopSandboxResponse> {
        self.stop().map_err(failed)?;
        Ok(StopSandboxResponse::new())
    }

    async fn wait_sandbox(&self, _: &TtrpcContext, _: WaitSandboxRequest) -> Result<WaitSandboxResponse> {
        let mut stopped = self.stopped.subscribe();
        // The sender is in `self`, so the wait does not fail.
        let _ = stopped.wait_for(Option::is_some).await;
        Ok(WaitSandboxResponse {
            exited_at: MessageField::from_option(self.stopped.borrow().map(Into::into)),
            ..Default::default()
        })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: SandboxStatusRequest,
    ) -> Result<SandboxStatusResponse> {
        let pid = lock(&self.machine).as_ref().and_then(Child::id);
        let state = match pid {
            Some(_) => "SANDBOX_READY",
            None => "SANDBOX_NOTREADY",
        };
        Ok(SandboxStatusResponse {
            sandbox_id: request.sandbox_id,
            pid: pid.unwrap_or(0),
            state: state.to_owned(),
            created_at: MessageField::from_option(lock(&self.started).map(Into::into)),
            exited_at: MessageField::from_option(self.stopped.borrow().map(Into::into)),
            ..Default::default()
        })
    }

    async fn ping_sandbox(&self, _: &TtrpcContext, _: PingRequest) -> Result<PingResponse> {
        Ok(PingResponse::new())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        _: ShutdownSandboxRequest,
    ) -> Result<ShutdownSandboxResponse> {
        self.stop().map_err(failed)?;
        self.pod.shut_down();
        Ok(ShutdownSandboxResponse::new())
    }
}
