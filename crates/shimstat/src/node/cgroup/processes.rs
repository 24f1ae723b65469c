//! The processes of a container, and what they have open.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::reader::Cgroup;
use crate::node::files;

/// A line has at most 8 bytes: room for 100,000 processes.
const PROCS_LIMIT: u64 = 800_000;

/// A container has one cgroup, and one with systemd in it some twenty.
const MOST_CGROUPS: usize = 200;

/// How much is looked at. What is beyond is left out, and never counted in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountBounds {
    /// Processes whose descriptors are counted.
    pub processes: usize,
    /// Descriptors of all of them that are looked at one by one, which takes 2 to 20 µs each.
    pub descriptors: u64,
}

impl Default for CountBounds {
    /// 1,000 processes and 10,000 descriptors: 20 to 200 ms at most, so not for a thread that others wait for.
    fn default() -> Self {
        Self {
            processes: 1_000,
            descriptors: 10_000,
        }
    }
}

/// What a container has open. `None` where it may not be looked at, or is past the bounds.
///
/// cAdvisor's meanings were read in its `lib/container/libcontainer/handler.go` (`processStatsFromProcs`, July 2026).
/// It looks at the processes of the container's own cgroup alone; here those of child cgroups count as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessCounts {
    /// Processes in `cgroup.procs`; cAdvisor's `container_processes`. Its `container_threads` is
    /// [`Pids::current`](crate::stats::Pids::current).
    pub processes: Option<u64>,
    /// Entries of `/proc/<pid>/fd` of all processes; cAdvisor's `container_file_descriptors`. A file that two
    /// processes share counts twice. Since Linux 6.2 the kernel tells their number, however many there are.
    pub file_descriptors: Option<u64>,
    /// Those of them that are sockets; cAdvisor's `container_sockets`.
    pub sockets: Option<u64>,
}

impl Cgroup {
    /// Counts the container's processes and what they have open. Not all at one instant: one that ends meanwhile
    /// has nothing open.
    pub fn count_processes(&self, bounds: CountBounds) -> ProcessCounts {
        self.count_processes_in(Path::new("/proc"), bounds, |fd| {
            // 0 on older kernels; nothing is lost where it means that nothing is open.
            fs::metadata(fd).ok().map(|fd| fd.len()).filter(|open| *open != 0)
        })
    }

    pub(super) fn count_processes_in(
        &self,
        proc: &Path,
        bounds: CountBounds,
        open: impl Fn(&Path) -> Option<u64>,
    ) -> ProcessCounts {
        let Some(pids) = self.directory().and_then(pids) else {
            return ProcessCounts::default();
        };
        let (file_descriptors, sockets) = if pids.len() > bounds.processes {
            (None, None)
        } else {
            let fds: Vec<_> = pids
                .iter()
                .map(|pid| proc.join(pid.to_string()).join("fd"))
                .collect();
            let told: Option<u64> = fds.iter().map(|fd| open(fd)).sum();
            match told.filter(|open| *open > bounds.descriptors) {
                Some(many) => (Some(many), None),
                None => descriptors(&fds, bounds.descriptors).unzip(),
            }
        };
        ProcessCounts {
            processes: Some(pids.len() as u64),
            file_descriptors,
            sockets,
        }
    }
}

/// The processes in a cgroup and those below it.
fn pids(directory: &Path) -> Option<Vec<u32>> {
    let mut pids = Vec::new();
    let mut directories = vec![directory.to_path_buf()];
    let mut seen = 0;
    while let Some(directory) = directories.pop() {
        seen += 1;
        if seen > MOST_CGROUPS {
            return None;
        }
        match files::read_text(&directory.join("cgroup.procs"), PROCS_LIMIT) {
            Ok(text) => pids.extend(text.lines().filter_map(|pid| pid.parse::<u32>().ok())),
            Err(_) if seen == 1 => return None,
            // Removed meanwhile, or threaded: then its processes are in a cgroup above.
            Err(error) if error.is_missing() || is(&error.source, libc::EOPNOTSUPP) => {}
            Err(_) => return None,
        }
        // A directory of cgroups has two links, and one more for each child.
        if fs::metadata(&directory).is_ok_and(|metadata| metadata.nlink() != 2) {
            let children = fs::read_dir(&directory).into_iter().flatten().flatten();
            directories.extend(
                children
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path())
                    .take(MOST_CGROUPS + 1),
            );
        }
    }
    // A process that moves is in two lists.
    pids.sort_unstable();
    pids.dedup();
    Some(pids)
}

/// How many entries these directories have, and how many of them are sockets.
fn descriptors(fds: &[PathBuf], most: u64) -> Option<(u64, u64)> {
    let (mut open, mut sockets) = (0, 0);
    for fd in fds {
        let entries = match fs::read_dir(fd) {
            Ok(entries) => entries,
            Err(error) if has_ended(&error) => continue,
            Err(_) => return None,
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) if has_ended(&error) => break,
                Err(_) => return None,
            };
            open += 1;
            if open > most {
                return None;
            }
            // One that was closed meanwhile has counted as open.
            let target = fs::read_link(entry.path());
            sockets +=
                u64::from(target.is_ok_and(|path| path.as_os_str().as_bytes().starts_with(b"socket:")));
        }
    }
    Some((open, sockets))
}

fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || is(error, libc::ESRCH)
}

fn is(error: &io::Error, code: i32) -> bool {
    error.raw_os_error() == Some(code)
}
