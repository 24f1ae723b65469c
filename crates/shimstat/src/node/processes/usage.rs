//! What one process of this machine uses, from its `/proc/<pid>/stat` and `/proc/<pid>/status`.

use std::time::Duration;

use crate::node::files::ReadError;
use crate::node::proc_fs::{Roots, Stat, field};

/// What a process uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Its id, in this machine's pid namespace.
    pub pid: u32,
    /// The name of its program, cut to 15 bytes by the kernel. Untrusted: a process names itself.
    pub name: String,
    /// The pid of its parent: a container's first process is its shim's child.
    pub parent: u32,
    /// When it started, in clock ticks after the machine did: tells it from a later one with its pid.
    pub started: u64,
    /// How many threads it has.
    pub threads: u64,
    /// Processor time of all its threads, in user mode and in the kernel. Counted in clock ticks, usually
    /// of 10 ms.
    pub cpu: Duration,
    /// Its memory that is resident.
    pub memory: ProcessMemory,
}

/// Resident memory of a process, in bytes. `None` where the kernel does not say (a zombie has no memory).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// All of it except huge pages (`VmRSS`): the sum of the next three.
    pub rss: Option<u64>,
    /// Its own: heap, stacks, and a guest's memory where nobody else works in it (`RssAnon`).
    pub rss_anon: Option<u64>,
    /// Mapped files, its program and libraries among them. Others may have the same pages (`RssFile`).
    pub rss_file: Option<u64>,
    /// Memory shared without a file on a disk: a guest's memory where virtiofsd works in it (`RssShmem`).
    pub rss_shmem: Option<u64>,
    /// Huge pages of hugetlbfs, which `rss` does not count (`HugetlbPages`).
    pub hugetlb: Option<u64>,
}

impl ProcessMemory {
    /// A kernel thread has no memory of its own.
    const NONE: Self = Self {
        rss: Some(0),
        rss_anon: Some(0),
        rss_file: Some(0),
        rss_shmem: Some(0),
        hugetlb: Some(0),
    };

    fn parse(status: &str) -> Self {
        Self {
            rss: field(status, "VmRSS"),
            rss_anon: field(status, "RssAnon"),
            rss_file: field(status, "RssFile"),
            rss_shmem: field(status, "RssShmem"),
            hugetlb: field(status, "HugetlbPages"),
        }
    }

    /// What the process has resident, huge pages too.
    pub fn resident(&self) -> Option<u64> {
        Some(self.rss?.saturating_add(self.hugetlb.unwrap_or(0)))
    }

    /// What it has resident for itself. For a process that works in a guest's memory, which is counted with the
    /// virtual machine monitor's.
    pub fn private(&self) -> Option<u64> {
        self.rss?.checked_sub(self.rss_shmem?)
    }
}

impl ProcessUsage {
    /// Reads what the process uses now. The id of one of its threads leads to the same.
    pub fn read(pid: u32) -> Result<Self, ReadError> {
        Self::read_in(Roots::host(), pid)
    }

    pub(super) fn read_in(roots: Roots<'_>, pid: u32) -> Result<Self, ReadError> {
        // Kata's Rust shim reports the thread of Dragonball as its task. `/proc/<tid>` is there for every thread,
        // and the kernel shows the whole process below it, except for the name.
        let (process, memory) = roots.parse(pid, "status", |status| {
            Some((field(status, "Tgid"), ProcessMemory::parse(status)))
        })?;
        let pid = process
            .and_then(|process| u32::try_from(process).ok())
            .unwrap_or(pid);
        let stat = roots.parse(pid, "stat", Stat::parse)?;
        Ok(Self {
            pid,
            cpu: stat.cpu(),
            parent: stat.parent,
            started: stat.started,
            threads: stat.threads,
            memory: if stat.is_kernel_thread {
                ProcessMemory::NONE
            } else {
                memory
            },
            name: stat.name,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::proc_fs::testing::Tree;

    const STATUS: &str = "Name:\ta\nVmPeak:\t  999 kB\nVmRSS:\t   1520 kB\nRssAnon:\t 20 kB\nRssFile:\t 1000 kB\n\
                          RssShmem:\t    500 kB\nHugetlbPages:\t   2048 kB\nThreads:\t1\n";

    #[test]
    fn reads_a_process_by_its_files() {
        let tree = Tree::new();
        tree.process(42, "nginx", 4, 553).file(42, "status", STATUS);
        let usage = ProcessUsage::read_in(tree.roots(), 42).unwrap();
        assert_eq!((usage.pid, usage.name.as_str(), usage.parent), (42, "nginx", 4));
        assert_eq!(usage.cpu, Duration::from_millis(5530), "553 ticks of 10 ms");
        assert_eq!(usage.memory.rss, Some(1520 * 1024));
        assert_eq!(usage.memory.resident(), Some((1520 + 2048) * 1024));
        assert_eq!(usage.memory.private(), Some(1020 * 1024));
        assert!(ProcessUsage::read_in(tree.roots(), 43).unwrap_err().is_missing());
    }

    #[test]
    fn a_thread_leads_to_its_process_and_a_kernel_thread_has_no_memory() {
        let tree = Tree::new();
        tree.process(42, "containerd-shim", 1, 7)
            .process(45, "vmm_master", 1, 7)
            .file(
                45,
                "status",
                "Name:\tvmm_master\nTgid:\t42\nPid:\t45\nVmRSS:\t9 kB\n",
            );
        let usage = ProcessUsage::read_in(tree.roots(), 45).unwrap();
        assert_eq!((usage.pid, usage.name.as_str()), (42, "containerd-shim"));

        tree.kernel_thread(50, "vhost-42", 3)
            .file(50, "status", "Name:\tvhost-42\n");
        let vhost = ProcessUsage::read_in(tree.roots(), 50).unwrap();
        assert_eq!(
            (vhost.cpu, vhost.memory.resident()),
            (Duration::from_millis(30), Some(0))
        );
    }

    #[test]
    fn what_the_kernel_does_not_say_is_not_zero() {
        let zombie = ProcessMemory::parse("Name:\tz\nState:\tZ (zombie)\n");
        assert_eq!(zombie, ProcessMemory::default());
        assert_eq!((zombie.resident(), zombie.private()), (None, None));
    }

    #[test]
    fn processor_time_is_compared_with_the_same_process_only() {
        let usage = |started, millis| ProcessUsage {
            pid: 1,
            name: "x".into(),
            parent: 1,
            started,
            threads: 1,
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
    fn our_own_processor_time_is_the_clocks() {
        let clock = || {
            let mut time = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: writes to our own variable.
            unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
            Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
        };
        while clock() < Duration::from_millis(50) {}
        let before = clock();
        let usage = ProcessUsage::read(std::process::id()).unwrap();
        let tick = Duration::from_millis(10);
        assert!(
            usage.cpu + tick + tick >= before && usage.cpu <= clock() + tick,
            "{:?}",
            usage.cpu
        );
        assert!(usage.memory.rss.unwrap() > 100 << 10);
    }

    #[test]
    fn the_id_of_our_own_thread_is_of_this_process() {
        // SAFETY: has no preconditions.
        let tid = || u32::try_from(unsafe { libc::gettid() }).unwrap();
        let thread = std::thread::Builder::new().name("vmm_master".into());
        let read = thread
            .spawn(move || ProcessUsage::read(tid()).unwrap())
            .unwrap()
            .join()
            .unwrap();
        let own = ProcessUsage::read(std::process::id()).unwrap();
        assert_eq!(
            (read.pid, read.started, read.name),
            (own.pid, own.started, own.name)
        );
    }
}
