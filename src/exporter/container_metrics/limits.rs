//! What a container may use today. An in-place resize changes it, and not the spec that the container was created with:
//! where only that is known, as of a container in a guest, there is no sample.

use shimstat::stats::{Limit, MemoryEntry};

use super::family::{ContainerFamily, GAUGE, family};

pub const FAMILIES: &[ContainerFamily] = &[
    family(
        "container_spec_cpu_period",
        GAUGE,
        "Period of the CPU quota, in microseconds.",
        |row, to| to.one(row.limits().and_then(|limits| limits.cpu_period)),
    ),
    family(
        "container_spec_cpu_quota",
        GAUGE,
        "CPU time that it may use in each period, in microseconds.",
        |row, to| {
            to.one(match row.limits().and_then(|limits| limits.cpu_quota) {
                Some(Limit::At(quota)) => Some(quota),
                Some(Limit::Unlimited) | None => None,
            });
        },
    ),
    family(
        "container_spec_cpu_shares",
        GAUGE,
        "Weight for CPU time, as in cgroup v1.",
        |row, to| to.one(row.limits().and_then(|limits| limits.cpu_shares)),
    ),
    family(
        "container_spec_memory_limit_bytes",
        GAUGE,
        "Limit on memory; 0: none.",
        |row, to| {
            let today = row.limits().and_then(|limits| limits.memory);
            to.one(or_reported(today, &row.stats.memory.usage));
        },
    ),
    family(
        "container_spec_memory_reservation_limit_bytes",
        GAUGE,
        "Memory that is kept from reclaim; 0: none.",
        |row, to| {
            let today = row.limits().and_then(|limits| limits.memory_reservation);
            to.one(today.map(Limit::or_zero));
        },
    ),
    family(
        "container_spec_memory_swap_limit_bytes",
        GAUGE,
        "Limit on memory plus swap with cgroup v1, on swap with v2; 0: none.",
        |row, to| {
            let today = row.limits().and_then(|limits| limits.memory_swap);
            to.one(or_reported(today, &row.stats.memory.swap));
        },
    ),
    family(
        "container_threads_max",
        GAUGE,
        "Limit on processes and threads; 0: none.",
        |row, to| {
            let today = row.limits().and_then(|limits| limits.pids);
            to.one(today.map(Limit::or_zero).or(row.stats.pids.limit));
        },
    ),
    family(
        "container_ulimits_soft",
        GAUGE,
        "Soft limits of its first process; -1: unlimited.",
        |row, to| {
            let open_files = row.host.and_then(|host| host.ulimits.max_open_files);
            to.labelled(
                &[("ulimit", "max_open_files")],
                open_files.map(|most| most as f64),
            );
        },
    ),
];

/// Today's limit, or the one that the shim reports.
fn or_reported(today: Option<Limit>, reported: &MemoryEntry) -> Option<u64> {
    let reported = || reported.limit.map(|_| reported.finite_limit().unwrap_or(0));
    today.map(Limit::or_zero).or_else(reported)
}
