//! What a container may use today, from the files of its cgroup: an in-place resize changes them, and not the spec
//! that the container was created with.

use super::cgroup_files::{CgroupVersion, Files, ReadFile, number};
use super::model::MemoryEntry;

/// A limit that the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// There is none.
    Unlimited,
    /// The most that may be used.
    At(u64),
}

impl Limit {
    /// The number, or 0 where there is no limit, which is how cAdvisor prints limits on memory and threads.
    pub fn or_zero(self) -> u64 {
        match self {
            Self::Unlimited => 0,
            Self::At(limit) => limit,
        }
    }
}

/// The limits of a container's cgroup. `None` is a limit that has no file: its controller is off, or the kernel is
/// older. cAdvisor's meanings were read in its `lib/container/common/helpers.go` (July 2026).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// CPU time in each period, in microseconds: v1 `cpu.cfs_quota_us`, v2 the first number of `cpu.max`.
    /// cAdvisor's `container_spec_cpu_quota`, which has no sample where it is unlimited.
    pub cpu_quota: Option<Limit>,
    /// The quota's period, in microseconds: v1 `cpu.cfs_period_us`, v2 the second number of `cpu.max`. cAdvisor's
    /// `container_spec_cpu_period`.
    pub cpu_period: Option<u64>,
    /// Weight for CPU time in the unit of cgroup v1, 2 to 262144: v1 `cpu.shares`; on v2 converted from `cpu.weight`
    /// by the inverse of runc's conversion, as cAdvisor does. cAdvisor's `container_spec_cpu_shares`.
    pub cpu_shares: Option<u64>,
    /// Bytes of memory: v1 `memory.limit_in_bytes`, v2 `memory.max`. cAdvisor's
    /// `container_spec_memory_limit_bytes`.
    pub memory: Option<Limit>,
    /// Bytes of memory **plus** swap on v1 (`memory.memsw.limit_in_bytes`), of swap **alone** on v2
    /// (`memory.swap.max`), as in cAdvisor's `container_spec_memory_swap_limit_bytes`. On both versions
    /// [`Memory::swap`](super::Memory::swap) has memory plus swap.
    pub memory_swap: Option<Limit>,
    /// Bytes of memory that are kept from reclaim: v1 `memory.soft_limit_in_bytes`, v2 `memory.min`. cAdvisor's
    /// `container_spec_memory_reservation_limit_bytes`. The two are not the same thing: on v2 runc puts a spec's
    /// reservation into `memory.low`.
    pub memory_reservation: Option<Limit>,
    /// Processes and threads: `pids.max`. cAdvisor's `container_threads_max`, with 0 for unlimited.
    pub pids: Option<Limit>,
}

impl Limits {
    /// Reads the limits of a cgroup.
    pub fn from_files(version: CgroupVersion, read: ReadFile<'_>) -> Self {
        let files = Files(read);
        match version {
            CgroupVersion::V1 => Self::v1(&files),
            CgroupVersion::V2 => Self::v2(&files),
        }
    }

    fn v1(files: &Files<'_>) -> Self {
        let memory = |name| match files.number(name)? {
            limit if limit >= MemoryEntry::UNLIMITED => Some(Limit::Unlimited),
            limit => Some(Limit::At(limit)),
        };
        Self {
            cpu_quota: files
                .word("cpu.cfs_quota_us")
                .and_then(|quota| match quota.as_str() {
                    "-1" => Some(Limit::Unlimited),
                    quota => quota.parse().ok().map(Limit::At),
                }),
            cpu_period: files.number("cpu.cfs_period_us"),
            cpu_shares: files.number("cpu.shares"),
            memory: memory("memory.limit_in_bytes"),
            memory_swap: memory("memory.memsw.limit_in_bytes"),
            memory_reservation: memory("memory.soft_limit_in_bytes"),
            pids: files.number("pids.max").map(limit),
        }
    }

    fn v2(files: &Files<'_>) -> Self {
        let one = |name| files.number(name).map(limit);
        let cpu_max = files.word("cpu.max");
        let (quota, period) = cpu_max.as_deref().and_then(|max| max.split_once(' ')).unzip();
        let weight = files.number("cpu.weight");
        Self {
            cpu_quota: quota.and_then(number).map(limit),
            cpu_period: period.and_then(number),
            cpu_shares: weight.and_then(shares_of_weight),
            memory: one("memory.max"),
            memory_swap: one("memory.swap.max"),
            memory_reservation: one("memory.min"),
            pids: one("pids.max"),
        }
    }
}

fn limit(number: u64) -> Limit {
    match number {
        u64::MAX => Limit::Unlimited,
        limit => Limit::At(limit),
    }
}

/// cgroup v1's shares for cgroup v2's weight, by the inverse of runc's conversion: 2 + (weight - 1) × 262142 ÷ 9999.
/// `None` for a weight that the kernel cannot have.
///
/// This is what cAdvisor does (`convertCPUWeightToCPULimit`). runc's conversion
/// ([KEP-2254](https://github.com/kubernetes/enhancements/tree/master/keps/sig-node/2254-cgroup-v2): 1 + (shares - 2)
/// × 9999 ÷ 262142) rounds down, so that 1024 shares come back as 998. Runtimes with version 0.0.3 or newer of
/// opencontainers/cgroups convert along another curve, which maps 1024 to a weight of 100; that comes back as 2597,
/// as it does from cAdvisor. A weight does not tell which of the two made it.
fn shares_of_weight(weight: u64) -> Option<u64> {
    (1..=10_000)
        .contains(&weight)
        .then(|| 2 + (weight - 1) * 262_142 / 9_999)
}

#[cfg(test)]
mod tests;
