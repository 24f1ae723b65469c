use std::sync::Arc;

use crate::readings::Readings;
use promtext::Filter;
use shimstat::node::hypervisor::CgroupPaths;
use shimstat::node::{MachineKind, PodNames, ProcessMemory, ProcessUsage};
use shimstat::shim::address::Address;
use shimstat::shim::task::{TaskState, TaskStatus};
use shimstat::stats::Stats;
use shimstat::survey::Origin;

use super::*;
use crate::fixtures::container;

const GO: &str = include_str!("../../../../../crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt");
const RUST: &str = include_str!("../../../../../crates/promtext/tests/fixtures/kata-3.30-rs/metrics.txt");

fn machine(virtiofsd_pid: Option<u32>) -> Option<VirtualMachine> {
    Some(VirtualMachine {
        shim: KataShim::Go,
        hypervisor: Some("clh".into()),
        kind: MachineKind::Local,
        vmm_pid: Some(7752),
        virtiofsd_pid,
        configured_memory: None,
        cgroups: CgroupPaths::default(),
    })
}

fn task(
    id: &str,
    role: Role,
    taken: Instant,
    cpu_millis: u64,
    memory: u64,
) -> (Arc<Container>, Result<Sample, AskError>) {
    let names = PodNames {
        namespace: Some("shop".into()),
        name: Some("web".into()),
        container: (role != Role::Sandbox).then(|| "app".into()),
        ..PodNames::NONE
    };
    let container = container(id, role, names);
    let mut stats = Stats::default();
    stats.cpu.usage.total = Some(cpu_millis * 1_000_000);
    stats.memory.usage.usage = Some(memory);
    let state = TaskState {
        status: TaskStatus::Running,
        pid: 7752,
        exit_status: None,
        exited_at: None,
    };
    let sample = Sample {
        state,
        stats,
        taken,
        origin: Origin::Shim,
    };
    (container, Ok(sample))
}

/// A look at a pod of a pause and an app that have used 50 and 1200 ms and hold 300 KiB and 20 MiB.
fn look(taken: Instant, page: &str) -> Look {
    Look {
        machine: machine(None),
        processes: (taken, Vec::new()),
        containers: vec![
            task("s1", Role::Sandbox, taken, 50, 300 << 10),
            task("c1", Role::InSandbox("s1".into()), taken, 1200, 20 << 20),
        ],
        vm: None,
        guest: None,
        unread: Vec::new(),
        scraped: Ok((
            taken,
            Readings::read(page.as_bytes(), &Filter::default()).unwrap(),
        )),
    }
}

fn process(part: Part, pid: u32, millis: u64, rss: u64) -> HostProcesses {
    HostProcesses {
        part,
        processes: vec![ProcessUsage {
            pid,
            name: "x".into(),
            parent: 1,
            started: 5,
            threads: 1,
            cpu: Duration::from_millis(millis),
            memory: ProcessMemory {
                rss: Some(rss),
                rss_shmem: Some(0),
                hugetlb: Some(0),
                ..ProcessMemory::default()
            },
        }],
    }
}

fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.name.as_str()).collect()
}

#[test]
fn the_overhead_is_the_hosts_processes_less_the_containers() {
    let summary = Summary::new("s1", &look(Instant::now(), GO), None);
    assert_eq!(summary.pod.as_deref(), Some("shop/web"));
    assert_eq!(names(&summary.host), ["VMM", "shim"]);
    assert_eq!(names(&summary.containers), ["sandbox", "app"]);
    assert_eq!(names(&summary.guest), ["guest", "agent in it"]);
    assert_eq!(summary.missing, [""; 0]);
    let overhead = summary.overhead.unwrap();
    // 5.53 s and 7.23 s less 0.05 s and 1.2 s; 332455936 and 46768128 bytes less 300 KiB and 20 MiB.
    assert!((overhead.cpu.unwrap() - 11.51).abs() < 1e-9);
    assert_eq!(overhead.memory, Some(379_224_064 - 307_200 - 20_971_520));
    assert_eq!(overhead.cpu_percent, None);
}

#[test]
fn what_proc_says_comes_before_what_the_families_say() {
    let start = Instant::now();
    let parts = |millis: u64| {
        vec![
            process(Part::Vmm, 7752, 6000 + millis, 100 << 20),
            process(Part::Virtiofsd, 7751, 10, 8 << 20),
            process(Part::Shim, 70, 1000, 40 << 20),
        ]
    };
    let mut before = look(start, GO);
    before.processes = (start, parts(0));
    let later = start + Duration::from_secs(2);
    let mut now = look(later, GO);
    now.processes = (later, parts(800));
    now.containers[1] = task("c1", Role::InSandbox("s1".into()), later, 1700, 20 << 20);
    let summary = Summary::new("s1", &now, Some(&before));
    assert_eq!(names(&summary.host), ["VMM", "virtiofsd", "shim"]);
    assert_eq!(summary.host[0].source, "/proc/7752/stat, /proc/7752/status");
    assert_eq!(summary.host[0].cpu_percent, Some(40.0), "0.8 s in 2 s");
    assert_eq!(summary.containers[1].cpu_percent, Some(25.0), "0.5 s in 2 s");
    let overhead = summary.overhead.unwrap();
    assert_eq!(overhead.cpu_percent, Some(15.0));
    assert_eq!(overhead.memory, Some((148 << 20) - (300 << 10) - (20 << 20)));
    assert_eq!(
        summary.guest[0].cpu_percent,
        Some(0.0),
        "the same recording twice"
    );
}

#[test]
fn without_one_of_its_inputs_there_is_no_overhead() {
    let now = Instant::now();
    let mut noted = look(now, GO);
    noted.machine = machine(Some(7751));
    let mut hung = look(now, GO);
    hung.containers[1].1 = Err(AskError::Unanswered {
        address: Address::Path("/s".into()),
        call: "Stats",
        waited: Duration::from_secs(3),
    });
    let mut unknown = look(now, GO);
    unknown.containers.clear();
    let rust = look(now, RUST);
    let mut nobodys = look(now, GO);
    nobodys.machine = None;
    nobodys.scraped = Ok((
        now,
        Readings::read(b"kata_shim_proc_stat{item=\"utime\"} 1\n", &Filter::default()).unwrap(),
    ));
    for (look, missing) in [
        (&noted, "virtiofsd: "),
        (
            &hung,
            "container app: the shim at /s has not answered Stats for 3s",
        ),
        (&unknown, "containers: "),
        (&rust, "VMM: "),
        (&nobodys, "VMM: "),
    ] {
        let summary = Summary::new("s1", look, None);
        assert_eq!(summary.overhead, None, "{missing}");
        assert!(
            summary.missing.iter().any(|line| line.starts_with(missing)),
            "{:?}",
            summary.missing
        );
    }
}

#[test]
fn a_container_without_a_number_leaves_the_overhead_without_it() {
    let mut now = look(Instant::now(), GO);
    let Ok(sample) = &mut now.containers[1].1 else {
        panic!()
    };
    sample.stats.cpu.usage.total = None;
    let overhead = Summary::new("s1", &now, None).overhead.unwrap();
    assert_eq!(overhead.cpu, None);
    assert!(overhead.memory.is_some());
}

#[test]
fn less_than_nothing_is_not_shown() {
    let now = Instant::now();
    let mut look = look(now, GO);
    look.containers[1] = task("c1", Role::InSandbox("s1".into()), now, 1200, 1 << 40);
    let summary = Summary::new("s1", &look, None);
    let overhead = summary.overhead.unwrap();
    assert!(overhead.cpu.is_some() && overhead.memory.is_none());
    assert_eq!(
        summary.missing,
        ["overhead: the containers report more memory than the host's processes use"]
    );
}

#[test]
fn a_guest_that_is_not_heard_of_costs_its_own_lines() {
    let now = Instant::now();
    let mut refused = look(now, GO);
    refused.processes.1 = vec![
        process(Part::Vmm, 7752, 1, 500 << 20),
        process(Part::Shim, 70, 9000, 1 << 20),
    ];
    refused.scraped = Err("it runs on qemu".into());
    let summary = Summary::new("s1", &refused, None);
    assert_eq!(summary.missing, ["guest: it runs on qemu"]);
    assert!(summary.overhead.is_some() && summary.guest.is_empty());

    let hung: String = GO
        .lines()
        .filter(|line| !line.contains("kata_guest_") && !line.contains("kata_agent_"))
        .map(|line| format!("{line}\n"))
        .collect();
    let summary = Summary::new("s1", &look(now, &hung), None);
    assert!(summary.missing[0].starts_with("guest: "), "{:?}", summary.missing);
    assert!(summary.overhead.is_some());
}

#[test]
fn machines_that_are_elsewhere_or_hidden_are_not_added_up() {
    let now = Instant::now();
    let of = |kind| {
        let mut look = look(now, GO);
        look.machine = machine(None).map(|machine| VirtualMachine { kind, ..machine });
        Summary::new("s1", &look, None)
    };
    let peer = of(MachineKind::PeerPod);
    assert_eq!(
        names(&peer.host),
        ["shim"],
        "what its shim says of a VMM is about itself"
    );
    assert!(peer.overhead.is_none() && peer.missing[0].starts_with("VMM: "));
    let hidden = of(MachineKind::Confidential(None)).overhead.unwrap();
    assert!(hidden.cpu.is_some() && hidden.memory.is_none());
}
