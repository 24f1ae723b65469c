//! One model for the statistics of a container, whatever its cgroup version and runtime.
//!
//! `None` means that the number was not reported. Memory is in bytes and times are in nanoseconds unless a
//! field says otherwise. Serialized, the types have the schema of `runc events`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Serialize;

use super::schema;

/// What a container uses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// CPU time.
    pub cpu: Cpu,
    /// Memory and swap.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Block devices. `Some` without any device where the container has done no I/O yet, or where the io
    /// controller is off: replies do not tell the two apart.
    pub blkio: Option<Blkio>,
    /// Huge pages, by page size as the kernel names it (`2MB`). A size of which nothing was reported is left out.
    pub hugetlb: BTreeMap<String, Hugetlb>,
    /// Network interfaces. A reply without any is `None`: no runtime sends an empty list to say that
    /// there are none.
    pub network: Option<Vec<Interface>>,
    /// Sockets of the network namespace. No reply carries them.
    pub sockets: Option<Sockets>,
}

impl Stats {
    /// Whether no process was left in the container's cgroup when these numbers were read: its last one has
    /// exited, and the shim may say `running` for another moment. CPU time and OOM kills are then the last ones of
    /// the container, but its memory is what the kernel has not freed yet. False where the runtime does not report
    /// processes.
    pub fn is_emptied(&self) -> bool {
        self.pids.current == Some(0)
    }
}

/// CPU time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// Time used.
    pub usage: CpuUsage,
    /// Time for which a quota held the container back.
    pub throttling: Throttling,
    /// Pressure; cgroup v2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// CPU time used, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuUsage {
    /// All of it. A zero counts as not reported: starting a container takes time already.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub total: Option<u64>,
    /// By CPU. Empty where it was not reported (always on cgroup v2).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the kernel. `None` where both parts are zero: the runtime reports no split.
    #[serde(serialize_with = "schema::or_zero")]
    pub kernel: Option<u64>,
    /// In user mode. Kata's Go shim swaps it with `kernel` in its cgroup v2 replies.
    #[serde(serialize_with = "schema::or_zero")]
    pub user: Option<u64>,
}

/// How often and for how long a CPU quota held the container back. All `None` where no enforcement period has
/// passed: there is no quota, or the cpu controller is off, and replies do not tell which.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Enforcement periods that have passed.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub periods: Option<u64>,
    /// Periods in which the container was throttled.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub throttled_periods: Option<u64>,
    /// For how long, in nanoseconds. `None` where throttled periods come with no time.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub throttled_time: Option<u64>,
}

impl Throttling {
    /// From a runtime's counters, in which a zero can also mean that nothing was measured.
    pub(crate) fn counted(periods: u64, throttled_periods: u64, throttled_time: Option<u64>) -> Self {
        if periods == 0 {
            return Self::default();
        }
        Self {
            periods: Some(periods),
            throttled_periods: Some(throttled_periods),
            throttled_time: throttled_time.filter(|time| *time != 0 || throttled_periods == 0),
        }
    }
}

/// Memory and swap, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Memory {
    /// Page cache of the cgroup itself: `cache` on v1, `file` on v2.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub cache: Option<u64>,
    /// All memory that is charged to the container.
    pub usage: MemoryEntry,
    /// Memory **plus** swap, on both cgroup versions.
    pub swap: MemoryEntry,
    /// Kernel memory; cgroup v1 only.
    pub kernel: MemoryEntry,
    /// Buffers of TCP sockets; cgroup v1 only.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// `memory.stat`, under the kernel's own keys, which differ between the cgroup versions. Only the keys
    /// that were reported.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<Cow<'static, str>, u64>,
    /// Pressure; cgroup v2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
    /// Page cache with that of child cgroups: `total_cache` on v1, `file` on v2.
    #[serde(skip)]
    pub total_cache: Option<u64>,
    /// Anonymous memory with that of child cgroups, transparent huge pages included: `total_rss` on v1, `anon`
    /// on v2.
    #[serde(skip)]
    pub rss: Option<u64>,
    /// Mapped file pages, with those of child cgroups: `total_mapped_file` on v1, `file_mapped` on v2.
    #[serde(skip)]
    pub mapped_file: Option<u64>,
    /// File pages that the kernel would reclaim first, with those of child cgroups: `total_inactive_file` on v1,
    /// `inactive_file` on v2.
    #[serde(skip)]
    pub inactive_file: Option<u64>,
    /// Page faults, with those of child cgroups.
    #[serde(skip)]
    pub pgfault: Option<u64>,
    /// Page faults that needed the disk, with those of child cgroups.
    #[serde(skip)]
    pub pgmajfault: Option<u64>,
    /// Processes that were OOM-killed.
    #[serde(skip)]
    pub oom_kill: Option<u64>,
}

impl Memory {
    /// Memory that cannot be reclaimed at once: usage less the inactive file pages. Where those were
    /// not reported it is the usage itself, as in containerd's CRI plugin: too high rather than missing.
    pub fn working_set(&self) -> Option<u64> {
        Some(self.usage.usage?.saturating_sub(self.inactive_file.unwrap_or(0)))
    }

    /// Memory that was swapped out: what the kernel says where `raw` has it (cgroup v1's files), else memory plus
    /// swap, less memory. On v1 the latter two are not read at the same instant, so a small number can be a
    /// movement between them. A cgroup v2 reply without swap accounting looks like one of a container that may not
    /// swap: 0.
    pub fn swapped(&self) -> Option<u64> {
        let difference = || Some(self.swap.usage?.saturating_sub(self.usage.usage?));
        self.raw.get("total_swap").copied().or_else(difference)
    }

    /// The limit on memory. `None` when there is none, or none was reported.
    pub fn limit(&self) -> Option<u64> {
        self.usage.finite_limit()
    }
}

/// One kind of memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEntry {
    /// As sent: "unlimited" is 9223372036854771712 from cgroup v1 and 2^64-1 from cgroup v2 (and from
    /// Kata's shims). A limit of 0, under which nothing could run, counts as not reported.
    #[serde(serialize_with = "schema::or_zero")]
    pub limit: Option<u64>,
    /// Now.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub usage: Option<u64>,
    /// The highest that `usage` has been.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub max: Option<u64>,
    /// How often the limit was hit; cgroup v1 only. A zero in a reply without a full `memory.stat` counts as
    /// not reported: runtimes in cgroup v2 guests send it because they have no such number.
    #[serde(serialize_with = "schema::or_zero")]
    pub failcnt: Option<u64>,
}

impl MemoryEntry {
    /// The kernel's "unlimited" on cgroup v1 is 2^63-1 rounded down to a page, 4 to 256 KiB.
    pub(super) const UNLIMITED: u64 = (1 << 63) - (256 << 10);

    /// The limit. `None` when there is none, or none was reported.
    pub fn finite_limit(&self) -> Option<u64> {
        self.limit.filter(|limit| *limit < Self::UNLIMITED)
    }
}

/// Processes and threads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// How many there are. `Some(0)`: the cgroup is empty (see [`Stats::is_emptied`]). A reply in which both
    /// numbers are zero is one of a cgroup without the pids controller: `None`.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub current: Option<u64>,
    /// The limit on their number. `None` when there is no limit, or none was reported.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub limit: Option<u64>,
}

/// Block devices: one list for each statistic, named as in cgroup v1. cgroup v2 has the first two.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    /// Bytes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    /// Operations waiting now.
    #[serde(rename = "ioQueueRecursive", skip_serializing_if = "Vec::is_empty")]
    pub io_queued_recursive: Vec<BlkioEntry>,
    /// Time from dispatch to completion, in nanoseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    /// Time spent in queues, in nanoseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    /// Operations merged into others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    /// Disk time, in milliseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    /// Sectors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    /// Pressure; cgroup v2 only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

impl Blkio {
    /// Reads and writes by device (major, minor), whatever the runtime calls them: `Read` from the
    /// kernel, `read` from Kata's agent, which in a cgroup v2 guest puts the operations (`rios`,
    /// `wios`) among the bytes.
    pub fn devices(&self) -> BTreeMap<(u64, u64), DeviceIo> {
        let mut devices: BTreeMap<_, DeviceIo> = BTreeMap::new();
        for entry in &self.io_service_bytes_recursive {
            let device = devices.entry((entry.major, entry.minor)).or_default();
            match entry.op.to_ascii_lowercase().as_str() {
                "read" => add(&mut device.read_bytes, entry.value),
                "write" => add(&mut device.write_bytes, entry.value),
                "rios" => add(&mut device.reads, entry.value),
                "wios" => add(&mut device.writes, entry.value),
                _ => {}
            }
        }
        for entry in &self.io_serviced_recursive {
            let device = devices.entry((entry.major, entry.minor)).or_default();
            match entry.op.to_ascii_lowercase().as_str() {
                "read" => add(&mut device.reads, entry.value),
                "write" => add(&mut device.writes, entry.value),
                _ => {}
            }
        }
        devices
    }
}

fn add(sum: &mut Option<u64>, part: u64) {
    *sum = Some(sum.unwrap_or(0).saturating_add(part));
}

/// One number of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    /// Major number of the device.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub major: u64,
    /// Minor number of the device.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`, or empty; as sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The number.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub value: u64,
}

/// Reads and writes of a device, since the container started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Bytes written.
    pub write_bytes: Option<u64>,
    /// Read operations.
    pub reads: Option<u64>,
    /// Write operations.
    pub writes: Option<u64>,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hugetlb {
    /// Now. `None` where a reply says that both usage and limit are 0: containerd on cgroup v2 sends the same for
    /// a container that may use none and for one whose hugetlb controller is off.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub usage: Option<u64>,
    /// The highest that `usage` has been; cgroup v1 only.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub max: Option<u64>,
    /// How often the limit was hit.
    #[serde(serialize_with = "schema::or_zero")]
    pub failcnt: Option<u64>,
}

/// Pressure stall information, as in the kernel's `*.pressure` files. A cgroup has these whether or not the
/// controller is on.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Psi {
    /// Some tasks were stalled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub some: Option<Pressure>,
    /// All tasks were stalled at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full: Option<Pressure>,
}

/// One line of a `*.pressure` file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Per cent of the last 10 seconds.
    #[serde(
        serialize_with = "schema::float",
        skip_serializing_if = "schema::is_no_number"
    )]
    pub avg10: f64,
    /// Per cent of the last 60 seconds.
    #[serde(
        serialize_with = "schema::float",
        skip_serializing_if = "schema::is_no_number"
    )]
    pub avg60: f64,
    /// Per cent of the last 300 seconds.
    #[serde(
        serialize_with = "schema::float",
        skip_serializing_if = "schema::is_no_number"
    )]
    pub avg300: f64,
    /// Microseconds in total.
    pub total: u64,
}

/// A network interface's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// Its name in the container's network namespace. Untrusted: a container with the capability
    /// for it chooses its interfaces' names.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets received with an error.
    pub rx_errors: u64,
    /// Packets received and dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets not sent for an error.
    pub tx_errors: u64,
    /// Packets dropped instead of being sent.
    pub tx_dropped: u64,
}

/// Sockets of a network namespace. `None`: that table could not be read (there is no `tcp6` where
/// IPv6 is off).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sockets {
    /// TCP over IPv4.
    pub tcp: Option<TcpCounts>,
    /// TCP over IPv6.
    pub tcp6: Option<TcpCounts>,
    /// UDP over IPv4.
    pub udp: Option<UdpCounts>,
    /// UDP over IPv6.
    pub udp6: Option<UdpCounts>,
}

/// TCP sockets by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs)] // The names of the states say it all.
pub struct TcpCounts {
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub established: u64,
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub syn_sent: u64,
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub syn_recv: u64,
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub fin_wait1: u64,
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub fin_wait2: u64,
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub time_wait: u64,
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub close: u64,
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub close_wait: u64,
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub last_ack: u64,
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub listen: u64,
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub closing: u64,
}

/// UDP sockets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct UdpCounts {
    /// Sockets that are bound and not connected (state 07).
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub listen: u64,
    /// Packets dropped by the sockets that are open now.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub dropped: u64,
    /// Bytes waiting to be read.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub rx_queued: u64,
    /// Bytes waiting to be sent.
    #[serde(skip_serializing_if = "schema::is_zero")]
    pub tx_queued: u64,
}

/// A number of a reply in which zero may mean "not sent": `Some` if it is not zero, or if `measured`
/// says that the zero was read somewhere.
pub(crate) fn reported(value: u64, measured: bool) -> Option<u64> {
    (measured || value != 0).then_some(value)
}

/// The keys of `memory.stat` in a reply, each with its value and whether a zero was measured, as they are kept.
pub(super) fn measured_keys<const N: usize>(
    keys: [(&'static str, u64, bool); N],
) -> BTreeMap<Cow<'static, str>, u64> {
    keys.into_iter()
        .filter(|(_, value, measured)| *measured || *value != 0)
        .map(|(key, value, _)| (key.into(), value))
        .collect()
}

/// An [`Interface`] from a reply's counters, whose fields have the same names in every protobuf type.
macro_rules! interface {
    ($counters:expr) => {{
        let counters = $counters;
        $crate::stats::Interface {
            name: counters.name,
            rx_bytes: counters.rx_bytes,
            rx_packets: counters.rx_packets,
            rx_errors: counters.rx_errors,
            rx_dropped: counters.rx_dropped,
            tx_bytes: counters.tx_bytes,
            tx_packets: counters.tx_packets,
            tx_errors: counters.tx_errors,
            tx_dropped: counters.tx_dropped,
        }
    }};
}
pub(crate) use interface;

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(usage: Option<u64>, inactive_file: Option<u64>) -> Memory {
        Memory {
            usage: MemoryEntry {
                usage,
                ..Default::default()
            },
            inactive_file,
            ..Default::default()
        }
    }

    #[test]
    fn the_working_set_is_the_usage_less_the_inactive_file_pages() {
        assert_eq!(memory(Some(100), Some(30)).working_set(), Some(70));
        assert_eq!(memory(Some(100), None).working_set(), Some(100));
        assert_eq!(
            memory(Some(30), Some(100)).working_set(),
            Some(0),
            "read at different instants"
        );
        assert_eq!(memory(None, Some(30)).working_set(), None);
    }

    #[test]
    fn swapped_out_is_what_memory_and_swap_is_more_than_memory() {
        let swapped = |usage, swap| {
            let swap = MemoryEntry {
                usage: swap,
                ..Default::default()
            };
            Memory {
                swap,
                ..memory(usage, None)
            }
            .swapped()
        };
        assert_eq!(swapped(Some(100), Some(130)), Some(30));
        assert_eq!(
            swapped(Some(100), Some(99)),
            Some(0),
            "read at different instants"
        );
        assert_eq!(swapped(Some(100), None), None);
        assert_eq!(swapped(None, Some(130)), None);
    }

    #[test]
    fn the_kernels_unlimited_is_no_limit() {
        let limit = |limit| {
            MemoryEntry {
                limit,
                ..Default::default()
            }
            .finite_limit()
        };
        // 2^63-1 rounded down to a page of 4 KiB, 16 KiB, 64 KiB; cgroup v2's "max".
        for unlimited in [
            9_223_372_036_854_771_712,
            9_223_372_036_854_759_424,
            9_223_372_036_854_710_272,
            18_446_744_073_709_551_615,
        ] {
            assert_eq!(limit(Some(unlimited)), None, "{unlimited}");
        }
        assert_eq!(limit(Some(1 << 62)), Some(1 << 62), "large, but a limit");
        assert_eq!(limit(Some(33_554_432)), Some(33_554_432));
        assert_eq!(limit(None), None);
    }
}
