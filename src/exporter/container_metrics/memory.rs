//! Memory, huge pages and OOM kills.

use super::family::{COUNTER, ContainerFamily, GAUGE, family};

pub const FAMILIES: &[ContainerFamily] = &[
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
        "container_memory_cache",
        GAUGE,
        "Page cache in bytes.",
        |row, to| to.one(row.stats.memory.total_cache),
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
        "container_oom_events_total",
        COUNTER,
        "Processes killed because memory ran out.",
        |row, to| {
            to.one(row.stats.memory.oom_kill);
        },
    ),
];
