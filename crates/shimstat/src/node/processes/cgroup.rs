//! What the kernel counts for the cgroups that a Kata shim made for its sandbox: the sum to check its processes'
//! figures against.

use std::time::Duration;

use crate::node::cgroup::{Cgroup, CgroupError, CgroupMounts};
use crate::node::hypervisor::CgroupPaths;
use crate::stats::CgroupVersion;

/// What a sandbox's cgroups have used: its own and that of its overhead, where there is one. Memory is in bytes. `None`
/// where the kernel does not say, or not for both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SandboxCgroup {
    /// All memory that is charged to them.
    pub memory: Option<u64>,
    /// Of it: anonymous memory.
    pub anonymous: Option<u64>,
    /// Page cache, shared memory included. Some of it can be had back at any time.
    pub file: Option<u64>,
    /// Memory shared without a file on a disk, as a guest's is with virtiofsd.
    pub shared: Option<u64>,
    /// Processor time of everything that was ever in them.
    pub cpu: Option<Duration>,
}

impl SandboxCgroup {
    /// Reads the sandbox's cgroups, of either version. `None` where its shim noted none; an error where one that it noted
    /// is not there.
    pub fn read(mounts: &CgroupMounts, paths: &CgroupPaths) -> Result<Option<Self>, CgroupError> {
        CgroupReader::default().read(mounts, paths)
    }

    fn of(cgroup: &Cgroup) -> Self {
        let number = |name| cgroup.parse(name, |text| text.trim_end().parse::<u64>().ok());
        let keys = |name, keys: &[&str; 3]| {
            cgroup
                .parse(name, |text| Some(keys.map(|key| value(text, key))))
                .unwrap_or_default()
        };
        let (memory, cpu, [anonymous, file, shared]) = match cgroup.version() {
            CgroupVersion::V1 => (
                number("memory.usage_in_bytes"),
                number("cpuacct.usage"),
                keys("memory.stat", &["total_rss", "total_cache", "total_shmem"]),
            ),
            CgroupVersion::V2 => (
                number("memory.current"),
                cgroup.parse("cpu.stat", |text| value(text, "usage_usec")?.checked_mul(1000)),
                keys("memory.stat", &["anon", "file", "shmem"]),
            ),
        };
        let cpu = cpu.map(Duration::from_nanos);
        Self {
            memory,
            anonymous,
            file,
            shared,
            cpu,
        }
    }

    fn plus(self, other: Self) -> Self {
        let sum = |part: fn(&Self) -> Option<u64>| part(&self)?.checked_add(part(&other)?);
        Self {
            memory: sum(|cgroup| cgroup.memory),
            anonymous: sum(|cgroup| cgroup.anonymous),
            file: sum(|cgroup| cgroup.file),
            shared: sum(|cgroup| cgroup.shared),
            cpu: self
                .cpu
                .zip(other.cpu)
                .map(|(one, other)| one.saturating_add(other)),
        }
    }
}

/// The number in a line `key 1520`.
fn value(text: &str, key: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    value.trim_end().parse().ok()
}

/// Reads a sandbox's cgroups time and again, and remembers where their directories are.
#[derive(Debug, Default)]
pub(super) struct CgroupReader {
    known: Option<(CgroupPaths, Vec<Cgroup>)>,
}

impl CgroupReader {
    pub fn read(
        &mut self,
        mounts: &CgroupMounts,
        paths: &CgroupPaths,
    ) -> Result<Option<SandboxCgroup>, CgroupError> {
        let read = |cgroups: &[Cgroup]| cgroups.iter().map(SandboxCgroup::of).reduce(SandboxCgroup::plus);
        if let Some((_, cgroups)) = self.known.as_ref().filter(|(known, _)| known == paths) {
            let sum = read(cgroups);
            // A cgroup that is gone has no numbers. One of that path may have been made anew elsewhere.
            if sum.is_some_and(|sum| sum.memory.is_some() && sum.cpu.is_some()) {
                return Ok(sum);
            }
        }
        let Some(sandbox) = &paths.sandbox else {
            return Ok(None);
        };
        let paths_of_each = [Some(sandbox), paths.overhead.as_ref()];
        let cgroups = paths_of_each.into_iter().flatten().map(|path| mounts.at(path));
        let cgroups = cgroups.collect::<Result<Vec<_>, _>>()?;
        let sum = read(&cgroups);
        self.known = Some((paths.clone(), cgroups));
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::proc_fs::testing::Tree;

    fn paths(sandbox: &str, overhead: Option<&str>) -> CgroupPaths {
        CgroupPaths {
            sandbox: Some(sandbox.into()),
            overhead: overhead.map(Into::into),
        }
    }

    #[test]
    fn both_cgroups_of_version_1_are_added_up() {
        let tree = Tree::new();
        let write = |path: &str, memory: u64, cpu: u64| {
            tree.write(
                &format!("memory/{path}/memory.usage_in_bytes"),
                &format!("{memory}\n"),
            )
            .write(
                &format!("memory/{path}/memory.stat"),
                "cache 1\nrss 2\nshmem 3\ntotal_cache 40\ntotal_rss 50\ntotal_shmem 30\n",
            )
            .write(&format!("cpu/{path}/cpuacct.usage"), &format!("{cpu}\n"));
        };
        write("k8s.io/kata_1", 100, 7_000_000_001);
        write("kata_overhead/1", 20, 3_000_000_000);
        let mounts = tree.mounts(&[
            ("memory", "cgroup", "rw,memory"),
            ("cpu", "cgroup", "rw,cpu,cpuacct"),
        ]);
        let read = |paths| SandboxCgroup::read(&mounts, &paths);
        let expected = SandboxCgroup {
            memory: Some(120),
            anonymous: Some(100),
            file: Some(80),
            shared: Some(60),
            cpu: Some(Duration::from_nanos(10_000_000_001)),
        };
        // As Kata 4.1.0's Go shim notes them.
        assert_eq!(
            read(paths("/k8s.io/kata_1", Some("/kata_overhead/1"))).unwrap(),
            Some(expected)
        );
        assert_eq!(
            read(paths("/k8s.io/kata_1", None)).unwrap().unwrap().memory,
            Some(100)
        );
        assert!(
            read(paths("/k8s.io/kata_1", Some("/kata_overhead/2"))).is_err(),
            "half of it is no sum"
        );
        assert!(read(paths("/gone", None)).is_err());
        assert!(read(paths("/", None)).is_err(), "the root is the whole machine");
        assert_eq!(read(CgroupPaths::default()).unwrap(), None);
    }

    #[test]
    fn a_cgroup_of_version_2_whose_controller_is_off() {
        let tree = Tree::new();
        tree.write("cg/s.slice/kata-1.scope/memory.current", "123\n")
            .write(
                "cg/s.slice/kata-1.scope/memory.stat",
                "anon 50\nfile 40\nkernel 7\nshmem 30\nanon_thp 9\n",
            )
            .write(
                "cg/s.slice/kata-1.scope/cpu.stat",
                "usage_usec 1500000\nuser_usec 1\nsystem_usec 2\n",
            )
            .write(
                "cg/s.slice/kata-2.scope/cpu.stat",
                "usage_usec 8\nuser_usec 1\nsystem_usec 2\n",
            );
        let mounts = tree.mounts(&[("cg", "cgroup2", "rw")]);
        let read = |id| SandboxCgroup::read(&mounts, &paths(&format!("s.slice:kata:{id}"), None));
        let expected = SandboxCgroup {
            memory: Some(123),
            anonymous: Some(50),
            file: Some(40),
            shared: Some(30),
            cpu: Some(Duration::from_millis(1500)),
        };
        assert_eq!(read(1).unwrap(), Some(expected));
        let without_memory = SandboxCgroup {
            cpu: Some(Duration::from_micros(8)),
            ..SandboxCgroup::default()
        };
        assert_eq!(read(2).unwrap(), Some(without_memory));
        assert!(read(3).is_err());
    }
}
