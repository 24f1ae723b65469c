//! The guest of one Kata sandbox: whether its agent lives, and what the agent answers beside the shim.
//!
//! A shim that asks a hung guest makes everybody else wait: Kata's Go shim holds its lock for a minute. So the agent is
//! asked first, over a connection of our own. Whoever uses this has the turn on the shim's lane.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use super::error::{NoGuest, Silence};
use super::facts::{AgentFacts, GuestFacts};
use super::monitor_call::{MonitorCall, MonitorQuestion};
use super::terms::{BUSY, Terms, step};
use crate::guest::{AgentConnection, GuestAddress, GuestError, GuestStats};
use crate::node::{Container, GuestVolume, Id, Pod, monitor, noted_agent};
use crate::shim::address::Address;

/// How long a guest's agent is waited for when it is asked whether it lives. It takes 2 ms under software emulation.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long where it lived the last time: on a machine that is busy beyond its processors a guest may not run for as long as
/// a second, and would be taken for hung.
const PATIENCE_WITH_THE_LIVING: Duration = Duration::from_secs(2);

/// How long the answer to that counts for whoever asks about the same sandbox.
const FRESH: Duration = Duration::from_secs(1);

/// How long after a monitor did not tell where the agent listens it is asked again.
const RETRY: Duration = Duration::from_secs(10);

/// The longest answer to `GET /agent-url`, in bytes. A path has 108 at most.
const LONGEST_URL: usize = 4096;

/// What is known about a sandbox's guest.
pub(super) struct Guest {
    sandbox: String,
    monitor: Vec<Address>,
    known: AsyncMutex<Known>,
    used: Mutex<Instant>,
}

#[derive(Default)]
struct Known {
    /// Where the agent listens.
    agent: Option<GuestAddress>,
    connection: Option<AgentConnection>,
    checked: Option<(Instant, Liveness)>,
    /// Whether it has ever told a container's statistics.
    told: bool,
    /// What it has told of itself.
    about: Option<Arc<AgentFacts>>,
}

/// Whether a guest lives.
#[derive(Debug, Clone)]
pub(super) enum Liveness {
    Alive(GuestAddress),
    Hung(Silence),
    /// It cannot be asked.
    Unknown(Arc<NoGuest>),
}

/// What came of asking a guest for something.
pub(super) enum Told<T> {
    Answer(GuestAddress, T),
    Hung(Silence),
    Nothing(Arc<NoGuest>),
}

impl Liveness {
    /// How long it is not asked again.
    fn lasts(&self) -> Duration {
        match self {
            Self::Unknown(why) if why.is_lasting() => RETRY,
            _ => FRESH,
        }
    }
}

impl Guest {
    /// The guest of the sandbox that a container is or runs in; `None` where it is not Kata's.
    pub fn of(container: &Container) -> Option<Self> {
        if container.has_runcs_shim() {
            return None;
        }
        let bundle = container.sandbox_bundle();
        // Paths are made from it.
        Id::parse(&bundle.id).ok()?;
        let monitor = monitor::known(&bundle.id, Some(&bundle)).unwrap_or_default();
        let is_katas = || container.runtime().is_some_and(|runtime| runtime.is_kata());
        (!monitor.is_empty() || is_katas()).then(|| Self::new(bundle.id, monitor))
    }

    /// The guest of a pod that has a monitor.
    pub fn of_pod(pod: &Pod) -> Self {
        Self::new(pod.id.clone(), pod.monitor.clone())
    }

    fn new(sandbox: String, monitor: Vec<Address>) -> Self {
        Self {
            sandbox,
            monitor,
            known: AsyncMutex::default(),
            used: Mutex::new(Instant::now()),
        }
    }

    /// Whether something tells where its sandbox's monitor listens.
    pub fn has_monitor(&self) -> bool {
        !self.monitor.is_empty()
    }

    /// Whether it lives. It is asked at most once a second.
    pub async fn liveness(&self, terms: &Terms) -> Liveness {
        self.check(&mut *self.known.lock().await, terms).await
    }

    /// A container's statistics, where the guest lives.
    pub async fn stats(&self, container: &str, terms: &Terms) -> Told<Box<GuestStats>> {
        let known = &mut *self.known.lock().await;
        let told = self
            .ask(known, terms, async |agent, limit| {
                agent.stats(container, limit).await
            })
            .await;
        known.told |= matches!(told, Told::Answer(..));
        told
    }

    /// The metrics of the agent and the guest, where it lives.
    pub async fn metrics(&self, terms: &Terms) -> Told<String> {
        let known = &mut *self.known.lock().await;
        self.ask(known, terms, async |agent, limit| agent.metrics(limit).await)
            .await
    }

    /// What the agent tells of itself, its guest and these volumes, where it lives; its metrics where they are wanted.
    pub async fn facts(&self, volumes: Vec<GuestVolume>, metrics: bool, terms: &Terms) -> Told<GuestFacts> {
        let known = &mut *self.known.lock().await;
        let remembered = known.about.clone();
        let told = self
            .ask(known, terms, async |agent, limit| {
                GuestFacts::ask(agent, remembered, volumes, metrics, limit).await
            })
            .await;
        if let Told::Answer(_, facts) = &told {
            known.about = Some(facts.agent.clone());
        }
        told
    }

    /// Whether it has ever told a container's statistics.
    pub async fn has_told(&self) -> bool {
        self.known.lock().await.told
    }

    /// Closes the connection to the agent, where nothing is in flight.
    pub fn hang_up(&self) {
        if let Ok(mut known) = self.known.try_lock() {
            known.connection = None;
        }
    }

    /// Notes that it is wanted.
    pub fn touch(&self) {
        *self.used() = Instant::now();
    }

    /// For how long nobody wanted it.
    pub fn unused(&self) -> Duration {
        self.used().elapsed()
    }

    fn used(&self) -> MutexGuard<'_, Instant> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn check(&self, known: &mut Known, terms: &Terms) -> Liveness {
        if let Some((at, liveness)) = &known.checked
            && at.elapsed() < liveness.lasts()
        {
            return liveness.clone();
        }
        let liveness = self.check_now(known, terms).await;
        known.checked = Some((Instant::now(), liveness.clone()));
        liveness
    }

    async fn check_now(&self, known: &mut Known, terms: &Terms) -> Liveness {
        let patience = match known.checked {
            Some((_, Liveness::Alive(_))) => PATIENCE_WITH_THE_LIVING,
            _ => PATIENCE,
        };
        let limit = patience.min(terms.limit);
        let address = known.agent.clone().or_else(|| self.noted_address());
        if let Some(address) = address {
            match self.check_at(known, address, limit, terms).await {
                // Another sandbox may have had the same id: the monitor knows.
                Liveness::Unknown(_) => {}
                liveness => return liveness,
            }
        }
        match self.agent_url(limit, terms).await {
            Ok(address) => self.check_at(known, address, limit, terms).await,
            Err(why) => Liveness::Unknown(Arc::new(why)),
        }
    }

    /// Where the shim has noted that the agent listens: reading a file costs nobody anything.
    fn noted_address(&self) -> Option<GuestAddress> {
        GuestAddress::parse(&noted_agent(&self.sandbox)?).ok()
    }

    async fn check_at(
        &self,
        known: &mut Known,
        address: GuestAddress,
        limit: Duration,
        terms: &Terms,
    ) -> Liveness {
        let kept = known.connection.take();
        let begun = Instant::now();
        let checking = self.healthy(kept, &address, limit, terms);
        let liveness = match within(limit, checking).await {
            Some(Ok(connection)) => {
                known.connection = may_be_kept(connection, terms);
                Liveness::Alive(address.clone())
            }
            Some(Err(error)) if !error.is_hung() => {
                known.agent = None;
                known.about = None;
                return Liveness::Unknown(Arc::new(NoGuest::Agent(error)));
            }
            _ => Liveness::Hung(Silence {
                address: address.clone(),
                waited: begun.elapsed(),
            }),
        };
        known.agent = Some(address);
        liveness
    }

    /// A connection to an agent that has answered over it. An answer that refuses is one.
    async fn healthy(
        &self,
        kept: Option<AgentConnection>,
        address: &GuestAddress,
        limit: Duration,
        terms: &Terms,
    ) -> Result<AgentConnection, GuestError> {
        if let Some(mut connection) = kept {
            match connection.check(limit).await {
                // The agent has closed it meanwhile: a new one tells what is the matter.
                Err(error) if !error.is_answer() => {}
                _ => return Ok(connection),
            }
        }
        let mut connection = AgentConnection::connect(terms.guests.as_ref(), address, &self.sandbox).await?;
        match connection.check(limit).await {
            Err(error) if !error.is_answer() => Err(error),
            _ => Ok(connection),
        }
    }

    async fn agent_url(&self, limit: Duration, terms: &Terms) -> Result<GuestAddress, NoGuest> {
        if self.monitor.is_empty() {
            return Err(NoGuest::NoMonitor);
        }
        let call = MonitorCall {
            connect: terms.connect.clone(),
            limit,
            sandbox: self.sandbox.clone(),
            addresses: self.monitor.clone(),
            question: MonitorQuestion::AgentUrl,
            most: LONGEST_URL,
        };
        let page = match within(limit, call.run()).await {
            Some(Ok(page)) => page,
            Some(Err(error)) => return Err(NoGuest::Monitor(Box::new(error))),
            None => return Err(NoGuest::SilentMonitor { limit }),
        };
        GuestAddress::parse(&String::from_utf8_lossy(&page.body)).map_err(|source| NoGuest::Address {
            monitor: page.address,
            source,
        })
    }

    /// Asks for something, where the guest lives.
    async fn ask<T>(
        &self,
        known: &mut Known,
        terms: &Terms,
        question: impl AsyncFnOnce(&mut AgentConnection, Duration) -> Result<T, GuestError>,
    ) -> Told<T> {
        let address = match self.check(known, terms).await {
            Liveness::Alive(address) => address,
            Liveness::Hung(silence) => return Told::Hung(silence),
            Liveness::Unknown(why) => return Told::Nothing(why),
        };
        let limit = terms.limit;
        let begun = Instant::now();
        let mut connection = None;
        let asking = async {
            let agent = match known.connection.take() {
                Some(kept) => connection.insert(kept),
                None => connection
                    .insert(AgentConnection::connect(terms.guests.as_ref(), &address, &self.sandbox).await?),
            };
            question(agent, limit).await
        };
        match within(limit, asking).await {
            Some(Ok(answer)) => {
                known.connection = connection.and_then(|it| may_be_kept(it, terms));
                Told::Answer(address, answer)
            }
            Some(Err(error)) if !error.is_hung() => {
                if error.is_answer() {
                    known.connection = connection.and_then(|it| may_be_kept(it, terms));
                }
                Told::Nothing(Arc::new(NoGuest::Agent(error)))
            }
            // The shim would wait for it as well.
            _ => {
                let silence = Silence {
                    address,
                    waited: begun.elapsed(),
                };
                known.checked = Some((Instant::now(), Liveness::Hung(silence.clone())));
                Told::Hung(silence)
            }
        }
    }
}

/// The connection, unless its descriptor is to be left to others.
fn may_be_kept(connection: AgentConnection, terms: &Terms) -> Option<AgentConnection> {
    terms.may_keep(connection.descriptor()).then_some(connection)
}

/// Waits so long for something, and longer by the time for which this program could not have listened, at most twice as
/// long in all.
async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(work);
    let mut deadline = Instant::now() + limit;
    let mut left = limit;
    loop {
        let due = match step(&mut work, deadline, limit).await {
            Ok(value) => return Some(value),
            Err(due) => due,
        };
        let now = Instant::now();
        let late = now.saturating_duration_since(due);
        if late > BUSY {
            let more = late.min(left);
            left -= more;
            deadline = deadline.max(now) + more;
        }
        if now >= deadline {
            return None;
        }
    }
}

#[cfg(test)]
mod tests;
