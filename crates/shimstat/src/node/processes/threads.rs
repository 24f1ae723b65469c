//! The threads of a virtual machine monitor: how long each ran and how long it waited for a processor, from
//! `/proc/<pid>/task/<tid>/stat` and `schedstat`. What a virtual processor waits is what its guest sees as steal time.

use std::fs;
use std::time::{Duration, Instant};

use super::host::{HostProcesses, Part};
use super::refresh::Refresh;
use super::usage::ProcessUsage;
use crate::node::proc_fs::{Roots, Stat, ticks};

/// How many threads of a sandbox are read: 5 µs each, three times that when they are new.
const MAX_THREADS: usize = 512;

/// The threads of a sandbox's VMM, kernel threads of vhost included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Threads {
    /// In the order in which they were found, at most 512.
    pub threads: Vec<Thread>,
    /// How many more there are: with any, sums are too low.
    pub left_out: usize,
}

/// One thread, and the time that it has had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its id, in this machine's pid namespace.
    pub tid: u32,
    /// Cut to 15 bytes by the kernel. Untrusted: a process names its threads.
    pub name: String,
    /// What it does, told by its name.
    pub role: ThreadRole,
    /// When it started, in clock ticks after the machine did: tells it from a later one with its id.
    pub started: u64,
    /// Time on a processor. From the scheduler, in nanoseconds; without it from the clock ticks.
    pub run: Duration,
    /// Time in which it could have run and there was no processor for it. `None` on a kernel without
    /// `CONFIG_SCHED_INFO`.
    pub wait: Option<Duration>,
}

/// What a thread does for the virtual machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ThreadRole {
    /// A virtual processor, with its number where the thread's name has it.
    Vcpu(Option<u32>),
    /// Serves a virtual device.
    Io,
    /// Moves packets for a virtual network card or socket in the kernel.
    Vhost,
    /// Its first thread, or its event loop.
    Main,
    /// None of these.
    Other,
}

/// The time of several threads together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadTimes {
    /// How many threads there are.
    pub threads: usize,
    /// Their time on a processor.
    pub run: Duration,
    /// `None` where one of them has none.
    pub wait: Option<Duration>,
}

impl ThreadTimes {
    /// No time of no threads.
    pub const ZERO: Self = Self {
        threads: 0,
        run: Duration::ZERO,
        wait: Some(Duration::ZERO),
    };
}

/// What threads ran and waited between two readings, in per cent of one processor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ThreadShare {
    /// On a processor.
    pub run: f64,
    /// `None` where one of them has none.
    pub wait: Option<f64>,
}

impl Threads {
    /// Reads the threads of the VMM and of vhost among a sandbox's processes; `None` where there is no VMM, or its
    /// threads cannot be read.
    pub fn read(processes: &[HostProcesses]) -> Option<Self> {
        ThreadReader::default().read(Roots::host(), processes)
    }

    /// The threads that are virtual processors.
    pub fn vcpus(&self) -> impl Iterator<Item = &Thread> {
        self.threads
            .iter()
            .filter(|thread| matches!(thread.role, ThreadRole::Vcpu(_)))
    }

    /// What the threads of which `wanted` is true ran and waited since an earlier reading. One that is new counts from
    /// its start.
    pub fn share_since(
        &self,
        before: &Self,
        elapsed: Duration,
        wanted: impl Fn(&Thread) -> bool,
    ) -> Option<ThreadShare> {
        let percent = |time: Duration| time.as_secs_f64() / elapsed.as_secs_f64() * 100.0;
        let (mut run, mut wait) = (Duration::ZERO, Some(Duration::ZERO));
        for thread in self.threads.iter().filter(|thread| wanted(thread)) {
            let earlier = before.threads.iter().find_map(|old| thread.since(old));
            let (ran, waited) = earlier.unwrap_or((thread.run, thread.wait));
            run = run.saturating_add(ran);
            wait = wait
                .zip(waited)
                .map(|(sum, more): (Duration, _)| sum.saturating_add(more));
        }
        (!elapsed.is_zero()).then(|| ThreadShare {
            run: percent(run),
            wait: wait.map(percent),
        })
    }

    /// The time of all threads of which `wanted` is true. A thread takes its time with it when it ends, so this can
    /// fall; a process's processor time does not.
    pub fn sum(&self, wanted: impl Fn(ThreadRole) -> bool) -> ThreadTimes {
        let threads = self.threads.iter().filter(|thread| wanted(thread.role));
        threads.fold(ThreadTimes::ZERO, |sum, thread| ThreadTimes {
            threads: sum.threads + 1,
            run: sum.run.saturating_add(thread.run),
            wait: sum
                .wait
                .zip(thread.wait)
                .map(|(sum, wait)| sum.saturating_add(wait)),
        })
    }
}

impl Thread {
    fn read(roots: Roots<'_>, pid: u32, tid: u32) -> Option<Self> {
        let stat = roots.parse(pid, &format!("task/{tid}/stat"), Stat::parse).ok()?;
        let times = Self::times(roots, pid, tid);
        Some(Self {
            tid,
            role: ThreadRole::of(&stat.name, tid == pid, stat.guest > 0),
            started: stat.started,
            run: times.map_or(ticks(stat.user.saturating_add(stat.system)), |(run, _)| run),
            wait: times.map(|(_, wait)| wait),
            name: stat.name,
        })
    }

    /// Time on a processor, and time waited for one.
    fn times(roots: Roots<'_>, pid: u32, tid: u32) -> Option<(Duration, Duration)> {
        roots.parse(pid, &format!("task/{tid}/schedstat"), schedstat).ok()
    }

    /// Time on a processor and time waited for one since an earlier reading of the same thread.
    pub fn since(&self, before: &Self) -> Option<(Duration, Option<Duration>)> {
        if (self.tid, self.started) != (before.tid, before.started) {
            return None;
        }
        let wait = self.wait.zip(before.wait);
        Some((
            self.run.checked_sub(before.run)?,
            wait.and_then(|(now, then)| now.checked_sub(then)),
        ))
    }
}

/// Reads the threads of one sandbox time and again. Which there are, and what they do, is remembered for a minute at most;
/// their times are read every time.
#[derive(Debug, Default)]
pub(super) struct ThreadReader {
    known: Vec<KnownThreads>,
}

/// The threads of one process.
#[derive(Debug)]
struct KnownThreads {
    pid: u32,
    started: u64,
    threads: Vec<Thread>,
    left_out: usize,
    refresh: Refresh,
}

impl ThreadReader {
    /// `None` where there is no VMM, or its threads cannot be read.
    pub fn read(&mut self, roots: Roots<'_>, processes: &[HostProcesses]) -> Option<Threads> {
        let of = |wanted: fn(Part) -> bool| {
            let parts = processes.iter().filter(move |processes| wanted(processes.part));
            parts.flat_map(|processes| &processes.processes)
        };
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.known);
        let mut room = MAX_THREADS;
        let mut read = |process: &ProcessUsage| {
            let is_same = |known: &KnownThreads| (known.pid, known.started) == (process.pid, process.started);
            let index = before.iter().position(is_same);
            let known = index.map(|index| before.swap_remove(index));
            let threads = KnownThreads::read(roots, process, known, room, now)?;
            room = room.saturating_sub(threads.threads.len());
            Some(threads)
        };
        let vmm = of(|part| matches!(part, Part::Vmm | Part::ShimAndVmm)).next()?;
        let vmm = read(vmm)?;
        // A kernel thread may end at any time, and is then not there to be counted.
        let vhost = of(|part| part == Part::Vhost).filter_map(read);
        self.known = [vmm].into_iter().chain(vhost).collect();
        Some(Threads {
            threads: self
                .known
                .iter()
                .flat_map(|known| known.threads.clone())
                .collect(),
            left_out: self.known.iter().map(|known| known.left_out).sum(),
        })
    }
}

impl KnownThreads {
    /// The threads of a process, of which at most `room` are read.
    fn read(
        roots: Roots<'_>,
        process: &ProcessUsage,
        known: Option<Self>,
        room: usize,
        now: Instant,
    ) -> Option<Self> {
        let refresh = known.as_ref().map(|known| known.refresh);
        if let Some(mut known) = known
            && known.threads.len() <= room
            && !known.refresh.is_due(now)
            && known.read_times(roots, process.threads).is_some()
        {
            return Some(known);
        }
        let mut found = Self {
            pid: process.pid,
            started: process.started,
            threads: Vec::new(),
            left_out: 0,
            refresh: refresh.map_or(Refresh::new(now), |refresh| refresh.again(now)),
        };
        for entry in fs::read_dir(roots.path(process.pid, "task")).ok()?.flatten() {
            let Some(tid) = entry.file_name().to_str().and_then(|tid| tid.parse().ok()) else {
                continue;
            };
            if found.threads.len() >= room {
                found.left_out += 1;
            } else {
                // One that ends meanwhile is left out.
                found.threads.extend(Thread::read(roots, process.pid, tid));
            }
        }
        Some(found)
    }

    /// Reads the times of the threads that are known; `None` where they are not all there are. As many as the kernel counts,
    /// each of them alive, are all. A thread with the id of one that has ended has run less.
    fn read_times(&mut self, roots: Roots<'_>, count: u64) -> Option<()> {
        let known = u64::try_from(self.threads.len() + self.left_out);
        if known != Ok(count) {
            return None;
        }
        for thread in &mut self.threads {
            let (run, wait) = Thread::times(roots, self.pid, thread.tid)?;
            if run < thread.run || thread.wait.is_none_or(|before| wait < before) {
                return None;
            }
            (thread.run, thread.wait) = (run, Some(wait));
        }
        Some(())
    }
}

impl ThreadRole {
    /// By the name that a VMM gives its thread:
    ///
    /// | VMM | virtual processor | devices | event loop |
    /// |---|---|---|---|
    /// | QEMU (accel/kvm/kvm-accel-ops.c, accel/tcg, iothread.c, util/thread-pool.c) | `CPU 0/KVM` | `IO <id>`, `worker` | |
    /// | Cloud Hypervisor (vmm/src/cpu.rs, virtio-devices/src/block.rs and net.rs, vmm/src/lib.rs) | `vcpu0` | `_disk0_q0`, `_net1_qp0`, `__rng` | `vmm` |
    /// | Firecracker (src/vmm/src/vstate/vcpu.rs) | `fc_vcpu 0` | | |
    /// | Dragonball (src/dragonball/src/vcpu/vcpu_impl.rs, dbs_virtio_devices/src/block/device.rs) | `db_vcpu0` | `blk_iothread_q0` | `vmm_master` |
    /// | OpenVMM (Kata's runtime-rs, hypervisor/src/openvmm) | `vp-0` | | |
    ///
    /// QEMU before 11.0 names its threads with `-name …,debug-threads=on` alone, which Kata's Go shim asks for only
    /// with `enable_debug`, and the Rust shim never. So a thread that has run a guest is a virtual processor, too.
    fn of(name: &str, is_first: bool, has_run_guest: bool) -> Self {
        let number = |prefix| {
            name.strip_prefix(prefix)
                .and_then(|number: &str| number.parse().ok())
        };
        let qemu = || name.strip_prefix("CPU ")?.split_once('/')?.0.parse().ok();
        let named = ["vcpu", "fc_vcpu ", "fc_vcpu", "db_vcpu", "vp-"]
            .into_iter()
            .find_map(number);
        if let Some(vcpu) = named.or_else(qemu) {
            Self::Vcpu(Some(vcpu))
        } else if has_run_guest || name == "ALL CPUs/TCG" {
            Self::Vcpu(None)
        } else if name.starts_with("vhost-") {
            Self::Vhost
        } else if is_first || name == "vmm" || name == "vmm_master" {
            Self::Main
        } else if ["IO ", "worker", "iou-", "_", "blk_iothread"]
            .iter()
            .any(|io| name.starts_with(io))
        {
            Self::Io
        } else {
            Self::Other
        }
    }
}

/// `schedstat`: nanoseconds on a processor, nanoseconds waited for one, number of turns (Linux's
/// Documentation/scheduler/sched-stats.rst).
fn schedstat(text: &str) -> Option<(Duration, Duration)> {
    let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().ok());
    Some((
        Duration::from_nanos(numbers.next()??),
        Duration::from_nanos(numbers.next()??),
    ))
}

#[cfg(test)]
mod tests;
