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
use crate::stats::{self, Interface, SocketCounts, SocketTable, Sockets};

/// A line an interface of about 130 bytes: room for 30,000.
const INTERFACES_LIMIT: u64 = 4 << 20;

/// A line a socket of about 150 bytes: room for 400,000. A longer table is not counted in part.
const SOCKETS_LIMIT: u64 = 64 << 20;

/// `sockstat` has a line a protocol.
const SOCKSTAT_LIMIT: u64 = 64 << 10;

/// A network namespace: the device and the inode of its file in `/proc`. Containers of one pod share theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetworkNamespace {
    device: u64,
    inode: u64,
}

impl NetworkNamespace {
    /// The network namespace of a process, where it is another than the host's: the host's counters are not the
    /// task's.
    pub fn of_task(pid: u32) -> Option<Self> {
        /// That of process 1, or, where process 1 may not be looked at (we are in a container ourselves), our own.
        /// Neither changes while we run.
        static HOST: LazyLock<Option<NetworkNamespace>> =
            LazyLock::new(|| NetworkNamespace::of("1").or_else(|| NetworkNamespace::of("self")));
        let namespace = Self::of(pid).filter(|_| pid != 0)?;
        let host = (*HOST)?;
        (namespace != host).then_some(namespace)
    }

    fn of(process: impl Display) -> Option<Self> {
        let metadata = std::fs::metadata(format!("/proc/{process}/ns/net")).ok()?;
        Some(Self {
            device: metadata.st_dev(),
            inode: metadata.st_ino(),
        })
    }

    /// Whether it may not be told in which network namespace a process is: of others' processes that takes
    /// `CAP_SYS_PTRACE`.
    pub fn is_forbidden(pid: u32) -> bool {
        let metadata = std::fs::metadata(format!("/proc/{pid}/ns/net"));
        metadata.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    }

    /// Whether a process is in it now. One that ended took its namespace with it, and its pid may be another's by now.
    pub fn holds(self, pid: u32) -> bool {
        Self::of(pid) == Some(self)
    }
}

/// The interfaces in the network namespace of a process.
pub fn interfaces(pid: u32) -> Option<Vec<Interface>> {
    let text = files::read(format!("/proc/{pid}/net/dev").as_ref(), INTERFACES_LIMIT).ok()?;
    stats::parse_interfaces(&text).ok()
}

/// The interfaces of a task; `None` where it has no network of its own, or that cannot be read.
pub fn interfaces_of_task(pid: u32) -> Option<Vec<Interface>> {
    let namespace = NetworkNamespace::of_task(pid)?;
    // The pid may have become another process's meanwhile.
    interfaces(pid).filter(|_| namespace.holds(pid))
}

/// The sockets in the network namespace of a process, before they are counted.
///
/// To print a table of TCP sockets the kernel walks the whole machine's hash table, 2 to 10 ms for each of the two;
/// `sockstat` tells for 15 µs that a table is empty, which it is in most sandboxes seen from the host.
#[derive(Debug)]
pub struct SocketTables {
    pid: u32,
    tcp_is_empty: bool,
    tcp6_is_empty: bool,
    udp_is_empty: bool,
    udp6_is_empty: bool,
}

impl SocketTables {
    /// Finds out which tables are empty.
    pub fn of(pid: u32) -> Self {
        let summary = |name| {
            files::read(format!("/proc/{pid}/net/{name}").as_ref(), SOCKSTAT_LIMIT).unwrap_or_default()
        };
        let (v4, v6) = (summary("sockstat"), summary("sockstat6"));
        let unused = |summary: &[u8], protocol| in_summary(summary, protocol, "inuse") == Some(0);
        // Sockets in TIME_WAIT are counted separately, for both families together.
        let none_wait = in_summary(&v4, "TCP", "tw") == Some(0);
        Self {
            pid,
            tcp_is_empty: unused(&v4, "TCP") && none_wait,
            tcp6_is_empty: unused(&v6, "TCP6") && none_wait,
            udp_is_empty: unused(&v4, "UDP"),
            udp6_is_empty: unused(&v6, "UDP6"),
        }
    }

    /// Whether counting them reads nothing more, and so takes no time.
    pub fn are_empty(&self) -> bool {
        self.tcp_is_empty && self.tcp6_is_empty && self.udp_is_empty && self.udp6_is_empty
    }

    /// Counts them; a table that is still being read at the deadline is left out. This can take a second where there
    /// are 100,000 sockets: not on a thread that others wait for.
    pub fn count(&self, deadline: Instant) -> Sockets {
        Sockets {
            tcp: table(self.pid, "tcp", self.tcp_is_empty, deadline),
            tcp6: table(self.pid, "tcp6", self.tcp6_is_empty, deadline),
            udp: table(self.pid, "udp", self.udp_is_empty, deadline),
            udp6: table(self.pid, "udp6", self.udp6_is_empty, deadline),
        }
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
        assert_eq!(NetworkNamespace::of_task(std::process::id()), None);
        assert_eq!(NetworkNamespace::of_task(0), None);
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
        assert!(
            SocketTables::of(std::process::id())
                .count(soon())
                .tcp
                .unwrap()
                .listen
                >= 1
        );
        drop(listener);
    }
}
