//! The messages of Kata's agent that this crate reads, and those that it sends.
//!
//! Field numbers are those of Kata Containers 4.1.0, `src/libs/protocols/protos/`: `agent.proto`, `csi.proto` (volumes),
//! `health.proto` and `types.proto` (interfaces). Fields without a use here are left out, and so skipped.

use std::collections::BTreeMap;

use crate::proto::messages;

messages! {
    /// `agent.proto`: `StatsContainerResponse`.
    StatsContainerResponse {
        1 => cgroup_stats: Option<CgroupStats>,
        2 => network_stats: Vec<NetworkStats>,
    }

    CgroupStats {
        1 => cpu_stats: Option<CpuStats>,
        2 => memory_stats: Option<MemoryStats>,
        3 => pids_stats: Option<PidsStats>,
        4 => blkio_stats: Option<BlkioStats>,
        5 => hugetlb_stats: BTreeMap<String, Option<HugetlbStats>>,
    }

    CpuStats {
        1 => cpu_usage: Option<CpuUsage>,
        2 => throttling_data: Option<ThrottlingData>,
    }

    CpuUsage {
        1 => total_usage: u64,
        2 => percpu_usage: Vec<u64>,
        3 => usage_in_kernelmode: u64,
        4 => usage_in_usermode: u64,
    }

    ThrottlingData {
        1 => periods: u64,
        2 => throttled_periods: u64,
        3 => throttled_time: u64,
    }

    MemoryStats {
        2 => usage: Option<MemoryData>,
        3 => swap_usage: Option<MemoryData>,
        4 => kernel_usage: Option<MemoryData>,
        6 => stats: BTreeMap<String, u64>,
    }

    MemoryData {
        1 => usage: u64,
        2 => max_usage: u64,
        3 => failcnt: u64,
        4 => limit: u64,
    }

    PidsStats {
        1 => current: u64,
        2 => limit: u64,
    }

    BlkioStats {
        1 => io_service_bytes_recursive: Vec<BlkioStatsEntry>,
        2 => io_serviced_recursive: Vec<BlkioStatsEntry>,
        3 => io_queued_recursive: Vec<BlkioStatsEntry>,
        4 => io_service_time_recursive: Vec<BlkioStatsEntry>,
        5 => io_wait_time_recursive: Vec<BlkioStatsEntry>,
        6 => io_merged_recursive: Vec<BlkioStatsEntry>,
        7 => io_time_recursive: Vec<BlkioStatsEntry>,
        8 => sectors_recursive: Vec<BlkioStatsEntry>,
    }

    BlkioStatsEntry {
        1 => major: u64,
        2 => minor: u64,
        3 => op: String,
        4 => value: u64,
    }

    HugetlbStats {
        1 => usage: u64,
        2 => max_usage: u64,
        3 => failcnt: u64,
    }

    NetworkStats {
        1 => name: String,
        2 => rx_bytes: u64,
        3 => rx_packets: u64,
        4 => rx_errors: u64,
        5 => rx_dropped: u64,
        6 => tx_bytes: u64,
        7 => tx_packets: u64,
        8 => tx_errors: u64,
        9 => tx_dropped: u64,
    }

    /// `agent.proto`: the answer to `GetMetrics`.
    Metrics {
        1 => metrics: String,
    }

    /// `agent.proto`: the answer to `GetGuestDetails`.
    GuestDetailsResponse {
        1 => mem_block_size_bytes: u64,
        2 => agent_details: Option<AgentDetails>,
        3 => support_mem_hotplug_probe: bool,
    }

    AgentDetails {
        1 => version: String,
        2 => init_daemon: bool,
        3 => device_handlers: Vec<String>,
        4 => storage_handlers: Vec<String>,
        5 => supports_seccomp: bool,
        6 => extra_features: Vec<String>,
    }

    /// `agent.proto`: the answer to `ListInterfaces`.
    Interfaces {
        1 => interfaces: Vec<Interface>,
    }

    /// `types.proto`: `Interface`.
    Interface {
        2 => name: String,
        3 => ip_addresses: Vec<IpAddress>,
        4 => mtu: u64,
        5 => hw_addr: String,
    }

    /// `types.proto`: `IPAddress`, without its family.
    IpAddress {
        2 => address: String,
        3 => mask: String,
    }

    /// `csi.proto`: the answer to `GetVolumeStats`.
    VolumeStatsResponse {
        1 => usage: Vec<VolumeUsage>,
        2 => volume_condition: Option<VolumeCondition>,
    }

    VolumeUsage {
        1 => available: u64,
        2 => total: u64,
        3 => used: u64,
        4 => unit: u64,
    }

    VolumeCondition {
        1 => abnormal: bool,
        2 => message: String,
    }

    /// `health.proto`: the answer to `Check`.
    HealthCheckResponse {
        1 => status: u64,
    }

    /// `health.proto`: the answer to `Version`.
    VersionCheckResponse {
        1 => grpc_version: String,
        2 => agent_version: String,
    }
}

/// `GuestDetailsRequest` that asks for `mem_block_size` (1) and `mem_hotplug_probe` (2), as Kata's shims do.
pub(super) const GUEST_DETAILS_REQUEST: [u8; 4] = [1 << 3, 1, 2 << 3, 1];
