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
