//! A survey: lanes to shims, what is known of guests, and how many are asked at once.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::guest::{ConnectGuest, GuestSockets};
use crate::node::pace::{Answerer, Pace};
use crate::node::{Container, NetworkNamespace, Pod, Source, starting};
use crate::shim::address::{Address, Endpoint};
use crate::shim::{Connect, ShimError, ShimSockets};

use super::concurrency::ConcurrencyLimit;
use super::error::{AskError, NoControlSocket, NoGuest};
use super::guest::Guest;
use super::gvisor::{self, Sandboxes};
use super::kernel;
use super::lane::Lane;
use super::meter::{InducedCost, Meter, ShimMeter};
use super::paced::Paced;
use super::pids::{Hidden, HostPids};
use super::question::{Calls, Network, Origin, Question, Reply, ReplyStats, Via};
use super::terms::Terms;
use super::visit::Subject;

/// How long what is known of a guest is kept for the next time.
const GUEST_UNUSED: Duration = Duration::from_secs(600);

/// How long the shim of a container that may be starting is waited for. Others answer within a few milliseconds.
const STARTING_PATIENCE: Duration = Duration::from_millis(300);

/// How many shims that start processes to answer are asked at once.
const FORKING_AT_ONCE: usize = 2;

/// Asks shims, many at once, and no shim twice at a time: a pod's containers share their sandbox's shim, and
/// so its lane. Clones are the same survey.
#[derive(Clone)]
pub struct Survey {
    pub(super) terms: Terms,
    pub(super) concurrency: ConcurrencyLimit,
    pub(super) lanes: Arc<Mutex<HashMap<Address, Lane>>>,
    /// By the path of the sandbox's bundle.
    pub(super) guests: Arc<Mutex<HashMap<PathBuf, Arc<Guest>>>>,
    pub(super) gvisor: Sandboxes,
    paced: Paced,
    /// For shims that start processes to answer.
    forking: ConcurrencyLimit,
    meter: Option<Meter>,
}

impl Survey {
    /// A survey that waits `limit` for each answer, asks at most `concurrency` shims at once, and closes the connection
    /// to a shim when it has answered.
    pub fn new(limit: Duration, concurrency: usize) -> Self {
        Self::through(Arc::new(ShimSockets), limit, concurrency)
    }

    /// The same over other connections to shims than this machine's sockets.
    pub fn through(connect: Arc<dyn Connect>, limit: Duration, concurrency: usize) -> Self {
        Self {
            terms: Terms {
                limit,
                keep_connections: false,
                keep_below: RawFd::MAX,
                connect,
                guests: Arc::new(GuestSockets::default()),
                pids: HostPids::default(),
            },
            concurrency: ConcurrencyLimit::new(concurrency),
            lanes: Arc::default(),
            guests: Arc::default(),
            gvisor: Sandboxes::default(),
            paced: Paced::default(),
            forking: ConcurrencyLimit::new(FORKING_AT_ONCE),
            meter: None,
        }
    }

    /// Asks containers no more often than this.
    pub fn at_pace(mut self, pace: Pace) -> Self {
        self.paced.pace = pace;
        self
    }

    /// Measures what shims spend on answering.
    pub fn measuring(mut self) -> Self {
        self.meter = Some(Meter::default());
        self
    }

    /// What shims have spent on answering; `None` where that is not measured.
    pub fn induced_cost(&self) -> Option<InducedCost> {
        self.meter.as_ref().map(Meter::total)
    }

    /// Reaches guests by other connections than this machine's sockets.
    pub fn reaching_guests_through(mut self, connect: Arc<dyn ConnectGuest>) -> Self {
        self.terms.guests = connect;
        self
    }

    /// Keeps the connections to shims for the next questions.
    pub fn keeping_connections(mut self) -> Self {
        self.terms.keep_connections = true;
        self
    }

    /// Keeps none whose descriptor is this or above, so that there are descriptors left for other connections.
    pub fn keeping_below(mut self, descriptor: RawFd) -> Self {
        self.terms.keep_below = descriptor;
        self
    }

    /// Asks no more than this at once, those included that take long (see [`ConcurrencyLimit::with_at_most`]).
    pub fn with_at_most(mut self, all: usize) -> Self {
        self.concurrency = self.concurrency.with_at_most(all);
        self
    }

    /// Whether the pids that shims tell are those of processes here; `None` before a shim was asked. Where they are not,
    /// as in a pod without the host's pids, a task's state has the pid 0, and its network is not known.
    pub fn sees_pids(&self) -> Option<bool> {
        self.terms.pids.are_visible()
    }

    /// Whether this program may look at the processes of containers, in this pid namespace; `None` before it tried.
    pub fn may_look_at_processes(&self) -> Option<bool> {
        self.terms.pids.are_allowed()
    }

    /// Why the network of a task cannot be seen from here. `None` where it can, also where the task has none of its own.
    pub fn hides_network(&self, pid: u32) -> Option<Hidden> {
        match self.sees_pids() {
            Some(false) => Some(Hidden::Pids),
            _ => (pid != 0 && NetworkNamespace::is_forbidden(pid)).then_some(Hidden::Forbidden),
        }
    }

    /// Asks about a container.
    pub async fn ask<Q: Question>(&self, container: &Container, question: Q) -> Result<Q::Answer, AskError> {
        let source = container
            .source
            .as_ref()
            .map_err(|why| AskError::NoAddress(why.clone()))?;
        let calls = question.calls();
        if let Some(recalled) = self.paced.recall(container, calls) {
            return Q::answer(recalled?);
        }
        let asked = Instant::now();
        let (answerer, reply) = self
            .ask_source(container, source, calls, question.network())
            .await;
        let reply = match reply {
            Ok(reply) => Ok(self.with_network(reply, question.network()).await),
            Err(error) => Err(error),
        };
        Q::answer(self.paced.keep(container, answerer, calls, asked, reply)?)
    }

    /// Asks whoever answers for a container, and says who that was.
    async fn ask_source(
        &self,
        container: &Container,
        source: &Source,
        calls: Calls,
        network: Network,
    ) -> (Answerer, Result<Reply, AskError>) {
        match source {
            Source::Task(endpoint) if container.answerer() == Answerer::GvisorShim => {
                // On the heap: most containers are others', and their questions need no room for it.
                Box::pin(self.ask_gvisor(container, endpoint, calls, network)).await
            }
            Source::Task(endpoint) => {
                let subject = Subject::Task(container.id().to_string());
                let reply = self.ask_shim(container, endpoint, subject, calls).await;
                (container.answerer(), reply)
            }
            Source::Sandbox(endpoint) => {
                let subject = Subject::Sandbox {
                    id: container.id().to_string(),
                    has_no_statistics: container.has_no_statistics(),
                };
                let reply = self.ask_shim(container, endpoint, subject, calls).await;
                if let Ok(reply) = &reply
                    && matches!(reply.stats, ReplyStats::Unsupported)
                {
                    container.note_no_statistics();
                }
                (container.answerer(), reply)
            }
            Source::Cgroup => (Answerer::Kernel, kernel::ask(container, calls)),
        }
    }

    /// Asks a gVisor sandbox itself, and its shim only where that cannot be.
    async fn ask_gvisor(
        &self,
        container: &Container,
        endpoint: &Endpoint,
        calls: Calls,
        network: Network,
    ) -> (Answerer, Result<Reply, AskError>) {
        let why = match calls {
            Calls::StatsOfRunning(Via::Guest) => {
                let (why, state) = (Arc::new(NoGuest::NotKata), None);
                return (Answerer::GvisorSandbox, Err(AskError::NoGuest { why, state }));
            }
            Calls::StatsOfRunning(Via::Shim) => Arc::new(NoControlSocket::Unwanted),
            _ => {
                let asking = pin!(self.gvisor.ask(container, calls, network, &self.terms));
                match self.concurrency.run(asking).await {
                    Ok(gvisor::Answer::Known(reply)) => return (Answerer::GvisorSandbox, Ok(reply)),
                    Ok(gvisor::Answer::AskShim(why)) => why,
                    Err(error) => return (Answerer::GvisorSandbox, Err(error)),
                }
            }
        };
        let subject = Subject::Task(container.id().to_string());
        let asking = pin!(self.ask_shim(container, endpoint, subject, calls));
        let mut reply = self.forking.run(asking).await;
        if let Ok(reply) = &mut reply
            && let ReplyStats::Taken(_, _, origin) = &mut reply.stats
        {
            *origin = Origin::GvisorShim(why);
        }
        (Answerer::GvisorShim, reply)
    }

    /// Adds the network of a container whose answer has none.
    async fn with_network(&self, mut reply: Reply, wanted: Network) -> Reply {
        if let ReplyStats::Taken(stats, _, origin) = &mut reply.stats
            && stats.network.is_none()
        {
            let wanted = match (origin, wanted) {
                // Its sockets are in the sandbox, and the namespace has none of them.
                (Origin::ControlSocket(_) | Origin::GvisorShim(_), Network::InterfacesAndSockets) => {
                    Network::Interfaces
                }
                (_, wanted) => wanted,
            };
            let pid = reply.state.pid;
            let found = super::network::look_up(pid, wanted, self.terms.limit).await;
            if wanted != Network::None && pid != 0 {
                let is_allowed = found.is_some() || !NetworkNamespace::is_forbidden(pid);
                self.terms.pids.note_look(is_allowed);
            }
            if let Some(found) = found {
                stats.network = Some(found.interfaces);
                stats.sockets = found.sockets;
            }
        }
        reply
    }

    /// Asks a shim. One that starts a virtual machine may not answer before that is up, which takes seconds: such a
    /// container is said to be starting once an answer would have been there.
    pub(super) async fn ask_shim(
        &self,
        container: &Container,
        endpoint: &Endpoint,
        subject: Subject,
        calls: Calls,
    ) -> Result<Reply, AskError> {
        let lane = self.lane(endpoint);
        let meter = self.shim_meter(container, &endpoint.address);
        let guest = match (&subject, calls) {
            // A sandbox that its shim manages is no container in the guest.
            (Subject::Task(_), Calls::StatsOfRunning(Via::Both | Via::Guest)) | (_, Calls::StateAndGuest) => {
                self.guest(container)
            }
            _ => None,
        };
        let asking = pin!(lane.ask(subject, calls, guest, meter));
        let mut asking = pin!(self.concurrency.run(asking));
        let starting = || AskError::Starting {
            address: endpoint.address.clone(),
        };
        if let Ok(reply) = tokio::time::timeout(STARTING_PATIENCE, &mut asking).await {
            return reply.map_err(|error| match error {
                // Kata's Rust shim says that it runs, and has no statistics yet.
                AskError::Shim(ShimError::Rpc { .. }) | AskError::Unanswered { .. }
                    if starting::is_starting(container) =>
                {
                    starting()
                }
                error => error,
            });
        }
        if starting::is_starting(container) {
            return Err(starting());
        }
        asking.await
    }

    /// Measures what a shim spends, where that is wanted.
    pub(super) fn shim_meter(&self, container: &Container, address: &Address) -> Option<ShimMeter> {
        let meter = self.meter.as_ref()?;
        Some(meter.of(container, address))
    }

    /// The way to a shim. It is the same for as long as something is in flight on it, whoever asks.
    pub(super) fn lane(&self, endpoint: &Endpoint) -> Lane {
        self.lanes()
            .entry(endpoint.address.clone())
            .or_insert_with(|| Lane::new(endpoint.clone(), self.terms.clone()))
            .clone()
    }

    /// The guest that a container runs in; `None` where it is not Kata's.
    pub(super) fn guest(&self, container: &Container) -> Option<Arc<Guest>> {
        if container.answerer() == Answerer::RuncShim {
            return None;
        }
        let key = container.sandbox_bundle().path;
        match self.known_guest(&key) {
            Some(guest) => Some(guest),
            None => Some(self.remember_guest(key, Guest::of(container)?)),
        }
    }

    /// The guest of a pod; `None` where it is not Kata's.
    pub(super) fn guest_of_pod(&self, pod: &Pod) -> Option<Arc<Guest>> {
        if let Some(guest) = self.known_guest(&pod.key) {
            return Some(guest);
        }
        match pod.first() {
            // Where its monitor listens was not looked for.
            Some(container) if pod.monitor.is_empty() => self.guest(container),
            _ => Some(self.remember_guest(pod.key.clone(), Guest::of_pod(pod))),
        }
    }

    fn known_guest(&self, key: &Path) -> Option<Arc<Guest>> {
        let guest = self.guests().get(key)?.clone();
        guest.touch();
        Some(guest)
    }

    fn remember_guest(&self, key: PathBuf, guest: Guest) -> Arc<Guest> {
        let guest = Arc::new(guest);
        // The monitor of a sandbox that is starting may be found the next time.
        if guest.has_monitor() {
            self.guests().insert(key, guest.clone());
        }
        guest
    }

    /// Closes the connections to a container's shim and guest where nothing is in flight.
    pub fn hang_up(&self, container: &Container) {
        if let Some(endpoint) = container.endpoint() {
            self.lane(endpoint).hang_up();
        }
        self.gvisor.hang_up(container);
        if let Some(guest) = self.guests().get(&container.sandbox_bundle().path) {
            guest.hang_up();
        }
    }

    /// Forgets the ways to shims that are no longer wanted, except those on which something is in flight.
    pub fn keep(&self, wanted: impl Fn(&Address) -> bool) {
        self.lanes()
            .retain(|address, lane| wanted(address) || !lane.is_idle());
        self.guests().retain(|_, guest| guest.unused() < GUEST_UNUSED);
        self.gvisor.forget_unused();
        self.paced.forget_old();
        if let Some(meter) = &self.meter {
            meter.keep(wanted);
        }
    }

    /// Forgets what is idle: connections are closed, and only lanes on which a call is in flight, or that rest
    /// from one, are kept for the next time. Where guests' agents listen is remembered.
    pub fn rest(&self) {
        let mut lanes = self.lanes();
        lanes.retain(|_, lane| !lane.is_idle());
        lanes.values().for_each(Lane::hang_up);
        self.gvisor.rest();
        self.paced.forget_old();
        let mut guests = self.guests();
        guests.retain(|_, guest| guest.unused() < GUEST_UNUSED);
        guests.values().for_each(|guest| guest.hang_up());
    }

    fn guests(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<Guest>>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Address, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
