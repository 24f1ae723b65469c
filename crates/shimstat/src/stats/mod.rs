//! What a container uses: a shim's `Stats` reply, read into exact numbers and printed as JSON. No I/O.
//!
//! [`decode`] reads the `Any` of a reply into one model, [`Stats`], for both cgroup versions. The
//! type that the `Any` names decides which it is, never the host's own cgroup version.
//! [`Stats::to_json`] and [`event`] print the model in the schema of `runc events` and Kata 1.x's
//! `kata-runtime events`. [`parse_interfaces`] and [`SocketTable`] read the text of
//! `/proc/<pid>/net/…`, for the many runtimes whose replies carry no network. [`from_files`] and
//! [`Limits::from_files`] read the text of a cgroup's own files, for containers that have no shim to ask.
//!
//! # Absent is not zero
//!
//! Protobuf 3 cannot tell a number that was not sent from a zero. What a runtime certainly
//! did not measure is `None` here: fields of a message that is missing, and zeros that no kernel
//! would have written (a memory limit of 0, a CPU total without its user and kernel parts, a key of
//! `memory.stat` in a reply whose other keys show that the file was not read). Where a zero can be
//! either, the field's documentation says how it is read.
//!
//! A cgroup whose controller is off has no files of it, and containerd's shims send zeros instead
//! (source: `Manager.Stat` in containerd's cgroups library, versions 1.0 to 3.1):
//!
//! | controller off | cgroup v2 reply | read as |
//! |---|---|---|
//! | pids | current 0, limit 0 (on: the limit is never 0) | `None` |
//! | cpu | before cgroups 3.1: all zero; since then usage without periods | `None`: of the throttling also where there is no quota, which looks the same |
//! | memory | all zero, no `memory_events` (on: the limit is never 0) | `None` |
//! | io | no device, as before the first I/O | no device |
//! | hugetlb | cgroups 1.0: no entry; 3.0: current 0, max 0, which is also a limit of 0 | `None` |
//!
//! On cgroup v1 they send no message for a controller that is off, except for cpu, which is all zero.
//!
//! # What today's replies get wrong
//!
//! Read in the sources of Kata 4.1 and containerd's cgroups library, and seen in recorded replies:
//!
//! | reply | fault | here |
//! |---|---|---|
//! | Kata's Go shim, v2 | user and system CPU time are swapped | passed on as sent: a correction would be wrong once they fix it |
//! | Kata's Go shim, v2 | one io entry for all devices, the last one wins; an entry of nothing but zeros where there is none | passed on as sent; the entry of zeros is left out |
//! | Kata's shims, v2 guest | throttled time is always 0 | `None` beside throttled periods |
//! | Kata's Go shim, v1 | of `memory.stat` only cache, rss, mapped_file, pgfault, pgmajfault and total_inactive_file | a `raw` key that was not filled is left out |
//! | Kata's Rust shim, v1 | page-event counters and a few more keys stay 0; rss and cache too in a v2 guest | the same |
//! | Kata's agent, v2 guest | no `percpu`; an unlimited pids limit arrives as 0; failcnt is always 0; swap, and kernel memory except its limit, are empty | `None` |
//! | Kata's agent, v2 guest | operation counts among the *bytes* of blkio, under the ops `rios` and `wios` | passed on as sent; [`Blkio::devices`] puts them where they belong |
//! | containerd, v2 | `max` of hugetlb is the limit, not the highest usage | `None` |
//! | containerd, v2, cgroups library before 3.1.2 | `failcnt` of hugetlb is 0 whatever the kernel counts | `None` (the JSON schema has the key always, then as 0) |
//! | containerd, v2 | refaults and activations of memory.stat are missing since Linux 5.9 split them, and so are keys newer than the message | left out |
//! | gVisor's shim | only pids.current, cpu.usage.total and memory.usage.usage | the rest is `None`; its sandbox says the network too ([`GvisorEvent`]) |

mod cgroup_files;
mod cgroup_v1;
mod cgroup_v2;
mod gvisor;
mod json;
mod limits;
mod model;
mod network;
mod schema;

use containerd_shim_protos::{cgroups, cgroups_v2};
use protobuf::Message;
use thiserror::Error;

use crate::wire;

pub use cgroup_files::{CgroupVersion, ReadFile, from_files};
pub use gvisor::GvisorEvent;
pub(crate) use model::{interface, reported};

pub use json::event;
pub use limits::{Limit, Limits};
pub use model::{
    Blkio, BlkioEntry, Cpu, CpuUsage, DeviceIo, Hugetlb, Interface, Memory, MemoryEntry, Pids, Pressure, Psi,
    Sockets, Stats, TcpCounts, Throttling, UdpCounts,
};
pub(crate) use network::{InterfaceRow, parse_interface_rows};
pub use network::{MalformedTable, SocketCounts, SocketTable, parse_interfaces};

const V1: &str = "io.containerd.cgroups.v1.Metrics";
const V2: &str = "io.containerd.cgroups.v2.Metrics";

/// The longest part of a foreign type name that an error shows, in characters.
const SHOWN: usize = 128;

/// Why a reply could not be read.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The reply is of a type that this crate does not know. The name is kept as it may be shown:
    /// control and non-ASCII characters escaped, its length bounded.
    #[error("statistics of an unknown type \"{0}\" (known: {V1} and {V2})")]
    UnknownType(String),
    /// The bytes are not a message of the type that the reply names.
    #[error("the reply is not a valid {schema}: {source}")]
    Malformed {
        /// The type that the reply names.
        schema: &'static str,
        /// What the protobuf reader reported.
        source: protobuf::Error,
    },
}

/// Reads the `Any` of a `Stats` reply. `type_url` may carry a prefix up to its last slash, as in
/// `type.googleapis.com/io.containerd.cgroups.v1.Metrics`.
pub fn decode(type_url: &str, value: &[u8]) -> Result<Stats, DecodeError> {
    match type_url.rsplit('/').next() {
        Some(V1) => parse::<cgroups::metrics::Metrics>(V1, value).map(cgroup_v1::stats),
        Some(V2) => parse::<cgroups_v2::metrics::Metrics>(V2, value).map(cgroup_v2::stats),
        _ => Err(DecodeError::UnknownType(shown(type_url))),
    }
}

fn parse<M: Message>(schema: &'static str, value: &[u8]) -> Result<M, DecodeError> {
    wire::parse(value).map_err(|source| DecodeError::Malformed { schema, source })
}

fn shown(type_url: &str) -> String {
    let mut escaped = type_url.escape_default();
    let mut shown: String = escaped.by_ref().take(SHOWN).collect();
    if escaped.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests;
