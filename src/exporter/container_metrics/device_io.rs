//! What a container did on block devices, by the devices' names.

use std::collections::{BTreeMap, BTreeSet};

use shimstat::node::device;
use shimstat::stats::{Blkio, DeviceIo, Stats};

/// What was done on which device: its name, its numbers, the operation.
pub struct Operation {
    pub device: String,
    pub major: String,
    pub minor: String,
    pub name: String,
}

/// A container's block I/O. Devices are named `/dev/sda`; one whose name nobody knows has its numbers, `8:0`.
#[derive(Default)]
pub struct DeviceNumbers {
    /// In the order of their names.
    pub devices: Vec<(String, DeviceIo)>,
    /// Bytes.
    pub operations: Vec<(Operation, u64)>,
}

impl DeviceNumbers {
    /// Those of a container, which may be in a guest, whose devices are not this machine's.
    pub fn of(stats: &Stats, is_on_host: impl Fn() -> bool) -> Self {
        let Some(blkio) = &stats.blkio else {
            return Self::default();
        };
        let numbers = blkio.devices();
        if numbers.is_empty() {
            return Self::default();
        }
        let sums = sums(blkio);
        let is_on_host = is_on_host();
        let all = numbers
            .keys()
            .copied()
            .chain(sums.keys().map(|(major, minor, _)| (*major, *minor)));
        let all: BTreeSet<(u64, u64)> = all.collect();
        let names: BTreeMap<_, _> = all
            .into_iter()
            .map(|numbers| (numbers, name(numbers, is_on_host)))
            .collect();
        let named = |numbers| names.get(&numbers).cloned().unwrap_or_default();
        let mut devices: Vec<_> = numbers
            .into_iter()
            .map(|(numbers, io)| (named(numbers), io))
            .collect();
        let operations = sums.into_iter().map(|((major, minor, operation), bytes)| {
            let operation = Operation {
                device: named((major, minor)),
                major: major.to_string(),
                minor: minor.to_string(),
                name: operation.to_string(),
            };
            (operation, bytes)
        });
        devices.sort_by(|(one, _), (other, _)| one.cmp(other));
        let mut operations: Vec<_> = operations.collect();
        operations.sort_by(|(one, _), (other, _)| one.key().cmp(&other.key()));
        Self { devices, operations }
    }
}

impl Operation {
    fn key(&self) -> [&str; 4] {
        [&self.device, &self.major, &self.minor, &self.name]
    }
}

fn name((major, minor): (u64, u64), is_on_host: bool) -> String {
    let path = match is_on_host {
        true => device::path(major, minor),
        false => device::well_known_path(major, minor),
    };
    path.unwrap_or_else(|| format!("{major}:{minor}"))
}

/// Bytes, by device and operation.
fn sums(blkio: &Blkio) -> BTreeMap<(u64, u64, &str), u64> {
    let mut sums = BTreeMap::new();
    for entry in &blkio.io_service_bytes_recursive {
        // Kata's agent has counts of operations among the bytes (see `Blkio::devices`).
        if entry.op.is_empty() || matches!(entry.op.as_str(), "rios" | "wios") {
            continue;
        }
        let sum: &mut u64 = sums
            .entry((entry.major, entry.minor, entry.op.as_str()))
            .or_default();
        *sum = sum.saturating_add(entry.value);
    }
    sums
}
