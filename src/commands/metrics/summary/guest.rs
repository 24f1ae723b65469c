//! What Kata's metrics say, in seconds and bytes. Units differ between Kata's two shims and between families; they were
//! read in Kata's sources (4.1) and checked against recordings.
//!
//! | family | unit |
//! |---|---|
//! | `kata_hypervisor_proc_stat`, `kata_virtiofsd_proc_stat`, `kata_shim_proc_stat` | clock ticks of the host |
//! | `kata_hypervisor_proc_status`, `kata_virtiofsd_proc_status` (only from the Go shim) | bytes |
//! | `kata_shim_proc_status` | bytes from the Go shim, kB from the Rust shim |
//! | `process_*` (only from the Go shim) | as their names say |
//! | `kata_guest_cpu_time` | milliseconds |
//! | `kata_guest_meminfo` | bytes |
//! | `kata_agent_total_time`, `kata_agent_total_rss` | seconds, bytes |

use crate::guest_side::GuestMemory;
use crate::readings::Readings;
use shimstat::node::{Part, processes};

/// What the metrics say about one part of a sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Processor time in seconds.
    pub cpu: Option<f64>,
    /// In bytes.
    pub memory: Option<u64>,
    /// The bytes that there are, if that is known.
    pub of: Option<u64>,
    /// The metric families that it comes from.
    pub source: &'static str,
}

impl Measured {
    fn new(cpu: Option<f64>, memory: Option<u64>, source: &'static str) -> Option<Self> {
        (cpu.is_some() || memory.is_some()).then_some(Self {
            cpu,
            memory,
            of: None,
            source,
        })
    }
}

/// A process of the host, as its shim saw it.
pub fn host_part(readings: &Readings, part: Part) -> Option<Measured> {
    let item = |family: &str, item: &str| readings.amount(family, &[("item", item)]);
    let ticks = |family: &str| {
        let ticks = item(family, "utime")?.checked_add(item(family, "stime")?)?;
        Some(processes::ticks(ticks).as_secs_f64())
    };
    match part {
        Part::Vmm => Measured::new(
            ticks("kata_hypervisor_proc_stat"),
            item("kata_hypervisor_proc_status", "vmrss").and_then(|rss| {
                // VmRSS does not count huge pages (proc(5)).
                rss.checked_add(item("kata_hypervisor_proc_status", "hugetlbpages").unwrap_or(0))
            }),
            "kata_hypervisor_proc_stat, kata_hypervisor_proc_status",
        ),
        // Kata measures the process that it started, which only waits for the one that does the work.
        Part::Virtiofsd => None,
        Part::Shim if readings.value("process_resident_memory_bytes", &[]).is_some() => Measured::new(
            readings
                .value("process_cpu_seconds_total", &[])
                .filter(|seconds| *seconds >= 0.0),
            readings.amount("process_resident_memory_bytes", &[]),
            "process_cpu_seconds_total, process_resident_memory_bytes",
        ),
        // The Rust shim, which has no process_* families.
        Part::Shim => Measured::new(
            ticks("kata_shim_proc_stat"),
            item("kata_shim_proc_status", "vmrss").and_then(|kilobytes| kilobytes.checked_mul(1024)),
            "kata_shim_proc_stat, kata_shim_proc_status",
        ),
        Part::Vhost | Part::ShimAndVmm => None,
    }
}

/// The guest as a machine: processor time that was not idle, and memory that is not available.
pub fn guest(readings: &Readings) -> Option<Measured> {
    let time = |item| readings.value("kata_guest_cpu_time", &[("cpu", "total"), ("item", item)]);
    // guest and guest_nice are part of user and nice; iowait and steal are time in which it did not run.
    let busy = ["user", "nice", "system", "irq", "softirq"]
        .map(time)
        .into_iter()
        .sum::<Option<f64>>();
    let memory = GuestMemory::read(readings);
    Some(Measured {
        of: memory.map(|memory| memory.total),
        ..Measured::new(
            busy.map(|milliseconds| milliseconds / 1000.0),
            memory.and_then(|memory| memory.used),
            "kata_guest_cpu_time, kata_guest_meminfo (mem_total minus mem_available)",
        )?
    })
}

/// Kata's agent in the guest; it is part of what the guest uses.
pub fn agent(readings: &Readings) -> Option<Measured> {
    Measured::new(
        readings
            .value("kata_agent_total_time", &[])
            .filter(|seconds| *seconds >= 0.0),
        readings.amount("kata_agent_total_rss", &[]),
        "kata_agent_total_time, kata_agent_total_rss",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use promtext::Filter;

    fn readings(page: &str) -> Readings {
        Readings::read(page.as_bytes(), &Filter::default()).unwrap()
    }

    fn go() -> Readings {
        readings(include_str!(
            "../../../../crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt"
        ))
    }

    fn rust() -> Readings {
        readings(include_str!(
            "../../../../crates/promtext/tests/fixtures/kata-3.30-rs/metrics.txt"
        ))
    }

    // The expected numbers are read off the recordings by eye.

    #[test]
    fn the_go_shims_own_figures_agree_in_their_units() {
        let go = go();
        let vmm = host_part(&go, Part::Vmm).unwrap();
        assert_eq!((vmm.cpu, vmm.memory), (Some(5.53), Some(332_455_936)));
        let shim = host_part(&go, Part::Shim).unwrap();
        assert_eq!((shim.cpu, shim.memory), (Some(7.23), Some(46_768_128)));
        // The two families about the shim are of the same moment: 207 + 516 ticks, and vmrss in bytes.
        let ticks = go.value("kata_shim_proc_stat", &[("item", "utime")]).unwrap()
            + go.value("kata_shim_proc_stat", &[("item", "stime")]).unwrap();
        assert_eq!(ticks / 100.0, shim.cpu.unwrap());
        let vmrss = go.value("kata_shim_proc_status", &[("item", "vmrss")]).unwrap();
        assert!(
            (vmrss / shim.memory.unwrap() as f64 - 1.0).abs() < 0.01,
            "bytes, not kB"
        );
    }

    #[test]
    fn the_rust_shim_has_itself_alone_and_in_kilobytes() {
        let rust = rust();
        assert_eq!(host_part(&rust, Part::Vmm), None);
        let shim = host_part(&rust, Part::Shim).unwrap();
        assert_eq!((shim.cpu, shim.memory), (Some(0.28), Some(62_612 * 1024)));
    }

    #[test]
    fn the_guest_is_the_same_from_both() {
        let go = guest(&go()).unwrap();
        // 1520 user + 5320 system + 220 softirq, in milliseconds.
        assert_eq!(go.cpu, Some(7.06));
        assert_eq!(
            (go.memory, go.of),
            (Some(487_276_544 - 432_066_560), Some(487_276_544))
        );
        let rust = guest(&rust()).unwrap();
        assert_eq!(rust.cpu, Some(3.07));
        assert_eq!(
            (rust.memory, rust.of),
            (Some(487_276_544 - 433_074_176), Some(487_276_544))
        );
    }

    #[test]
    fn the_agents_figures() {
        assert_eq!(agent(&go()).unwrap().cpu, Some(5.05));
        assert_eq!(agent(&rust()).unwrap().memory, Some(15_052_800));
    }

    #[test]
    fn what_is_not_said_is_not_zero_and_an_underflow_is_no_amount() {
        let nothing = readings("x 1\n");
        assert_eq!(
            (guest(&nothing), agent(&nothing), host_part(&nothing, Part::Shim)),
            (None, None, None)
        );
        let odd =
            readings("process_resident_memory_bytes 1.8446744073707799e+19\nprocess_cpu_seconds_total -1\n");
        assert_eq!(host_part(&odd, Part::Shim), None);
        let half = readings("kata_guest_meminfo{item=\"mem_total\"} 100\n");
        assert_eq!(guest(&half), None, "the total alone says nothing of what is used");
    }
}
