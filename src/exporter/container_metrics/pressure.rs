//! Pressure stall information, which cgroup v2 has.

use promtext::Value;
use shimstat::stats::{Pressure, Psi};

use super::family::{COUNTER, ContainerFamily, Sink, family};
use super::row::ContainerRow;

pub const FAMILIES: &[ContainerFamily] = &[
    family(
        "container_pressure_cpu_stalled_seconds_total",
        COUNTER,
        "Time all waited for CPU.",
        |row, to| {
            stalled(to, row.stats.cpu.psi.as_ref(), |psi| psi.full);
        },
    ),
    family(
        "container_pressure_cpu_waiting_seconds_total",
        COUNTER,
        "Time some waited for CPU.",
        |row, to| {
            stalled(to, row.stats.cpu.psi.as_ref(), |psi| psi.some);
        },
    ),
    family(
        "container_pressure_io_stalled_seconds_total",
        COUNTER,
        "Time all waited for devices.",
        |row, to| {
            stalled(to, of_devices(row), |psi| psi.full);
        },
    ),
    family(
        "container_pressure_io_waiting_seconds_total",
        COUNTER,
        "Time some waited for devices.",
        |row, to| {
            stalled(to, of_devices(row), |psi| psi.some);
        },
    ),
    family(
        "container_pressure_memory_stalled_seconds_total",
        COUNTER,
        "Time all waited for memory.",
        |row, to| {
            stalled(to, row.stats.memory.psi.as_ref(), |psi| psi.full);
        },
    ),
    family(
        "container_pressure_memory_waiting_seconds_total",
        COUNTER,
        "Time some waited for memory.",
        |row, to| {
            stalled(to, row.stats.memory.psi.as_ref(), |psi| psi.some);
        },
    ),
];

fn of_devices<'a>(row: &ContainerRow<'a>) -> Option<&'a Psi> {
    row.stats.blkio.as_ref()?.psi.as_ref()
}

fn stalled(to: Sink<'_>, psi: Option<&Psi>, line: fn(&Psi) -> Option<Pressure>) {
    let microseconds = psi.and_then(line).map(|pressure| pressure.total);
    to.one(
        microseconds
            .and_then(|microseconds| microseconds.checked_mul(1000))
            .map(Value::Nanoseconds),
    );
}
