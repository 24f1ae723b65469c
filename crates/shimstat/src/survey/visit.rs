//! One turn on a lane: the calls about one task or sandbox, in the order that does no harm.

use std::sync::Arc;
use std::time::Duration;

use protobuf::well_known_types::any::Any;
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::time::Instant;

use super::error::{AskError, NoGuest, NotRunning};
use super::guest::{Guest, Liveness, Told};
use super::lane::Lane;
use super::meter::ShimMeter;
use super::question::{Calls, Origin, Reply, ReplyStats, Via};
use crate::guest::{GuestStats, merge};
use crate::shim::ShimError;
use crate::shim::task::{TaskConnection, TaskState, TaskStatus};
use crate::stats::{self, Stats};

/// runc's shim notices within milliseconds that a container's first process has ended.
const NOTICING: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(100),
];

impl Lane {
    /// Asks about a task or a sandbox, and the guest that it runs in, if any. The calls are made in a task of their own, so
    /// that they are waited for to their end even where the asker gives up: when one call has taken longer than the limit.
    pub async fn ask(
        &self,
        subject: Subject,
        calls: Calls,
        guest: Option<Arc<Guest>>,
        meter: Option<ShimMeter>,
    ) -> Result<Reply, AskError> {
        let kept = self.turn().await?;
        let (asked, answered) = oneshot::channel();
        let visit = Visit {
            lane: self.clone(),
            kept,
            subject,
            guest,
            meter,
            asked,
        };
        tokio::spawn(visit.make(calls));
        self.wait(answered).await?
    }
}

/// What a shim is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// A task of this id.
    Task(String),
    /// The sandbox of this id, which the shim manages.
    Sandbox {
        id: String,
        /// Whether it is known to have no statistics.
        has_no_statistics: bool,
    },
}

/// One turn on the lane: the calls about one task.
struct Visit {
    lane: Lane,
    /// The lane's connection from earlier; put back where it can be used again.
    kept: OwnedMutexGuard<Option<TaskConnection>>,
    subject: Subject,
    guest: Option<Arc<Guest>>,
    meter: Option<ShimMeter>,
    asked: oneshot::Sender<Result<Reply, AskError>>,
}

impl Subject {
    fn id(&self) -> &str {
        match self {
            Self::Task(id) | Self::Sandbox { id, .. } => id,
        }
    }

    fn has_no_statistics(&self) -> bool {
        matches!(
            self,
            Self::Sandbox {
                has_no_statistics: true,
                ..
            }
        )
    }
}

impl Visit {
    async fn make(mut self, calls: Calls) {
        let running = self.meter.as_ref().map(ShimMeter::start);
        let reply = self.calls(calls).await;
        self.lane.end();
        let is_gone = matches!(&reply, Err(AskError::NotRunning(NotRunning::Gone(_))));
        if let (Some(meter), Some(running)) = (&self.meter, running)
            && !is_gone
        {
            meter.stop(running);
        }
        let terms = &self.lane.terms;
        let is_kept = |kept: &TaskConnection| terms.keep_connections && terms.may_keep(kept.descriptor());
        self.kept.take_if(|kept| !is_kept(kept));
        // Free before the answer is out: whoever hears it finds the lane free.
        drop(self.kept);
        let _ = self.asked.send(reply);
    }

    async fn calls(&mut self, calls: Calls) -> Result<Reply, AskError> {
        let (mut connection, state) = self.first_state().await?;
        let wants_stats = match calls {
            Calls::StateAlone | Calls::StateAndGuest => false,
            Calls::StatsOfRunning(_) => state.status != TaskStatus::Stopped,
            Calls::StatsOfAny => true,
        };
        if calls == Calls::StateAndGuest
            && state.status != TaskStatus::Stopped
            && let Some(guest) = &self.guest
        {
            // The guest has its own time.
            self.lane.end();
            // On the heap, as below: most containers have no guest, and their questions need no room for it.
            if let Liveness::Hung(silence) = Box::pin(guest.liveness(&self.lane.terms)).await {
                *self.kept = Some(connection);
                return Err(silence.error(Some(state)));
            }
        }
        if !wants_stats || self.subject.has_no_statistics() {
            *self.kept = Some(connection);
            let stats = match wants_stats {
                true => ReplyStats::Unsupported,
                false => ReplyStats::None,
            };
            return Ok(Reply { state, stats });
        }
        // After an answer to State that was late, a Stats might hold up everyone else.
        if self.lane.is_late().await || self.asked.is_closed() {
            *self.kept = Some(connection);
            return Err(self.lane.unanswered());
        }
        // The guest has its own time.
        self.lane.end();
        let via = match calls {
            Calls::StatsOfRunning(via) => via,
            Calls::StateAlone | Calls::StateAndGuest | Calls::StatsOfAny => Via::Shim,
        };
        let told = match &self.guest {
            Some(guest) => Box::pin(guest.stats(self.subject.id(), &self.lane.terms)).await,
            None => Told::Nothing(Arc::new(NoGuest::NotKata)),
        };
        let told = match (told, via) {
            (Told::Hung(silence), _) => {
                *self.kept = Some(connection);
                return Err(silence.error(Some(state)));
            }
            (Told::Answer(agent, guest), Via::Guest) => {
                *self.kept = Some(connection);
                let taken = Instant::now().into_std();
                return Ok(Reply {
                    state,
                    stats: ReplyStats::Taken(Box::new(guest.stats), taken, Origin::Guest { agent }),
                });
            }
            (Told::Nothing(why), Via::Guest) => {
                *self.kept = Some(connection);
                let state = Some(state);
                return Err(AskError::NoGuest { why, state });
            }
            (told, Via::Both | Via::Shim) => told,
        };
        if self.asked.is_closed() {
            *self.kept = Some(connection);
            return Err(self.lane.unanswered());
        }
        let reply = match self.stats(&mut connection).await {
            Ok(reply) => reply,
            Err(ShimError::Rpc { .. }) if self.lane.rests() => return Err(self.lane.unanswered()),
            Err(error @ ShimError::Rpc { .. }) if !error.is_deadline() => {
                // The task may have stopped between the two calls; if not, the error is what it says.
                return match self
                    .state(&mut connection)
                    .await
                    .map_err(|e| self.state_failed(e))?
                {
                    state if state.status == TaskStatus::Stopped => Ok(Reply {
                        state,
                        stats: ReplyStats::None,
                    }),
                    _ => Err(AskError::Shim(error)),
                };
            }
            Err(error) => return Err(self.failed(error)),
        };
        let taken = Instant::now().into_std();
        let Some(reply) = reply else {
            *self.kept = Some(connection);
            return Ok(Reply {
                state,
                stats: ReplyStats::Unsupported,
            });
        };
        let stats = stats::decode(&reply.type_url, &reply.value);
        let stats = stats.map(Box::new).map_err(|source| AskError::Decode {
            address: self.lane.address(),
            source,
        });
        let stopped = match &stats {
            Ok(stats)
                if matches!(calls, Calls::StatsOfRunning(_)) && stats.is_emptied() && !self.lane.rests() =>
            {
                self.noticed_end(&mut connection).await?
            }
            _ => None,
        };
        *self.kept = Some(connection);
        let mut stats = stats?;
        if let Some(state) = stopped {
            return Ok(Reply {
                state,
                stats: ReplyStats::None,
            });
        }
        let origin = self.complete(&mut stats, told).await;
        Ok(Reply {
            state,
            stats: ReplyStats::Taken(stats, taken, origin),
        })
    }

    /// Adds to a shim's statistics what the guest told.
    async fn complete(&self, stats: &mut Stats, told: Told<Box<GuestStats>>) -> Origin {
        match (told, &self.guest) {
            (Told::Answer(agent, guest), _) => Origin::Both {
                agent,
                fields: merge(stats, &guest),
            },
            (Told::Nothing(why), Some(guest)) => {
                if guest.has_told().await {
                    // Kata's Go shim swaps the two. They would go up and down where they came from the guest before.
                    stats.cpu.usage.kernel = None;
                    stats.cpu.usage.user = None;
                }
                Origin::ShimWithoutGuest(why)
            }
            _ => Origin::Shim,
        }
    }

    /// The state of a task whose cgroup had no process left, once its shim has noticed that it has stopped: the
    /// numbers of such a cgroup are no measurement of a running container. `None` where the shim does not notice:
    /// the container's processes may have moved to another cgroup.
    async fn noticed_end(&self, connection: &mut TaskConnection) -> Result<Option<TaskState>, AskError> {
        for pause in NOTICING {
            self.lane.end();
            tokio::time::sleep(pause).await;
            let state = self
                .state(connection)
                .await
                .map_err(|error| self.state_failed(error))?;
            if state.status == TaskStatus::Stopped {
                return Ok(Some(state));
            }
        }
        Ok(None)
    }

    /// Asks for the state over the lane's old connection, or a new one. Where the shim closes it without an
    /// answer (it has closed an old one meanwhile, or is dying just now), a new one tells what is the matter.
    async fn first_state(&mut self) -> Result<(TaskConnection, TaskState), AskError> {
        let mut again = true;
        loop {
            let mut connection = match self.kept.take() {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            match self.state(&mut connection).await {
                Ok(state) => return Ok((connection, state)),
                Err(ShimError::Closed { .. }) if std::mem::take(&mut again) => {}
                Err(error) => return Err(self.state_failed(error)),
            }
        }
    }

    async fn connect(&self) -> Result<TaskConnection, AskError> {
        self.lane.begin("the connect");
        let connect = self.lane.terms.connect.as_ref();
        // A connect asks nothing of the shim, so unlike a call it may be given up.
        let connecting = TaskConnection::connect(&self.lane.endpoint, connect);
        match self.lane.within(connecting).await {
            Some(Ok(connection)) => Ok(connection),
            Some(Err(error)) if error.is_gone() => Err(AskError::NotRunning(NotRunning::Gone(error))),
            Some(Err(error)) => Err(AskError::Shim(error)),
            None => {
                let unanswered = self.lane.unanswered();
                // Those who wait for their turn notice it as well, and do not wait once more, one after the other.
                tokio::task::yield_now().await;
                Err(unanswered)
            }
        }
    }

    async fn state(&self, connection: &mut TaskConnection) -> Result<TaskState, ShimError> {
        let limit = self.lane.terms.limit;
        let mut state = match &self.subject {
            Subject::Task(id) => {
                self.lane.begin("State");
                connection.state(id, limit).await
            }
            Subject::Sandbox { id, .. } => {
                self.lane.begin("SandboxStatus");
                connection.sandbox_status(id, limit).await
            }
        }?;
        if !self.lane.terms.pids.note(connection.peer_pid()) {
            state.pid = 0;
        }
        Ok(state)
    }

    /// The statistics; `Ok(None)` where the shim has none.
    async fn stats(&self, connection: &mut TaskConnection) -> Result<Option<Any>, ShimError> {
        let limit = self.lane.terms.limit;
        let reply = match &self.subject {
            Subject::Task(id) => {
                self.lane.begin("Stats");
                connection.stats(id, limit).await.map(Some)
            }
            Subject::Sandbox { id, .. } => {
                self.lane.begin("SandboxMetrics");
                connection.sandbox_metrics(id, limit).await
            }
        };
        self.lane.rest_if_late().await;
        reply
    }

    /// A shim that answers State with an error does not run the task: none of the known shims means anything else
    /// by it.
    fn state_failed(&self, error: ShimError) -> AskError {
        match error {
            ShimError::Rpc { .. } if !error.is_deadline() => AskError::NotRunning(NotRunning::Unknown(error)),
            _ => self.failed(error),
        }
    }

    fn failed(&self, error: ShimError) -> AskError {
        if error.is_deadline() {
            self.lane.unanswered()
        } else {
            AskError::Shim(error)
        }
    }
}
