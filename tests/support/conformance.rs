//! Kubernetes' conformance list of the container metrics that a node has: KEP-2371, and the names in critest's
//! `pkg/validate/pod.go` (cri-tools, August 2026; its list was taken from the kubelet of Kubernetes 1.37).

use crate::exporter::Page;

pub const NAMES: [&str; 56] = [
    "container_blkio_device_usage_total",
    "container_cpu_cfs_periods_total",
    "container_cpu_cfs_throttled_periods_total",
    "container_cpu_cfs_throttled_seconds_total",
    "container_cpu_system_seconds_total",
    "container_cpu_usage_seconds_total",
    "container_cpu_user_seconds_total",
    "container_file_descriptors",
    "container_fs_inodes_free",
    "container_fs_inodes_total",
    "container_fs_limit_bytes",
    "container_fs_reads_bytes_total",
    "container_fs_reads_total",
    "container_fs_usage_bytes",
    "container_fs_writes_bytes_total",
    "container_fs_writes_total",
    "container_hugetlb_max_usage_bytes",
    "container_hugetlb_usage_bytes",
    "container_last_seen",
    "container_memory_cache",
    "container_memory_failcnt",
    "container_memory_failures_total",
    "container_memory_kernel_usage",
    "container_memory_mapped_file",
    "container_memory_max_usage_bytes",
    "container_memory_rss",
    "container_memory_swap",
    "container_memory_usage_bytes",
    "container_memory_working_set_bytes",
    "container_network_receive_bytes_total",
    "container_network_receive_errors_total",
    "container_network_receive_packets_dropped_total",
    "container_network_receive_packets_total",
    "container_network_transmit_bytes_total",
    "container_network_transmit_errors_total",
    "container_network_transmit_packets_dropped_total",
    "container_network_transmit_packets_total",
    "container_oom_events_total",
    "container_pressure_cpu_stalled_seconds_total",
    "container_pressure_cpu_waiting_seconds_total",
    "container_pressure_io_stalled_seconds_total",
    "container_pressure_io_waiting_seconds_total",
    "container_pressure_memory_stalled_seconds_total",
    "container_pressure_memory_waiting_seconds_total",
    "container_processes",
    "container_sockets",
    "container_spec_cpu_period",
    "container_spec_cpu_quota",
    "container_spec_cpu_shares",
    "container_spec_memory_limit_bytes",
    "container_spec_memory_reservation_limit_bytes",
    "container_spec_memory_swap_limit_bytes",
    "container_start_time_seconds",
    "container_threads",
    "container_threads_max",
    "container_ulimits_soft",
];

/// A name, or the beginning of several, that a runtime has no number for, and why.
pub type Lack = (&'static str, &'static str);

/// What depends on the machine: whether its disk counts, which huge pages it has. critest leaves the devices open, too.
const MACHINES: [Lack; 3] = [
    ("container_blkio_", "no device of its own"),
    ("container_fs_", "no device of its own, or no overlay"),
    ("container_hugetlb_", "no huge pages"),
];

/// A container of runc's on cgroup v1.
#[allow(dead_code)] // Not all tests have such a container.
pub const CGROUP_V1: [Lack; 1] = [("container_pressure_", "cgroup v1 has no pressure files")];

/// A container of runc's on cgroup v2.
#[allow(dead_code)] // Not all tests have such a container.
pub const CGROUP_V2: [Lack; 3] = [
    (
        "container_hugetlb_max_usage_bytes",
        "cgroup v2 has no such file; cAdvisor says 0",
    ),
    (
        "container_memory_failcnt",
        "cgroup v2 has no such file; cAdvisor says 0",
    ),
    (
        "container_memory_kernel_usage",
        "cAdvisor has it on cgroup v1 alone, and says 0",
    ),
];

/// What only a look at the container on its own machine tells: of one in a guest, or elsewhere.
#[allow(dead_code)] // Not all tests have such a container.
pub const OUT_OF_SIGHT: [Lack; 9] = [
    (
        "container_file_descriptors",
        "its processes are not seen from here",
    ),
    (
        "container_fs_inodes_",
        "its filesystems are not seen from here; Kata's agent tells kata_guest_filesystem_*",
    ),
    (
        "container_fs_limit_bytes",
        "its filesystems are not seen from here",
    ),
    (
        "container_fs_usage_bytes",
        "its filesystems are not seen from here",
    ),
    ("container_processes", "its processes are not seen from here"),
    ("container_sockets", "its processes are not seen from here"),
    (
        "container_spec_cpu_",
        "the spec's may have changed since, and no shim reports today's",
    ),
    (
        "container_spec_memory_reservation_limit_bytes",
        "no shim reports it",
    ),
    ("container_ulimits_soft", "its processes are not seen from here"),
];

/// gVisor's shim passes on what its sandbox tells: CPU time, memory and pids in use.
#[allow(dead_code)] // Not all tests have such a container.
pub const GVISOR: [Lack; 20] = [
    ("container_blkio_", "the sandbox counts no devices"),
    (
        "container_cpu_cfs_",
        "the sandbox's cgroup on the host has periods, of all its containers",
    ),
    (
        "container_cpu_system_seconds_total",
        "the sandbox does not tell it from user time",
    ),
    (
        "container_cpu_user_seconds_total",
        "the sandbox does not tell it from system time",
    ),
    ("container_fs_reads_", "the sandbox counts no devices"),
    ("container_fs_writes_", "the sandbox counts no devices"),
    ("container_hugetlb_", "the sandbox has none"),
    ("container_memory_cache", "the sandbox tells one number of memory"),
    ("container_memory_failcnt", "the sandbox always says 0"),
    (
        "container_memory_failures_total",
        "the sandbox tells one number of memory",
    ),
    (
        "container_memory_kernel_usage",
        "the sandbox tells one number of memory",
    ),
    (
        "container_memory_mapped_file",
        "the sandbox tells one number of memory",
    ),
    (
        "container_memory_max_usage_bytes",
        "the sandbox tells one number of memory",
    ),
    ("container_memory_rss", "the sandbox tells one number of memory"),
    ("container_memory_swap", "the sandbox tells one number of memory"),
    ("container_oom_events_total", "the sandbox does not tell it"),
    ("container_pressure_", "the sandbox does not tell it"),
    ("container_spec_memory_limit_bytes", "the sandbox always says 0"),
    (
        "container_spec_memory_swap_limit_bytes",
        "the sandbox always says 0",
    ),
    ("container_threads_max", "the sandbox does not tell it"),
];

/// Compares a container's names on a page with the list, less what its runtime has no number for. `of_machine` are
/// the names that may be there or not.
#[track_caller]
pub fn check(page: &Page, id: &str, lacks: &[Lack], leave_open: bool) {
    let is_in = |name: &str, list: &[Lack]| list.iter().any(|(lack, _)| name.starts_with(lack));
    let mut wrong = Vec::new();
    for name in NAMES {
        let is_there = !page.samples(name, &[("id", id)]).is_empty();
        let is_open = leave_open && is_in(name, &MACHINES);
        if !is_open && is_there == is_in(name, lacks) {
            wrong.push((name, is_there));
        }
    }
    assert!(wrong.is_empty(), "name, whether it is there: {wrong:#?}");
    for (lack, _) in lacks {
        assert!(
            NAMES.iter().any(|name| name.starts_with(lack)),
            "{lack} is no name of the list"
        );
    }
}
