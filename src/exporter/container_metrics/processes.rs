//! Processes, threads, and what they have open. Of containers that run on this host; a guest's processes are not ours to
//! see.

use super::family::{ContainerFamily, GAUGE, family};

pub const FAMILIES: &[ContainerFamily] = &[
    family(
        "container_file_descriptors",
        GAUGE,
        "Open file descriptors.",
        |row, to| to.one(row.host.and_then(|host| host.processes.file_descriptors)),
    ),
    family("container_processes", GAUGE, "Processes.", |row, to| {
        to.one(row.host.and_then(|host| host.processes.processes));
    }),
    family("container_sockets", GAUGE, "Open sockets.", |row, to| {
        to.one(row.host.and_then(|host| host.processes.sockets));
    }),
    family("container_threads", GAUGE, "Processes and threads.", |row, to| {
        to.one(row.stats.pids.current);
    }),
];
