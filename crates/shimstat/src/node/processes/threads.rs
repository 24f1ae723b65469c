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
mod tests {
    use super::*;
    use crate::node::proc_fs::testing::Tree;

    fn process(roots: Roots<'_>, part: Part, pid: u32) -> HostProcesses {
        HostProcesses {
            part,
            processes: vec![ProcessUsage::read_in(roots, pid).unwrap()],
        }
    }

    #[test]
    fn roles_by_the_names_that_each_vmm_gives() {
        use ThreadRole::{Io, Main, Other, Vcpu, Vhost};
        for (name, expected) in [
            ("CPU 0/KVM", Vcpu(Some(0))),
            ("CPU 255/KVM", Vcpu(Some(255))),
            ("CPU 1/TCG", Vcpu(Some(1))),
            ("ALL CPUs/TCG", Vcpu(None)),
            ("IO mon_iothread", Io),
            ("worker", Io),
            ("iou-wrk-4711", Io),
            ("call_rcu", Other),
            ("vhost-4711", Vhost),
            ("vcpu12", Vcpu(Some(12))),
            ("_disk0_q0", Io),
            ("_net1_qp0", Io),
            ("__rng", Io),
            ("vmm", Main),
            ("vmm_signal_hand", Other),
            ("http-server", Other),
            ("fc_vcpu 3", Vcpu(Some(3))),
            ("fc_api", Other),
            ("db_vcpu1", Vcpu(Some(1))),
            ("vmm_master", Main),
            ("blk_iothread_q0", Io),
            ("vp-0", Vcpu(Some(0))),
            ("vcpux", Other),
            ("CPU x/KVM", Other),
            ("", Other),
        ] {
            assert_eq!(ThreadRole::of(name, false, false), expected, "{name}");
        }
        // An unnamed QEMU: the first thread, a virtual processor, another.
        let qemu = |first, guest| ThreadRole::of("qemu-system-x86", first, guest);
        assert_eq!(
            (qemu(true, false), qemu(false, true), qemu(false, false)),
            (Main, Vcpu(None), Other)
        );
    }

    #[test]
    fn a_vmm_with_vhost_threads_of_both_kinds() {
        let tree = Tree::new();
        tree.process(20, "qemu-system-x86", 1, 700)
            .thread(20, 20, "qemu-system-x86", Some((5_000_000, 1_000)), 0)
            .thread(20, 21, "CPU 0/KVM", Some((7_000_000_123, 2_000_000_456)), 600)
            .thread(20, 22, "CPU 1/KVM", Some((1_000_000_000, 0)), 90)
            .thread(20, 23, "vhost-20", None, 0)
            .kernel_thread(50, "vhost-20", 3)
            .thread(50, 50, "vhost-20", Some((30_000_000, 7)), 0)
            .file(20, "task/self/stat", "not a thread");
        let parts = [
            process(tree.roots(), Part::Vmm, 20),
            process(tree.roots(), Part::Vhost, 50),
        ];
        let threads = ThreadReader::default().read(tree.roots(), &parts).unwrap();
        assert_eq!((threads.threads.len(), threads.left_out), (5, 0));
        let mut vcpus: Vec<_> = threads
            .vcpus()
            .map(|cpu| (cpu.role, cpu.run.as_nanos(), cpu.wait))
            .collect();
        vcpus.sort_by_key(|vcpu| vcpu.1);
        assert_eq!(
            vcpus,
            [
                (ThreadRole::Vcpu(Some(1)), 1_000_000_000, Some(Duration::ZERO)),
                (
                    ThreadRole::Vcpu(Some(0)),
                    7_000_000_123,
                    Some(Duration::from_nanos(2_000_000_456))
                ),
            ]
        );
        let both = threads.sum(|role| matches!(role, ThreadRole::Vcpu(_)));
        assert_eq!((both.threads, both.run), (2, Duration::from_nanos(8_000_000_123)));
        let vhost = threads.sum(|role| role == ThreadRole::Vhost);
        assert_eq!(
            (vhost.threads, vhost.run, vhost.wait),
            (2, Duration::from_millis(30), None)
        );
        assert_eq!(threads.sum(|role| role == ThreadRole::Io), ThreadTimes::ZERO);
        assert_eq!(
            ThreadReader::default().read(tree.roots(), &parts[1..]),
            None,
            "no VMM"
        );
    }

    #[test]
    fn of_very_many_threads_the_rest_is_counted() {
        let tree = Tree::new();
        tree.process(20, "qemu-system-x86", 1, 0);
        for tid in 0..600 {
            tree.thread(20, 1000 + tid, "worker", Some((1, 1)), 0);
        }
        let threads = ThreadReader::default()
            .read(tree.roots(), &[process(tree.roots(), Part::Vmm, 20)])
            .unwrap();
        assert_eq!((threads.threads.len(), threads.left_out), (512, 88));
    }

    /// Reads twice, so that the third time threads are known: the second look comes after no time at all.
    fn known(tree: &Tree) -> ThreadReader {
        let mut reader = ThreadReader::default();
        let vmm = [process(tree.roots(), Part::Vmm, 20)];
        assert!(reader.read(tree.roots(), &vmm).is_some() && reader.read(tree.roots(), &vmm).is_some());
        let hour = Duration::from_secs(3600);
        for known in &mut reader.known {
            let long_known = known.refresh.ago(hour).again(Instant::now());
            known.refresh = long_known;
        }
        reader
    }

    fn runs(reader: &mut ThreadReader, tree: &Tree) -> Vec<(u32, u64)> {
        let vmm = [process(tree.roots(), Part::Vmm, 20)];
        let threads = reader.read(tree.roots(), &vmm).unwrap().threads;
        let mut runs: Vec<_> = threads
            .iter()
            .map(|thread| (thread.tid, u64::try_from(thread.run.as_nanos()).unwrap()))
            .collect();
        runs.sort_unstable();
        runs
    }

    #[test]
    fn of_known_threads_the_times_alone_are_read() {
        let tree = Tree::new();
        // The tree's processes have 20 threads, as their stat files say.
        let with = |times: &dyn Fn(u32) -> (u64, u64)| {
            tree.process(20, "cloud-hyperviso", 1, 0);
            for tid in 20..40 {
                tree.thread(20, tid, &format!("vcpu{tid}"), Some(times(tid)), 0);
            }
        };
        with(&|tid| (u64::from(tid), 5));
        let mut reader = known(&tree);
        // Nothing but the times is read again: the names would show.
        for tid in 20..40 {
            tree.file(20, &format!("task/{tid}/stat"), "no longer readable");
            tree.file(
                20,
                &format!("task/{tid}/schedstat"),
                &format!("{} 6 1", 100 + tid),
            );
        }
        let expected: Vec<_> = (20..40).map(|tid| (tid, 100 + u64::from(tid))).collect();
        assert_eq!(runs(&mut reader, &tree), expected);
    }

    #[test]
    fn a_thread_that_has_come_or_gone_is_seen_at_once() {
        let tree = Tree::new();
        tree.process(20, "cloud-hyperviso", 1, 0);
        for tid in 20..40 {
            tree.thread(20, tid, &format!("vcpu{tid}"), Some((1000, 5)), 0);
        }
        let gone = |tid: u32| std::fs::remove_dir_all(tree.roots().path(20, &format!("task/{tid}"))).unwrap();
        // One has gone, and another has come: they are as many as before.
        let mut reader = known(&tree);
        gone(39);
        tree.thread(20, 99, "vcpu99", Some((7, 7)), 0);
        let mut expected: Vec<_> = (20..39).map(|tid| (tid, 1000)).collect();
        expected.push((99, 7));
        assert_eq!(runs(&mut reader, &tree), expected);
        // One has the id of one that has ended. It has run less, and does something else.
        let mut reader = known(&tree);
        tree.thread(20, 38, "_disk0_q0", Some((3, 3)), 0);
        let vmm = [process(tree.roots(), Part::Vmm, 20)];
        let threads = reader.read(tree.roots(), &vmm).unwrap();
        assert_eq!(
            threads.sum(|role| role == ThreadRole::Io).run,
            Duration::from_nanos(3)
        );
        // There are fewer or more than the kernel counts.
        let mut reader = known(&tree);
        tree.thread(20, 100, "vcpu100", Some((8, 8)), 0);
        let stat = std::fs::read_to_string(tree.roots().path(20, "stat")).unwrap();
        tree.file(20, "stat", &stat.replace(" 19 20 21 ", " 19 21 21 "));
        assert!(runs(&mut reader, &tree).contains(&(100, 8)));
    }

    #[test]
    fn times_are_compared_with_the_same_thread_only() {
        let thread = |started, run, wait: Option<u64>| Thread {
            tid: 7,
            name: "vcpu0".into(),
            role: ThreadRole::Vcpu(Some(0)),
            started,
            run: Duration::from_millis(run),
            wait: wait.map(Duration::from_millis),
        };
        let millis = Duration::from_millis;
        let before = thread(1, 100, Some(10));
        assert_eq!(
            thread(1, 150, Some(30)).since(&before),
            Some((millis(50), Some(millis(20))))
        );
        assert_eq!(thread(1, 150, None).since(&before), Some((millis(50), None)));
        assert_eq!(
            thread(2, 150, Some(30)).since(&before),
            None,
            "another thread with its id"
        );
        assert_eq!(thread(1, 50, Some(30)).since(&before), None);
    }

    /// Virtual processors that fight for one processor of this machine, in this process: what they have run is what
    /// their own clocks say, and while one runs the others wait.
    #[test]
    fn real_threads_on_one_processor() {
        use std::sync::{Barrier, mpsc};

        fn own_clock() -> Duration {
            let mut time = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            // SAFETY: writes to our own variable.
            unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
            Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
        }
        fn stay_on_first_processor() {
            // SAFETY: a set of processors is plain data; it is filled by the call, then has one left.
            unsafe {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                let size = size_of::<libc::cpu_set_t>();
                assert_eq!(libc::sched_getaffinity(0, size, &raw mut set), 0);
                let first = (0..libc::CPU_SETSIZE as usize)
                    .find(|cpu| libc::CPU_ISSET(*cpu, &set))
                    .unwrap();
                libc::CPU_ZERO(&mut set);
                libc::CPU_SET(first, &mut set);
                assert_eq!(libc::sched_setaffinity(0, size, &raw const set), 0);
            }
        }

        const VCPUS: usize = 4;
        let measured = Barrier::new(VCPUS + 1);
        let (clocks, results) = mpsc::channel();
        let us = [process(Roots::host(), Part::Vmm, std::process::id())];
        std::thread::scope(|scope| {
            for vcpu in 0..VCPUS {
                let (measured, clocks) = (&measured, clocks.clone());
                let thread = std::thread::Builder::new().name(format!("vcpu{vcpu}"));
                thread
                    .spawn_scoped(scope, move || {
                        stay_on_first_processor();
                        while own_clock() < Duration::from_millis(50) {}
                        clocks.send((vcpu, own_clock())).unwrap();
                        // Sleeps while it is measured, so that it runs no further.
                        measured.wait();
                    })
                    .unwrap();
            }
            let clocks: Vec<(usize, Duration)> = results.iter().take(VCPUS).collect();
            let threads = Threads::read(&us).unwrap();
            measured.wait();
            for (vcpu, clock) in clocks {
                let role = ThreadRole::Vcpu(u32::try_from(vcpu).ok());
                let thread = threads.vcpus().find(|thread| thread.role == role).unwrap();
                let after = thread.run.checked_sub(clock).unwrap();
                assert!(after < Duration::from_millis(20), "{thread:?} {clock:?}");
            }
            // Of four that each ran 50 ms on one processor, the last waited for the other three, the third for two.
            let all = threads.sum(|role| matches!(role, ThreadRole::Vcpu(_)));
            assert_eq!(all.threads, VCPUS);
            assert!(all.wait.unwrap() >= Duration::from_millis(200), "{all:?}");
        });
    }
}
