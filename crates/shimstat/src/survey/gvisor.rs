//! Asking gVisor's sandboxes on their control sockets: their shims would start two processes for each sample.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::ended::ended;
use super::error::{AskError, NoControlSocket};
use super::lane::Lane;
use super::question::{Calls, Network, Origin, Reply, ReplyStats};
use super::terms::Terms;
use crate::node::Container;
use crate::node::gvisor::{self, GvisorSandbox, GvisorState, Status};
use crate::shim::address::{Address, Endpoint, Protocol, TaskVersion};
use crate::shim::runsc::{ControlConnection, RuntimeState};
use crate::shim::task::{TaskState, TaskStatus};
use crate::shim::{Connection, ShimError};
use crate::stats::GvisorEvent;

/// How long a sandbox that is not asked is remembered.
const UNUSED: Duration = Duration::from_secs(60);

/// The sandboxes that were asked, by the path of the sandbox's bundle. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Sandboxes(Arc<Mutex<HashMap<PathBuf, Arc<Control>>>>);

/// The way to one sandbox's control socket.
struct Control {
    address: Address,
    lane: Lane,
    /// Taken by whoever has the turn on the lane.
    connection: AsyncMutex<Option<ControlConnection<Connection>>>,
    used: Mutex<Instant>,
}

/// What came of it.
pub(super) enum Answer {
    Known(Reply),
    /// The shim has to be asked. Says why.
    AskShim(Arc<NoControlSocket>),
}

/// What a sandbox said of a container.
enum GvisorAnswer {
    Event(Box<GvisorEvent>),
    State(RuntimeState),
    /// It has no statistics before it is started.
    NotStarted(ShimError),
}

impl Sandboxes {
    /// Answers about a container: what its state file and its sandbox's process say, and the control socket for what
    /// they do not.
    pub async fn ask(
        &self,
        container: &Container,
        calls: Calls,
        network: Network,
        terms: &Terms,
    ) -> Result<Answer, AskError> {
        let no_socket = |why| Ok(Answer::AskShim(Arc::new(why)));
        let on_disk = match read(container) {
            Ok(Some(on_disk)) => on_disk,
            Ok(None) => return no_socket(NoControlSocket::NoState),
            Err(error) => return no_socket(error),
        };
        let status = on_disk.status();
        let sandbox = match on_disk.sandbox {
            Some(ref sandbox) if status != Some(Status::Stopped) => sandbox,
            _ => return Ok(Answer::Known(stopped(container))),
        };
        let state = |status| TaskState {
            status,
            pid: sandbox
                .pid
                .filter(|_| terms.pids.are_visible() != Some(false))
                .unwrap_or(0),
            exit_status: None,
            exited_at: None,
        };
        let known = status.and_then(task_status);
        let wants_statistics = calls.wants_statistics();
        if !wants_statistics && let Some(known) = known {
            return Ok(Answer::Known(without_statistics(state(known))));
        }
        let address = match sandbox.control_socket() {
            Ok(address) => address,
            Err(error) => return no_socket(error.into()),
        };
        let control = self.control(container.sandbox_bundle().path, address, terms);
        let told = control
            .clone()
            .ask(container.id().to_string(), wants_statistics, terms.clone())
            .await?;
        Ok(Answer::Known(match told {
            Ok(GvisorAnswer::Event(event)) => {
                let state = state(known.unwrap_or(TaskStatus::Running));
                statistics(
                    container,
                    sandbox,
                    &event,
                    state,
                    network,
                    control.address.clone(),
                )
            }
            Ok(GvisorAnswer::State(RuntimeState::Running)) => without_statistics(state(TaskStatus::Running)),
            Ok(GvisorAnswer::State(RuntimeState::Creating)) => without_statistics(state(TaskStatus::Created)),
            Ok(GvisorAnswer::State(RuntimeState::Stopped)) => stopped(container),
            Ok(GvisorAnswer::NotStarted(error)) => return Err(AskError::Shim(error)),
            // It may have ended meanwhile.
            Err(error) => match on_disk.status() {
                Some(Status::Stopped) => stopped(container),
                _ => return no_socket(error.into()),
            },
        }))
    }

    /// The way to a sandbox. It is the same for as long as something is in flight on it.
    fn control(&self, key: PathBuf, address: Address, terms: &Terms) -> Arc<Control> {
        let mut known = self.known();
        if let Some(control) = known.get(&key)
            && control.address == address
        {
            control.touch();
            return control.clone();
        }
        let endpoint = Endpoint {
            address: address.clone(),
            // No task is asked about there, so these do not matter.
            protocol: Protocol::Ttrpc,
            version: TaskVersion::V2,
        };
        let control = Arc::new(Control {
            address,
            lane: Lane::new(endpoint, terms.clone()),
            connection: AsyncMutex::default(),
            used: Mutex::new(Instant::now()),
        });
        known.insert(key, control.clone());
        control
    }

    /// Closes the connection to a container's sandbox where nothing is in flight.
    pub fn hang_up(&self, container: &Container) {
        if let Some(control) = self.known().get(&container.sandbox_bundle().path) {
            control.hang_up();
        }
    }

    /// Forgets sandboxes that were not asked for a while.
    pub fn forget_unused(&self) {
        self.known()
            .retain(|_, control| control.unused() < UNUSED || !control.lane.is_idle());
    }

    /// Closes all connections on which nothing is in flight.
    pub fn rest(&self) {
        self.forget_unused();
        self.known().values().for_each(|control| control.hang_up());
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<Control>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Control {
    /// Asks about a container, when its turn comes.
    async fn ask(
        self: Arc<Self>,
        id: String,
        wants_statistics: bool,
        terms: Terms,
    ) -> Result<Result<GvisorAnswer, ShimError>, AskError> {
        let (lane, name) = match wants_statistics {
            true => (self.lane.clone(), "Event"),
            false => (self.lane.clone(), "ContainerRuntimeState"),
        };
        lane.call(
            name,
            async move { self.call(&id, wants_statistics, &terms).await },
        )
        .await
    }

    async fn call(&self, id: &str, wants_statistics: bool, terms: &Terms) -> Result<GvisorAnswer, ShimError> {
        let mut kept = self.connection.lock().await;
        loop {
            let (mut connection, is_old) = match kept.take() {
                Some(connection) => (connection, true),
                None => {
                    let stream = terms.connect.connect(&self.address).await?;
                    terms.pids.note(stream.peer_pid());
                    (ControlConnection::new(stream, self.address.clone()), false)
                }
            };
            let told = tell(&mut connection, id, wants_statistics).await;
            // The sandbox may have been restored, or has closed a connection that was idle.
            if is_old && matches!(told, Err(ShimError::Closed { .. })) {
                continue;
            }
            if terms.keep_connections && connection.is_usable() {
                *kept = Some(connection);
            }
            return told;
        }
    }

    fn hang_up(&self) {
        if let Ok(mut connection) = self.connection.try_lock() {
            *connection = None;
        }
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn unused(&self) -> Duration {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// One call for most answers: what has statistics and a task is there, and the state file has said the rest.
async fn tell(
    connection: &mut ControlConnection<Connection>,
    id: &str,
    wants_statistics: bool,
) -> Result<GvisorAnswer, ShimError> {
    if !wants_statistics {
        return connection.runtime_state(id).await.map(GvisorAnswer::State);
    }
    let event = match connection.event(id).await {
        Ok(event) if event.tasks() != Some(0) => return Ok(GvisorAnswer::Event(Box::new(event))),
        other => other,
    };
    let state = match &event {
        Ok(_) | Err(ShimError::Remote { .. }) => connection.runtime_state(id).await,
        Err(_) => return event.map(|event| GvisorAnswer::Event(Box::new(event))),
    };
    match (event, state) {
        (_, Ok(RuntimeState::Stopped)) => Ok(GvisorAnswer::State(RuntimeState::Stopped)),
        (Err(error), Ok(RuntimeState::Creating)) => Ok(GvisorAnswer::NotStarted(error)),
        // An error says here that it does not know the method, and nothing of the container.
        (event, Ok(_) | Err(ShimError::Remote { .. })) => {
            event.map(|event| GvisorAnswer::Event(Box::new(event)))
        }
        (_, Err(error)) => Err(error),
    }
}

fn read(container: &Container) -> Result<Option<GvisorState>, NoControlSocket> {
    let root = gvisor::root(&container.bundle)?;
    let sandbox = container.sandbox_id().unwrap_or(container.id());
    Ok(GvisorState::read(&root, container.id(), sandbox)?)
}

fn task_status(status: Status) -> Option<TaskStatus> {
    Some(match status {
        Status::Creating | Status::Created => TaskStatus::Created,
        Status::Running => TaskStatus::Running,
        Status::Paused => TaskStatus::Paused,
        Status::Stopped => TaskStatus::Stopped,
        Status::Unknown => return None,
    })
}

fn stopped(container: &Container) -> Reply {
    without_statistics(ended(container))
}

fn without_statistics(state: TaskState) -> Reply {
    Reply {
        state,
        stats: ReplyStats::None,
    }
}

fn statistics(
    container: &Container,
    sandbox: &GvisorSandbox,
    event: &GvisorEvent,
    state: TaskState,
    network: Network,
    socket: Address,
) -> Reply {
    let taken = Instant::now().into_std();
    // A cgroup that cannot be read is as good as none: the sandbox's own count has to do.
    let cpu = sandbox
        .cgroup
        .as_ref()
        .and_then(|cgroup| cgroup.cpu_usage().ok()?);
    let mut stats = event.stats(container.names().container.as_deref(), cpu);
    // Every container's reply has the network of the whole pod. On the host's stack it is that of a network namespace,
    // which is looked at like any other: it may be the host's.
    if network == Network::None || sandbox.host_network_stack {
        stats.network = None;
    }
    Reply {
        state,
        stats: ReplyStats::Taken(Box::new(stats), taken, Origin::ControlSocket(socket)),
    }
}
