//! Asking shims without ever harming what they run.
//!
//! On a hung guest a `Stats` call is not harmless: Kata's Go shim holds a lock while it waits, so that every
//! other call to it, containerd's own kill too, waits up to a minute. So a lane stands before each shim: at most one
//! call in flight, `State` (which needs no guest) before `Stats`, no `Stats` where `State` does not answer in time,
//! nothing new while a call past its time has not ended, and a rest after one that was late.
//!
//! A [`Survey`] asks many shims at once, each on its lane: a hung one costs its own answer, never the others'.

mod asking;
mod concurrency;
mod error;
mod lane;
mod monitor;
mod network;
mod question;
mod single_flight;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::node::Container;
use crate::shim::address::{Address, Endpoint};
use crate::shim::{Connect, Sockets};

pub use asking::Asking;
pub use concurrency::ConcurrencyLimit;
pub use error::{AskError, MonitorError, NotRunning};
pub use monitor::{MonitorPage, MonitorQuestion};
pub use question::{LastStatistics, Network, Question, Sample, State, Statistics};
pub use single_flight::{Flight, SingleFlight};

use lane::{Lane, Terms};

/// Asks shims, many at once, and no shim twice at a time: a pod's containers share their sandbox's shim, and
/// so its lane. Clones are the same survey.
#[derive(Clone)]
pub struct Survey {
    terms: Terms,
    concurrency: ConcurrencyLimit,
    lanes: Arc<Mutex<HashMap<Address, Lane>>>,
}

impl Survey {
    /// A survey that waits `limit` for each answer, asks at most `concurrency` shims at once, and closes the connection
    /// to a shim when it has answered.
    pub fn new(limit: Duration, concurrency: usize) -> Self {
        Self::through(Arc::new(Sockets), limit, concurrency)
    }

    /// The same over other connections than this machine's sockets.
    pub fn through(connect: Arc<dyn Connect>, limit: Duration, concurrency: usize) -> Self {
        Self {
            terms: Terms {
                limit,
                keep_connections: false,
                connect,
            },
            concurrency: ConcurrencyLimit::new(concurrency),
            lanes: Arc::default(),
        }
    }

    /// Keeps the connections to shims for the next questions.
    pub fn keeping_connections(mut self) -> Self {
        self.terms.keep_connections = true;
        self
    }

    /// Asks about a container.
    pub async fn ask<Q: Question>(&self, container: &Container, question: Q) -> Result<Q::Answer, AskError> {
        let endpoint = container
            .endpoint
            .as_ref()
            .map_err(|why| AskError::NoAddress(why.clone()))?;
        let lane = self.lane(endpoint);
        let mut reply = self
            .concurrency
            .run(lane.ask(container.id(), question.calls()))
            .await?;
        if let Some((stats, _)) = &mut reply.stats
            && stats.network.is_none()
            && let Some(found) = network::look_up(reply.state.pid, question.network(), self.terms.limit).await
        {
            stats.network = Some(found.interfaces);
            stats.sockets = found.sockets;
        }
        Q::answer(reply)
    }

    /// The way to a shim. It is the same for as long as something is in flight on it, whoever asks.
    fn lane(&self, endpoint: &Endpoint) -> Lane {
        self.lanes()
            .entry(endpoint.address.clone())
            .or_insert_with(|| Lane::new(endpoint.clone(), self.terms.clone()))
            .clone()
    }

    /// Closes the connection to a container's shim where nothing is in flight.
    pub fn hang_up(&self, container: &Container) {
        if let Ok(endpoint) = &container.endpoint {
            self.lane(endpoint).hang_up();
        }
    }

    /// Forgets the ways to shims that are no longer wanted, except those on which something is in flight.
    pub fn keep(&self, wanted: impl Fn(&Address) -> bool) {
        self.lanes()
            .retain(|address, lane| wanted(address) || !lane.is_idle());
    }

    /// Forgets what is idle: connections are closed, and only lanes on which a call is in flight, or that rest
    /// from one, are kept for the next time.
    pub fn rest(&self) {
        let mut lanes = self.lanes();
        lanes.retain(|_, lane| !lane.is_idle());
        lanes.values().for_each(Lane::hang_up);
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Address, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
