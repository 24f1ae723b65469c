use super::*;
use crate::node::hypervisor::{CgroupPaths, KataShim};
use crate::node::machine::MachineKind;
use crate::node::proc_fs::testing::Tree;

fn machine(vmm_pid: Option<u32>, virtiofsd_pid: Option<u32>) -> VirtualMachine {
    VirtualMachine {
        shim: KataShim::Go,
        hypervisor: Some("clh".into()),
        kind: MachineKind::Local,
        vmm_pid,
        virtiofsd_pid,
        configured_memory: None,
        cgroups: CgroupPaths::default(),
    }
}

/// A Kata sandbox: a shim, a VMM, a virtiofsd that waits and one that works; and a process that is not of it.
fn kata() -> Tree {
    let tree = Tree::new();
    tree.process(10, "containerd-shim", 1, 700)
        .with_memory(10, 45_000, 0, 0, 0)
        .children(10, "20 30 ")
        .process(20, "cloud-hyperviso", 10, 550)
        .with_memory(20, 20_000, 200_000, 100_000, 0)
        .process(30, "virtiofsd", 10, 0)
        .with_memory(30, 3_800, 0, 0, 0)
        .children(30, "31")
        .process(31, "virtiofsd", 30, 200)
        .with_memory(31, 10_000, 0, 80_000, 0)
        .process(40, "nginx", 1, 1)
        .with_memory(40, 1, 0, 0, 0);
    tree
}

fn parts(found: &[HostProcesses]) -> Vec<(Part, Vec<u32>)> {
    let pids = |one: &HostProcesses| one.processes.iter().map(|process| process.pid).collect();
    found.iter().map(|one| (one.part, pids(one))).collect()
}

fn all_parts() -> Vec<(Part, Vec<u32>)> {
    vec![
        (Part::Vmm, vec![20]),
        (Part::Virtiofsd, vec![30, 31]),
        (Part::Shim, vec![10]),
    ]
}

#[test]
fn finds_the_parts_of_a_kata_sandbox() {
    let tree = kata();
    let noted = machine(Some(20), Some(30));
    let found = find(tree.roots(), None, Some(&noted), Some(10), Some(20));
    assert_eq!(parts(&found), all_parts());
    assert_eq!(found[0].cpu(), Duration::from_millis(5500));
    assert_eq!(
        found[0].memory(),
        Some(320_000 << 10),
        "the guest's memory is the VMM's"
    );
    assert_eq!(found[1].cpu(), Duration::from_secs(2), "the child does the work");
    assert_eq!(
        found[1].memory(),
        Some(13_800 << 10),
        "without the guest's memory"
    );
}

#[test]
fn finds_them_by_their_parents_where_nothing_is_noted() {
    let tree = kata();
    let found = find(tree.roots(), None, Some(&machine(None, None)), None, Some(20));
    assert_eq!(parts(&found), all_parts());
}

#[test]
fn a_note_of_a_process_whose_pid_is_anothers_is_not_believed() {
    let tree = kata();
    let found = |machine: &VirtualMachine, shim, task| {
        parts(&find(tree.roots(), None, Some(machine), Some(shim), task))
    };
    assert_eq!(found(&machine(Some(40), Some(40)), 40, None), []);
    assert_eq!(found(&machine(Some(99), None), 99, Some(99)), []);
}

#[test]
fn without_a_virtual_machine_there_is_a_shim_at_most() {
    let tree = kata();
    let found = |shim| parts(&find(tree.roots(), None, None, shim, Some(40)));
    assert_eq!(found(Some(10)), [(Part::Shim, vec![10])]);
    assert_eq!(found(None), []);
}

#[test]
fn a_machine_elsewhere_has_its_shim_here() {
    let tree = kata();
    let remote = VirtualMachine {
        kind: MachineKind::PeerPod,
        ..machine(Some(20), Some(30))
    };
    // Kata's Go shim reports its own pid as the task's, the Rust shim that of one of its threads.
    tree.file(15, "status", "Name:\ttokio-runtime-w\nTgid:\t10\n");
    for (shim, task) in [
        (Some(10), Some(10)),
        (None, Some(10)),
        (None, Some(15)),
        (Some(10), None),
    ] {
        let found = find(tree.roots(), None, Some(&remote), shim, task);
        assert_eq!(parts(&found), [(Part::Shim, vec![10])], "{shim:?} {task:?}");
    }
}

#[test]
fn a_shim_that_is_the_vmm_counts_once() {
    let tree = kata();
    // Kata's Rust shim reports the thread that runs Dragonball.
    tree.file(15, "status", "Name:\tvmm_master\nTgid:\t10\n");
    for (shim, task) in [(Some(10), 10), (Some(10), 15), (None, 15)] {
        let found = find(tree.roots(), None, Some(&machine(None, None)), shim, Some(task));
        assert_eq!(
            parts(&found),
            [(Part::ShimAndVmm, vec![10]), (Part::Virtiofsd, vec![30, 31])],
            "{shim:?} {task}"
        );
    }
}

#[test]
fn the_kernel_threads_of_vhost_are_found_in_the_vmms_cgroup() {
    let tree = kata();
    tree.kernel_thread(50, "vhost-20", 300)
        .kernel_thread(51, "vhost-20", 20)
        .kernel_thread(52, "vhost-77", 20)
        .write("memory/kata/s1/cgroup.procs", "20\n50\n51\n52\n40\n");
    let mounts = tree.mounts(&[
        ("unified", "cgroup2", "rw"),
        ("memory", "cgroup", "rw,memory"),
        ("systemd", "cgroup", "rw,name=systemd"),
    ]);
    let found = |cgroup: &str| {
        tree.file(20, "cgroup", cgroup);
        find(
            tree.roots(),
            Some(&mounts),
            Some(&machine(None, None)),
            Some(10),
            Some(20),
        )
    };
    let v1 = found("9:name=systemd:/x\n4:memory:/kata/s1\n0::/\n");
    assert_eq!(parts(&v1)[1], (Part::Vhost, vec![50, 51]));
    assert_eq!(
        (v1[1].cpu(), v1[1].memory()),
        (Duration::from_millis(3200), Some(0))
    );
    tree.write("unified/s1/cgroup.procs", "50\n");
    assert_eq!(parts(&found("0::/s1\n"))[1], (Part::Vhost, vec![50]));
    tree.write("unified/cgroup.procs", "50\n");
    assert_eq!(
        parts(&found("0::/\n")),
        all_parts(),
        "the root cgroup has the whole machine"
    );
    assert_eq!(parts(&found("nonsense")), all_parts());
}

#[test]
fn rates_are_of_the_same_processes() {
    let tree = kata();
    let look = || {
        find(
            tree.roots(),
            None,
            Some(&machine(Some(20), Some(30))),
            Some(10),
            None,
        )
    };
    let (before, mut after) = (look(), look());
    after[1].processes[1].cpu += Duration::from_millis(500);
    let second = Duration::from_secs(1);
    assert_eq!(after[1].cpu_percent_since(&before[1], second), Some(50.0));
    after[1].processes.pop();
    assert_eq!(after[1].cpu_percent_since(&before[1], second), None);
}

#[test]
fn the_kernel_names_our_children() {
    let mut child = std::process::Command::new("sleep").arg("5").spawn().unwrap();
    let found = children(Roots::host(), std::process::id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found.contains(&child.id()), "{found:?}");
}

/// A finder that has known the sandbox for an hour.
fn finder(tree: &Tree, noted: &VirtualMachine) -> ProcessFinder {
    let mut finder = ProcessFinder::default();
    let found = finder.find(tree.roots(), None, noted, Some(10), Some(20));
    assert_eq!(parts(&found), all_parts());
    let known = finder.known.as_mut().unwrap();
    known.refresh = known.refresh.ago(Duration::from_secs(3600)).again(Instant::now());
    finder
}

#[test]
fn what_was_found_before_is_read_and_not_looked_for() {
    let tree = kata();
    let noted = machine(Some(20), None);
    let mut finder = finder(&tree, &noted);
    tree.process(20, "cloud-hyperviso", 10, 600)
        .with_memory(20, 20_000, 200_000, 100_000, 0)
        .children(10, "");
    let mut find = |task| finder.find(tree.roots(), None, &noted, Some(10), task);
    let found = find(Some(20));
    assert_eq!(parts(&found), all_parts());
    assert_eq!(found[0].cpu(), Duration::from_secs(6), "figures are today's");
    let by_note = find(None);
    assert_eq!(
        parts(&by_note),
        [(Part::Vmm, vec![20]), (Part::Shim, vec![10])],
        "another search"
    );
}

#[test]
fn a_process_with_the_pid_of_one_that_has_ended_is_another() {
    let (vmm, shim) = ((Part::Vmm, vec![20]), (Part::Shim, vec![10]));
    for (pid, left) in [
        (31, vec![vmm.clone(), (Part::Virtiofsd, vec![30]), shim.clone()]),
        (30, vec![vmm.clone(), shim]),
        (10, vec![vmm]),
    ] {
        let tree = kata();
        let noted = machine(Some(20), None);
        let mut finder = finder(&tree, &noted);
        // It started at another time.
        let stat = std::fs::read_to_string(tree.roots().path(pid, "stat")).unwrap();
        let (_, after) = stat.rsplit_once(')').unwrap();
        tree.file(
            pid,
            "stat",
            &format!("{pid} (nginx){}", after.replace(" 777 ", " 888 ")),
        );
        let found = finder.find(tree.roots(), None, &noted, Some(10), Some(20));
        assert_eq!(parts(&found), left, "{pid}");
    }
}
