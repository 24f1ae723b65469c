//! CPU time, and how a quota held it back.

use promtext::Value;
use shimstat::stats::{Limit, Throttling};

use super::family::{COUNTER, ContainerFamily, family};
use super::row::ContainerRow;

pub const FAMILIES: &[ContainerFamily] = &[
    family(
        "container_cpu_cfs_periods_total",
        COUNTER,
        "Enforcement periods of the CPU quota.",
        |row, to| {
            to.one(throttling(row).and_then(|cpu| cpu.periods));
        },
    ),
    family(
        "container_cpu_cfs_throttled_periods_total",
        COUNTER,
        "Periods in which it was throttled.",
        |row, to| {
            to.one(throttling(row).and_then(|cpu| cpu.throttled_periods));
        },
    ),
    family(
        "container_cpu_cfs_throttled_seconds_total",
        COUNTER,
        "Time for which it was throttled.",
        |row, to| {
            let time = throttling(row).and_then(|cpu| cpu.throttled_time);
            to.one(time.map(Value::Nanoseconds));
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
];

/// How the quota held it back. As in cAdvisor, what has no quota has no samples, though its counters may be left from
/// when it had one. Where the quota is not known, periods that have passed tell that there is one.
fn throttling<'a>(row: &ContainerRow<'a>) -> Option<&'a Throttling> {
    let has_quota = match row.limits().and_then(|limits| limits.cpu_quota) {
        Some(quota) => quota != Limit::Unlimited,
        None => true,
    };
    has_quota.then_some(&row.stats.cpu.throttling)
}
