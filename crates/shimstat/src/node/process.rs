//! The network of a task, from the network namespace of its process.
//!
//! runc's shim never sends network statistics, and Kata's shims send none today. A task's pid (for Kata the
//! hypervisor's) leads to the pod's network namespace.

use std::fmt::Display;
use std::io::Read;
use std::os::linux::fs::MetadataExt;
use std::sync::LazyLock;
use std::time::Instant;

use super::files;
use crate::stats::{self, Interface, SocketCounts, SocketTable, Sockets, Stats};

/// A line an interface of about 130 bytes: room for 30,000.
const INTERFACES_LIMIT: u64 = 4 << 20;

/// A line a socket of about 150 bytes: room for 400,000. A longer table is not counted in part.
const SOCKETS_LIMIT: u64 = 64 << 20;

/// `sockstat` has a line a protocol.
const SOCKSTAT_LIMIT: u64 = 64 << 10;

/// Adds the network of a process to statistics that have none: its interfaces, and with a deadline for it the
/// counts of its sockets. Leaves out what cannot be read, and all of it for a process in the host's own network
/// namespace: the host's counters are not the task's. Tables that are still being read at the deadline are left
/// out as well.
pub(crate) fn add_network(stats: &mut Stats, pid: u32, count_sockets_until: Option<Instant>) {
    let Some(namespace) = own_namespace(pid) else {
        return;
    };
    let interfaces = interfaces(pid);
    let sockets = count_sockets_until.map(|deadline| sockets(pid, deadline));
    // A process that ended meanwhile took its namespace with it, and its pid may be another's by now.
    if interfaces.is_some() && namespace_of(pid) == Some(namespace) {
        stats.network = interfaces;
        stats.sockets = sockets;
    }
}

/// A network namespace: the device and the inode of its file in `/proc`.
type Namespace = (u64, u64);

/// The network namespace of a process, where it is another than the host's.
fn own_namespace(pid: u32) -> Option<Namespace> {
    /// That of process 1, or, where process 1 may not be looked at (we are in a container ourselves), our own.
    /// Neither changes while we run.
    static HOST: LazyLock<Option<Namespace>> =
        LazyLock::new(|| namespace_of("1").or_else(|| namespace_of("self")));
    let namespace = namespace_of(pid).filter(|_| pid != 0)?;
    let host = (*HOST)?;
    (namespace != host).then_some(namespace)
}

fn namespace_of(process: impl Display) -> Option<Namespace> {
    let metadata = std::fs::metadata(format!("/proc/{process}/ns/net")).ok()?;
    Some((metadata.st_dev(), metadata.st_ino()))
}

fn interfaces(pid: u32) -> Option<Vec<Interface>> {
    let text = files::read(format!("/proc/{pid}/net/dev").as_ref(), INTERFACES_LIMIT).ok()?;
    stats::parse_interfaces(&text).ok()
}

/// Counts the sockets of a process's network namespace. To print a table of TCP sockets the kernel walks the
/// whole machine's hash table, 2 to 10 ms for each of the two; `sockstat` tells for 15 µs that a table is empty,
/// which it is in most sandboxes seen from the host.
fn sockets(pid: u32, deadline: Instant) -> Sockets {
    let summary =
        |name| files::read(format!("/proc/{pid}/net/{name}").as_ref(), SOCKSTAT_LIMIT).unwrap_or_default();
    let (v4, v6) = (summary("sockstat"), summary("sockstat6"));
    // Sockets in TIME_WAIT are counted apart, for both families together.
    let waiting = in_summary(&v4, "TCP", "tw");
    let idle = |summary: &[u8], protocol| in_summary(summary, protocol, "inuse") == Some(0);
    Sockets {
        tcp: table(pid, "tcp", idle(&v4, "TCP") && waiting == Some(0), deadline),
        tcp6: table(pid, "tcp6", idle(&v6, "TCP6") && waiting == Some(0), deadline),
        udp: table(pid, "udp", idle(&v4, "UDP"), deadline),
        udp6: table(pid, "udp6", idle(&v6, "UDP6"), deadline),
    }
}

/// A number of a `sockstat` file: lines such as `TCP: inuse 2 orphan 0 tw 1 alloc 3 mem 0`.
fn in_summary(summary: &[u8], protocol: &str, key: &str) -> Option<u64> {
    let text = std::str::from_utf8(summary).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(protocol)?.strip_prefix(':'))?;
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        if word == key {
            return words.next()?.parse().ok();
        }
    }
    None
}

fn table<Counts: SocketCounts>(pid: u32, name: &str, is_empty: bool, deadline: Instant) -> Option<Counts> {
    if is_empty {
        Some(Counts::default())
    } else {
        count(pid, name, deadline)
    }
}

fn count<Counts: SocketCounts>(pid: u32, table: &str, deadline: Instant) -> Option<Counts> {
    let mut file = files::open(format!("/proc/{pid}/net/{table}").as_ref())
        .ok()?
        .take(SOCKETS_LIMIT);
    let mut counts = SocketTable::<Counts>::default();
    // Not on the stack, where it would cost its pages also when there is nothing to count.
    let mut buffer = vec![0; 32 << 10];
    loop {
        match file.read(&mut buffer).ok()? {
            0 if file.limit() == 0 => return None,
            0 => return counts.finish().ok(),
            n => counts.feed(buffer.get(..n)?).ok()?,
        }
        if Instant::now() > deadline {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn the_hosts_network_is_nobodys_own() {
        // Tests run in the host's network namespace, or take their own for it.
        let mut stats = Stats::default();
        add_network(&mut stats, std::process::id(), Some(soon()));
        assert_eq!(stats, Stats::default());
        add_network(&mut stats, 0, Some(soon()));
        assert_eq!(stats, Stats::default());
    }

    #[test]
    fn counts_the_sockets_that_are_there() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let before: stats::TcpCounts = count(std::process::id(), "tcp", soon()).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let after: stats::TcpCounts = count(std::process::id(), "tcp", soon()).unwrap();
        assert!(before.listen >= 1);
        // Both ends are in this namespace; other programs' sockets may come and go.
        assert!(after.established >= 2, "{after:?}");
        drop(client);
        assert_eq!(
            count::<stats::TcpCounts>(std::process::id(), "tcp", Instant::now()),
            None
        );
        assert!(
            interfaces(std::process::id())
                .unwrap()
                .iter()
                .any(|i| i.name == "lo")
        );
    }

    #[test]
    fn the_summary_tells_an_empty_table() {
        let summary = b"sockets: used 3\nTCP: inuse 2 orphan 0 tw 1 alloc 3 mem 0\nUDP: inuse 0 mem 0\nUDPLITE: inuse 7\n";
        assert_eq!(in_summary(summary, "TCP", "inuse"), Some(2));
        assert_eq!(in_summary(summary, "TCP", "tw"), Some(1));
        assert_eq!(in_summary(summary, "UDP", "inuse"), Some(0));
        assert_eq!(in_summary(summary, "UDP", "tw"), None);
        assert_eq!(in_summary(summary, "TCP6", "inuse"), None);
        assert_eq!(in_summary(b"", "TCP", "inuse"), None);
        // With a socket in use here, the summary must not say that there is none.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(sockets(std::process::id(), soon()).tcp.unwrap().listen >= 1);
        drop(listener);
    }
}
