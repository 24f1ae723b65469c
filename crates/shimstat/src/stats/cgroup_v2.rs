//! `io.containerd.cgroups.v2.Metrics`, put into cgroup v1's schema as runc does it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, HugeTlbStat, IOEntry, IOStat, MemoryStat, Metrics, PSIData, PSIStats, PidsStat,
};

use super::model::{
    Blkio, BlkioEntry, Cpu, CpuUsage, Hugetlb, Memory, MemoryEntry, Pids, Pressure, Psi, Stats, Throttling,
    interface, measured_keys, reported,
};

/// The kernel's `max`, as every runtime sends it.
const UNLIMITED: u64 = u64::MAX;

pub(super) fn stats(metrics: Metrics) -> Stats {
    let network: Vec<_> = metrics.network.into_iter().map(|stat| interface!(stat)).collect();
    Stats {
        cpu: metrics.cpu.into_option().map(cpu).unwrap_or_default(),
        memory: Memory {
            oom_kill: metrics.memory_events.into_option().map(|events| events.oom_kill),
            ..metrics.memory.into_option().map(memory).unwrap_or_default()
        },
        pids: metrics.pids.into_option().map(pids).unwrap_or_default(),
        blkio: metrics.io.into_option().map(blkio),
        hugetlb: metrics.hugetlb.into_iter().filter_map(hugetlb).collect(),
        network: (!network.is_empty()).then_some(network),
        sockets: None,
    }
}

fn cpu(cpu: CPUStat) -> Cpu {
    let split = cpu.system_usec != 0 || cpu.user_usec != 0;
    Cpu {
        usage: CpuUsage {
            total: reported(cpu.usage_usec, false).and_then(nanoseconds),
            kernel: reported(cpu.system_usec, split).and_then(nanoseconds),
            user: reported(cpu.user_usec, split).and_then(nanoseconds),
            percpu: Vec::new(),
        },
        throttling: Throttling::counted(cpu.nr_periods, cpu.nr_throttled, nanoseconds(cpu.throttled_usec)),
        psi: cpu.psi.into_option().and_then(psi),
    }
}

/// `None` for a time that does not fit: nobody measured 584 years.
fn nanoseconds(microseconds: u64) -> Option<u64> {
    microseconds.checked_mul(1000)
}

fn memory(stat: MemoryStat) -> Memory {
    // A cgroup with a process in it has a kernel stack, which tells whether its memory.stat was read. Where kernel
    // memory is not accounted, zeros are left out that were measured, which does no harm.
    let full = stat.kernel_stack != 0;
    let usage = MemoryEntry {
        limit: reported(stat.usage_limit, false),
        usage: reported(stat.usage, stat.usage_limit != 0),
        // memory.peak exists since Linux 5.19, and is never 0 once a process ran.
        max: reported(stat.max_usage, false),
        failcnt: None,
    };
    Memory {
        cache: reported(stat.file, full),
        total_cache: reported(stat.file, full),
        swap: memory_and_swap(&usage, &stat),
        usage,
        kernel: MemoryEntry::default(),
        kernel_tcp: MemoryEntry::default(),
        rss: reported(stat.anon, full),
        mapped_file: reported(stat.file_mapped, full),
        inactive_file: reported(stat.inactive_file, full),
        pgfault: reported(stat.pgfault, full),
        pgmajfault: reported(stat.pgmajfault, full),
        oom_kill: None,
        raw: raw(&stat, full),
        psi: stat.psi.into_option().and_then(psi),
    }
}

/// cgroup v1's `memsw`. There is no `max`: the two peaks need not have been at the same time.
fn memory_and_swap(memory: &MemoryEntry, stat: &MemoryStat) -> MemoryEntry {
    let (Some(usage), Some(limit)) = (memory.usage, memory.limit) else {
        return MemoryEntry::default();
    };
    MemoryEntry {
        limit: Some(limit.saturating_add(stat.swap_limit)),
        usage: usage.checked_add(stat.swap_usage),
        max: None,
        failcnt: None,
    }
}

fn raw(stat: &MemoryStat, full: bool) -> BTreeMap<Cow<'static, str>, u64> {
    measured_keys([
        ("anon", stat.anon, full),
        ("file", stat.file, full),
        ("kernel_stack", stat.kernel_stack, full),
        ("slab", stat.slab, full),
        ("sock", stat.sock, full),
        ("shmem", stat.shmem, full),
        ("file_mapped", stat.file_mapped, full),
        ("file_dirty", stat.file_dirty, full),
        ("file_writeback", stat.file_writeback, full),
        // Keys with `false` are not in every kernel's file: since Linux 5.9 the refaults and activations are
        // split into anon and file, for which the reply has no fields, and huge pages are an option.
        ("anon_thp", stat.anon_thp, false),
        ("inactive_anon", stat.inactive_anon, full),
        ("active_anon", stat.active_anon, full),
        ("inactive_file", stat.inactive_file, full),
        ("active_file", stat.active_file, full),
        ("unevictable", stat.unevictable, full),
        ("slab_reclaimable", stat.slab_reclaimable, full),
        ("slab_unreclaimable", stat.slab_unreclaimable, full),
        ("pgfault", stat.pgfault, full),
        ("pgmajfault", stat.pgmajfault, full),
        ("workingset_refault", stat.workingset_refault, false),
        ("workingset_activate", stat.workingset_activate, false),
        ("workingset_nodereclaim", stat.workingset_nodereclaim, full),
        ("pgrefill", stat.pgrefill, full),
        ("pgscan", stat.pgscan, full),
        ("pgsteal", stat.pgsteal, full),
        ("pgactivate", stat.pgactivate, full),
        ("pgdeactivate", stat.pgdeactivate, full),
        ("pglazyfree", stat.pglazyfree, full),
        ("pglazyfreed", stat.pglazyfreed, full),
        ("thp_fault_alloc", stat.thp_fault_alloc, false),
        ("thp_collapse_alloc", stat.thp_collapse_alloc, false),
    ])
}

fn pids(pids: PidsStat) -> Pids {
    Pids {
        // containerd sends two zeros where the pids controller is off. Otherwise it always sends a limit, which may be "max".
        current: reported(pids.current, pids.limit != 0),
        // Kata's agent sends 0 for "max".
        limit: Some(pids.limit).filter(|limit| *limit != 0 && *limit != UNLIMITED),
    }
}

fn blkio(io: IOStat) -> Blkio {
    let mut blkio = Blkio {
        psi: io.psi.into_option().and_then(psi),
        ..Blkio::default()
    };
    // Kata's Go shim sends an empty entry where there is no device.
    for device in io
        .usage
        .into_iter()
        .filter(|device| *device != IOEntry::default())
    {
        let entry = |op: &str, value| BlkioEntry {
            major: device.major,
            minor: device.minor,
            op: op.to_owned(),
            value,
        };
        blkio
            .io_service_bytes_recursive
            .push(entry("Read", device.rbytes));
        blkio
            .io_service_bytes_recursive
            .push(entry("Write", device.wbytes));
        blkio.io_serviced_recursive.push(entry("Read", device.rios));
        blkio.io_serviced_recursive.push(entry("Write", device.wios));
    }
    blkio
}

/// The reply's `max` is left out: it is the limit from containerd and the highest usage from Kata, and
/// the schema's is the latter; runc prints none on cgroup v2.
///
/// containerd's shims send an entry for each page size of the machine, with two zeros where the hugetlb controller
/// is off: these are told from a usage of 0 by the limit. A `failcnt` of 0 says nothing: containerd does not read
/// the file that has it, or reads it wrongly, before version 3.1.2 of its cgroups library.
fn hugetlb(pages: HugeTlbStat) -> Option<(String, Hugetlb)> {
    let numbers = Hugetlb {
        usage: reported(pages.current, pages.max != 0),
        max: None,
        failcnt: reported(pages.failcnt, false),
    };
    (numbers != Hugetlb::default()).then_some((pages.pagesize, numbers))
}

fn psi(stats: PSIStats) -> Option<Psi> {
    let psi = Psi {
        some: stats.some.into_option().map(pressure),
        full: stats.full.into_option().map(pressure),
    };
    (psi.some.is_some() || psi.full.is_some()).then_some(psi)
}

fn pressure(data: PSIData) -> Pressure {
    Pressure {
        avg10: data.avg10,
        avg60: data.avg60,
        avg300: data.avg300,
        total: data.total,
    }
}

#[cfg(test)]
mod tests;
