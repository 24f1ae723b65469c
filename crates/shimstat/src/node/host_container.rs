//! What the kernel says of a container that runs on this host, beyond what its shim reports: what it may use today, what it
//! has open, and the disk that it writes to.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cgroup::{Cgroup, CountBounds, ProcessCounts};
use super::init_process::SoftUlimits;
use super::layer::{self, WalkBounds};
use super::root_filesystem::{FilesystemSpace, RootFilesystem};
use crate::stats::Limits;

/// How old the size of a layer may be. Layers are walked over at different times: see [`Layer::age`].
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
    layer: Mutex<Layer>,
}

/// What there is to read of a container on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostReadings {
    /// The limits that its cgroup has now.
    pub limits: Limits,
    /// Its processes, and what they have open.
    pub processes: ProcessCounts,
    /// The limits that the kernel sets its first process.
    pub ulimits: SoftUlimits,
    /// `None` where its filesystem is of a type that may have to wait for a server, or cannot be read.
    pub root: Option<RootReadings>,
}

/// The disk that a container writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootReadings {
    /// The device's path, such as `/dev/sda1`, where it is known.
    pub device: Option<String>,
    /// The space of the whole filesystem.
    pub space: FilesystemSpace,
    /// What the container's own layer takes, up to six minutes ago. `None` where there is no layer that can be reached, or
    /// it has more than 20,000 files.
    pub layer_bytes: Option<u64>,
}

/// The last walk over a layer.
#[derive(Debug, Default)]
struct Layer {
    walked: Option<Instant>,
    bytes: Option<u64>,
}

impl HostContainer {
    /// A container by its first process and its cgroup.
    pub fn new(pid: u32, cgroup: Cgroup) -> Self {
        Self {
            pid,
            cgroup,
            root: RootFilesystem::find(pid).ok().flatten(),
            layer: Mutex::default(),
        }
    }

    /// The pid of its first process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Reads its numbers: some 20 small files, and two more for each process. A file system that hangs can hold this up
    /// without end, so it is not for a thread that others wait for.
    pub fn read(&self, bounds: CountBounds) -> HostReadings {
        HostReadings {
            limits: self.cgroup.limits(),
            processes: self.cgroup.count_processes(bounds),
            ulimits: SoftUlimits::read(self.pid).unwrap_or_default(),
            root: self.root.as_ref().and_then(|root| self.root(root)),
        }
    }

    fn root(&self, root: &RootFilesystem) -> Option<RootReadings> {
        Some(RootReadings {
            device: root.device.clone(),
            space: root.space(self.pid).ok()?,
            layer_bytes: self.layer_bytes(root),
        })
    }

    fn layer_bytes(&self, root: &RootFilesystem) -> Option<u64> {
        let path = root.layer.as_ref()?;
        let mut layer = self.layer.lock().unwrap_or_else(PoisonError::into_inner);
        if layer.is_due(self.pid) {
            let bounds = WalkBounds {
                entries: LAYER_ENTRIES,
                until: Instant::now() + LAYER_TIME,
            };
            *layer = Layer {
                bytes: layer::usage(path, bounds),
                walked: Some(Instant::now()),
            };
        }
        layer.bytes
    }
}

impl Layer {
    fn is_due(&self, pid: u32) -> bool {
        let age = match self.bytes {
            Some(_) => LAYER_AGE,
            None => LARGE_LAYER_AGE,
        };
        // Up to a minute more, so that not all containers of a node are due at once.
        let more = Duration::from_secs(u64::from(pid % 60));
        self.walked.is_none_or(|walked| walked.elapsed() >= age + more)
    }
}
