//! Whether the pids that shims tell mean anything here. A shim tells those of its own pid namespace, which is the host's.
//! Where this program is in another one, as in a pod without `hostPID`, such a pid is nobody's here, or worse, somebody
//! else's.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const UNKNOWN: u8 = 0;
const VISIBLE: u8 = 1;
const HIDDEN: u8 = 2;

/// What the shims that were asked so far have shown. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct HostPids(Arc<AtomicU8>);

impl HostPids {
    /// Notes who listens at a shim's socket, and says whether its pids mean the same processes here.
    pub fn note(&self, peer: Option<i32>) -> bool {
        let is_ours = match peer {
            // Of a connection that is not a local socket nothing is known.
            None => return true,
            // The kernel tells 0 of a process that is not in this namespace.
            Some(pid) => pid > 0 && is_in_this_namespace(pid),
        };
        if is_ours {
            let _ = self
                .0
                .compare_exchange(UNKNOWN, VISIBLE, Ordering::Relaxed, Ordering::Relaxed);
        } else {
            self.0.store(HIDDEN, Ordering::Relaxed);
        }
        is_ours
    }

    /// Whether the pids of all shims mean the same processes here; `None` before one was asked.
    pub fn are_visible(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => None,
            seen => Some(seen == VISIBLE),
        }
    }
}

/// Whether a process is not in a namespace below this one, such as one of containerd in a container. `true` where that
/// cannot be told: a shim's socket was often made by a process that has ended.
fn is_in_this_namespace(pid: i32) -> bool {
    let namespace =
        |process: &str| -> Option<PathBuf> { fs::read_link(format!("/proc/{process}/ns/pid")).ok() };
    match (namespace("self"), namespace(&pid.to_string())) {
        (Some(own), Some(its)) => own == its,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_without_a_pid_is_in_another_namespace() {
        let own = i32::try_from(std::process::id()).unwrap();
        let pids = HostPids::default();
        assert_eq!(pids.are_visible(), None);
        assert!(pids.note(None), "not a local socket");
        assert_eq!(pids.are_visible(), None);
        assert!(pids.note(Some(own)));
        assert_eq!(pids.are_visible(), Some(true));
        assert!(pids.note(Some(i32::MAX)), "it has ended");
        assert!(!pids.note(Some(0)));
        assert!(pids.note(Some(own)));
        assert_eq!(pids.are_visible(), Some(false), "of all shims");
    }
}
