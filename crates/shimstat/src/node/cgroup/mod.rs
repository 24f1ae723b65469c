//! The cgroup of a container that runs on this host: where it is, and what its files say. For containers of runc and
//! crun. A sandboxed container's processes are in its guest, and the host's cgroup is the sandbox's.

mod mounts;
mod processes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files::{self, ReadError};
use crate::stats::{self, CgroupVersion, Limits, Stats};

pub use mounts::CgroupMounts;
pub use processes::{CountBounds, ProcessCounts};

/// The longest file is `io.stat`, with 100 bytes for each device.
const FILE_LIMIT: u64 = 1 << 20;

/// Why the cgroup of a container cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(
        "process {pid} is in the cgroup {path}, which is not one of container {id}: its pid belongs to another \
         process by now, or the container has no cgroup of its own"
    )]
    OtherContainer { pid: u32, path: String, id: String },
    #[error(
        "no mounted hierarchy has the cgroup {path} (see /proc/self/mountinfo): it is gone, or the host's \
         /sys/fs/cgroup is not mounted here"
    )]
    NotFound { path: String },
}

/// A container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    directories: Directories,
    page_sizes: Arc<[String]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Directories {
    /// By controller. A controller that the container is not in has none.
    V1(BTreeMap<String, PathBuf>),
    V2(PathBuf),
}

impl Cgroup {
    /// The version of its hierarchy.
    pub fn version(&self) -> CgroupVersion {
        match self.directories {
            Directories::V1(_) => CgroupVersion::V1,
            Directories::V2(_) => CgroupVersion::V2,
        }
    }

    /// What the container uses, with its child cgroups; `None` where the cgroup is gone. A file that cannot be
    /// read has no numbers. Reads about 20 files. There is no network in it.
    pub fn stats(&self) -> Option<Stats> {
        let stats = stats::from_files(self.version(), &self.page_sizes, &|name| self.text(name));
        (stats != Stats::default()).then_some(stats)
    }

    /// What the container may use today.
    pub fn limits(&self) -> Limits {
        Limits::from_files(self.version(), &|name| self.text(name))
    }

    fn text(&self, name: &str) -> Option<String> {
        let directory = match &self.directories {
            Directories::V1(directories) => directories.get(name.split('.').next()?)?,
            Directories::V2(directory) => directory,
        };
        files::read_text(&directory.join(name), FILE_LIMIT).ok()
    }

    /// The directory with the container's processes: on cgroup v1 that of the cpu controller, as cAdvisor has it, or
    /// any other one.
    fn directory(&self) -> Option<&Path> {
        match &self.directories {
            Directories::V1(directories) => directories.get("cpu").or_else(|| directories.values().next()),
            Directories::V2(directory) => Some(directory),
        }
        .map(PathBuf::as_path)
    }
}

#[cfg(test)]
mod tests;
