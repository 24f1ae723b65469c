//! The way to one shim: whatever is asked of it goes through here, one call at a time.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use protobuf::well_known_types::any::Any;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, oneshot};
use tokio::time::Instant;

use super::error::{AskError, NoGuest, NotRunning};
use super::guest::{Guest, Liveness, Told};
use super::meter::ShimMeter;
use super::question::{Calls, Origin, Reply, ReplyStats, Via};
use super::terms::{BUSY, STEPS, Terms};
use crate::guest::{GuestStats, merge};
use crate::shim::ShimError;
use crate::shim::address::{Address, Endpoint};
use crate::shim::task::{TaskConnection, TaskState, TaskStatus};
use crate::stats::{self, Stats};

/// runc's shim notices within milliseconds that a container's first process has ended.
const NOTICING: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_millis(20),
    Duration::from_millis(100),
];

/// The call in flight, and what is remembered of an earlier one.
#[derive(Debug, Default, Clone, Copy)]
struct Progress {
    call: Option<LaneCall>,
    rest: Option<Rest>,
    /// Until when it is known that this program could not have listened, and the call in flight has more time for it.
    discounted: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct LaneCall {
    name: &'static str,
    /// When it was sent, later by the time for which this program could not have listened.
    since: Instant,
    /// How much that was.
    busy: Duration,
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
pub(super) struct Lane {
    endpoint: Endpoint,
    terms: Terms,
    progress: Arc<Mutex<Progress>>,
    /// Held by whoever has a call in flight.
    connection: Arc<AsyncMutex<Option<TaskConnection>>>,
}

impl Lane {
    /// A lane to a shim. Nothing is connected yet.
    pub fn new(endpoint: Endpoint, terms: Terms) -> Self {
        Self {
            endpoint,
            terms,
            progress: Arc::default(),
            connection: Arc::default(),
        }
    }

    /// Whether nobody else holds the lane, as an asker does that waits for its turn and a visit between two calls, and
    /// nothing has to be remembered.
    pub fn is_idle(&self) -> bool {
        Arc::strong_count(&self.connection) == 1 && !self.rests()
    }

    /// Whether the shim is left alone, after a call that was late.
    fn rests(&self) -> bool {
        let rest = self.progress().rest;
        rest.is_some_and(|rest| rest.until > Instant::now())
    }

    /// Closes the connection where nothing is in flight: an idle lane holds no descriptor.
    pub fn hang_up(&self) {
        if let Ok(mut connection) = self.connection.try_lock() {
            *connection = None;
        }
    }

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

    /// Makes a call to the same sandbox by other means (its monitor's HTTP), when its turn comes and under the
    /// lane's rules: nothing else is asked of the sandbox meanwhile, nor after the limit until the call has ended,
    /// and after a call that was late the sandbox is left alone for as long as it took.
    ///
    /// The call is waited for to its end, in a task of its own, even where the asker gives up.
    pub async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, AskError> {
        let unchecked = async { Ok::<_, Infallible>(()) };
        let Ok(((), answer)) = self.checked_call(name, unchecked, call).await?;
        Ok(answer)
    }

    /// The same after a check, which is made in the same turn and has a deadline of its own: where it fails, the call is not
    /// made. What it says comes back with the answer.
    pub async fn checked_call<C, E, T>(
        &self,
        name: &'static str,
        check: impl Future<Output = Result<C, E>> + Send + 'static,
        call: impl Future<Output = T> + Send + 'static,
    ) -> Result<Result<(C, T), E>, AskError>
    where
        C: Send + 'static,
        E: Send + 'static,
        T: Send + 'static,
    {
        let turn = self.turn().await?;
        let (asked, answered) = oneshot::channel();
        let lane = self.clone();
        tokio::spawn(async move {
            let answer = match check.await {
                Ok(_) if asked.is_closed() => return,
                Ok(checked) => {
                    lane.begin(name);
                    let answer = call.await;
                    lane.rest_if_late().await;
                    lane.end();
                    Ok((checked, answer))
                }
                Err(error) => Err(error),
            };
            // Free before the answer is out: whoever hears it finds the lane free.
            drop(turn);
            let _ = asked.send(answer);
        });
        self.wait(answered).await
    }

    /// Does something about the same sandbox for which its shim does not wait, when its turn comes: nothing is asked of
    /// the sandbox meanwhile. It needs a deadline of its own, and is not dropped where the asker gives up.
    pub async fn hold<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, AskError> {
        let turn = self.turn().await?;
        let (asked, answered) = oneshot::channel();
        tokio::spawn(async move {
            let answer = work.await;
            drop(turn);
            let _ = asked.send(answer);
        });
        self.wait(answered).await
    }

    /// Waits for what a task with the turn will send, until one of its calls has taken longer than the limit.
    async fn wait<T>(&self, mut answered: oneshot::Receiver<T>) -> Result<T, AskError> {
        loop {
            if let Some(answer) = self.step(&mut answered).await {
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
    async fn turn(&self) -> Result<OwnedMutexGuard<Option<TaskConnection>>, AskError> {
        if self.is_late().await {
            return Err(self.unanswered());
        }
        let mut turn = pin!(self.connection.clone().lock_owned());
        loop {
            if let Some(Rest { call, took, until }) = self.progress().rest {
                let rest = until.saturating_duration_since(Instant::now());
                if !rest.is_zero() {
                    return Err(AskError::Resting {
                        address: self.address(),
                        call,
                        took,
                        rest,
                    });
                }
            }
            if let Some(connection) = self.step(&mut turn).await {
                return Ok(connection);
            }
            if self.is_overdue() {
                return Err(self.unanswered());
            }
        }
    }

    /// Waits for something until the call in flight has had its time, or a part of that.
    async fn step<T>(&self, work: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        let due = self.deadline().min(Instant::now() + self.terms.limit / STEPS);
        let done = tokio::time::timeout_at(due, work).await.ok();
        if done.is_none() {
            self.discount_busy_time(due);
        }
        done
    }

    /// When the call in flight has had its time; where there is none, when one that began now would have.
    fn deadline(&self) -> Instant {
        self.progress().call.map_or_else(Instant::now, |call| call.since) + self.terms.limit
    }

    /// A timer that goes off late has measured this program, not the shim: for as long as it was late the call in
    /// flight is still waited for, at most for a limit more in all.
    fn discount_busy_time(&self, due: Instant) {
        let (now, limit) = (Instant::now(), self.terms.limit);
        let mut progress = self.progress();
        let Progress { call, discounted, .. } = &mut *progress;
        let Some(call) = call else { return };
        // Others who wait on this lane are late as well, and the call may be a new one.
        let from = due.max(call.since).max(discounted.unwrap_or(due));
        let late = now.saturating_duration_since(from);
        if late > BUSY {
            let more = late.min(limit.saturating_sub(call.busy));
            let since = call.since.max(now - limit) + more;
            call.busy += since.saturating_duration_since(call.since);
            call.since = since;
            *discounted = Some(now);
        }
    }

    /// Whether the call in flight is past its time.
    fn is_overdue(&self) -> bool {
        self.progress()
            .call
            .is_some_and(|call| call.since.elapsed() >= self.terms.limit)
    }

    fn unanswered(&self) -> AskError {
        let call = self.progress().call;
        AskError::Unanswered {
            address: self.address(),
            call: call.map_or("a call", |call| call.name),
            waited: call.map_or(Duration::ZERO, |call| call.since.elapsed() + call.busy),
        }
    }

    /// Notes that a call begins.
    fn begin(&self, name: &'static str) {
        self.progress().call = Some(LaneCall {
            name,
            since: Instant::now(),
            busy: Duration::ZERO,
        });
    }

    /// Notes that nothing is in flight any more.
    fn end(&self) {
        self.progress().call = None;
    }

    /// Whether the call in flight is late. Where it looks so, those who wait for it get the chance to notice first that it
    /// was this program that was late.
    async fn is_late(&self) -> bool {
        if self.is_overdue() {
            tokio::task::yield_now().await;
        }
        self.is_overdue()
    }

    /// Leaves the shim alone for as long as the call in flight took, where that was late.
    async fn rest_if_late(&self) {
        if !self.is_late().await {
            return;
        }
        let mut progress = self.progress();
        if let Some(LaneCall { name, since, .. }) = progress.call {
            let took = since.elapsed();
            let until = Instant::now() + took;
            progress.rest = Some(Rest {
                call: name,
                took,
                until,
            });
        }
    }

    fn address(&self) -> Address {
        self.endpoint.address.clone()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
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
        let is_kept = |kept: &TaskConnection| {
            terms.keep_connections && kept.descriptor().is_none_or(|it| it < terms.keep_below)
        };
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
        let Terms { limit, connect, .. } = &self.lane.terms;
        // A connect asks nothing of the shim, so unlike a call it may be given up.
        let connecting = TaskConnection::connect(&self.lane.endpoint, connect.as_ref());
        match tokio::time::timeout(*limit, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) if error.is_gone() => Err(AskError::NotRunning(NotRunning::Gone(error))),
            Ok(Err(error)) => Err(AskError::Shim(error)),
            Err(_elapsed) => {
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
