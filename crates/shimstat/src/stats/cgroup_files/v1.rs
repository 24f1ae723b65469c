//! The files of cgroup v1's controllers.

use super::files::Files;
use crate::stats::{Blkio, BlkioEntry, Cpu, CpuUsage, Hugetlb, Memory, MemoryEntry, Stats, Throttling};

/// A tick of `cpuacct.stat`: the kernel's USER_HZ is 100 on every architecture that runs containers.
const NANOSECONDS_PER_TICK: u64 = 10_000_000;

pub(super) fn stats(files: &Files<'_>, page_sizes: &[String]) -> Stats {
    Stats {
        cpu: cpu(files),
        memory: memory(files),
        pids: files.pids(),
        blkio: blkio(files),
        hugetlb: page_sizes
            .iter()
            .filter_map(|size| {
                let number = |what: &str| files.number(&format!("hugetlb.{size}.{what}"));
                let numbers = Hugetlb {
                    usage: Some(number("usage_in_bytes")?),
                    max: number("max_usage_in_bytes"),
                    failcnt: number("failcnt"),
                };
                Some((size.clone(), numbers))
            })
            .collect(),
        network: None,
        sockets: None,
    }
}

fn cpu(files: &Files<'_>) -> Cpu {
    let split = files.keyed("cpuacct.stat").unwrap_or_default();
    let ticks = |key: &str| split.get(key)?.checked_mul(NANOSECONDS_PER_TICK);
    let stat = files.keyed("cpu.stat").unwrap_or_default();
    let count = |key: &str| stat.get(key).copied().unwrap_or(0);
    let percpu = files.word("cpuacct.usage_percpu").unwrap_or_default();
    Cpu {
        usage: CpuUsage {
            total: files.number("cpuacct.usage"),
            kernel: ticks("system"),
            user: ticks("user"),
            percpu: percpu
                .split_ascii_whitespace()
                .map_while(|time| time.parse().ok())
                .collect(),
        },
        throttling: Throttling::counted(
            count("nr_periods"),
            count("nr_throttled"),
            stat.get("throttled_time").copied(),
        ),
        psi: None,
    }
}

fn memory(files: &Files<'_>) -> Memory {
    let stat = files.keyed("memory.stat").unwrap_or_default();
    let number = |key: &str| stat.get(key).copied();
    Memory {
        cache: number("cache"),
        total_cache: number("total_cache"),
        usage: entry(files, "memory"),
        swap: entry(files, "memory.memsw"),
        kernel: entry(files, "memory.kmem"),
        kernel_tcp: entry(files, "memory.kmem.tcp"),
        rss: number("total_rss"),
        mapped_file: number("total_mapped_file"),
        inactive_file: number("total_inactive_file"),
        pgfault: number("total_pgfault"),
        pgmajfault: number("total_pgmajfault"),
        oom_kill: files
            .keyed("memory.oom_control")
            .and_then(|control| control.get("oom_kill").copied()),
        psi: None,
        raw: stat.into_iter().map(|(key, value)| (key.into(), value)).collect(),
    }
}

fn entry(files: &Files<'_>, prefix: &str) -> MemoryEntry {
    let number = |what: &str| files.number(&format!("{prefix}.{what}"));
    MemoryEntry {
        limit: number("limit_in_bytes"),
        usage: number("usage_in_bytes"),
        max: number("max_usage_in_bytes"),
        failcnt: number("failcnt"),
    }
}

/// The first group of files that has a device, as runc chooses: those of the BFQ and CFQ schedulers count more than
/// the throttling layer, but only where such a scheduler is in use. `None` without any of these files.
fn blkio(files: &Files<'_>) -> Option<Blkio> {
    let groups = [
        ("blkio.bfq", "_recursive"),
        ("blkio", "_recursive"),
        ("blkio.throttle", "_recursive"),
        ("blkio.throttle", ""),
    ];
    let mut empty = None;
    for (prefix, suffix) in groups {
        let list = |what: &str| entries(files, &format!("{prefix}.{what}{suffix}"));
        let Some(serviced) = list("io_serviced") else {
            continue;
        };
        if serviced.is_empty() {
            empty = Some(Blkio::default());
            continue;
        }
        let optional = |what: &str| list(what).unwrap_or_default();
        return Some(Blkio {
            io_service_bytes_recursive: optional("io_service_bytes"),
            io_serviced_recursive: serviced,
            io_queued_recursive: optional("io_queued"),
            io_service_time_recursive: optional("io_service_time"),
            io_wait_time_recursive: optional("io_wait_time"),
            io_merged_recursive: optional("io_merged"),
            io_time_recursive: optional("time"),
            sectors_recursive: optional("sectors"),
            psi: None,
        });
    }
    empty
}

/// Lines such as `254:0 Read 4096`, some files without the operation. The last one, `Total 4096`, is left out.
fn entries(files: &Files<'_>, name: &str) -> Option<Vec<BlkioEntry>> {
    let text = (files.0)(name)?;
    let entry = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let (op, value) = match (words.next()?, words.next()) {
            (op, Some(value)) => (op, value),
            (value, None) => ("", value),
        };
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: op.to_owned(),
            value: value.parse().ok()?,
        })
    };
    Some(text.lines().filter_map(entry).collect())
}
