//! What a shim spends on answering, from the kernel's count of its CPU time: what watching costs beside our own time.

use std::time::Duration;

use crate::node::proc_fs::{Roots, Stat, ticks};

/// CPU time of a shim since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShimTime {
    /// Its own threads', in nanoseconds' resolution.
    own: Duration,
    /// That of its children that have ended, in clock ticks of usually 10 ms. Zero where they are not counted.
    children: Duration,
}

impl ShimTime {
    /// Reads the CPU time of a shim; `None` where no such process can be seen. Costs a system call.
    ///
    /// `forks`: whether it starts processes to answer, so that its children count as well. The first process of a
    /// container is a shim's child too (PR_SET_CHILD_SUBREAPER), and counts when it ends; gVisor's containers have none
    /// on the host.
    pub fn read(shim: u32, forks: bool) -> Option<Self> {
        let children = match forks {
            false => Duration::ZERO,
            true => {
                let stat = Roots::host().parse(shim, "stat", Stat::parse).ok()?;
                ticks(stat.children_user.saturating_add(stat.children_system))
            }
        };
        Some(Self {
            own: cpu_clock(shim)?,
            children,
        })
    }

    /// The CPU time in all.
    pub fn total(&self) -> Duration {
        self.own.saturating_add(self.children)
    }

    /// What the shim has used since an earlier reading. All that it did counts, for us and for others.
    pub fn since(&self, before: &Self) -> Option<Duration> {
        let own = self.own.checked_sub(before.own)?;
        own.checked_add(self.children.checked_sub(before.children)?)
    }
}

/// The CPU-time clock of a process (clock_getcpuclockid(3)): the same count as in its `/proc/<pid>/stat`, read for less
/// and not rounded to ticks.
fn cpu_clock(pid: u32) -> Option<Duration> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let mut clock = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both calls write to these two variables and keep no pointer to them.
    let read = unsafe {
        libc::clock_getcpuclockid(pid, &raw mut clock) == 0 && libc::clock_gettime(clock, &raw mut time) == 0
    };
    let (seconds, nanos) = (
        u64::try_from(time.tv_sec).ok()?,
        u32::try_from(time.tv_nsec).ok()?,
    );
    read.then(|| Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Reads until the difference is this long: each round runs what uses the time.
    fn at_least(least: Duration, forks: bool, mut round: impl FnMut()) -> Duration {
        let before = ShimTime::read(std::process::id(), forks).unwrap();
        for _ in 0..1000 {
            round();
            let after = ShimTime::read(std::process::id(), forks).unwrap();
            let spent = after.since(&before).unwrap();
            if spent >= least {
                return spent;
            }
            assert_eq!(before.since(&after), None, "readings in the wrong order");
        }
        Duration::ZERO
    }

    #[test]
    fn a_process_is_charged_for_its_own_work() {
        let spin = || {
            std::hint::black_box((0..100_000u64).map(std::hint::black_box).sum::<u64>());
        };
        assert!(at_least(Duration::from_micros(200), false, spin) >= Duration::from_micros(200));
        assert_eq!(ShimTime::read(0, false), None);
        assert_eq!(ShimTime::read(u32::MAX, false), None);
    }

    #[test]
    fn a_process_that_forks_is_charged_for_its_children() {
        // Five clock ticks or so of a child; this process waits meanwhile.
        let spin = "n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done";
        let run = || assert!(Command::new("sh").args(["-c", spin]).status().unwrap().success());
        let own = ShimTime::read(std::process::id(), false).unwrap();
        let with_children = at_least(Duration::from_millis(50), true, run);
        let own = ShimTime::read(std::process::id(), false)
            .unwrap()
            .since(&own)
            .unwrap();
        assert!(
            with_children > own + Duration::from_millis(20),
            "{with_children:?} {own:?}"
        );
    }
}
