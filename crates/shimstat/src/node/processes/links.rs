//! The host's side of a virtual machine's network: the pod's links and the taps behind them, in the pod's network
//! namespace. What is dropped here, the guest never sees.

use crate::node::files;
use crate::node::network::NetworkNamespace;
use crate::node::proc_fs::Roots;
use crate::stats::{Interface, InterfaceRow, parse_interface_rows};

/// A line an interface of about 130 bytes: room for 8,000.
const INTERFACES_LIMIT: u64 = 1 << 20;

/// The links between a pod's network and its virtual machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostLinks {
    /// The pod's own, such as `eth0`.
    pub pod: Vec<Interface>,
    /// What Kata puts between them and the virtual machine, such as `tap0_kata`. A tap receives what the guest
    /// sends.
    pub taps: Vec<Interface>,
}

impl HostLinks {
    /// Reads the links in the network namespace of a process or thread: of the pid that a shim's `State` gives.
    /// `None` in the host's own namespace, whose links are not the pod's.
    pub fn read(pid: u32) -> Option<Self> {
        let namespace = NetworkNamespace::of_task(pid)?;
        Self::read_in(Roots::host(), pid).filter(|_| namespace.holds(pid))
    }

    fn read_in(roots: Roots<'_>, pid: u32) -> Option<Self> {
        let mut links = Self::default();
        for row in interface_rows(roots, pid)? {
            let interface = Interface::from(row);
            if interface.name.ends_with("_kata") {
                // Kata's older bridge repeats what its tap counts.
                if interface.name.starts_with("tap") {
                    links.taps.push(interface);
                }
            } else if interface.is_pods_own() {
                links.pod.push(interface);
            }
        }
        Some(links)
    }

    /// Packets for the guest that were dropped on the way to it.
    pub fn dropped_to_guest(&self) -> u64 {
        let pod = self.pod.iter().map(|link| link.rx_dropped);
        pod.chain(self.taps.iter().map(|tap| tap.tx_dropped))
            .fold(0, u64::saturating_add)
    }

    /// Packets of the guest that were dropped on the way out.
    pub fn dropped_from_guest(&self) -> u64 {
        let pod = self.pod.iter().map(|link| link.tx_dropped);
        pod.chain(self.taps.iter().map(|tap| tap.rx_dropped))
            .fold(0, u64::saturating_add)
    }
}

/// The interfaces of a process's network namespace.
pub(super) fn interface_rows(roots: Roots<'_>, pid: u32) -> Option<Vec<InterfaceRow>> {
    parse_interface_rows(&files::read(&roots.path(pid, "net/dev"), INTERFACES_LIMIT).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::proc_fs::testing::Tree;

    const DEV: &str = "Inter-|   Receive                                                |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
        lo: 5 6 0 1000 0 0 0 0 5 6 0 1000 0 0 0 0\n  \
        eth0: 44938 170 0 3 0 0 0 0 2114906 1609 0 5 0 0 0 0\n\
        tap0_kata: 2114906 1609 0 70 0 0 0 0 44938 170 0 11 0 0 0 0\n \
        br0_kata: 2114906 1609 0 70 0 0 0 0 44938 170 0 11 0 0 0 0\n";

    #[test]
    fn a_taps_directions_are_the_guests_reversed() {
        let tree = Tree::new();
        tree.file(20, "net/dev", DEV);
        let links = HostLinks::read_in(tree.roots(), 20).unwrap();
        let names = |links: &[Interface]| links.iter().map(|link| link.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&links.pod), names(&links.taps)),
            (vec!["eth0".into()], vec!["tap0_kata".into()])
        );
        assert_eq!(
            (links.dropped_to_guest(), links.dropped_from_guest()),
            (3 + 11, 5 + 70)
        );
    }

    #[test]
    fn the_hosts_links_are_no_pods() {
        // Tests run in the host's network namespace, or take their own for it.
        assert_eq!(HostLinks::read(std::process::id()), None);
        assert_eq!(HostLinks::read_in(Tree::new().roots(), 20), None);
    }
}
