//! Reading `/proc/<pid>` within limits. The formats are those of proc(5).

#[cfg(test)]
pub(super) mod testing;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::{self, ReadError};

/// `stat`, `status`, `io` and the like have 1 to 2 KB.
const FILE_LIMIT: u64 = 64 << 10;

/// Where the kernel shows processes: another place in tests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Roots<'a> {
    pub proc: &'a Path,
}

impl Roots<'static> {
    pub fn host() -> Self {
        Self {
            proc: Path::new("/proc"),
        }
    }
}

impl Roots<'_> {
    /// A path below `/proc/<pid>`.
    pub fn path(self, pid: u32, file: &str) -> PathBuf {
        self.proc.join(format!("{pid}/{file}"))
    }

    /// One of the short files of a process, parsed; an error where it has another format.
    pub fn parse<T>(
        self,
        pid: u32,
        file: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ReadError> {
        let path = self.path(pid, file);
        files::read_kernel_file(&path, FILE_LIMIT, parse)?.ok_or_else(|| ReadError {
            path,
            source: io::Error::new(io::ErrorKind::InvalidData, "not in the format of proc(5)"),
        })
    }
}

/// The number in a line `key: 1520` or `key: 1520 kB`, kilobytes as bytes.
pub(super) fn field(text: &str, key: &str) -> Option<u64> {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?
        .trim();
    match value.strip_suffix("kB") {
        Some(kilobytes) => kilobytes.trim().parse::<u64>().ok()?.checked_mul(1024),
        None => value.parse().ok(),
    }
}

/// What is used here of a `stat` file, which is there for a process and for each of its threads. Times are in clock
/// ticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    /// Cut to 15 bytes by the kernel. Untrusted: a process names itself and its threads.
    pub name: String,
    pub parent: u32,
    pub is_kernel_thread: bool,
    pub user: u64,
    pub system: u64,
    pub children_user: u64,
    pub children_system: u64,
    pub threads: u64,
    pub started: u64,
    /// Time in which it ran a virtual processor; a part of `user`.
    pub guest: u64,
}

/// `PF_KTHREAD` of Linux's include/linux/sched.h.
const KERNEL_THREAD: u64 = 0x0020_0000;

impl Stat {
    pub fn parse(stat: &str) -> Option<Self> {
        // The name may have any byte in it, parentheses too: the last one closes it.
        let (before, after) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        // proc(5) counts from 1, and the first field here is its third.
        let number = |field: usize| fields.get(field.checked_sub(3)?)?.parse::<u64>().ok();
        Some(Self {
            name: before.split_once('(')?.1.to_string(),
            parent: u32::try_from(number(4)?).ok()?,
            is_kernel_thread: number(9)? & KERNEL_THREAD != 0,
            user: number(14)?,
            system: number(15)?,
            children_user: number(16)?,
            children_system: number(17)?,
            threads: number(20)?,
            started: number(22)?,
            guest: number(43).unwrap_or(0),
        })
    }

    /// Processor time in user mode and in the kernel.
    pub fn cpu(&self) -> Duration {
        ticks(self.user.saturating_add(self.system))
    }
}

/// The parent of a process.
pub(super) fn parent(pid: u32) -> Option<u32> {
    let stat = Roots::host().parse(pid, "stat", Stat::parse).ok()?;
    (stat.parent != 0).then_some(stat.parent)
}

/// A number of the kernel's clock ticks, the unit of processor times in `/proc`, as time.
pub fn ticks(count: u64) -> Duration {
    // SAFETY: sysconf has no preconditions.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    // It has been 100 on every Linux that runs containers.
    let per_second = u64::try_from(per_second)
        .ok()
        .filter(|ticks| *ticks > 0)
        .unwrap_or(100);
    // The remainder is below a second, so this does not overflow.
    let nanos = (count % per_second).saturating_mul(1_000_000_000) / per_second;
    Duration::from_secs(count / per_second).saturating_add(Duration::from_nanos(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that names itself to confuse: the fields after its name are those of proc(5), numbered.
    const STAT: &str = "42 (a) R 1 (b) S 4 5 6 7 8 2097216 10 11 12 13 466 87 16 17 18 19 20 21 3456 23 24 25 26 27 \
                        28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 44\n";

    #[test]
    fn a_stat_file_by_its_numbered_fields() {
        let stat = Stat::parse(STAT).unwrap();
        let expected = Stat {
            name: "a) R 1 (b".into(),
            parent: 4,
            is_kernel_thread: true,
            user: 466,
            system: 87,
            children_user: 16,
            children_system: 17,
            threads: 20,
            started: 3456,
            guest: 43,
        };
        assert_eq!(stat, expected);
        assert_eq!(stat.cpu(), Duration::from_millis(5530), "553 ticks of 10 ms");
        for broken in [
            "",
            "1 (x",
            "1 (x) S 2",
            "1 x S 4 5 6 7 8 9 10 11 12 13 1 1 16 17 18 19 20 21 22",
        ] {
            assert_eq!(Stat::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_field_is_found_by_its_whole_name_and_kilobytes_are_bytes() {
        let text = "VmRSS:\t   1520 kB\nVmRSSx:\t1 kB\nThreads:\t7\nState:\tS (sleeping)\n";
        assert_eq!(field(text, "VmRSS"), Some(1520 * 1024));
        assert_eq!(field(text, "Threads"), Some(7));
        assert_eq!(
            (field(text, "State"), field(text, "Vm"), field(text, "No")),
            (None, None, None)
        );
        assert_eq!(field("VmRSS:\t18446744073709551615 kB\n", "VmRSS"), None);
    }

    #[test]
    fn ticks_are_of_ten_milliseconds() {
        assert_eq!(ticks(553), Duration::from_millis(5530));
        assert!(ticks(u64::MAX) > Duration::from_secs(1 << 57));
    }
}
