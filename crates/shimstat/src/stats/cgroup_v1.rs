//! `io.containerd.cgroups.v1.Metrics`: from runc's shim on cgroup v1 hosts, from Kata's Rust shim
//! always, from its Go shim on cgroup v1 hosts whatever the guest has.

use std::borrow::Cow;
use std::collections::BTreeMap;

use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, MemoryEntry as Entry, MemoryStat, Metrics, PidsStat,
};

use super::model::{
    Blkio, BlkioEntry, Cpu, CpuUsage, Hugetlb, Memory, MemoryEntry, Pids, Stats, Throttling, interface,
    measured_keys, reported,
};

pub(super) fn stats(metrics: Metrics) -> Stats {
    let network: Vec<_> = metrics.network.into_iter().map(|stat| interface!(stat)).collect();
    let memory_stat = metrics.memory.into_option();
    let full = memory_stat.as_ref().is_some_and(is_full);
    let no_process_has_memory = full && memory_stat.as_ref().is_some_and(|stat| stat.total_rss == 0);
    Stats {
        cpu: metrics.cpu.into_option().map(cpu).unwrap_or_default(),
        memory: Memory {
            oom_kill: metrics.memory_oom_control.into_option().map(|oom| oom.oom_kill),
            ..memory_stat.map(memory).unwrap_or_default()
        },
        pids: metrics
            .pids
            .into_option()
            .map(|stat| pids(&stat, no_process_has_memory))
            .unwrap_or_default(),
        blkio: metrics.blkio.into_option().map(blkio),
        hugetlb: metrics
            .hugetlb
            .into_iter()
            .map(|pages| {
                let numbers = Hugetlb {
                    usage: reported(pages.usage, full),
                    max: reported(pages.max, full),
                    failcnt: reported(pages.failcnt, full),
                };
                (pages.pagesize, numbers)
            })
            .filter(|(_, numbers)| *numbers != Hugetlb::default())
            .collect(),
        network: (!network.is_empty()).then_some(network),
        sockets: None,
    }
}

fn cpu(cpu: CPUStat) -> Cpu {
    let usage = cpu.usage.into_option().unwrap_or_default();
    let throttle = cpu.throttling.into_option().unwrap_or_default();
    let split = usage.kernel != 0 || usage.user != 0;
    Cpu {
        usage: CpuUsage {
            total: reported(usage.total, false),
            kernel: split.then_some(usage.kernel),
            user: split.then_some(usage.user),
            percpu: usage.per_cpu,
        },
        throttling: Throttling::counted(
            throttle.periods,
            throttle.throttled_periods,
            Some(throttle.throttled_time),
        ),
        psi: None,
    }
}

/// Whether `memory.stat` was read as a whole: cgroup v1's always has this limit. containerd's shims read either all
/// files of a controller or send nothing of it, so zeros beside it are numbers.
fn is_full(stat: &MemoryStat) -> bool {
    stat.hierarchical_memory_limit != 0
}

fn memory(stat: MemoryStat) -> Memory {
    let full = is_full(&stat);
    // Kata's Rust shim reads the whole file in a cgroup v1 guest, but under wrong names for the page
    // events, and a few keys not at all. A cgroup with a page in it has had events.
    let page_events = [
        stat.pg_pg_in,
        stat.pg_pg_out,
        stat.pg_fault,
        stat.pg_maj_fault,
        stat.total_pg_pg_in,
        stat.total_pg_pg_out,
        stat.total_pg_fault,
        stat.total_pg_maj_fault,
    ];
    let counted = full && page_events.iter().any(|events| *events != 0);

    Memory {
        cache: reported(stat.cache, full),
        total_cache: total_or_own(stat.total_cache, stat.cache, full),
        rss: total_or_own(stat.total_rss, stat.rss, full),
        mapped_file: total_or_own(stat.total_mapped_file, stat.mapped_file, full),
        // A cgroup v2 guest sends v2's `inactive_file`, which is a total too.
        inactive_file: total_or_own(stat.total_inactive_file, stat.inactive_file, full),
        pgfault: total_or_own(stat.total_pg_fault, stat.pg_fault, counted),
        pgmajfault: total_or_own(stat.total_pg_maj_fault, stat.pg_maj_fault, counted),
        raw: raw(&stat, full, counted),
        usage: entry(stat.usage.into_option(), full),
        swap: entry(stat.swap.into_option(), full),
        kernel: entry(stat.kernel.into_option(), full),
        kernel_tcp: entry(stat.kernel_tcp.into_option(), full),
        oom_kill: None,
        psi: None,
    }
}

/// The hierarchical value, which is what Kubernetes shows; Kata's Go shim puts it under the plain name.
fn total_or_own(total: u64, own: u64, measured: bool) -> Option<u64> {
    reported(total, measured).or(reported(own, false))
}

fn raw(stat: &MemoryStat, full: bool, counted: bool) -> BTreeMap<Cow<'static, str>, u64> {
    measured_keys([
        ("cache", stat.cache, full),
        ("rss", stat.rss, full),
        ("rss_huge", stat.rss_huge, full),
        ("mapped_file", stat.mapped_file, full),
        ("dirty", stat.dirty, full),
        ("writeback", stat.writeback, full),
        ("pgpgin", stat.pg_pg_in, counted),
        ("pgpgout", stat.pg_pg_out, counted),
        ("pgfault", stat.pg_fault, counted),
        ("pgmajfault", stat.pg_maj_fault, counted),
        ("inactive_anon", stat.inactive_anon, full),
        ("active_anon", stat.active_anon, counted),
        ("inactive_file", stat.inactive_file, full),
        ("active_file", stat.active_file, full),
        ("unevictable", stat.unevictable, full),
        ("hierarchical_memory_limit", stat.hierarchical_memory_limit, full),
        // The kernel writes it only where swap is accounted, and then never 0.
        ("hierarchical_memsw_limit", stat.hierarchical_swap_limit, false),
        ("total_cache", stat.total_cache, full),
        ("total_rss", stat.total_rss, full),
        ("total_rss_huge", stat.total_rss_huge, counted),
        ("total_mapped_file", stat.total_mapped_file, full),
        ("total_dirty", stat.total_dirty, full),
        ("total_writeback", stat.total_writeback, counted),
        ("total_pgpgin", stat.total_pg_pg_in, counted),
        ("total_pgpgout", stat.total_pg_pg_out, counted),
        ("total_pgfault", stat.total_pg_fault, counted),
        ("total_pgmajfault", stat.total_pg_maj_fault, counted),
        ("total_inactive_anon", stat.total_inactive_anon, full),
        ("total_active_anon", stat.total_active_anon, counted),
        ("total_inactive_file", stat.total_inactive_file, full),
        ("total_active_file", stat.total_active_file, full),
        ("total_unevictable", stat.total_unevictable, full),
    ])
}

fn entry(entry: Option<Entry>, full: bool) -> MemoryEntry {
    let entry = entry.unwrap_or_default();
    // Each of these has a limit, even if it is "unlimited": without one, nothing was read.
    let measured = full && entry.limit != 0;
    MemoryEntry {
        limit: reported(entry.limit, false),
        usage: reported(entry.usage, measured),
        max: reported(entry.max, measured),
        failcnt: reported(entry.failcnt, measured),
    }
}

/// Two zeros are those of a cgroup without the pids controller, or of one without a limit that has no process
/// left. The latter has no anonymous memory either.
fn pids(pids: &PidsStat, no_process_has_memory: bool) -> Pids {
    Pids {
        current: reported(pids.current, pids.limit != 0 || no_process_has_memory),
        limit: Some(pids.limit).filter(|limit| *limit != 0 && *limit != u64::MAX),
    }
}

fn blkio(blkio: BlkIOStat) -> Blkio {
    Blkio {
        io_service_bytes_recursive: entries(blkio.io_service_bytes_recursive),
        io_serviced_recursive: entries(blkio.io_serviced_recursive),
        io_queued_recursive: entries(blkio.io_queued_recursive),
        io_service_time_recursive: entries(blkio.io_service_time_recursive),
        io_wait_time_recursive: entries(blkio.io_wait_time_recursive),
        io_merged_recursive: entries(blkio.io_merged_recursive),
        io_time_recursive: entries(blkio.io_time_recursive),
        sectors_recursive: entries(blkio.sectors_recursive),
        psi: None,
    }
}

fn entries(entries: Vec<BlkIOEntry>) -> Vec<BlkioEntry> {
    entries
        .into_iter()
        .map(|entry| BlkioEntry {
            major: entry.major,
            minor: entry.minor,
            op: entry.op,
            value: entry.value,
        })
        .collect()
}

#[cfg(test)]
mod tests;
