//! What the files of a container's cgroup say.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::node::files;
use crate::stats::{self, CgroupVersion, Limits, Stats};

/// The longest file is `io.stat`, with 100 bytes for each device.
const FILE_LIMIT: u64 = 1 << 20;

/// A container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    pub(super) directories: CgroupDirectories,
    pub(super) page_sizes: Arc<[String]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CgroupDirectories {
    /// By controller. A controller that the container is not in has none.
    V1(BTreeMap<String, PathBuf>),
    V2(PathBuf),
}

impl Cgroup {
    /// The version of its hierarchy.
    pub fn version(&self) -> CgroupVersion {
        match self.directories {
            CgroupDirectories::V1(_) => CgroupVersion::V1,
            CgroupDirectories::V2(_) => CgroupVersion::V2,
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

    /// Whether its processes are stopped, as by `podman pause`.
    pub fn is_frozen(&self) -> bool {
        match self.version() {
            CgroupVersion::V1 => self
                .text("freezer.state")
                .is_some_and(|state| state.trim() == "FROZEN"),
            CgroupVersion::V2 => self
                .text("cgroup.events")
                .is_some_and(|events| events.lines().any(|line| line == "frozen 1")),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        self.parse(name, |text| Some(text.to_owned()))
    }

    /// What a file of the cgroup says.
    pub(in crate::node) fn parse<T>(&self, name: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let directory = match &self.directories {
            CgroupDirectories::V1(directories) => directories.get(name.split('.').next()?)?,
            CgroupDirectories::V2(directory) => directory,
        };
        files::read_kernel_file(&directory.join(name), FILE_LIMIT, parse).ok()?
    }

    /// The directory with the container's processes: on cgroup v1 that of the cpu controller, as cAdvisor has it, or
    /// any other one.
    pub(super) fn directory(&self) -> Option<&Path> {
        match &self.directories {
            CgroupDirectories::V1(directories) => {
                directories.get("cpu").or_else(|| directories.values().next())
            }
            CgroupDirectories::V2(directory) => Some(directory),
        }
        .map(PathBuf::as_path)
    }
}

#[cfg(test)]
mod tests;
