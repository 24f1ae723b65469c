//! What a shim spends on answering, from its `/proc/<pid>/stat`: what watching costs the node beside our own time.

use std::time::Duration;

use crate::node::files::ReadError;
use crate::node::proc_fs::{Roots, Stat, ticks};

/// Processor time of a shim, since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShimTime {
    pid: u32,
    started: u64,
    /// Its own, in user mode and in the kernel.
    own: Duration,
    /// That of its children that have ended: what it started to answer, but also the containers' own processes, whose
    /// parent a shim is (PR_SET_CHILD_SUBREAPER).
    children: Duration,
}

impl ShimTime {
    /// Reads a shim's processor time. The kernel counts it in clock ticks, usually of 10 ms: a single answer does not
    /// show, many do.
    pub fn read(shim: u32) -> Result<Self, ReadError> {
        Self::read_in(Roots::host(), shim)
    }

    fn read_in(roots: Roots<'_>, pid: u32) -> Result<Self, ReadError> {
        let stat = roots.parse(pid, "stat", Stat::parse)?;
        Ok(Self {
            pid,
            started: stat.started,
            own: stat.cpu(),
            children: ticks(stat.children_user.saturating_add(stat.children_system)),
        })
    }

    /// What the shim has spent since an earlier reading; `None` where that was of another process. All that it was asked
    /// counts, by us and by others.
    ///
    /// `forks`: whether it starts processes to answer, so that its children count as well. The first process of a
    /// container is such a child too, and counts when it ends; gVisor's containers have none on the host.
    pub fn since(&self, before: &Self, forks: bool) -> Option<Duration> {
        if (self.pid, self.started) != (before.pid, before.started) {
            return None;
        }
        let own = self.own.checked_sub(before.own)?;
        match forks {
            false => Some(own),
            true => own.checked_add(self.children.checked_sub(before.children)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::proc_fs::testing::Tree;

    #[test]
    fn what_a_shim_has_spent_between_two_readings() {
        let tree = Tree::new();
        let read = |stat: &str| {
            tree.file(42, "stat", stat);
            ShimTime::read_in(tree.roots(), 42).unwrap()
        };
        // Fields 14 to 17 are utime, stime, cutime, cstime; 22 is the start.
        let stat = |times: &str, started: u64| {
            format!("42 (containerd-shim) S 1 5 6 7 8 9 10 11 12 13 {times} 18 19 20 21 {started} 23 24\n")
        };
        let before = read(&stat("100 50 7 3", 777));
        let after = read(&stat("110 55 27 13", 777));
        assert_eq!(after.since(&before, false), Some(Duration::from_millis(150)));
        assert_eq!(after.since(&before, true), Some(Duration::from_millis(450)));
        assert_eq!(before.since(&before, true), Some(Duration::ZERO));
        // Another process with the pid, or readings in the wrong order.
        assert_eq!(read(&stat("900 0 0 0", 778)).since(&before, false), None);
        assert_eq!(before.since(&after, false), None);
        assert_eq!(before.since(&after, true), None);
        assert!(ShimTime::read_in(tree.roots(), 43).unwrap_err().is_missing());
    }

    #[test]
    fn a_process_that_forks_pays_for_its_children() {
        let before = ShimTime::read(std::process::id()).unwrap();
        // The shell counts for some 50 ms at least: 5 clock ticks.
        let spin = "n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done";
        let mut children = Duration::ZERO;
        for _ in 0..50 {
            assert!(
                std::process::Command::new("sh")
                    .args(["-c", spin])
                    .status()
                    .unwrap()
                    .success()
            );
            let after = ShimTime::read(std::process::id()).unwrap();
            children = after.since(&before, true).unwrap() - after.since(&before, false).unwrap();
            if children >= Duration::from_millis(50) {
                break;
            }
        }
        assert!(children >= Duration::from_millis(50), "{children:?}");
    }
}
