//! `io.containerd.cgroups.v1.Metrics`: from runc's shim on cgroup v1 hosts, from Kata's Rust shim
//! always, from its Go shim on cgroup v1 hosts whatever the guest has.

use std::collections::BTreeMap;

use containerd_shim_protos::cgroups::metrics::{
    BlkIOEntry, BlkIOStat, CPUStat, MemoryEntry as Entry, MemoryStat, Metrics, NetworkStat, PidsStat,
};

use super::{
    Blkio, BlkioEntry, Cpu, CpuUsage, Hugetlb, Interface, Memory, MemoryEntry, Pids, Stats, Throttling,
    reported,
};

pub(super) fn stats(metrics: Metrics) -> Stats {
    let oom = metrics.memory_oom_control.into_option();
    let network: Vec<_> = metrics.network.into_iter().map(interface).collect();
    Stats {
        cpu: metrics.cpu.into_option().map(cpu).unwrap_or_default(),
        memory: Memory {
            oom_kill: oom.as_ref().map(|oom| oom.oom_kill),
            under_oom: oom.map(|oom| oom.under_oom != 0),
            ..metrics.memory.into_option().map(memory).unwrap_or_default()
        },
        pids: metrics.pids.into_option().map(pids).unwrap_or_default(),
        blkio: metrics.blkio.into_option().map(blkio).unwrap_or_default(),
        hugetlb: metrics
            .hugetlb
            .into_iter()
            .map(|pages| {
                let numbers = Hugetlb {
                    usage: Some(pages.usage),
                    max: Some(pages.max),
                    failcnt: Some(pages.failcnt),
                };
                (pages.pagesize, numbers)
            })
            .collect(),
        network: (!network.is_empty()).then_some(network),
        sockets: None,
    }
}

fn cpu(cpu: CPUStat) -> Cpu {
    let usage = cpu.usage.into_option().unwrap_or_default();
    let split = usage.kernel != 0 || usage.user != 0;
    let throttling = cpu
        .throttling
        .into_option()
        .map(|throttle| Throttling {
            // A runtime that does not report the split (gVisor) sends these as empty as that.
            periods: reported(throttle.periods, split),
            throttled_periods: reported(throttle.throttled_periods, split),
            throttled_time: reported(throttle.throttled_time, split && throttle.throttled_periods == 0),
        })
        .unwrap_or_default();
    Cpu {
        usage: CpuUsage {
            total: reported(usage.total, false),
            kernel: split.then_some(usage.kernel),
            user: split.then_some(usage.user),
            percpu: usage.per_cpu,
        },
        throttling,
        psi: None,
    }
}

fn memory(stat: MemoryStat) -> Memory {
    // No memory.stat of cgroup v1 is without this limit, so that it tells whether the file was read.
    let full = stat.hierarchical_memory_limit != 0;
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
        rss: total_or_own(stat.total_rss, stat.rss, full),
        mapped_file: total_or_own(stat.total_mapped_file, stat.mapped_file, full),
        // From a cgroup v2 guest comes v2's `inactive_file`, which is a total too.
        inactive_file: total_or_own(stat.total_inactive_file, stat.inactive_file, full),
        pgfault: total_or_own(stat.total_pg_fault, stat.pg_fault, counted),
        pgmajfault: total_or_own(stat.total_pg_maj_fault, stat.pg_maj_fault, counted),
        raw: raw(&stat, full, counted),
        usage: entry(stat.usage.into_option(), full),
        swap: entry(stat.swap.into_option(), full),
        kernel: entry(stat.kernel.into_option(), full),
        kernel_tcp: entry(stat.kernel_tcp.into_option(), full),
        oom_kill: None,
        under_oom: None,
        psi: None,
    }
}

/// The hierarchical value, which is what Kubernetes shows; Kata's Go shim puts it under the plain name.
fn total_or_own(total: u64, own: u64, measured: bool) -> Option<u64> {
    reported(total, measured).or(reported(own, false))
}

fn raw(stat: &MemoryStat, full: bool, counted: bool) -> BTreeMap<&'static str, u64> {
    let keys = [
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
    ];
    keys.into_iter()
        .filter(|(_, value, measured)| *measured || *value != 0)
        .map(|(key, value, _)| (key, value))
        .collect()
}

fn entry(entry: Option<Entry>, full: bool) -> MemoryEntry {
    let entry = entry.unwrap_or_default();
    // Each of these controllers has a limit, be it "unlimited": without one, nothing was read.
    let measured = full && entry.limit != 0;
    MemoryEntry {
        limit: reported(entry.limit, false),
        usage: reported(entry.usage, measured),
        max: reported(entry.max, measured),
        failcnt: reported(entry.failcnt, measured),
    }
}

fn pids(pids: PidsStat) -> Pids {
    Pids {
        current: Some(pids.current),
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

fn interface(network: NetworkStat) -> Interface {
    Interface {
        name: network.name,
        rx_bytes: network.rx_bytes,
        rx_packets: network.rx_packets,
        rx_errors: network.rx_errors,
        rx_dropped: network.rx_dropped,
        tx_bytes: network.tx_bytes,
        tx_packets: network.tx_packets,
        tx_errors: network.tx_errors,
        tx_dropped: network.tx_dropped,
    }
}

#[cfg(test)]
mod tests;
