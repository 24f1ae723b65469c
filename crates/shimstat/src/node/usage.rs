//! What a process of this machine uses, from its `/proc/<pid>/stat` and `/proc/<pid>/status` (see proc(5)).
//!
//! For the processes around a sandbox: its shim, the virtual machine monitor, virtiofsd. Nothing is asked of the
//! sandbox for it.

use std::path::Path;
use std::time::Duration;

use super::files::{self, ReadError};

/// Both files have 1 to 2 KB.
const FILE_LIMIT: u64 = 64 << 10;

/// What a process uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessUsage {
    pub pid: u32,
    /// The name of its program, cut to 15 bytes by the kernel. Untrusted: a process names itself.
    pub name: String,
    /// The pid of its parent: a container's first process is its shim's child.
    pub parent: u32,
    /// When it started, in clock ticks after the machine did: tells it from a later one with its pid.
    pub started: u64,
    /// Processor time of all its threads, in user mode and in the kernel. Counted in clock ticks, usually
    /// of 10 ms.
    pub cpu: Duration,
    pub memory: ProcessMemory,
}

/// Resident memory of a process, in bytes. `None` where the kernel does not say (a zombie has no memory).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// All of it but huge pages (`VmRSS`).
    pub rss: Option<u64>,
    /// The part that is shared with other processes without a file: a guest's memory is, where virtiofsd
    /// works in it (`RssShmem`).
    pub rss_shmem: Option<u64>,
    /// Huge pages, which `rss` does not count (`HugetlbPages`).
    pub hugetlb: Option<u64>,
}

impl ProcessMemory {
    /// What the process has resident, huge pages too.
    pub fn resident(&self) -> Option<u64> {
        Some(self.rss?.saturating_add(self.hugetlb.unwrap_or(0)))
    }

    /// What it has resident for itself. For a process that works in a guest's memory, which is the virtual
    /// machine monitor's already.
    pub fn private(&self) -> Option<u64> {
        self.rss?.checked_sub(self.rss_shmem?)
    }
}

impl ProcessUsage {
    /// Reads what the process uses now.
    pub fn read(pid: u32) -> Result<Self, ReadError> {
        Self::read_in(Path::new("/proc"), pid)
    }

    pub(super) fn read_in(proc: &Path, pid: u32) -> Result<Self, ReadError> {
        let directory = proc.join(pid.to_string());
        let stat_path = directory.join("stat");
        let stat = files::read_text(&stat_path, FILE_LIMIT)?;
        let usage = parse_stat(pid, &stat, ticks_per_second()).ok_or_else(|| ReadError {
            path: stat_path,
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, "not as proc(5) has it"),
        })?;
        let status = files::read_text(&directory.join("status"), FILE_LIMIT)?;
        Ok(Self {
            memory: parse_status(&status),
            ..usage
        })
    }

    /// Processor time since an earlier reading, in per cent of one processor, where it is the same process.
    pub fn cpu_percent_since(&self, before: &Self, elapsed: Duration) -> Option<f64> {
        if (self.pid, self.started) != (before.pid, before.started) || elapsed.is_zero() {
            return None;
        }
        let used = self.cpu.checked_sub(before.cpu)?;
        Some(used.as_secs_f64() / elapsed.as_secs_f64() * 100.0)
    }
}

/// What is in a `stat` file. The name is in parentheses and may have any byte in it, parentheses too: the last one
/// closes it.
fn parse_stat(pid: u32, stat: &str, ticks_per_second: u64) -> Option<ProcessUsage> {
    let (before, after) = stat.rsplit_once(')')?;
    // The first of these is field 3 of proc(5).
    let fields: Vec<&str> = after.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let ticks = number(14)?.checked_add(number(15)?)?;
    let nanos = u128::from(ticks) * 1_000_000_000 / u128::from(ticks_per_second.max(1));
    Some(ProcessUsage {
        pid,
        name: before.split_once('(')?.1.to_string(),
        parent: u32::try_from(number(4)?).ok()?,
        started: number(22)?,
        cpu: Duration::from_nanos(u64::try_from(nanos).ok()?),
        memory: ProcessMemory::default(),
    })
}

/// The memory in a `status` file, whose lines are such as `VmRSS: 1520 kB`.
fn parse_status(status: &str) -> ProcessMemory {
    let bytes = |key: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kilobytes.checked_mul(1024)
    };
    ProcessMemory {
        rss: bytes("VmRSS"),
        rss_shmem: bytes("RssShmem"),
        hugetlb: bytes("HugetlbPages"),
    }
}

/// Clock ticks in a second, the unit of processor times in `/proc`.
pub fn ticks_per_second() -> u64 {
    // SAFETY: sysconf has no preconditions.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    // It has been 100 on every Linux that runs containers.
    u64::try_from(ticks)
        .ok()
        .filter(|ticks| *ticks > 0)
        .unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A process that names itself to confuse: the fields after its name are those of proc(5), numbered.
    const STAT: &str = "42 (a) R 1 (b) S 4 5 6 7 8 9 10 11 12 13 466 87 16 17 18 19 20 21 3456 23 24\n";

    const STATUS: &str = "Name:\ta\nVmPeak:\t  999 kB\nVmRSS:\t   1520 kB\nRssAnon:\t 20 kB\nRssShmem:\t    500 kB\n\
                          HugetlbPages:\t   2048 kB\nThreads:\t1\n";

    #[test]
    fn reads_a_process_by_its_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("42")).unwrap();
        fs::write(dir.path().join("42/stat"), STAT).unwrap();
        fs::write(dir.path().join("42/status"), STATUS).unwrap();
        let usage = ProcessUsage::read_in(dir.path(), 42).unwrap();
        assert_eq!((usage.pid, usage.name.as_str()), (42, "a) R 1 (b"));
        assert_eq!((usage.parent, usage.started), (4, 3456));
        // 553 ticks of 10 ms.
        assert_eq!(ticks_per_second(), 100);
        assert_eq!(usage.cpu, Duration::from_millis(5530));
        assert_eq!(usage.memory.rss, Some(1520 * 1024));
        assert_eq!(usage.memory.resident(), Some((1520 + 2048) * 1024));
        assert_eq!(usage.memory.private(), Some(1020 * 1024));
        assert!(ProcessUsage::read_in(dir.path(), 43).unwrap_err().is_missing());
    }

    #[test]
    fn what_the_kernel_does_not_say_is_not_zero() {
        let zombie = parse_status("Name:\tz\nState:\tZ (zombie)\n");
        assert_eq!(zombie, ProcessMemory::default());
        assert_eq!((zombie.resident(), zombie.private()), (None, None));
        for broken in [
            "",
            "1 (x",
            "1 (x) S 2",
            "1 x S 4 5 6 7 8 9 10 11 12 13 1 1 16 17 18 19 20 21 22",
        ] {
            assert_eq!(parse_stat(1, broken, 100), None, "{broken}");
        }
        assert_eq!(parse_status("VmRSS:\t18446744073709551615 kB\n").rss, None);
    }

    #[test]
    fn processor_time_is_compared_with_the_same_process_only() {
        let usage = |started, millis| ProcessUsage {
            pid: 1,
            name: "x".into(),
            parent: 1,
            started,
            cpu: Duration::from_millis(millis),
            memory: ProcessMemory::default(),
        };
        let elapsed = Duration::from_secs(2);
        assert_eq!(
            usage(5, 1500).cpu_percent_since(&usage(5, 500), elapsed),
            Some(50.0)
        );
        assert_eq!(usage(6, 1500).cpu_percent_since(&usage(5, 500), elapsed), None);
        assert_eq!(usage(5, 100).cpu_percent_since(&usage(5, 500), elapsed), None);
        assert_eq!(
            usage(5, 500).cpu_percent_since(&usage(5, 500), Duration::ZERO),
            None
        );
    }

    #[test]
    fn this_process_has_used_something() {
        let spin = std::time::Instant::now();
        while spin.elapsed() < Duration::from_millis(50) {}
        let usage = ProcessUsage::read(std::process::id()).unwrap();
        assert!(usage.cpu >= Duration::from_millis(10));
        assert!(usage.memory.rss.unwrap() > 100 << 10);
    }
}
