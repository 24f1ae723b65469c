//! The task service, under both of its names.

use std::{
    collections::HashMap,
    io,
    os::unix::net::UnixListener,
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{
        CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse,
        DeleteRequest, DeleteResponse, Empty, KillRequest, PidsRequest, PidsResponse, ProcessInfo,
        ResizePtyRequest, ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse,
        StatsRequest, StatsResponse, Status, WaitRequest, WaitResponse,
    },
    sandbox_async::create_sandbox,
    shim_async::{Task, create_task},
};
use protobuf::MessageField;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, OwnedMutexGuard};
use ttrpc::{
    Code, Error, Result,
    r#async::{Server, TtrpcContext, transport::Listener},
    get_status,
};

use crate::{
    agent::{self, Agent, Guest, Mode},
    container::{Container, Exit},
    families,
    monitor::Monitor,
    sandbox::ManagedSandbox,
};

const V2: &str = "containerd.task.v2.Task";
const V3: &str = "containerd.task.v3.Task";

/// The containers of one sandbox.
pub struct Pod {
    monitor: Arc<Monitor>,
    containers: Mutex<HashMap<String, Arc<Container>>>,
    shutdown: Notify,
    /// Kata's Go shim holds one for most calls, `State` excepted.
    lock: Arc<tokio::sync::Mutex<()>>,
    questions: Questions,
}

/// How many questions are being answered at this moment, and at most.
#[derive(Default)]
struct Questions {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// One of them. It ends with its answer, or when its connection does.
struct Question<'a>(&'a AtomicUsize);

impl Drop for Question<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// How long Kata's Go shim waits for its agent, and holds its lock meanwhile. Here it is a tenth.
const AGENT_TIMEOUT: Duration = Duration::from_secs(6);

const SLOW: Duration = Duration::from_millis(100);

impl Guest for Pod {
    fn stats(&self, container: &str) -> Option<Vec<u8>> {
        let container = self.container(container, "").ok()?;
        Some(agent::stats(&container.cgroup))
    }

    fn metrics(&self) -> String {
        families::guest_page(&self.monitor)
    }
}

/// Serves until containerd calls `Shutdown` and no container is left.
pub async fn serve(listener: UnixListener, monitor: Arc<Monitor>) -> io::Result<()> {
    let mut children = signal(SignalKind::child())?;
    let pod = Arc::new(Pod {
        monitor,
        containers: Mutex::default(),
        shutdown: Notify::new(),
        lock: Arc::default(),
        questions: Questions::default(),
    });
    if let Some(agent) = &pod.monitor.agent {
        agent.clone().serve(pod.clone())?;
    }

    // The crate generates v3 alone. v2's messages are the same, so the same handlers serve it under its name.
    let mut services = create_task(pod.clone());
    if let Some(v2) = create_task(pod.clone()).remove(V3) {
        services.insert(V2.to_owned(), v2);
    }
    services.extend(create_sandbox(Arc::new(ManagedSandbox::new(
        pod.clone(),
        pod.monitor.clone(),
    ))));
    let listener = Listener::from(tokio::net::UnixListener::from_std(listener)?);
    let mut server = Server::new().add_listener(listener).register_service(services);
    server.start().await.map_err(io::Error::other)?;
    loop {
        tokio::select! {
            _ = children.recv() => pod.reap().await,
            () = pod.shutdown.notified() => break,
        }
    }
    server.shutdown().await.map_err(io::Error::other)
}

impl Pod {
    /// Ends the shim.
    pub fn shut_down(&self) {
        self.shutdown.notify_one();
    }

    fn containers(&self) -> Vec<Arc<Container>> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    fn container(&self, id: &str, exec_id: &str) -> Result<Arc<Container>> {
        if !exec_id.is_empty() {
            return Err(status(
                Code::NOT_FOUND,
                format!("exec process {exec_id}: not found"),
            ));
        }
        let containers = self.containers.lock().unwrap_or_else(PoisonError::into_inner);
        let found = containers.get(id).cloned();
        found.ok_or_else(|| {
            status(
                Code::NOT_FOUND,
                format!("container does not exist {id}: not found"),
            )
        })
    }

    /// Collects the containers that have ended. With the sandbox's own container, which stands for the
    /// virtual machine, everything else in the sandbox ends.
    async fn reap(&self) {
        for container in self.containers() {
            if container.reap() && container.id == self.monitor.sandbox() {
                if let Err(e) = self.monitor.sandbox_stopped() {
                    eprintln!("stopping the monitor of {}: {e}", container.id);
                }
                for other in self.containers() {
                    if other.exit().is_none() {
                        other
                            .kill(9, true)
                            .await
                            .unwrap_or_else(|e| eprintln!("killing {}: {e}", other.id));
                    }
                }
            }
        }
    }

    async fn timed<T>(&self, action: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let begin = Instant::now();
        if let Some(agent) = &self.monitor.agent {
            agent.note(&format!("shim {action}"));
        }
        let _question = matches!(action, "state" | "stats" | "pids").then(|| self.question());
        let result = call.await;
        self.monitor.rpcs.observe(action, begin.elapsed());
        result
    }

    fn question(&self) -> Question<'_> {
        let now = self.questions.now.fetch_add(1, Relaxed) + 1;
        if self.questions.most.fetch_max(now, Relaxed) < now
            && let Some(agent) = &self.monitor.agent
        {
            agent.note(&format!("{now} at once"));
        }
        Question(&self.questions.now)
    }

    async fn do_create(&self, request: CreateTaskRequest) -> Result<CreateTaskResponse> {
        let begin = Instant::now();
        let container = Container::create(&request).await.map_err(failed)?;
        self.monitor.agent_rpcs.observe("runc.create", begin.elapsed());
        let pid = container.pid;
        if container.id == self.monitor.sandbox() {
            self.monitor.sandbox_created(pid).map_err(failed)?;
        }
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(container.id.clone(), Arc::new(container));
        // Its end may have come before it was in the list.
        self.reap().await;
        Ok(CreateTaskResponse {
            pid,
            ..Default::default()
        })
    }

    async fn do_delete(&self, request: DeleteRequest) -> Result<DeleteResponse> {
        let container = self.container(&request.id, &request.exec_id)?;
        let Some(exit) = container.exit() else {
            return Err(status(
                Code::FAILED_PRECONDITION,
                format!("container {} is running", request.id),
            ));
        };
        container.delete().await.map_err(failed)?;
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&request.id);
        Ok(DeleteResponse {
            pid: container.pid,
            exit_status: exit.status,
            exited_at: MessageField::some(exit.at.into()),
            ..Default::default()
        })
    }

    fn do_state(&self, request: &StateRequest) -> Result<StateResponse> {
        let container = self.container(&request.id, &request.exec_id)?;
        let mut response = StateResponse {
            id: container.id.clone(),
            bundle: container.bundle.display().to_string(),
            pid: container.pid,
            status: if container.started() {
                Status::RUNNING
            } else {
                Status::CREATED
            }
            .into(),
            stdin: container.stdin.clone(),
            stdout: container.stdout.clone(),
            stderr: container.stderr.clone(),
            ..Default::default()
        };
        if let Some(Exit { status, at }) = container.exit() {
            response.status = Status::STOPPED.into();
            response.exit_status = status;
            response.exited_at = MessageField::some(at.into());
        }
        Ok(response)
    }
}

#[async_trait]
impl Task for Pod {
    async fn create(&self, _: &TtrpcContext, request: CreateTaskRequest) -> Result<CreateTaskResponse> {
        self.timed("create", self.do_create(request)).await
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> Result<StartResponse> {
        self.timed("start", async {
            let container = self.container(&request.id, &request.exec_id)?;
            let begin = Instant::now();
            container.start().await.map_err(failed)?;
            self.monitor.agent_rpcs.observe("runc.start", begin.elapsed());
            Ok(StartResponse {
                pid: container.pid,
                ..Default::default()
            })
        })
        .await
    }

    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> Result<StateResponse> {
        self.timed("state", async { self.do_state(&request) }).await
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> Result<StatsResponse> {
        self.timed("stats", async {
            let lock = self.lock.clone().lock_owned().await;
            // A client that goes away does not end the wait.
            let waiting = tokio::spawn(wait_for_agent(self.monitor.agent.clone(), lock));
            let _lock = waiting.await.map_err(|e| failed(io::Error::other(e)))??;
            let container = self.container(&request.id, "")?;
            let stats = container.cgroup.stats().map_err(failed)?;
            Ok(StatsResponse {
                stats: MessageField::some(stats),
                ..Default::default()
            })
        })
        .await
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> Result<PidsResponse> {
        self.timed("pids", async {
            let pids = self.container(&request.id, "")?.cgroup.pids().map_err(failed)?;
            let processes = pids
                .into_iter()
                .map(|pid| ProcessInfo {
                    pid,
                    ..Default::default()
                })
                .collect();
            Ok(PidsResponse {
                processes,
                ..Default::default()
            })
        })
        .await
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> Result<WaitResponse> {
        self.timed("wait", async {
            let exit = self
                .container(&request.id, &request.exec_id)?
                .wait()
                .await
                .map_err(failed)?;
            let exited_at = MessageField::some(exit.at.into());
            Ok(WaitResponse {
                exit_status: exit.status,
                exited_at,
                ..Default::default()
            })
        })
        .await
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> Result<Empty> {
        self.timed("kill", async {
            let _lock = self.lock.lock().await;
            let container = self.container(&request.id, &request.exec_id)?;
            if container.exit().is_some() {
                return Err(status(
                    Code::NOT_FOUND,
                    "process already finished: not found".to_owned(),
                ));
            }
            container
                .kill(request.signal, request.all)
                .await
                .map_err(failed)?;
            Ok(Empty::new())
        })
        .await
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> Result<DeleteResponse> {
        self.timed("delete", self.do_delete(request)).await
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> Result<ConnectResponse> {
        self.timed("connect", async {
            let task_pid = self
                .container(&request.id, "")
                .map_or(0, |container| container.pid);
            Ok(ConnectResponse {
                shim_pid: process::id(),
                task_pid,
                ..Default::default()
            })
        })
        .await
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> Result<Empty> {
        self.container(&request.id, &request.exec_id)?.close_stdin();
        Ok(Empty::new())
    }

    async fn resize_pty(&self, _: &TtrpcContext, _: ResizePtyRequest) -> Result<Empty> {
        Ok(Empty::new())
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> Result<Empty> {
        // containerd calls this after the deletion of each container; others of the pod may be left.
        if self.containers().is_empty() {
            self.shutdown.notify_one();
        }
        Ok(Empty::new())
    }
}

/// Waits while the agent hangs, but not without end, and holds the lock meanwhile.
async fn wait_for_agent(agent: Option<Arc<Agent>>, lock: OwnedMutexGuard<()>) -> Result<OwnedMutexGuard<()>> {
    let begin = Instant::now();
    if agent.as_ref().is_some_and(|agent| agent.mode() == Mode::Slow) {
        tokio::time::sleep(SLOW).await;
    }
    while agent.as_ref().is_some_and(|agent| agent.mode() == Mode::Hangs) {
        if begin.elapsed() >= AGENT_TIMEOUT {
            return Err(status(
                Code::DEADLINE_EXCEEDED,
                "StatsContainerRequest timed out".to_owned(),
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(lock)
}

fn status(code: Code, message: String) -> Error {
    Error::RpcStatus(get_status(code, message))
}

pub fn failed(error: io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::Unsupported => Code::UNIMPLEMENTED,
        _ => Code::UNKNOWN,
    };
    status(code, error.to_string())
}
