//! What shims spend on answering.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::node::Container;
use crate::node::pace::Answerer;
use crate::node::processes::ShimTime;
use crate::shim::address::Address;

/// What shims have spent on answering.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InducedCost {
    /// CPU time that shims used from each question to its answer. What a shim does for others meanwhile is in it.
    pub cpu: Duration,
    /// The questions that it is for.
    pub measured: u64,
    /// Further questions, to shims whose process cannot be told.
    pub unmeasured: u64,
}

/// Measures what shims spend on answering. Clones count together.
#[derive(Clone, Default)]
pub(super) struct Meter(Arc<Counts>);

#[derive(Default)]
struct Counts {
    /// `None` where the shim's process cannot be told.
    shims: Mutex<HashMap<Address, Option<u32>>>,
    nanos: AtomicU64,
    measured: AtomicU64,
    unmeasured: AtomicU64,
}

/// The meter of one shim.
pub(super) struct ShimMeter {
    counts: Arc<Counts>,
    pid: Option<u32>,
    forks: bool,
}

/// A question that is being answered.
pub(super) struct Running(Option<ShimTime>);

impl Meter {
    /// The meter of the shim that answers for a container at an address.
    pub fn of(&self, container: &Container, address: &Address) -> ShimMeter {
        let shims = || self.0.shims.lock().unwrap_or_else(PoisonError::into_inner);
        let known = shims().get(address).copied();
        let pid = known.unwrap_or_else(|| {
            let pid = container.running_shim_pid();
            shims().insert(address.clone(), pid);
            pid
        });
        ShimMeter {
            counts: self.0.clone(),
            pid,
            forks: container.answerer() == Answerer::GvisorShim,
        }
    }

    /// What was spent so far.
    pub fn total(&self) -> InducedCost {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        InducedCost {
            cpu: Duration::from_nanos(count(&self.0.nanos)),
            measured: count(&self.0.measured),
            unmeasured: count(&self.0.unmeasured),
        }
    }

    /// Forgets the shims that are no longer wanted.
    pub fn keep(&self, wanted: impl Fn(&Address) -> bool) {
        let mut shims = self.0.shims.lock().unwrap_or_else(PoisonError::into_inner);
        shims.retain(|address, _| wanted(address));
    }
}

impl ShimMeter {
    /// Reads the clock before a question.
    pub fn start(&self) -> Running {
        Running(self.pid.and_then(|pid| ShimTime::read(pid, self.forks)))
    }

    /// Counts a question that was answered.
    pub fn stop(&self, running: Running) {
        let after = || ShimTime::read(self.pid?, self.forks);
        let spent = running.0.and_then(|before| after()?.since(&before));
        let Some(spent) = spent else {
            self.counts.unmeasured.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let nanos = u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX);
        self.counts.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.counts.measured.fetch_add(1, Ordering::Relaxed);
    }
}
