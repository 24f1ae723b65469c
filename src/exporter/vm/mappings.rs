//! Guest memory that only a walk over the VMM's pages tells apart from the VMM's own: read rarely, one VMM after the
//! other, off the thread that answers.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shimstat::node::processes::SandboxMemory;
use shimstat::node::{HostProcesses, MachineKind, ProcessUsage};
use tokio::time::Instant;

/// A VMM with more resident memory is not walked: the kernel takes up to 40 ms for each GiB.
const MOST_RESIDENT: u64 = 16 << 30;

/// How old a reading becomes before the next one.
const FRESH: Duration = Duration::from_secs(60);

/// After a reading, nothing is read for this many times as long: at most 2 % of one processor is spent on it, however many
/// VMMs there are.
const PAUSE: u32 = 49;

/// A process: its pid and when it started.
pub type ProcessKey = (u32, u64);

/// What was read of VMMs' mappings, and what is to be read next.
#[derive(Default)]
pub struct Mappings {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashMap<ProcessKey, MappingsReading>,
    queue: VecDeque<Job>,
    /// Whether somebody works on the queue.
    working: bool,
}

#[derive(Default)]
struct MappingsReading {
    /// `None` where it was not read yet, or could not be.
    memory: Option<SandboxMemory>,
    at: Option<Instant>,
    queued: bool,
}

struct Job {
    vmm: ProcessKey,
    processes: Vec<HostProcesses>,
    kind: MachineKind,
}

impl Job {
    /// Blocks. `None` where one of the processes is gone: its pid may be another's by now.
    fn read(&self) -> Option<SandboxMemory> {
        let are_there = || {
            let mut each = self.processes.iter().flat_map(|part| &part.processes);
            each.all(|known| {
                ProcessUsage::read(known.pid).is_ok_and(|process| process.started == known.started)
            })
        };
        let memory = are_there()
            .then(|| SandboxMemory::read_mappings(&self.processes, self.kind, MOST_RESIDENT).ok())
            .flatten();
        memory.filter(|_| are_there())
    }
}

impl Mappings {
    /// The last reading of a VMM with its age. Where there is none or it is old, another is made in the background,
    /// for the scrapes to come.
    pub fn get(
        self: &Arc<Self>,
        vmm: ProcessKey,
        processes: &[HostProcesses],
        kind: MachineKind,
    ) -> Option<(SandboxMemory, Duration)> {
        let mut state = self.state();
        let reading = state.known.entry(vmm).or_default();
        let age = reading.at.map(|at| at.elapsed());
        let found = reading.memory.clone().zip(age);
        if !reading.queued && age.is_none_or(|age| age >= FRESH) {
            reading.queued = true;
            state.queue.push_back(Job {
                vmm,
                processes: processes.to_vec(),
                kind,
            });
            if !state.working {
                state.working = true;
                tokio::spawn(self.clone().work());
            }
        }
        found
    }

    /// Forgets VMMs that are gone.
    pub fn keep(&self, wanted: impl Fn(ProcessKey) -> bool) {
        self.state().known.retain(|vmm, _| wanted(*vmm));
    }

    async fn work(self: Arc<Self>) {
        loop {
            let job = {
                let mut state = self.state();
                let Some(job) = state.queue.pop_front() else {
                    state.working = false;
                    return;
                };
                job
            };
            let started = Instant::now();
            let vmm = job.vmm;
            let memory = tokio::task::spawn_blocking(move || job.read()).await;
            if let Some(reading) = self.state().known.get_mut(&vmm) {
                *reading = MappingsReading {
                    memory: memory.ok().flatten(),
                    at: Some(Instant::now()),
                    queued: false,
                };
            }
            tokio::time::sleep(started.elapsed() * PAUSE).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
