//! `StatsContainerResponse` in the crate's model.
//!
//! What each number is was read in the agent's sources (Kata 4.1.0, `src/agent/rustjail/src/cgroups/fs/mod.rs`) and in
//! those of the library that reads the guest's cgroup files for it (cgroups-rs 0.5.1). `docs/guest-numbers.md` has the list.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::messages::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, HugetlbStats, MemoryData, MemoryStats, NetworkStats,
    PidsStats, StatsContainerResponse,
};
use crate::stats::{
    Blkio, BlkioEntry, CgroupVersion, Cpu, CpuUsage, Hugetlb, Interface, Memory, MemoryEntry, Pids, Stats,
    Throttling, interface, reported,
};

/// The longest key of `memory.stat` that is kept. The kernel's longest has 26 characters.
const LONGEST_KEY: usize = 64;

/// The most keys of `memory.stat` that are kept. A recorded guest has 60.
const MOST_KEYS: usize = 256;

/// The longest page size and operation that are kept. The kernel's longest has 7 characters.
const LONGEST_WORD: usize = 16;

/// A container's statistics, as the agent in its guest has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct GuestStats {
    /// What the agent said. Its network is the guest's, if an agent ever sends one.
    pub stats: Stats,
    /// The guest's cgroup version, told by the keys of `memory.stat`. `None` without them.
    pub cgroup: Option<CgroupVersion>,
}

impl From<StatsContainerResponse> for GuestStats {
    fn from(reply: StatsContainerResponse) -> Self {
        let network: Vec<_> = reply.network_stats.into_iter().map(interface).collect();
        let CgroupStats {
            cpu_stats,
            memory_stats,
            pids_stats,
            blkio_stats,
            hugetlb_stats,
        } = reply.cgroup_stats.unwrap_or_default();
        let cgroup = memory_stats.as_ref().and_then(version);
        Self {
            stats: Stats {
                cpu: cpu_stats.map(cpu).unwrap_or_default(),
                memory: memory_stats
                    .map(|stats| memory(stats, cgroup))
                    .unwrap_or_default(),
                pids: pids_stats.map(pids).unwrap_or_default(),
                blkio: blkio_stats.map(blkio),
                hugetlb: hugetlb_stats
                    .into_iter()
                    .filter(|(page_size, _)| page_size.len() <= LONGEST_WORD)
                    .map(|(page_size, pages)| (page_size, hugetlb(pages.unwrap_or_default(), cgroup)))
                    .collect(),
                network: (!network.is_empty()).then_some(network),
                sockets: None,
            },
            cgroup,
        }
    }
}

/// `memory.stat` always has a limit in cgroup v1, and always has `anon` in cgroup v2.
fn version(memory: &MemoryStats) -> Option<CgroupVersion> {
    if memory.stats.contains_key("hierarchical_memory_limit") {
        Some(CgroupVersion::V1)
    } else if memory.stats.contains_key("anon") {
        Some(CgroupVersion::V2)
    } else {
        None
    }
}

/// Times are in nanoseconds, whatever the guest's cgroup version.
fn cpu(stats: CpuStats) -> Cpu {
    let usage = stats.cpu_usage.unwrap_or_default();
    let split = usage.usage_in_kernelmode != 0 || usage.usage_in_usermode != 0;
    let throttling = stats.throttling_data.unwrap_or_default();
    Cpu {
        usage: CpuUsage {
            total: reported(usage.total_usage, false),
            kernel: split.then_some(usage.usage_in_kernelmode),
            user: split.then_some(usage.usage_in_usermode),
            percpu: usage.percpu_usage,
        },
        // In a cgroup v2 guest the agent looks for v1's name, `throttled_time`, and sends 0.
        throttling: Throttling::counted(
            throttling.periods,
            throttling.throttled_periods,
            Some(throttling.throttled_time),
        ),
        psi: None,
    }
}

fn memory(memory: MemoryStats, cgroup: Option<CgroupVersion>) -> Memory {
    let v1 = cgroup == Some(CgroupVersion::V1);
    // Where memory.stat could be read, so could the files beside it.
    let measured = cgroup.is_some();
    let usage = entry(memory.usage, measured, v1);
    let swap = match cgroup {
        Some(CgroupVersion::V2) => memory_and_swap(&usage, memory.swap_usage),
        // Without swap accounting there are no such files, and the agent sends zeros.
        _ => entry(memory.swap_usage, false, v1),
    };
    let stat = |v1_total, v1_own, v2| {
        let get = |key| memory.stats.get(key).copied();
        match cgroup {
            Some(CgroupVersion::V1) => get(v1_total).or_else(|| get(v1_own)),
            _ => get(v2),
        }
    };
    Memory {
        cache: stat("cache", "cache", "file"),
        total_cache: stat("total_cache", "cache", "file"),
        rss: stat("total_rss", "rss", "anon"),
        mapped_file: stat("total_mapped_file", "mapped_file", "file_mapped"),
        inactive_file: stat("total_inactive_file", "inactive_file", "inactive_file"),
        pgfault: stat("total_pgfault", "pgfault", "pgfault"),
        pgmajfault: stat("total_pgmajfault", "pgmajfault", "pgmajfault"),
        usage,
        swap,
        // cgroup v2 has no such files, and the agent sends 2^64-1 for the limit.
        kernel: match v1 {
            true => entry(memory.kernel_usage, false, true),
            false => MemoryEntry::default(),
        },
        kernel_tcp: MemoryEntry::default(),
        raw: raw(memory.stats),
        oom_kill: None,
        psi: None,
    }
}

/// `max` is 0 where the guest's kernel has no `memory.peak` (before Linux 5.19); there is no `failcnt` on cgroup v2.
fn entry(data: Option<MemoryData>, measured: bool, v1: bool) -> MemoryEntry {
    let data = data.unwrap_or_default();
    let measured = measured || data.limit != 0;
    MemoryEntry {
        limit: reported(data.limit, false),
        usage: reported(data.usage, measured),
        max: reported(data.max_usage, measured && v1),
        failcnt: reported(data.failcnt, measured && v1),
    }
}

/// cgroup v2 counts swap alone, and the model means memory plus swap. A limit of 0 may be "none allowed" as well as
/// `max`, which the agent fails to read. There is no `max`: the two peaks need not have been at the same time.
fn memory_and_swap(memory: &MemoryEntry, swap: Option<MemoryData>) -> MemoryEntry {
    let Some(swap) = swap else {
        return MemoryEntry::default();
    };
    MemoryEntry {
        limit: memory
            .limit
            .filter(|_| swap.limit != 0)
            .map(|limit| limit.saturating_add(swap.limit)),
        usage: memory.usage.and_then(|usage| usage.checked_add(swap.usage)),
        max: None,
        failcnt: None,
    }
}

/// All of the guest's `memory.stat`, less keys that no kernel writes.
fn raw(stats: BTreeMap<String, u64>) -> BTreeMap<Cow<'static, str>, u64> {
    stats
        .into_iter()
        .filter(|(key, _)| {
            (1..=LONGEST_KEY).contains(&key.len())
                && key
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        })
        .take(MOST_KEYS)
        .map(|(key, value)| (Cow::Owned(key), value))
        .collect()
}

fn pids(pids: PidsStats) -> Pids {
    Pids {
        current: Some(pids.current),
        // 0 is what the agent sends for `max`.
        limit: Some(pids.limit).filter(|limit| *limit != 0 && *limit != u64::MAX),
    }
}

/// In a cgroup v2 guest the agent puts operations among the bytes, under names of its own.
///
/// It reads `io.stat` wrongly as well, so that every number is 0 (cgroups-rs 0.5.1 looks for `rbytes:…` where the kernel
/// writes `rbytes=…`). The kernel writes no line of zeros: such a device was not measured, and is left out.
fn blkio(stats: BlkioStats) -> Blkio {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    let all = &stats.io_service_bytes_recursive;
    let is_v2 = all.iter().any(|entry| entry.op == "rios");
    let measured: BTreeSet<_> = all.iter().filter(|entry| entry.value != 0).map(device).collect();
    for entry in all {
        if is_v2 && !measured.contains(&device(entry)) {
            continue;
        }
        match entry.op.as_str() {
            // Discards have no place in cgroup v1's schema, and runc leaves them out too.
            "dbytes" | "dios" => {}
            "rios" => operations.push(named(entry, "Read")),
            "wios" => operations.push(named(entry, "Write")),
            _ => bytes.push(as_the_kernel_names_it(entry)),
        }
    }
    operations.extend(list(&stats.io_serviced_recursive));
    Blkio {
        io_service_bytes_recursive: bytes,
        io_serviced_recursive: operations,
        io_queued_recursive: list(&stats.io_queued_recursive),
        io_service_time_recursive: list(&stats.io_service_time_recursive),
        io_wait_time_recursive: list(&stats.io_wait_time_recursive),
        io_merged_recursive: list(&stats.io_merged_recursive),
        io_time_recursive: list(&stats.io_time_recursive),
        sectors_recursive: list(&stats.sectors_recursive),
        psi: None,
    }
}

fn device(entry: &BlkioStatsEntry) -> (u64, u64) {
    (entry.major, entry.minor)
}

fn list(entries: &[BlkioStatsEntry]) -> Vec<BlkioEntry> {
    entries.iter().map(as_the_kernel_names_it).collect()
}

/// The agent writes `read` where cgroup v1's files, and so the schema, have `Read`.
fn as_the_kernel_names_it(entry: &BlkioStatsEntry) -> BlkioEntry {
    let mut letters = entry.op.chars().take(LONGEST_WORD);
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    named(entry, &first.into_iter().chain(letters).collect::<String>())
}

fn named(entry: &BlkioStatsEntry, op: &str) -> BlkioEntry {
    BlkioEntry {
        major: entry.major,
        minor: entry.minor,
        op: op.to_owned(),
        value: entry.value,
    }
}

/// cgroup v2 has no file for the highest usage, and the agent sends 0.
fn hugetlb(pages: HugetlbStats, cgroup: Option<CgroupVersion>) -> Hugetlb {
    Hugetlb {
        usage: Some(pages.usage),
        max: reported(pages.max_usage, cgroup == Some(CgroupVersion::V1)),
        failcnt: Some(pages.failcnt),
    }
}

fn interface(network: NetworkStats) -> Interface {
    let name = network.name.chars().take(LONGEST_KEY).collect();
    interface!(NetworkStats { name, ..network })
}

#[cfg(test)]
mod tests;
