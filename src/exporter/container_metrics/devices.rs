//! Block devices, and the filesystem that a container writes to.

use shimstat::node::RootReadings;
use shimstat::stats::DeviceIo;

use super::family::{COUNTER, ContainerFamily, GAUGE, Sink, family};
use super::row::ContainerRow;

pub const FAMILIES: &[ContainerFamily] = &[
    family(
        "container_blkio_device_usage_total",
        COUNTER,
        "Bytes moved, by device and operation.",
        |row, mut to| {
            for (operation, bytes) in &row.io.operations {
                let labels = [
                    ("device", &operation.device),
                    ("major", &operation.major),
                    ("minor", &operation.minor),
                    ("operation", &operation.name),
                ];
                to.put(&labels.map(|(key, value)| (key, value.as_str())), Some(*bytes));
            }
        },
    ),
    family(
        "container_fs_inodes_free",
        GAUGE,
        "Free inodes of the filesystem that it writes to.",
        |row, to| filesystem(row, to, |root| root.space.inodes_free),
    ),
    family(
        "container_fs_inodes_total",
        GAUGE,
        "Inodes of the filesystem that it writes to.",
        |row, to| filesystem(row, to, |root| root.space.inodes),
    ),
    family(
        "container_fs_limit_bytes",
        GAUGE,
        "Size of the filesystem that it writes to.",
        |row, to| filesystem(row, to, |root| Some(root.space.bytes)),
    ),
    family(
        "container_fs_reads_bytes_total",
        COUNTER,
        "Bytes read, by device.",
        |row, to| {
            by_device(row, to, |io| io.read_bytes);
        },
    ),
    family(
        "container_fs_reads_total",
        COUNTER,
        "Reads completed, by device.",
        |row, to| {
            by_device(row, to, |io| io.reads);
        },
    ),
    family(
        "container_fs_usage_bytes",
        GAUGE,
        "Bytes in its writable layer, counted within the last six minutes.",
        |row, to| filesystem(row, to, |root| root.layer_bytes),
    ),
    family(
        "container_fs_writes_bytes_total",
        COUNTER,
        "Bytes written, by device.",
        |row, to| {
            by_device(row, to, |io| io.write_bytes);
        },
    ),
    family(
        "container_fs_writes_total",
        COUNTER,
        "Writes completed, by device.",
        |row, to| {
            by_device(row, to, |io| io.writes);
        },
    ),
];

fn by_device(row: &ContainerRow<'_>, mut to: Sink<'_>, number: fn(&DeviceIo) -> Option<u64>) {
    for (device, io) in &row.io.devices {
        to.put(&[("device", device)], number(io));
    }
}

fn filesystem(row: &ContainerRow<'_>, to: Sink<'_>, number: fn(&RootReadings) -> Option<u64>) {
    let Some(root) = row.host.and_then(|host| host.root.as_ref()) else {
        return;
    };
    match &root.device {
        Some(device) => to.labelled(&[("device", device)], number(root)),
        None => to.one(number(root)),
    }
}
