//! `Stats` from a process's real cgroup: `io.containerd.cgroups.v1.Metrics` or `…v2.Metrics`, as the host has it.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use containerd_shim_protos::{cgroups::metrics as v1, cgroups_v2::metrics as v2};
use protobuf::{Message, MessageField, well_known_types::any::Any};

const ROOT: &str = "/sys/fs/cgroup";

/// Where one container is accounted for.
pub enum Cgroup {
    /// Controller (`memory`, `cpuacct`, …) → directory.
    V1(HashMap<String, PathBuf>),
    V2(PathBuf),
}

impl Cgroup {
    /// The cgroup that the process is in now. It is asked while the process is sure to be there, and kept.
    pub fn of(pid: u32) -> io::Result<Self> {
        let lines = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let unified = Path::new(ROOT).join("cgroup.controllers").exists();
        Ok(Self::parse(&lines, Path::new(ROOT), unified))
    }

    fn parse(lines: &str, root: &Path, unified: bool) -> Self {
        let mut controllers = HashMap::new();
        for line in lines.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(names), Some(path)) = (parts.next(), parts.next()) else {
                continue;
            };
            let path = path.trim_start_matches('/');
            if unified && names.is_empty() {
                return Self::V2(root.join(path));
            }
            for name in names
                .split(',')
                .filter(|name| !name.is_empty() && !name.contains('='))
            {
                controllers.insert(name.to_owned(), root.join(name).join(path));
            }
        }
        Self::V1(controllers)
    }

    /// The processes in it.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let directory = match self {
            Self::V1(controllers) => controllers.get("pids").ok_or(io::ErrorKind::NotFound)?,
            Self::V2(directory) => directory,
        };
        let text = fs::read_to_string(directory.join("cgroup.procs"))?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// A file of `key value` lines; empty where it cannot be read.
    pub fn flat(&self, controller: &str, name: &str) -> HashMap<String, u64> {
        self.file(controller, name)
            .map(|path| flat(&path))
            .unwrap_or_default()
    }

    /// A file with one number in it.
    pub fn number(&self, controller: &str, name: &str) -> Option<u64> {
        number(&self.file(controller, name)?)
    }

    fn file(&self, controller: &str, name: &str) -> Option<PathBuf> {
        match self {
            Self::V1(controllers) => Some(controllers.get(controller)?.join(name)),
            Self::V2(directory) => Some(directory.join(name)),
        }
    }

    pub fn stats(&self) -> io::Result<Any> {
        let (name, bytes) = match self {
            Self::V1(controllers) => (
                "io.containerd.cgroups.v1.Metrics",
                v1_metrics(controllers).write_to_bytes(),
            ),
            Self::V2(directory) => (
                "io.containerd.cgroups.v2.Metrics",
                v2_metrics(directory).write_to_bytes(),
            ),
        };
        let value = bytes.map_err(io::Error::other)?;
        Ok(Any {
            type_url: name.to_owned(),
            value,
            ..Default::default()
        })
    }
}

/// A file with one number in it; "max" and a missing file are no number.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A file of `key value` lines.
fn flat(path: &Path) -> HashMap<String, u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
        .collect()
}

/// Fills fields of a message from a map: `field = "key"` for each, 0 where the kernel has no such key, as
/// containerd's own shim does.
macro_rules! fill {
    ($message:expr, $map:expr, { $($field:ident = $key:literal),* $(,)? }) => {
        $( $message.$field = $map.get($key).copied().unwrap_or(0); )*
    };
}

fn v1_metrics(controllers: &HashMap<String, PathBuf>) -> v1::Metrics {
    let file =
        |controller: &str, name: &str| controllers.get(controller).map(|directory| directory.join(name));
    let read = |controller: &str, name: &str| file(controller, name).and_then(|path| number(&path));
    let mut metrics = v1::Metrics::new();

    metrics.pids = MessageField::some(v1::PidsStat {
        current: read("pids", "pids.current").unwrap_or(0),
        limit: read("pids", "pids.max").unwrap_or(0),
        ..Default::default()
    });

    let per_cpu = file("cpuacct", "cpuacct.usage_percpu").and_then(|path| fs::read_to_string(path).ok());
    let per_cpu = per_cpu
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    let ticks = flat(&file("cpuacct", "cpuacct.stat").unwrap_or_default());
    // cpuacct.stat counts in USER_HZ, which is 100 on every architecture that containerd runs on.
    let nanoseconds = |key: &str| ticks.get(key).map_or(0, |n| n * 10_000_000);
    let usage = v1::CPUUsage {
        total: read("cpuacct", "cpuacct.usage").unwrap_or(0),
        kernel: nanoseconds("system"),
        user: nanoseconds("user"),
        per_cpu,
        ..Default::default()
    };
    let mut throttling = v1::Throttle::new();
    fill!(throttling, flat(&file("cpu", "cpu.stat").unwrap_or_default()), {
        periods = "nr_periods", throttled_periods = "nr_throttled", throttled_time = "throttled_time",
    });
    metrics.cpu = MessageField::some(v1::CPUStat {
        usage: MessageField::some(usage),
        throttling: MessageField::some(throttling),
        ..Default::default()
    });

    metrics.memory = MessageField::some(v1_memory(&|name| file("memory", name)));
    let mut oom = v1::MemoryOomControl::new();
    fill!(oom, flat(&file("memory", "memory.oom_control").unwrap_or_default()), {
        oom_kill_disable = "oom_kill_disable", under_oom = "under_oom", oom_kill = "oom_kill",
    });
    metrics.memory_oom_control = MessageField::some(oom);

    let entries = |name: &str| {
        file("blkio", name)
            .map(|path| v1_blkio(&path))
            .unwrap_or_default()
    };
    metrics.blkio = MessageField::some(v1::BlkIOStat {
        io_service_bytes_recursive: entries("blkio.throttle.io_service_bytes_recursive"),
        io_serviced_recursive: entries("blkio.throttle.io_serviced_recursive"),
        ..Default::default()
    });
    metrics
}

fn v1_memory(file: &dyn Fn(&str) -> Option<PathBuf>) -> v1::MemoryStat {
    let mut memory = v1::MemoryStat::new();
    fill!(memory, flat(&file("memory.stat").unwrap_or_default()), {
        cache = "cache", rss = "rss", rss_huge = "rss_huge", mapped_file = "mapped_file", dirty = "dirty",
        writeback = "writeback", pg_pg_in = "pgpgin", pg_pg_out = "pgpgout", pg_fault = "pgfault",
        pg_maj_fault = "pgmajfault", inactive_anon = "inactive_anon", active_anon = "active_anon",
        inactive_file = "inactive_file", active_file = "active_file", unevictable = "unevictable",
        hierarchical_memory_limit = "hierarchical_memory_limit",
        hierarchical_swap_limit = "hierarchical_memsw_limit", total_cache = "total_cache",
        total_rss = "total_rss", total_rss_huge = "total_rss_huge", total_mapped_file = "total_mapped_file",
        total_dirty = "total_dirty", total_writeback = "total_writeback", total_pg_pg_in = "total_pgpgin",
        total_pg_pg_out = "total_pgpgout", total_pg_fault = "total_pgfault",
        total_pg_maj_fault = "total_pgmajfault", total_inactive_anon = "total_inactive_anon",
        total_active_anon = "total_active_anon", total_inactive_file = "total_inactive_file",
        total_active_file = "total_active_file", total_unevictable = "total_unevictable",
    });
    let entry = |prefix: &str| {
        let read = |suffix: &str| number(&file(&format!("memory.{prefix}{suffix}"))?);
        MessageField::some(v1::MemoryEntry {
            limit: read("limit_in_bytes").unwrap_or(0),
            usage: read("usage_in_bytes").unwrap_or(0),
            max: read("max_usage_in_bytes").unwrap_or(0),
            failcnt: read("failcnt").unwrap_or(0),
            ..Default::default()
        })
    };
    memory.usage = entry("");
    memory.swap = entry("memsw.");
    memory.kernel = entry("kmem.");
    memory.kernel_tcp = entry("kmem.tcp.");
    memory
}

/// Lines such as `254:0 Read 4096`; the line `Total 4096` at the end has no device.
fn v1_blkio(path: &Path) -> Vec<v1::BlkIOEntry> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let entries = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        Some(v1::BlkIOEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: words.next()?.to_owned(),
            value: words.next()?.parse().ok()?,
            ..Default::default()
        })
    });
    entries.collect()
}

fn v2_metrics(directory: &Path) -> v2::Metrics {
    let read = |name: &str| number(&directory.join(name));
    // containerd's own shim sends "max" as the largest number there is.
    let limit = |name: &str| read(name).unwrap_or(u64::MAX);
    let mut metrics = v2::Metrics::new();

    let pids = v2::PidsStat {
        current: read("pids.current").unwrap_or(0),
        limit: limit("pids.max"),
        ..Default::default()
    };
    metrics.pids = MessageField::some(pids);

    let mut cpu = v2::CPUStat::new();
    fill!(cpu, flat(&directory.join("cpu.stat")), {
        usage_usec = "usage_usec", user_usec = "user_usec", system_usec = "system_usec",
        nr_periods = "nr_periods", nr_throttled = "nr_throttled", throttled_usec = "throttled_usec",
        nr_bursts = "nr_bursts", burst_usec = "burst_usec",
    });
    metrics.cpu = MessageField::some(cpu);

    let mut memory = v2::MemoryStat::new();
    fill!(memory, flat(&directory.join("memory.stat")), {
        anon = "anon", file = "file", kernel_stack = "kernel_stack", slab = "slab", sock = "sock",
        shmem = "shmem", file_mapped = "file_mapped", file_dirty = "file_dirty",
        file_writeback = "file_writeback", anon_thp = "anon_thp", inactive_anon = "inactive_anon",
        active_anon = "active_anon", inactive_file = "inactive_file", active_file = "active_file",
        unevictable = "unevictable", slab_reclaimable = "slab_reclaimable",
        slab_unreclaimable = "slab_unreclaimable", pgfault = "pgfault", pgmajfault = "pgmajfault",
        pgrefill = "pgrefill", pgscan = "pgscan", pgsteal = "pgsteal", pgactivate = "pgactivate",
        pgdeactivate = "pgdeactivate", pglazyfree = "pglazyfree", pglazyfreed = "pglazyfreed",
        thp_fault_alloc = "thp_fault_alloc", thp_collapse_alloc = "thp_collapse_alloc",
    });
    memory.usage = read("memory.current").unwrap_or(0);
    memory.usage_limit = limit("memory.max");
    memory.max_usage = read("memory.peak").unwrap_or(0);
    memory.swap_usage = read("memory.swap.current").unwrap_or(0);
    memory.swap_limit = limit("memory.swap.max");
    metrics.memory = MessageField::some(memory);

    let mut events = v2::MemoryEvents::new();
    fill!(events, flat(&directory.join("memory.events")), {
        low = "low", high = "high", max = "max", oom = "oom", oom_kill = "oom_kill",
        oom_group_kill = "oom_group_kill",
    });
    metrics.memory_events = MessageField::some(events);

    let usage = v2_io(&fs::read_to_string(directory.join("io.stat")).unwrap_or_default());
    metrics.io = MessageField::some(v2::IOStat {
        usage,
        ..Default::default()
    });
    metrics
}

/// Lines such as `254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`.
fn v2_io(text: &str) -> Vec<v2::IOEntry> {
    let entries = text.lines().filter_map(|line| {
        let (device, rest) = line.split_once(' ')?;
        let (major, minor) = device.split_once(':')?;
        let pairs: HashMap<&str, u64> = rest
            .split(' ')
            .filter_map(|pair| pair.split_once('='))
            .filter_map(|(key, value)| Some((key, value.parse().ok()?)))
            .collect();
        let mut entry = v2::IOEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            ..Default::default()
        };
        fill!(entry, pairs, { rbytes = "rbytes", wbytes = "wbytes", rios = "rios", wios = "wios" });
        Some(entry)
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_directories_of_both_versions() {
        let hybrid = "5:memory:/default/a\n2:cpu,cpuacct:/default/a\n1:name=systemd:/\n0::/\n";
        let Cgroup::V1(controllers) = Cgroup::parse(hybrid, Path::new(ROOT), false) else {
            panic!("not v1")
        };
        assert_eq!(
            controllers.get("memory").unwrap(),
            Path::new("/sys/fs/cgroup/memory/default/a")
        );
        assert_eq!(
            controllers.get("cpuacct").unwrap(),
            Path::new("/sys/fs/cgroup/cpuacct/default/a")
        );
        assert_eq!(controllers.len(), 3);

        let Cgroup::V2(directory) = Cgroup::parse("0::/k8s/b\n", Path::new(ROOT), true) else {
            panic!("not v2")
        };
        assert_eq!(directory, Path::new("/sys/fs/cgroup/k8s/b"));
    }

    /// The files are those recorded in `crates/shimstat/tests/fixtures/runc-cgroup-v2`.
    #[test]
    fn reads_a_recorded_v2_cgroup() {
        let fixture =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/shimstat/tests/fixtures/runc-cgroup-v2");
        let recorded = fs::read_to_string(fixture.join("cgroup-files-2.1.txt")).unwrap();
        let directory = tempfile::tempdir().unwrap();
        for line in recorded.lines() {
            let (name, content) = line.split_once(": ").unwrap();
            fs::write(directory.path().join(name), content.replace(';', "\n")).unwrap();
        }
        let metrics = v2_metrics(directory.path());
        assert_eq!(metrics.cpu.usage_usec, 4_144_877);
        assert_eq!(metrics.cpu.nr_throttled, 62);
        assert_eq!(
            (metrics.memory.usage, metrics.memory.usage_limit),
            (26_583_040, 33_554_432)
        );
        assert_eq!((metrics.pids.current, metrics.pids.limit), (1, u64::MAX));
        let io = &metrics.io.usage[0];
        assert_eq!((io.major, io.minor, io.rbytes, io.rios), (254, 0, 4_325_376, 33));
    }
}
