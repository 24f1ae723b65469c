//! Finding a container's cgroup: by a process of it, or by its path.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::reader::{Cgroup, CgroupDirectories};
use crate::node::files::{self, ReadError};
use crate::node::mountinfo::{self, Mount};

/// A node's own mount namespace has a few lines of 200 bytes for each container.
const MOUNTINFO_LIMIT: u64 = 16 << 20;

/// `/proc/<pid>/cgroup` has a line for each hierarchy, of which there are some fifteen.
const MEMBERSHIP_LIMIT: u64 = 256 << 10;

/// Why a container's cgroup was not found.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file of `/proc` could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The process is not in a cgroup that belongs to the container.
    #[error(
        "process {pid} is in the cgroup {path}, which is not one of container {id}: its pid belongs to another \
         process by now, or the container has no cgroup of its own"
    )]
    OtherContainer {
        /// The process that the container was expected to run, in this machine's pid namespace.
        pid: u32,
        /// The cgroup it is in, as `/proc/<pid>/cgroup` has it, escaped.
        path: String,
        /// The container.
        id: String,
    },
    /// The cgroup has no directory here.
    #[error(
        "no mounted hierarchy has the cgroup {path} (see /proc/self/mountinfo): it is gone, or the host's \
         /sys/fs/cgroup is not mounted here"
    )]
    NotFound {
        /// The cgroup's path below the root of the hierarchies, escaped.
        path: String,
    },
}

/// Where the hierarchies of cgroups are mounted, and which huge pages this machine has. Neither changes while a node
/// runs, so this is read once.
#[derive(Debug, Clone)]
pub struct CgroupMounts {
    proc: PathBuf,
    mounts: Vec<Hierarchy>,
    page_sizes: Arc<[String]>,
}

impl CgroupMounts {
    /// Those of this machine, read once. After an error they are read again the next time.
    pub fn host() -> Result<&'static Self, ReadError> {
        static HOST: OnceLock<CgroupMounts> = OnceLock::new();
        match HOST.get() {
            Some(mounts) => Ok(mounts),
            None => {
                let mounts = Self::read()?;
                Ok(HOST.get_or_init(|| mounts))
            }
        }
    }

    /// Reads `/proc/self/mountinfo` and `/sys/kernel/mm/hugepages`.
    pub fn read() -> Result<Self, ReadError> {
        Self::read_in(Path::new("/proc"), Path::new("/sys/kernel/mm/hugepages"))
    }

    pub(in crate::node) fn read_in(proc: &Path, hugepages: &Path) -> Result<Self, ReadError> {
        let text = files::read_text(&proc.join("self/mountinfo"), MOUNTINFO_LIMIT)?;
        let is_cgroup = |mount: &Mount| matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2");
        Ok(Self {
            proc: proc.to_path_buf(),
            mounts: mountinfo::parse(&text)
                .filter(is_cgroup)
                .map(|mount| Hierarchy::of(mount, proc))
                .collect(),
            page_sizes: page_sizes(hugepages).into(),
        })
    }

    /// The directory of the cgroup that a process's memory is charged to. `None` where that is the root, which has all
    /// of the machine's processes, or is not known.
    pub(in crate::node) fn memory_directory(&self, pid: u32) -> Option<PathBuf> {
        let path = self.proc.join(pid.to_string()).join("cgroup");
        let text = files::read_text(&path, MEMBERSHIP_LIMIT).ok()?;
        let is_memory = |names: &str| names.split(',').any(|name| name == "memory");
        let path_of = |wanted: &dyn Fn(&str) -> bool| {
            let mut memberships = text.lines().filter_map(membership);
            memberships
                .find(|one| wanted(one.controllers))
                .map(|one| one.path)
        };
        match path_of(&is_memory) {
            Some(path) => self.first(Hierarchy::directory, "memory", path),
            None => self.first(Hierarchy::directory, "", path_of(&str::is_empty)?),
        }
    }

    /// The directory of the cgroup at a path from the root of a controller's hierarchy (`""` is the hierarchy of cgroup v2).
    /// `None` for the root, and where there is no such directory.
    pub(in crate::node) fn directory(&self, controller: &str, path: &str) -> Option<PathBuf> {
        self.first(Hierarchy::directory_from_root, controller, path)
    }

    fn first(&self, directory: Lookup, controller: &str, path: &str) -> Option<PathBuf> {
        let has_it = |hierarchy: &&Hierarchy| match hierarchy.mount.fs_type.as_str() {
            "cgroup2" => controller.is_empty(),
            _ => hierarchy
                .mount
                .options
                .split(',')
                .any(|option| option == controller),
        };
        let mut hierarchies = self.mounts.iter().filter(has_it);
        hierarchies.find_map(|hierarchy| directory(hierarchy, path))
    }

    /// The cgroup of a container, by a process that runs in it.
    ///
    /// Its pid can belong to another process by now, and the process can be in a child cgroup (that of systemd in the
    /// container, or crun's `container`). So the cgroup is the part of the process's path up to the directory that is
    /// the container's: the one of the spec's `linux.cgroupsPath`, where that is given, else the one with the
    /// container's id in its name, as all runtimes have it by default (`<id>`, `cri-containerd-<id>.scope`). A
    /// cgroup v1 controller whose path has no such directory does not know the container, and is left out.
    pub fn of_process(&self, pid: u32, id: &str, cgroups_path: Option<&str>) -> Result<Cgroup, CgroupError> {
        let path = self.proc.join(pid.to_string()).join("cgroup");
        let text = files::read_text(&path, MEMBERSHIP_LIMIT)?;
        let memberships: Vec<Membership<'_>> = text.lines().filter_map(membership).collect();
        let own = |membership: &Membership<'_>| {
            let path = match cgroups_path.filter(|path| !path.is_empty()) {
                Some(expected) => up_to(membership.path, &relative(expected))?,
                None => up_to_id(membership.path, id)?,
            };
            Some((membership.controllers.to_owned(), path.to_owned()))
        };
        let owned: Vec<_> = memberships.iter().filter_map(own).collect();
        let Some((_, first)) = owned.first() else {
            // The hierarchy with the most to say, for the error.
            let named = |controller| {
                memberships
                    .iter()
                    .find(|one| one.controllers.split(',').any(|name| name == controller))
            };
            let shown = named("memory").or_else(|| named(""));
            return Err(CgroupError::OtherContainer {
                pid,
                path: shown.map_or_else(String::new, |one| one.path.escape_default().to_string()),
                id: id.to_owned(),
            });
        };
        let path = first.clone();
        self.cgroup(
            Hierarchy::directory,
            |controller| {
                owned
                    .iter()
                    .find(|(controllers, _)| controllers.split(',').any(|name| name == controller))
                    .map(|(_, path)| path.clone())
            },
            &path,
        )
    }

    /// The cgroup at a path, such as a spec's `linux.cgroupsPath`: one below the root of the hierarchies
    /// (`/kubepods/pod1/c1`), or one of systemd (`kubepods-pod1.slice:cri-containerd:c1`). A path that does not
    /// exist, that is the root, or that would leave the hierarchies is [`CgroupError::NotFound`].
    pub fn at(&self, path: &str) -> Result<Cgroup, CgroupError> {
        let path = format!("/{}", relative(path));
        self.cgroup(Hierarchy::directory_from_root, |_| Some(path.clone()), &path)
    }

    /// The cgroup whose path in a controller's hierarchy is known (`""` is the hierarchy of cgroup v2).
    fn cgroup(
        &self,
        directory: Lookup,
        path_of: impl Fn(&str) -> Option<String>,
        shown: &str,
    ) -> Result<Cgroup, CgroupError> {
        let mut v1 = BTreeMap::new();
        let mut v2 = None;
        for hierarchy in &self.mounts {
            if hierarchy.mount.fs_type == "cgroup2" {
                v2 = v2.or_else(|| directory(hierarchy, &path_of("")?));
                continue;
            }
            for controller in hierarchy.mount.options.split(',') {
                // The other options of a mount name no controller of any process.
                if let Some(path) = path_of(controller)
                    && CONTROLLERS.contains(&controller)
                    && !v1.contains_key(controller)
                    && let Some(directory) = directory(hierarchy, &path)
                {
                    v1.insert(controller.to_owned(), directory);
                }
            }
        }
        // A hybrid machine has both, with the controllers in the hierarchies of version 1.
        let directories = match v2 {
            _ if !v1.is_empty() => CgroupDirectories::V1(v1),
            Some(directory) => CgroupDirectories::V2(directory),
            None => {
                return Err(CgroupError::NotFound {
                    path: shown.escape_default().to_string(),
                });
            }
        };
        Ok(Cgroup {
            directories,
            page_sizes: self.page_sizes.clone(),
        })
    }
}

/// The controllers of cgroup v1 whose files are read.
const CONTROLLERS: [&str; 8] = [
    "cpu", "cpuacct", "cpuset", "memory", "blkio", "pids", "hugetlb", "freezer",
];

/// A line of `/proc/<pid>/cgroup`: `4:memory:/kubepods/c1`, or `0::/kubepods/c1` for cgroup v2.
struct Membership<'a> {
    controllers: &'a str,
    path: &'a str,
}

fn membership(line: &str) -> Option<Membership<'_>> {
    let mut parts = line.splitn(3, ':').skip(1);
    Some(Membership {
        controllers: parts.next()?,
        path: parts.next()?,
    })
}

/// How a path is looked up in a hierarchy: as one from `/proc`, or as one from the root.
type Lookup = fn(&Hierarchy, &str) -> Option<PathBuf>;

/// A mounted hierarchy.
#[derive(Debug, Clone)]
struct Hierarchy {
    mount: Mount,
    /// Where the mount shows what is above our cgroup namespace (its root is `/../..`): the names of the directories from
    /// it down to our namespace's root. Paths in `/proc` are relative to that one.
    above: Option<Vec<String>>,
}

impl Hierarchy {
    fn of(mount: Mount, proc: &Path) -> Self {
        let names: Vec<&str> = mount.root.split('/').skip(1).collect();
        let is_above = names.iter().all(|name| *name == "..");
        let above = is_above
            .then(|| own_cgroup(&mount.point, names.len(), proc))
            .flatten();
        Self { mount, above }
    }

    /// The directory of a cgroup whose path is from `/proc`. `None` where it is the root of the hierarchy, which is the
    /// whole machine's, is not below the mounted part, or does not exist.
    fn directory(&self, path: &str) -> Option<PathBuf> {
        let Some(above) = &self.above else {
            return self.existing(path.strip_prefix(self.mount.root.trim_end_matches('/'))?);
        };
        let mut rest = path;
        let mut kept = above.len();
        while let Some(below) = rest
            .strip_prefix("/..")
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
        {
            (rest, kept) = (below, kept.checked_sub(1)?);
        }
        let from_root: String = above.iter().take(kept).map(|name| format!("/{name}")).collect();
        self.existing(&(from_root + rest))
    }

    /// The same for a path that is from the root of the hierarchy, such as a spec's.
    fn directory_from_root(&self, path: &str) -> Option<PathBuf> {
        match &self.above {
            Some(_) => self.existing(path),
            None => self.directory(path),
        }
    }

    fn existing(&self, below: &str) -> Option<PathBuf> {
        if !below.starts_with('/') || below.split('/').any(|name| name == "..") {
            return None;
        }
        let below = below.trim_start_matches('/');
        let directory = self.mount.point.join(below);
        (!below.is_empty() && directory.is_dir()).then_some(directory)
    }
}

/// Our own cgroup, so many directories below one: the one that lists us. The kernel does not tell its path in a cgroup
/// namespace.
fn own_cgroup(directory: &Path, depth: usize, proc: &Path) -> Option<Vec<String>> {
    /// A node has some ten cgroups for each pod.
    const MOST_DIRECTORIES: usize = 20_000;
    let stat = files::read_text(&proc.join("self/stat"), MEMBERSHIP_LIMIT).ok()?;
    let pid = stat.split(' ').next()?;
    let mut left = MOST_DIRECTORIES;
    let mut open = vec![(directory.to_path_buf(), Vec::new())];
    while let Some((directory, names)) = open.pop() {
        left = left.checked_sub(1)?;
        if names.len() == depth {
            let processes =
                files::read_text(&directory.join("cgroup.procs"), MEMBERSHIP_LIMIT).unwrap_or_default();
            if processes.lines().any(|line| line == pid) {
                return Some(names);
            }
            continue;
        }
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if let (true, Ok(name)) = (
                entry.file_type().is_ok_and(|kind| kind.is_dir()),
                entry.file_name().into_string(),
            ) {
                let names = names.iter().cloned().chain([name]).collect();
                open.push((entry.path(), names));
            }
        }
    }
    None
}

/// A path of a spec, relative to the root of the hierarchies. A systemd one, `slice:prefix:name`, stands for the unit
/// `prefix-name.scope` in the slice, which is in the slices that its name begins with.
fn relative(path: &str) -> String {
    let parts: Vec<&str> = path.split(':').collect();
    let [slice, prefix, name] = parts.as_slice() else {
        return path.trim_matches('/').to_owned();
    };
    let mut unit = String::new();
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    if let Some(name) = slice.strip_suffix(".slice").filter(|name| *name != "-") {
        for (end, _) in name.match_indices('-') {
            unit.extend([name.get(..end).unwrap_or_default(), ".slice/"]);
        }
        unit.extend([slice, "/"]);
    }
    match (prefix.is_empty(), name.ends_with(".slice")) {
        (_, true) => unit.push_str(name),
        (true, false) => unit.extend([name, ".scope"]),
        (false, false) => unit.extend([prefix, "-", name, ".scope"]),
    }
    unit
}

/// The part of a path up to another one that is in it, as whole names.
fn up_to<'a>(path: &'a str, expected: &str) -> Option<&'a str> {
    let wanted = format!("/{expected}");
    let ends = path.match_indices(&wanted).map(|(start, _)| start + wanted.len());
    ends.filter_map(|end| Some((path.get(..end)?, path.get(end..)?)))
        .find(|(_, rest)| rest.is_empty() || rest.starts_with('/'))
        .map(|(part, _)| part)
}

/// The part of a path up to the first name that is a container's: its id, or a systemd scope that ends with it.
/// conmon, which watches a container of CRI-O or podman, has a scope beside it.
fn up_to_id<'a>(path: &'a str, id: &str) -> Option<&'a str> {
    let is_containers = |name: &str| {
        let scope = name.strip_suffix(".scope").and_then(|unit| unit.strip_suffix(id));
        name == id
            || scope.is_some_and(|prefix| {
                prefix.is_empty() || (prefix.ends_with('-') && !prefix.ends_with("conmon-"))
            })
    };
    let mut end = 0;
    for name in path.split('/') {
        end += name.len();
        if !id.is_empty() && is_containers(name) {
            return path.get(..end);
        }
        end += 1;
    }
    None
}

/// The sizes of huge pages as cgroups' files have them, from names such as `hugepages-2048kB`.
fn page_sizes(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |name: &str| {
        let kilobytes: u64 = name
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        Some(match kilobytes {
            gigabytes if gigabytes >= 1 << 20 => format!("{}GB", gigabytes >> 20),
            megabytes if megabytes >= 1 << 10 => format!("{}MB", megabytes >> 10),
            kilobytes => format!("{kilobytes}KB"),
        })
    };
    names
        .filter_map(|entry| size(entry.file_name().to_str()?))
        .collect()
}

#[cfg(test)]
mod tests;
