//! Whether the processes of containers can be seen from here. A shim tells pids of its own pid namespace, which is the
//! host's. Where this program is in another one, as in a pod without `hostPID`, such a pid is nobody's here, or worse,
//! somebody else's. And to look at others' processes takes `CAP_SYS_PTRACE`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Why the network of a container cannot be seen from here, and nor can what else takes a look at its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hidden {
    /// The pids that shims tell are those of another pid namespace.
    Pids,
    /// This program may not look at others' processes, which takes `CAP_SYS_PTRACE`.
    Forbidden,
}

const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

/// Whether something was so each time; `None` before the first. Clones are the same.
#[derive(Debug, Clone, Default)]
struct Always(Arc<AtomicU8>);

impl Always {
    fn note(&self, is_so: bool) {
        if is_so {
            let _ = self
                .0
                .compare_exchange(UNKNOWN, YES, Ordering::Relaxed, Ordering::Relaxed);
        } else {
            self.0.store(NO, Ordering::Relaxed);
        }
    }

    fn get(&self) -> Option<bool> {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => None,
            seen => Some(seen == YES),
        }
    }
}

/// What the shims that were asked so far, and a look at their tasks, have shown. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct HostPids {
    visible: Always,
    allowed: Always,
}

impl HostPids {
    /// Notes who listens at a shim's socket, and says whether its pids mean the same processes here.
    pub fn note(&self, peer: Option<i32>) -> bool {
        let is_ours = match peer {
            // Of a connection that is not a local socket nothing is known.
            None => return true,
            // The kernel tells 0 of a process that is not in this namespace.
            Some(pid) => pid > 0 && is_in_this_namespace(pid),
        };
        self.visible.note(is_ours);
        is_ours
    }

    /// Whether the pids of all shims mean the same processes here; `None` before one was asked.
    pub fn are_visible(&self) -> Option<bool> {
        self.visible.get()
    }

    /// Notes whether a task could be looked at.
    pub fn note_look(&self, is_allowed: bool) {
        self.allowed.note(is_allowed);
    }

    /// Whether all tasks could be looked at; `None` before there was one.
    pub fn are_allowed(&self) -> Option<bool> {
        self.allowed.get()
    }
}

/// Whether a shim is not in a namespace below this one, such as one of containerd in a container. `true` where that cannot
/// be told: a shim's socket was often made by a process that has ended, and its pid may be a container's by now.
fn is_in_this_namespace(pid: i32) -> bool {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    if !name.starts_with(b"containerd-shim") {
        return true;
    }
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
        assert_eq!(pids.are_allowed(), None);
        pids.note_look(true);
        assert_eq!(pids.are_allowed(), Some(true));
    }

    /// A container's process, in a namespace of its own, may have the pid of the process that made a shim's socket.
    #[test]
    fn a_process_that_is_no_shim_tells_nothing() {
        let mut unshare = std::process::Command::new("unshare")
            .args(["--pid", "--fork", "--kill-child", "sleep", "60"])
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let child = loop {
            match fs::read_to_string(&children).unwrap().trim().parse() {
                Ok(child) => break Some(child),
                // Not root.
                Err(_) if unshare.try_wait().unwrap().is_some() => break None,
                Err(_) => std::thread::yield_now(),
            }
        };
        let is_ours = child.map(|child| HostPids::default().note(Some(child)));
        let _ = unshare.kill();
        unshare.wait().unwrap();
        assert_ne!(is_ours, Some(false));
    }
}
