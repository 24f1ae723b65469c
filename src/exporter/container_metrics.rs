//! Container statistics, under the names and labels that dashboards know from cAdvisor and the kubelet.
//!
//! Names, types and units are those of cAdvisor's `lib/metrics/prometheus.go`; the labels are the kubelet's
//! (`namespace`, `pod`, `container`, `image`, `name`), where `id` is the container's id and not the path of a cgroup,
//! which a guest's container has none of on this machine. What a shim does not report is left out. There is one
//! exception to that, cAdvisor's own: a limit of 0 is said of memory that has none. The CPU's limits are not among
//! what shims report: they are those of the spec, where cAdvisor has those of a cgroup.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use promtext::{FamilyWriter, Kind, Page, PageReader, Relabel, Value, Writer};
use shimstat::node::{Container, CpuSpec, Role, device};
use shimstat::stats::{Blkio, DeviceIo, Interface, MemoryEntry, Pressure, Psi, Stats};

/// The labels that name a container. Those that are empty are left out: to Prometheus they are none.
pub fn labels(container: &Container) -> impl Iterator<Item = (&'static str, &str)> {
    let names = container.names();
    let id = container.id();
    let name = match (&names.container, container.role()) {
        (Some(name), _) => Some(name.as_str()),
        // As CRI-O and the Docker shim call it; dashboards leave it out by that name.
        (None, Role::Sandbox) => Some("POD"),
        (None, _) => None,
    };
    // The same id may be there in several of containerd's namespaces, except that of a pod: all pods are in one.
    let namespace = (*container.role() == Role::Plain).then_some(container.bundle.namespace.as_str());
    let all = [
        ("container", name),
        ("containerd_namespace", namespace),
        ("id", Some(id)),
        ("image", names.image.as_deref()),
        ("name", Some(names.own.as_deref().unwrap_or(id))),
        ("namespace", names.namespace.as_deref()),
        ("pod", names.name.as_deref()),
    ];
    all.into_iter()
        .filter_map(|(key, value)| Some((key, value.filter(|value| !value.is_empty())?)))
}

/// Says type and help of every family of a container's page.
pub fn describe(writer: &mut Writer) {
    for family in &FAMILIES {
        writer.family(family.name, family.kind, family.help);
    }
}

/// A container's samples, without type and help.
pub fn page(
    container: &Container,
    stats: &Stats,
    taken: SystemTime,
    reader: &PageReader,
) -> Result<Page, promtext::Error> {
    let row = Row::new(container, stats, taken);
    let mut writer = Writer::default();
    for family in &FAMILIES {
        (family.write)(&row, Sink(writer.samples(family.name)));
    }
    reader.read(writer.into_text(), Relabel::new(labels(container))?)
}

/// What a container's samples are made of.
struct Row<'a> {
    stats: &'a Stats,
    /// By the name that is shown.
    devices: BTreeMap<String, DeviceIo>,
    bytes: BTreeMap<Operation, u64>,
    cpu: CpuSpec,
    started: Option<SystemTime>,
    taken: SystemTime,
}

/// What was done on which device: its name, its numbers, the operation.
type Operation = (String, String, String, String);

impl<'a> Row<'a> {
    fn new(container: &Container, stats: &'a Stats, taken: SystemTime) -> Self {
        let numbers = stats.blkio.as_ref().map(Blkio::devices).unwrap_or_default();
        // Only a cgroup of this machine has this machine's devices.
        let is_local = !numbers.is_empty() && container.is_on_host();
        let name = |(major, minor): (u64, u64)| {
            let path = if is_local {
                device::path(major, minor)
            } else {
                None
            };
            path.unwrap_or_else(|| format!("{major}:{minor}"))
        };
        let mut bytes = BTreeMap::new();
        for entry in stats
            .blkio
            .iter()
            .flat_map(|blkio| &blkio.io_service_bytes_recursive)
        {
            // Kata's agent has counts of operations among the bytes (see `Blkio::devices`).
            if entry.op.is_empty() || matches!(entry.op.as_str(), "rios" | "wios") {
                continue;
            }
            let (major, minor) = (entry.major.to_string(), entry.minor.to_string());
            let operation = (name((entry.major, entry.minor)), major, minor, entry.op.clone());
            let sum: &mut u64 = bytes.entry(operation).or_default();
            *sum = sum.saturating_add(entry.value);
        }
        Self {
            stats,
            devices: numbers
                .into_iter()
                .map(|(numbers, io)| (name(numbers), io))
                .collect(),
            bytes,
            cpu: *container.cpu(),
            started: container.bundle.created(),
            taken,
        }
    }
}

/// A family, and where its samples come from.
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    write: fn(&Row<'_>, Sink<'_>),
}

/// Takes the samples of one family of one container.
struct Sink<'a>(FamilyWriter<'a>);

impl Sink<'_> {
    fn one(self, value: Option<impl Into<Value>>) {
        self.labelled(&[], value);
    }

    fn labelled(mut self, labels: &[(&str, &str)], value: Option<impl Into<Value>>) {
        self.put(labels, value);
    }

    fn put(&mut self, labels: &[(&str, &str)], value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.sample(labels, value);
        }
    }

    fn devices(mut self, row: &Row<'_>, number: fn(&DeviceIo) -> Option<u64>) {
        for (device, io) in &row.devices {
            self.put(&[("device", device)], number(io));
        }
    }

    fn interfaces(mut self, row: &Row<'_>, number: fn(&Interface) -> u64) {
        for interface in row.stats.network.iter().flatten() {
            // cAdvisor leaves it out as well: nothing of it leaves the pod.
            if interface.name != "lo" {
                self.put(&[("interface", &interface.name)], Some(number(interface)));
            }
        }
    }

    fn stalled(self, psi: Option<&Psi>, line: fn(&Psi) -> Option<Pressure>) {
        let micros = psi.and_then(line).map(|pressure| pressure.total);
        self.one(
            micros
                .and_then(|micros| micros.checked_mul(1000))
                .map(Value::Nanoseconds),
        );
    }
}

const COUNTER: Kind = Kind::Counter;
const GAUGE: Kind = Kind::Gauge;

const fn family(name: &'static str, kind: Kind, help: &'static str, write: fn(&Row<'_>, Sink<'_>)) -> Family {
    Family {
        name,
        kind,
        help,
        write,
    }
}

/// All of them, by name. The helps are our own words.
static FAMILIES: [Family; 50] = [
    family(
        "container_blkio_device_usage_total",
        COUNTER,
        "Bytes moved, by device and operation.",
        |row, mut to| {
            for ((device, major, minor, operation), bytes) in &row.bytes {
                let labels = [
                    ("device", device),
                    ("major", major),
                    ("minor", minor),
                    ("operation", operation),
                ];
                to.put(&labels.map(|(key, value)| (key, value.as_str())), Some(*bytes));
            }
        },
    ),
    family(
        "container_cpu_cfs_periods_total",
        COUNTER,
        "Enforcement periods of the CPU quota.",
        |row, to| {
            to.one(quota(row).then_some(row.stats.cpu.throttling.periods).flatten());
        },
    ),
    family(
        "container_cpu_cfs_throttled_periods_total",
        COUNTER,
        "Periods in which it was throttled.",
        |row, to| {
            to.one(
                quota(row)
                    .then_some(row.stats.cpu.throttling.throttled_periods)
                    .flatten(),
            );
        },
    ),
    family(
        "container_cpu_cfs_throttled_seconds_total",
        COUNTER,
        "Time for which it was throttled.",
        |row, to| {
            let time = row.stats.cpu.throttling.throttled_time;
            to.one(quota(row).then_some(time).flatten().map(Value::Nanoseconds));
        },
    ),
    family(
        "container_cpu_system_seconds_total",
        COUNTER,
        "CPU time used in the kernel.",
        |row, to| {
            to.one(row.stats.cpu.usage.kernel.map(Value::Nanoseconds));
        },
    ),
    family(
        "container_cpu_usage_seconds_total",
        COUNTER,
        "CPU time used.",
        |row, to| {
            to.labelled(
                &[("cpu", "total")],
                row.stats.cpu.usage.total.map(Value::Nanoseconds),
            );
        },
    ),
    family(
        "container_cpu_user_seconds_total",
        COUNTER,
        "CPU time used in user mode.",
        |row, to| {
            to.one(row.stats.cpu.usage.user.map(Value::Nanoseconds));
        },
    ),
    family(
        "container_fs_reads_bytes_total",
        COUNTER,
        "Bytes read, by device.",
        |row, to| {
            to.devices(row, |io| io.read_bytes);
        },
    ),
    family(
        "container_fs_reads_total",
        COUNTER,
        "Reads completed, by device.",
        |row, to| {
            to.devices(row, |io| io.reads);
        },
    ),
    family(
        "container_fs_writes_bytes_total",
        COUNTER,
        "Bytes written, by device.",
        |row, to| {
            to.devices(row, |io| io.write_bytes);
        },
    ),
    family(
        "container_fs_writes_total",
        COUNTER,
        "Writes completed, by device.",
        |row, to| {
            to.devices(row, |io| io.writes);
        },
    ),
    family(
        "container_hugetlb_failcnt",
        COUNTER,
        "How often the limit on huge pages was hit.",
        |row, mut to| {
            for (size, pages) in &row.stats.hugetlb {
                to.put(&[("pagesize", size)], pages.failcnt);
            }
        },
    ),
    family(
        "container_hugetlb_max_usage_bytes",
        GAUGE,
        "Most that was ever used of huge pages.",
        |row, mut to| {
            for (size, pages) in &row.stats.hugetlb {
                to.put(&[("pagesize", size)], pages.max);
            }
        },
    ),
    family(
        "container_hugetlb_usage_bytes",
        GAUGE,
        "Huge pages used.",
        |row, mut to| {
            for (size, pages) in &row.stats.hugetlb {
                to.put(&[("pagesize", size)], pages.usage);
            }
        },
    ),
    family(
        "container_last_seen",
        GAUGE,
        "When its statistics were read, in seconds since 1970.",
        |row, to| {
            to.one(since_1970(Some(row.taken)));
        },
    ),
    family(
        "container_memory_cache",
        GAUGE,
        "Page cache in bytes.",
        |row, to| to.one(row.stats.memory.cache),
    ),
    family(
        "container_memory_failcnt",
        COUNTER,
        "How often the limit on memory was hit.",
        |row, to| {
            to.one(row.stats.memory.usage.failcnt);
        },
    ),
    family(
        "container_memory_failures_total",
        COUNTER,
        "Page faults, by kind.",
        |row, mut to| {
            let memory = &row.stats.memory;
            for (kind, own, total) in [
                ("pgfault", memory.raw.get("pgfault"), memory.pgfault),
                ("pgmajfault", memory.raw.get("pgmajfault"), memory.pgmajfault),
            ] {
                to.put(&[("failure_type", kind), ("scope", "container")], own.copied());
                to.put(&[("failure_type", kind), ("scope", "hierarchy")], total);
            }
        },
    ),
    family(
        "container_memory_kernel_usage",
        GAUGE,
        "Kernel memory in bytes.",
        |row, to| {
            to.one(row.stats.memory.kernel.usage);
        },
    ),
    family(
        "container_memory_mapped_file",
        GAUGE,
        "Mapped files in bytes.",
        |row, to| {
            to.one(row.stats.memory.mapped_file);
        },
    ),
    family(
        "container_memory_max_usage_bytes",
        GAUGE,
        "Most memory that was ever used.",
        |row, to| {
            to.one(row.stats.memory.usage.max);
        },
    ),
    family(
        "container_memory_rss",
        GAUGE,
        "Anonymous memory in bytes.",
        |row, to| to.one(row.stats.memory.rss),
    ),
    family(
        "container_memory_swap",
        GAUGE,
        "Memory that is swapped out, in bytes.",
        |row, to| {
            to.one(row.stats.memory.swapped());
        },
    ),
    family(
        "container_memory_total_active_file_bytes",
        GAUGE,
        "File pages in use lately.",
        |row, to| {
            let raw = &row.stats.memory.raw;
            to.one(
                raw.get("total_active_file")
                    .or_else(|| raw.get("active_file"))
                    .copied(),
            );
        },
    ),
    family(
        "container_memory_total_inactive_file_bytes",
        GAUGE,
        "File pages not in use lately.",
        |row, to| {
            to.one(row.stats.memory.inactive_file);
        },
    ),
    family(
        "container_memory_usage_bytes",
        GAUGE,
        "Memory used, the page cache included.",
        |row, to| {
            to.one(row.stats.memory.usage.usage);
        },
    ),
    family(
        "container_memory_working_set_bytes",
        GAUGE,
        "Memory used, less what is freed first.",
        |row, to| {
            to.one(row.stats.memory.working_set());
        },
    ),
    family(
        "container_network_receive_bytes_total",
        COUNTER,
        "Bytes received.",
        |row, to| {
            to.interfaces(row, |interface| interface.rx_bytes);
        },
    ),
    family(
        "container_network_receive_errors_total",
        COUNTER,
        "Errors in receiving.",
        |row, to| {
            to.interfaces(row, |interface| interface.rx_errors);
        },
    ),
    family(
        "container_network_receive_packets_dropped_total",
        COUNTER,
        "Packets dropped on arrival.",
        |row, to| {
            to.interfaces(row, |interface| interface.rx_dropped);
        },
    ),
    family(
        "container_network_receive_packets_total",
        COUNTER,
        "Packets received.",
        |row, to| {
            to.interfaces(row, |interface| interface.rx_packets);
        },
    ),
    family(
        "container_network_transmit_bytes_total",
        COUNTER,
        "Bytes sent.",
        |row, to| {
            to.interfaces(row, |interface| interface.tx_bytes);
        },
    ),
    family(
        "container_network_transmit_errors_total",
        COUNTER,
        "Errors in sending.",
        |row, to| {
            to.interfaces(row, |interface| interface.tx_errors);
        },
    ),
    family(
        "container_network_transmit_packets_dropped_total",
        COUNTER,
        "Packets not sent.",
        |row, to| {
            to.interfaces(row, |interface| interface.tx_dropped);
        },
    ),
    family(
        "container_network_transmit_packets_total",
        COUNTER,
        "Packets sent.",
        |row, to| {
            to.interfaces(row, |interface| interface.tx_packets);
        },
    ),
    family(
        "container_oom_events_total",
        COUNTER,
        "Processes killed because memory ran out.",
        |row, to| {
            to.one(row.stats.memory.oom_kill);
        },
    ),
    family(
        "container_pressure_cpu_stalled_seconds_total",
        COUNTER,
        "Time all waited for CPU.",
        |row, to| {
            to.stalled(row.stats.cpu.psi.as_ref(), |psi| psi.full);
        },
    ),
    family(
        "container_pressure_cpu_waiting_seconds_total",
        COUNTER,
        "Time some waited for CPU.",
        |row, to| {
            to.stalled(row.stats.cpu.psi.as_ref(), |psi| psi.some);
        },
    ),
    family(
        "container_pressure_io_stalled_seconds_total",
        COUNTER,
        "Time all waited for devices.",
        |row, to| {
            to.stalled(
                row.stats.blkio.as_ref().and_then(|blkio| blkio.psi.as_ref()),
                |psi| psi.full,
            );
        },
    ),
    family(
        "container_pressure_io_waiting_seconds_total",
        COUNTER,
        "Time some waited for devices.",
        |row, to| {
            to.stalled(
                row.stats.blkio.as_ref().and_then(|blkio| blkio.psi.as_ref()),
                |psi| psi.some,
            );
        },
    ),
    family(
        "container_pressure_memory_stalled_seconds_total",
        COUNTER,
        "Time all waited for memory.",
        |row, to| {
            to.stalled(row.stats.memory.psi.as_ref(), |psi| psi.full);
        },
    ),
    family(
        "container_pressure_memory_waiting_seconds_total",
        COUNTER,
        "Time some waited for memory.",
        |row, to| {
            to.stalled(row.stats.memory.psi.as_ref(), |psi| psi.some);
        },
    ),
    family(
        "container_spec_cpu_period",
        GAUGE,
        "Period of the CPU quota that it was created with, in microseconds.",
        |row, to| to.one(row.cpu.period),
    ),
    family(
        "container_spec_cpu_quota",
        GAUGE,
        "CPU time in each period that it was created with, in microseconds.",
        |row, to| to.one(row.cpu.quota),
    ),
    family(
        "container_spec_cpu_shares",
        GAUGE,
        "Weight for CPU time that it was created with.",
        |row, to| to.one(row.cpu.shares),
    ),
    family(
        "container_spec_memory_limit_bytes",
        GAUGE,
        "Limit on memory; 0: none.",
        |row, to| {
            to.one(limit(&row.stats.memory.usage));
        },
    ),
    family(
        "container_spec_memory_swap_limit_bytes",
        GAUGE,
        "Limit on memory and swap; 0: none.",
        |row, to| {
            to.one(limit(&row.stats.memory.swap));
        },
    ),
    family(
        "container_start_time_seconds",
        GAUGE,
        "When it was created, in seconds since 1970.",
        |row, to| {
            to.one(since_1970(row.started));
        },
    ),
    family("container_threads", GAUGE, "Processes and threads.", |row, to| {
        to.one(row.stats.pids.current)
    }),
    family(
        "container_threads_max",
        GAUGE,
        "Limit on processes and threads.",
        |row, to| {
            to.one(row.stats.pids.limit);
        },
    ),
];

/// Whether it has a CPU quota: without one no periods pass.
fn quota(row: &Row<'_>) -> bool {
    row.stats
        .cpu
        .throttling
        .periods
        .is_some_and(|periods| periods > 0)
}

fn limit(entry: &MemoryEntry) -> Option<u64> {
    entry.limit.map(|_| entry.finite_limit().unwrap_or(0))
}

fn since_1970(time: Option<SystemTime>) -> Option<u64> {
    Some(time?.duration_since(UNIX_EPOCH).ok()?.as_secs())
}
