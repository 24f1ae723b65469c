//! When it was created, and when it was looked at.

use std::time::{SystemTime, UNIX_EPOCH};

use super::family::{ContainerFamily, GAUGE, family};

pub const FAMILIES: &[ContainerFamily] = &[
    family(
        "container_last_seen",
        GAUGE,
        "When its statistics were read, in seconds since 1970.",
        |row, to| {
            to.one(since_1970(Some(row.taken)));
        },
    ),
    family(
        "container_start_time_seconds",
        GAUGE,
        "When it was created, in seconds since 1970.",
        |row, to| {
            to.one(since_1970(row.created));
        },
    ),
];

fn since_1970(time: Option<SystemTime>) -> Option<u64> {
    Some(time?.duration_since(UNIX_EPOCH).ok()?.as_secs())
}
