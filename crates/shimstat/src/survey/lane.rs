//! The way to one shim: whatever is asked of it goes through here, one call at a time.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, oneshot};
use tokio::time::Instant;

use super::error::AskError;
use super::terms::{BUSY, Terms, step};
use crate::shim::address::{Address, Endpoint};
use crate::shim::task::TaskConnection;

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
    pub(super) endpoint: Endpoint,
    pub(super) terms: Terms,
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
    pub(super) fn rests(&self) -> bool {
        let rest = self.progress().rest;
        rest.is_some_and(|rest| rest.until > Instant::now())
    }

    /// Closes the connection where nothing is in flight: an idle lane holds no descriptor.
    pub fn hang_up(&self) {
        if let Ok(mut connection) = self.connection.try_lock() {
            *connection = None;
        }
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
    pub(super) async fn wait<T>(&self, answered: oneshot::Receiver<T>) -> Result<T, AskError> {
        let answer = self.within(answered).await;
        // The sender is dropped unsent only where the runtime is shutting down.
        answer.and_then(Result::ok).ok_or_else(|| self.unanswered())
    }

    /// Waits for something until a call in flight has had its time. A later call of the same visit has its own.
    pub(super) async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        loop {
            if let Some(done) = self.step(&mut work).await {
                return Some(done);
            }
            if self.is_overdue() {
                return None;
            }
        }
    }

    /// Waits until nothing is in flight, but no longer than that call may take.
    pub(super) async fn turn(&self) -> Result<OwnedMutexGuard<Option<TaskConnection>>, AskError> {
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
        step(work, self.deadline(), self.terms.limit)
            .await
            .inspect_err(|due| self.discount_busy_time(*due))
            .ok()
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

    pub(super) fn unanswered(&self) -> AskError {
        let call = self.progress().call;
        AskError::Unanswered {
            address: self.address(),
            call: call.map_or("a call", |call| call.name),
            waited: call.map_or(Duration::ZERO, |call| call.since.elapsed() + call.busy),
        }
    }

    /// Notes that a call begins.
    pub(super) fn begin(&self, name: &'static str) {
        self.progress().call = Some(LaneCall {
            name,
            since: Instant::now(),
            busy: Duration::ZERO,
        });
    }

    /// Notes that nothing is in flight any more.
    pub(super) fn end(&self) {
        self.progress().call = None;
    }

    /// Whether the call in flight is late. Where it looks so, those who wait for it get the chance to notice first that it
    /// was this program that was late.
    pub(super) async fn is_late(&self) -> bool {
        if self.is_overdue() {
            tokio::task::yield_now().await;
        }
        self.is_overdue()
    }

    /// Leaves the shim alone for as long as the call in flight took, where that was late.
    pub(super) async fn rest_if_late(&self) {
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

    pub(super) fn address(&self) -> Address {
        self.endpoint.address.clone()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
