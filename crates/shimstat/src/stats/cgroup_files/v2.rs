//! The files of cgroup v2, put into cgroup v1's schema as runc does it.

use std::collections::BTreeMap;

use super::files::Files;
use crate::stats::{
    Blkio, BlkioEntry, Cpu, CpuUsage, Hugetlb, Memory, MemoryEntry, Pressure, Psi, Stats, Throttling,
};

pub(super) fn stats(files: &Files<'_>, page_sizes: &[String]) -> Stats {
    Stats {
        cpu: cpu(files),
        memory: memory(files),
        pids: files.pids(),
        blkio: blkio(files),
        hugetlb: page_sizes
            .iter()
            .filter_map(|size| {
                let numbers = Hugetlb {
                    usage: Some(files.number(&format!("hugetlb.{size}.current"))?),
                    max: None,
                    failcnt: files
                        .keyed(&format!("hugetlb.{size}.events"))
                        .and_then(|events| events.get("max").copied()),
                };
                Some((size.clone(), numbers))
            })
            .collect(),
        network: None,
        sockets: None,
    }
}

fn cpu(files: &Files<'_>) -> Cpu {
    // It is there without the cpu controller too, but then without periods.
    let stat = files.keyed("cpu.stat").unwrap_or_default();
    let nanoseconds = |key: &str| stat.get(key)?.checked_mul(1000);
    let count = |key: &str| stat.get(key).copied().unwrap_or(0);
    Cpu {
        usage: CpuUsage {
            total: nanoseconds("usage_usec"),
            kernel: nanoseconds("system_usec"),
            user: nanoseconds("user_usec"),
            percpu: Vec::new(),
        },
        throttling: Throttling::counted(
            count("nr_periods"),
            count("nr_throttled"),
            nanoseconds("throttled_usec"),
        ),
        psi: psi(files, "cpu.pressure"),
    }
}

fn memory(files: &Files<'_>) -> Memory {
    let stat = files.keyed("memory.stat").unwrap_or_default();
    let number = |key: &str| stat.get(key).copied();
    let usage = MemoryEntry {
        limit: files.number("memory.max"),
        usage: files.number("memory.current"),
        max: files.number("memory.peak"),
        failcnt: None,
    };
    let sum = |memory: Option<u64>, swap: &str| Some(memory?.saturating_add(files.number(swap)?));
    Memory {
        cache: number("file"),
        total_cache: number("file"),
        swap: MemoryEntry {
            limit: sum(usage.limit, "memory.swap.max"),
            usage: sum(usage.usage, "memory.swap.current"),
            // The two peaks need not have been at the same time.
            max: None,
            failcnt: None,
        },
        usage,
        kernel: MemoryEntry::default(),
        kernel_tcp: MemoryEntry::default(),
        rss: number("anon"),
        mapped_file: number("file_mapped"),
        inactive_file: number("inactive_file"),
        pgfault: number("pgfault"),
        pgmajfault: number("pgmajfault"),
        oom_kill: files
            .keyed("memory.events")
            .and_then(|events| events.get("oom_kill").copied()),
        psi: psi(files, "memory.pressure"),
        raw: stat.into_iter().map(|(key, value)| (key.into(), value)).collect(),
    }
}

/// `None` where neither devices nor pressure can be read.
fn blkio(files: &Files<'_>) -> Option<Blkio> {
    let devices = (files.0)("io.stat");
    let psi = psi(files, "io.pressure");
    if devices.is_none() && psi.is_none() {
        return None;
    }
    let mut blkio = Blkio {
        psi,
        ..Blkio::default()
    };
    for line in devices.as_deref().unwrap_or_default().lines() {
        // A device without numbers has not been used.
        if let Some((device, numbers)) = device(line) {
            let entry = |op: &str, key| {
                Some(BlkioEntry {
                    op: op.to_owned(),
                    value: *numbers.get(key)?,
                    ..device.clone()
                })
            };
            let bytes = [entry("Read", "rbytes"), entry("Write", "wbytes")];
            let operations = [entry("Read", "rios"), entry("Write", "wios")];
            blkio
                .io_service_bytes_recursive
                .extend(bytes.into_iter().flatten());
            blkio
                .io_serviced_recursive
                .extend(operations.into_iter().flatten());
        }
    }
    Some(blkio)
}

/// A line such as `254:16 rbytes=0 wbytes=8388608 rios=0 wios=8 dbytes=0 dios=0`.
fn device(line: &str) -> Option<(BlkioEntry, BTreeMap<&str, u64>)> {
    let mut words = line.split_ascii_whitespace();
    let (major, minor) = words.next()?.split_once(':')?;
    let device = BlkioEntry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        ..BlkioEntry::default()
    };
    let numbers = words.filter_map(|word| {
        let (key, number) = word.split_once('=')?;
        Some((key, number.parse().ok()?))
    });
    Some((device, numbers.collect()))
}

/// Lines such as `some avg10=3.02 avg60=35.72 avg300=46.91 total=428272259`.
fn psi(files: &Files<'_>, name: &str) -> Option<Psi> {
    let text = (files.0)(name)?;
    let line = |kind: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
        let value = |key: &str| {
            line.split(' ')
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        Some(Pressure {
            avg10: value("avg10")?.parse().ok()?,
            avg60: value("avg60")?.parse().ok()?,
            avg300: value("avg300")?.parse().ok()?,
            total: value("total")?.parse().ok()?,
        })
    };
    let psi = Psi {
        some: line("some"),
        full: line("full"),
    };
    (psi != Psi::default()).then_some(psi)
}
