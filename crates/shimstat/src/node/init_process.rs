//! The limits of a container's first process on this host. For containers of runc and crun; whoever asks makes sure that
//! the pid is still the container's ([`CgroupMounts::of_process`](super::cgroup::CgroupMounts::of_process)).

use super::files::{self, ReadError};

/// `limits` has 1.5 KB.
const LIMITS_LIMIT: u64 = 64 << 10;

/// The soft limits of a process, from `/proc/<pid>/limits` (see proc_pid_limits(5)).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SoftUlimits {
    /// How many files it may have open: cAdvisor's `container_ulimits_soft{ulimit="max_open_files"}`, which is the
    /// only one that cAdvisor has (`processLimitsFile` in `lib/container/libcontainer/handler.go`, July 2026). -1 is
    /// unlimited, as there.
    pub max_open_files: Option<i64>,
}

impl SoftUlimits {
    /// Those of a process.
    pub fn read(pid: u32) -> Result<Self, ReadError> {
        let path = format!("/proc/{pid}/limits");
        Ok(Self::parse(&files::read_text(path.as_ref(), LIMITS_LIMIT)?))
    }

    /// Lines such as `Max open files            1024                 1048576              files`.
    pub(super) fn parse(text: &str) -> Self {
        let soft = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            match line.split_ascii_whitespace().next()? {
                "unlimited" => Some(-1),
                number => number.parse().ok().filter(|number| *number >= 0),
            }
        };
        Self {
            max_open_files: soft("Max open files"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn open_files_of_a_limits_file() {
        // As the kernel writes it.
        let limits = |soft: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max stack size            8388608              unlimited            bytes     \n\
                 Max open files            {soft:<20} 1048576              files     \n"
            )
        };
        let open_files = |text: &str| SoftUlimits::parse(text).max_open_files;
        assert_eq!(open_files(&limits("1024")), Some(1024));
        assert_eq!(open_files(&limits("unlimited")), Some(-1));
        assert_eq!(open_files(&limits("-7")), None);
        assert_eq!(open_files(&limits("many")), None);
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn a_process_has_the_limit_that_it_was_given() {
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -Sn 37; read wait"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let mut read = SoftUlimits::read(child.id());
        while read.as_ref().is_ok_and(|read| read.max_open_files != Some(37))
            && std::time::Instant::now() < until
        {
            read = SoftUlimits::read(child.id());
        }
        assert_eq!(read.unwrap().max_open_files, Some(37));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(SoftUlimits::read(u32::MAX).unwrap_err().is_missing());
    }
}
