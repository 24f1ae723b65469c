//! The way to one shim: what is asked of it goes through here, one call at a time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, oneshot};

use crate::node::process;
use crate::shim::ShimError;
use crate::shim::address::{Address, Endpoint};
use crate::shim::task::{TaskConnection, TaskState, TaskStatus};
use crate::stats::{self, DecodeError, Stats};
use protobuf::well_known_types::any::Any;

/// A task's state and statistics, as its shim gave them.
#[derive(Debug, Clone)]
pub struct Sample {
    pub state: TaskState,
    pub stats: Stats,
    /// When the statistics arrived.
    pub taken: Instant,
}

/// Why a task is not running.
#[derive(Debug, thiserror::Error)]
pub enum NotRunning {
    #[error("its shim is gone: {0}")]
    Gone(ShimError),
    #[error("its shim does not know it: {0}")]
    Unknown(ShimError),
    #[error("its task has stopped (exit status {}) and was not deleted", .0.exit_status)]
    Stopped(TaskState),
}

/// Why there is no sample.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    NotRunning(NotRunning),
    /// A call got no answer in time. It is left waiting, and nothing new is sent until it has ended.
    #[error("the shim at {address} has not answered {call} for {}", go_duration::show(*waited))]
    Unanswered {
        address: Address,
        call: &'static str,
        waited: Duration,
    },
    /// The last answer came late, and may have held others up meanwhile: the shim is left alone for as long.
    #[error(
        "the shim at {address} took {} for its last {call}: it is asked again in {}",
        go_duration::show(*took),
        go_duration::show(*rest)
    )]
    Resting {
        address: Address,
        call: &'static str,
        took: Duration,
        rest: Duration,
    },
    #[error(transparent)]
    Shim(ShimError),
    #[error("its shim's address cannot be told: {0}")]
    NoAddress(String),
    #[error("the shim at {address}: {source}")]
    Decode { address: Address, source: DecodeError },
}

/// What the lane is at.
#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    /// The call in flight, and since when.
    call: Option<(&'static str, Instant)>,
    rest: Option<Rest>,
}

/// After a call that was late: which, how long it took, and until when the shim is left alone for it.
#[derive(Debug, Clone, Copy)]
struct Rest {
    call: &'static str,
    took: Duration,
    until: Instant,
}

/// The way to one shim. Clones are the same lane.
#[derive(Clone)]
pub struct Lane {
    endpoint: Endpoint,
    /// How long an answer is waited for.
    limit: Duration,
    count_sockets: bool,
    progress: Arc<Mutex<Progress>>,
    /// Held by whoever has a call in flight.
    connection: Arc<AsyncMutex<Option<TaskConnection>>>,
}

impl Lane {
    /// A lane to a shim; `limit` is the time for each answer awaited. Nothing is connected yet.
    pub fn new(endpoint: Endpoint, limit: Duration) -> Self {
        Self {
            endpoint,
            limit,
            count_sockets: false,
            progress: Arc::default(),
            connection: Arc::default(),
        }
    }

    /// Has samples count the task's sockets as well, which can cost 20 ms of CPU each.
    pub fn counting_sockets(self) -> Self {
        Self {
            count_sockets: true,
            ..self
        }
    }

    /// Whether nothing is in flight and nothing has to be remembered of it.
    pub(super) fn is_idle(&self) -> bool {
        let progress = *self.progress();
        progress.call.is_none() && progress.rest.is_none_or(|rest| rest.until <= Instant::now())
    }

    /// Closes the connection where nothing is in flight: an idle lane holds no descriptor.
    pub(super) fn hang_up(&self) {
        if let Ok(mut connection) = self.connection.try_lock() {
            *connection = None;
        }
    }

    /// The state of a task, whether it runs or has stopped.
    pub async fn state(&self, id: &str) -> Result<TaskState, AskError> {
        Ok(self.run(id, Wish::State).await?.0)
    }

    /// The state of a task that runs; one that has stopped is an error.
    pub async fn running(&self, id: &str) -> Result<TaskState, AskError> {
        match self.state(id).await? {
            state if state.status == TaskStatus::Stopped => {
                Err(AskError::NotRunning(NotRunning::Stopped(state)))
            }
            state => Ok(state),
        }
    }

    /// The statistics of a running task. Those of its network come from the task's network namespace where the
    /// reply has none.
    pub async fn sample(&self, id: &str) -> Result<Sample, AskError> {
        self.sampled(id, Wish::Stats).await
    }

    /// The statistics of a task, even where it has stopped: runc's shim still has the last ones then, until the task
    /// is deleted. Not for Kata's: its shims would look for the guest, and that may be gone.
    pub async fn last_sample(&self, id: &str) -> Result<Sample, AskError> {
        self.sampled(id, Wish::LastStats).await
    }

    /// The statistics of a running task as its reply has them: for a container that shares the network of a
    /// sandbox, whose own sample has that.
    pub async fn sample_without_network(&self, id: &str) -> Result<Sample, AskError> {
        self.sampled(id, Wish::BareStats).await
    }

    async fn sampled(&self, id: &str, wish: Wish) -> Result<Sample, AskError> {
        let (state, stats) = self.run(id, wish).await?;
        match stats {
            Some((stats, taken)) => Ok(Sample { state, stats, taken }),
            None if state.status == TaskStatus::Stopped => {
                Err(AskError::NotRunning(NotRunning::Stopped(state)))
            }
            None => Err(self.unanswered()),
        }
    }

    /// Makes the calls in a task of their own, so that they are waited for to their end even where the asker
    /// gives up: when one call has taken longer than the limit.
    async fn run(&self, id: &str, wish: Wish) -> Result<Answer, AskError> {
        let kept = self.turn().await?;
        let (asked, answered) = oneshot::channel();
        let visit = Visit {
            lane: self.clone(),
            kept,
            id: id.to_string(),
            asked,
        };
        tokio::spawn(visit.make(wish));
        self.wait(answered).await?
    }

    /// Waits for what a task with the turn will send, until one of its calls has taken longer than the limit.
    pub(super) async fn wait<T>(&self, mut answered: oneshot::Receiver<T>) -> Result<T, AskError> {
        loop {
            let deadline = match self.progress().call {
                Some((_, since)) => since + self.limit,
                None => Instant::now() + self.limit,
            };
            if let Ok(answer) = tokio::time::timeout_at(deadline.into(), &mut answered).await {
                // The sender is dropped unsent only where the runtime is shutting down.
                return answer.map_err(|_| self.unanswered());
            }
            // A later call of the same visit has its own time.
            if self.is_overdue() {
                return Err(self.unanswered());
            }
        }
    }

    /// Waits until nothing is in flight, but no longer than that call may take.
    pub(super) async fn turn(&self) -> Result<OwnedMutexGuard<Option<TaskConnection>>, AskError> {
        loop {
            let (deadline, rest) = {
                let progress = self.progress();
                (progress.call.map(|(_, since)| since + self.limit), progress.rest)
            };
            if self.is_overdue() {
                return Err(self.unanswered());
            }
            if let Some(Rest { call, took, until }) = rest {
                let rest = until.saturating_duration_since(Instant::now());
                if !rest.is_zero() {
                    return Err(AskError::Resting {
                        address: self.endpoint.address.clone(),
                        call,
                        took,
                        rest,
                    });
                }
            }
            let deadline = deadline.unwrap_or_else(|| Instant::now() + self.limit);
            let turn = self.connection.clone().lock_owned();
            if let Ok(connection) = tokio::time::timeout_at(deadline.into(), turn).await {
                return Ok(connection);
            }
        }
    }

    /// Whether the call in flight is past its time.
    fn is_overdue(&self) -> bool {
        self.progress()
            .call
            .is_some_and(|(_, since)| since.elapsed() >= self.limit)
    }

    fn unanswered(&self) -> AskError {
        let (call, since) = self.progress().call.unwrap_or(("a call", Instant::now()));
        AskError::Unanswered {
            address: self.endpoint.address.clone(),
            call,
            waited: since.elapsed(),
        }
    }

    /// Notes that a call begins, and when.
    pub(super) fn begin(&self, call: &'static str) -> Instant {
        let since = Instant::now();
        self.progress().call = Some((call, since));
        since
    }

    /// Notes that nothing is in flight any more.
    pub(super) fn end(&self) {
        self.progress().call = None;
    }

    /// Leaves the shim alone for as long as a call took that was late.
    pub(super) fn rest_after(&self, call: &'static str, since: Instant) {
        let took = since.elapsed();
        if took > self.limit {
            let until = Instant::now() + took;
            self.progress().rest = Some(Rest { call, took, until });
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is asked of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    State,
    /// Statistics as well, where it runs.
    Stats,
    /// The same, without looking for the network where the reply has none.
    BareStats,
    /// Statistics as well, even where it has stopped.
    LastStats,
}

/// A task's state, and its statistics with the time they came where they were asked for and it runs.
type Answer = (TaskState, Option<(Stats, Instant)>);

/// One turn on the lane: the calls about one task.
struct Visit {
    lane: Lane,
    /// The lane's connection from earlier; put back where it can be used again.
    kept: OwnedMutexGuard<Option<TaskConnection>>,
    id: String,
    asked: oneshot::Sender<Result<Answer, AskError>>,
}

impl Visit {
    async fn make(mut self, wish: Wish) {
        let answer = self.calls(wish).await;
        self.lane.end();
        // Free before the answer is out: whoever hears it finds the lane free.
        drop(self.kept);
        let _ = self.asked.send(answer);
    }

    async fn calls(&mut self, wish: Wish) -> Result<Answer, AskError> {
        let (mut connection, state) = self.first_state().await?;
        // After an answer to State that was late, a Stats might hold up everyone else.
        let late = self.lane.is_overdue() || self.asked.is_closed();
        let wanted = match wish {
            Wish::State => false,
            Wish::Stats | Wish::BareStats => state.status != TaskStatus::Stopped,
            Wish::LastStats => true,
        };
        if !wanted || late {
            *self.kept = Some(connection);
            return Ok((state, None));
        }
        let reply = match self.stats(&mut connection).await {
            Ok(reply) => reply,
            Err(error @ ShimError::Rpc { .. }) if !error.is_deadline() => {
                // The task may have stopped between the two calls; if not, the error is what it says.
                return match self
                    .state(&mut connection)
                    .await
                    .map_err(|e| self.state_failed(e))?
                {
                    state if state.status == TaskStatus::Stopped => Ok((state, None)),
                    _ => Err(AskError::Shim(error)),
                };
            }
            Err(error) => return Err(self.failed(error)),
        };
        *self.kept = Some(connection);
        let taken = Instant::now();
        let mut stats = stats::decode(&reply.type_url, &reply.value).map_err(|source| AskError::Decode {
            address: self.address(),
            source,
        })?;
        if stats.network.is_none() && wish == Wish::Stats {
            process::add_network(
                &mut stats,
                state.pid,
                self.lane.count_sockets.then(|| taken + self.lane.limit),
            );
        }
        Ok((state, Some((stats, taken))))
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
        // A connect asks nothing of the shim, so unlike a call it may be given up.
        let connect = TaskConnection::connect(&self.lane.endpoint);
        match tokio::time::timeout(self.lane.limit, connect).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) if error.is_gone() => Err(AskError::NotRunning(NotRunning::Gone(error))),
            Ok(Err(error)) => Err(AskError::Shim(error)),
            Err(_elapsed) => Err(self.lane.unanswered()),
        }
    }

    async fn state(&self, connection: &mut TaskConnection) -> Result<TaskState, ShimError> {
        self.lane.begin("State");
        connection.state(&self.id, self.lane.limit).await
    }

    async fn stats(&self, connection: &mut TaskConnection) -> Result<Any, ShimError> {
        let since = self.lane.begin("Stats");
        let reply = connection.stats(&self.id, self.lane.limit).await;
        self.lane.rest_after("Stats", since);
        reply
    }

    /// A shim that answers State with an error does not run the task: what else it could mean, none of the
    /// known shims says.
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

    fn address(&self) -> Address {
        self.lane.endpoint.address.clone()
    }
}
