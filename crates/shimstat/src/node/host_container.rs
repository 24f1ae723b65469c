//! What the kernel says of a container that runs on this host, beyond what its shim reports: what it may use today, what it
//! has open, and the disk that it writes to.

use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use super::cgroup::{Cgroup, CountBounds, ProcessCounts};
use super::init_process::SoftUlimits;
use super::layer::{self, WalkBounds};
use super::root_filesystem::{FilesystemSpace, RootFilesystem};
use crate::stats::Limits;

/// What is counted without a thread for it: reading this takes a tenth of a millisecond.
const FEW: CountBounds = CountBounds {
    processes: 20,
    descriptors: 200,
};

/// How old the space of a filesystem and a process's limits may be: they hardly ever change.
const SPACE_AGE: Duration = Duration::from_secs(60);

/// How old the size of a layer may be.
const LAYER_AGE: Duration = Duration::from_secs(300);

/// A layer that is too large to be walked over is tried again after this.
const LARGE_LAYER_AGE: Duration = Duration::from_secs(3600);

/// A walk takes 3 µs for each file: 60 ms, where no disk has to be waited for.
const LAYER_ENTRIES: usize = 20_000;
const LAYER_TIME: Duration = Duration::from_millis(200);

/// A container that runs on this host: where the kernel has its numbers.
#[derive(Debug)]
pub struct HostContainer {
    pid: u32,
    cgroup: Cgroup,
    root: Option<RootFilesystem>,
    slow: Mutex<Slow>,
}

/// What there is to read of a container on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostReadings {
    /// What it may use today.
    pub limits: Limits,
    /// How many processes it has, and what they have open.
    pub processes: ProcessCounts,
    /// The limits of its first process, up to two minutes ago.
    pub ulimits: SoftUlimits,
    /// `None` where its filesystem is of a type that may have to wait for a server, or cannot be read.
    pub root: Option<RootReadings>,
}

/// The disk that a container writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootReadings {
    /// Such as `/dev/sda1`, where that can be told.
    pub device: Option<String>,
    /// The space of the whole filesystem, up to two minutes ago.
    pub space: FilesystemSpace,
    /// What the container's own layer takes, up to six minutes ago. `None` where there is no layer that can be reached, or
    /// it has more than 20,000 files.
    pub layer_bytes: Option<u64>,
}

/// What is read seldom: because it may wait for a disk, or hardly ever changes.
#[derive(Debug, Default)]
struct Slow {
    read: Option<Instant>,
    ulimits: SoftUlimits,
    root: Option<RootReadings>,
    walked: Option<Instant>,
    layer_bytes: Option<u64>,
}

impl HostContainer {
    /// A container by its first process and its cgroup.
    pub fn new(pid: u32, cgroup: Cgroup) -> Self {
        Self {
            pid,
            cgroup,
            root: RootFilesystem::find(pid).ok().flatten(),
            slow: Mutex::default(),
        }
    }

    /// The pid of its first process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Reads its numbers where that takes no more than some files of /proc and cgroupfs; `None` where it takes more, and
    /// [`read`](Self::read) is needed. Has no disk where somebody else is reading that now.
    pub fn read_quickly(&self) -> Option<HostReadings> {
        let (ulimits, root) = match self.slow.try_lock() {
            Ok(slow) => slow.fresh(self.pid)?,
            Err(TryLockError::Poisoned(slow)) => slow.into_inner().fresh(self.pid)?,
            Err(TryLockError::WouldBlock) => (SoftUlimits::default(), None),
        };
        let processes = self.cgroup.count_processes(FEW);
        // Past the bounds some of them are missing.
        processes
            .processes
            .is_none_or(|_| processes.sockets.is_some())
            .then_some(())?;
        Some(HostReadings {
            limits: self.cgroup.limits(),
            processes,
            ulimits,
            root,
        })
    }

    /// Reads its numbers. A filesystem that hangs can hold this up without end, and many descriptors for a while, so it is
    /// not for a thread that others wait for.
    pub fn read(&self, bounds: CountBounds) -> HostReadings {
        let processes = self.cgroup.count_processes(bounds);
        let limits = self.cgroup.limits();
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        if slow.fresh(self.pid).is_none() {
            slow.read(self.pid, self.root.as_ref());
        }
        HostReadings {
            limits,
            processes,
            ulimits: slow.ulimits,
            root: slow.root.clone(),
        }
    }
}

impl Slow {
    /// What was read before, unless that is too long ago.
    fn fresh(&self, pid: u32) -> Option<(SoftUlimits, Option<RootReadings>)> {
        let is_fresh = is_younger(self.read, SPACE_AGE, pid);
        is_fresh.then(|| (self.ulimits, self.root.clone()))
    }

    fn read(&mut self, pid: u32, root: Option<&RootFilesystem>) {
        self.ulimits = SoftUlimits::read(pid).unwrap_or_default();
        self.root = root.and_then(|root| {
            Some(RootReadings {
                device: root.device.clone(),
                space: root.space(pid).ok()?,
                layer_bytes: self.layer_bytes(pid, root),
            })
        });
        self.read = Some(Instant::now());
    }

    fn layer_bytes(&mut self, pid: u32, root: &RootFilesystem) -> Option<u64> {
        let path = root.layer.as_ref()?;
        let age = match self.layer_bytes {
            Some(_) => LAYER_AGE,
            None => LARGE_LAYER_AGE,
        };
        if !is_younger(self.walked, age, pid) {
            let bounds = WalkBounds {
                entries: LAYER_ENTRIES,
                until: Instant::now() + LAYER_TIME,
            };
            self.layer_bytes = layer::usage(path, bounds);
            self.walked = Some(Instant::now());
        }
        self.layer_bytes
    }
}

/// Whether something is not older than this, and up to a minute: so not all containers of a node are due at once.
fn is_younger(read: Option<Instant>, age: Duration, pid: u32) -> bool {
    let more = Duration::from_secs(u64::from(pid % 60));
    read.is_some_and(|read| read.elapsed() < age + more)
}
