//! What the kernel counts for the cgroups that a Kata shim made for its sandbox: the sum to check its processes'
//! figures against.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::proc_fs::Roots;
use crate::node::files;
use crate::node::hypervisor::CgroupPaths;

/// `memory.stat` of a machine with many NUMA nodes has some 10 KB.
const FILE_LIMIT: u64 = 256 << 10;

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
    /// Reads the sandbox's cgroups, of either version. `None` where the shim noted none, or one is not there.
    pub fn read(paths: &CgroupPaths) -> Option<Self> {
        Self::read_in(Roots::host(), paths)
    }

    fn read_in(roots: Roots<'_>, paths: &CgroupPaths) -> Option<Self> {
        let sandbox = read_one(roots, paths.sandbox.as_ref()?)?;
        let Some(overhead) = &paths.overhead else {
            return Some(sandbox);
        };
        let overhead = read_one(roots, overhead)?;
        let sum = |part: fn(&Self) -> Option<u64>| part(&sandbox)?.checked_add(part(&overhead)?);
        Some(Self {
            memory: sum(|cgroup| cgroup.memory),
            anonymous: sum(|cgroup| cgroup.anonymous),
            file: sum(|cgroup| cgroup.file),
            shared: sum(|cgroup| cgroup.shared),
            cpu: sandbox
                .cpu
                .zip(overhead.cpu)
                .map(|(one, other)| one.saturating_add(other)),
        })
    }
}

fn read_one(roots: Roots<'_>, path: &str) -> Option<SandboxCgroup> {
    let path = directory(path)?;
    if roots.cgroup.join("cgroup.controllers").exists() {
        version_2(&roots.cgroup.join(path))
    } else {
        version_1(roots.cgroup, &path)
    }
}

fn version_2(cgroup: &Path) -> Option<SandboxCgroup> {
    let stat = text(&cgroup.join("memory.stat"));
    let stat = |key| value(stat.as_deref()?, key);
    let cpu = text(&cgroup.join("cpu.stat"));
    cgroup.is_dir().then(|| SandboxCgroup {
        memory: number(&cgroup.join("memory.current")),
        anonymous: stat("anon"),
        file: stat("file"),
        shared: stat("shmem"),
        cpu: cpu
            .and_then(|cpu| value(&cpu, "usage_usec"))
            .map(Duration::from_micros),
    })
}

fn version_1(root: &Path, path: &Path) -> Option<SandboxCgroup> {
    let memory = root.join("memory").join(path);
    let stat = text(&memory.join("memory.stat"));
    let stat = |key| value(stat.as_deref()?, key);
    // The controller has a mount of its own, or shares one with `cpu`.
    let cpu = ["cpuacct", "cpu,cpuacct"]
        .iter()
        .find_map(|controller| number(&root.join(controller).join(path).join("cpuacct.usage")));
    (memory.is_dir() || cpu.is_some()).then(|| SandboxCgroup {
        memory: number(&memory.join("memory.usage_in_bytes")),
        anonymous: stat("total_rss"),
        file: stat("total_cache"),
        shared: stat("total_shmem"),
        cpu: cpu.map(Duration::from_nanos),
    })
}

/// The directory of a cgroup below a hierarchy. systemd's are noted as `slice:prefix:name`, and a slice is in those
/// that its name begins with: `a-b.slice` is `a.slice/a-b.slice` (systemd.slice(5)).
fn directory(path: &str) -> Option<PathBuf> {
    let parts: Vec<&str> = path.split(':').collect();
    let directory = match parts.as_slice() {
        [path] => PathBuf::from(path.trim_start_matches('/')),
        [slice, prefix, name] => {
            let stem = slice.strip_suffix(".slice")?;
            let ends = stem.match_indices('-').map(|(end, _)| end).chain([stem.len()]);
            let mut directory: PathBuf = ends
                .filter_map(|end| Some(format!("{}.slice", stem.get(..end)?)))
                .collect();
            directory.push(match (*prefix, name.ends_with(".slice")) {
                (_, true) => (*name).to_string(),
                ("", false) => format!("{name}.scope"),
                (prefix, false) => format!("{prefix}-{name}.scope"),
            });
            directory
        }
        _ => return None,
    };
    // The path comes from a file: it must not lead elsewhere, nor to the root, which has the whole machine.
    let mut components = directory.components().peekable();
    components.peek()?;
    components
        .all(|part| matches!(part, Component::Normal(_)))
        .then_some(directory)
}

fn text(path: &Path) -> Option<String> {
    files::read_text(path, FILE_LIMIT).ok()
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.trim().parse().ok()
}

/// The number in a line `key number`.
fn value(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::processes::testing::Tree;

    fn paths(sandbox: &str, overhead: Option<&str>) -> CgroupPaths {
        CgroupPaths {
            sandbox: Some(sandbox.into()),
            overhead: overhead.map(Into::into),
        }
    }

    #[test]
    fn where_a_cgroup_is() {
        for (path, expected) in [
            ("/k8s.io/kata_3088", Some("k8s.io/kata_3088")),
            ("kata_overhead/3088", Some("kata_overhead/3088")),
            (
                "kubepods-besteffort-pod1_2.slice:cri-containerd:3088",
                Some(
                    "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice/\
                     cri-containerd-3088.scope",
                ),
            ),
            ("system.slice:kata:3088", Some("system.slice/kata-3088.scope")),
            ("system.slice::3088", Some("system.slice/3088.scope")),
            ("a:b", None),
            ("x:kata:3088", None),
            ("/../../etc", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(directory(path), expected.map(PathBuf::from), "{path}");
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
            .write(&format!("cpu,cpuacct/{path}/cpuacct.usage"), &format!("{cpu}\n"));
        };
        write("k8s.io/kata_1", 100, 7_000_000_001);
        write("kata_overhead/1", 20, 3_000_000_000);
        let read = |paths| SandboxCgroup::read_in(tree.roots(), &paths);
        let expected = SandboxCgroup {
            memory: Some(120),
            anonymous: Some(100),
            file: Some(80),
            shared: Some(60),
            cpu: Some(Duration::from_nanos(10_000_000_001)),
        };
        assert_eq!(
            read(paths("/k8s.io/kata_1", Some("/kata_overhead/1"))),
            Some(expected)
        );
        assert_eq!(read(paths("/k8s.io/kata_1", None)).unwrap().memory, Some(100));
        assert_eq!(
            read(paths("/k8s.io/kata_1", Some("/kata_overhead/2"))),
            None,
            "half of it is no sum"
        );
        assert_eq!(read(paths("/gone", None)), None);
        assert_eq!(read(CgroupPaths::default()), None);
    }

    #[test]
    fn a_cgroup_of_version_2_whose_controller_is_off() {
        let tree = Tree::new();
        tree.write("cgroup.controllers", "cpu memory\n")
            .write("s.slice/kata-1.scope/memory.current", "123\n")
            .write(
                "s.slice/kata-1.scope/memory.stat",
                "anon 50\nfile 40\nkernel 7\nshmem 30\nanon_thp 9\n",
            )
            .write(
                "s.slice/kata-1.scope/cpu.stat",
                "usage_usec 1500000\nuser_usec 1\n",
            )
            .write("s.slice/kata-2.scope/cpu.stat", "usage_usec 8\n");
        let read = |id| SandboxCgroup::read_in(tree.roots(), &paths(&format!("s.slice:kata:{id}"), None));
        let expected = SandboxCgroup {
            memory: Some(123),
            anonymous: Some(50),
            file: Some(40),
            shared: Some(30),
            cpu: Some(Duration::from_millis(1500)),
        };
        assert_eq!(read(1), Some(expected));
        let without_memory = SandboxCgroup {
            cpu: Some(Duration::from_micros(8)),
            ..SandboxCgroup::default()
        };
        assert_eq!(read(2), Some(without_memory));
        assert_eq!(read(3), None);
    }
}
