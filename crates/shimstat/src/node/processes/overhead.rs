//! What a sandbox costs beyond its containers: its processes on the host less what its containers use. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::host::{HostProcesses, Part};
use crate::node::hypervisor::VirtualMachine;

/// What a container or a sandbox uses. `None`: not measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceUse {
    /// Processor time since it started.
    pub cpu: Option<Duration>,
    /// In bytes.
    pub memory: Option<u64>,
}

/// The overhead of a sandbox: `None` where one of its inputs is not known, where the machine is not on this host, and
/// where the containers say that they use more than the processes they run in.
///
/// The machine's `kind` should be that of [`MachineKind::with_command_line_of`](crate::node::MachineKind::with_command_line_of). `containers` are all
/// containers of the sandbox, its own included. The processor time is of what runs now: it jumps when a container goes
/// and takes its time with it. For a counter use [`CpuOverhead`].
pub fn overhead(
    processes: &[HostProcesses],
    machine: &VirtualMachine,
    containers: &[ResourceUse],
) -> ResourceUse {
    let host = host_use(processes, machine);
    let sum = |part: fn(&ResourceUse) -> Option<u64>| containers.iter().map(part).sum::<Option<u64>>();
    let cpu = containers
        .iter()
        .map(|container| container.cpu)
        .sum::<Option<Duration>>();
    ResourceUse {
        cpu: host.cpu.zip(cpu).and_then(|(all, used)| all.checked_sub(used)),
        memory: host
            .memory
            .zip(sum(|usage| usage.memory))
            .and_then(|(all, used)| all.checked_sub(used)),
    }
}

/// What the processes of a sandbox use together; nothing is known unless all of them are.
fn host_use(processes: &[HostProcesses], machine: &VirtualMachine) -> ResourceUse {
    let has = |part| processes.iter().any(|processes| processes.part == part);
    let whole = has(Part::ShimAndVmm) || has(Part::Vmm) && has(Part::Shim);
    let lacks_virtiofsd = machine.virtiofsd_pid.is_some() && !has(Part::Virtiofsd);
    if !machine.kind.is_local() || !whole || lacks_virtiofsd {
        return ResourceUse::default();
    }
    let memory = processes.iter().map(HostProcesses::memory).sum();
    ResourceUse {
        cpu: Some(processes.iter().map(HostProcesses::cpu).sum()),
        // Memory that is hidden from the host's processes is in the containers' figures all the same.
        memory: if machine.kind.shows_memory() { memory } else { None },
    }
}

/// Processor time beyond the containers', as a counter: it does not fall, and does not jump when a container or a
/// process goes. It counts from the first look that knew everything.
#[derive(Debug, Clone, Default)]
pub struct CpuOverhead {
    last: Option<Snapshot>,
    /// The difference so far, in nanoseconds. The host counts in ticks of 10 ms and the guest by its own clock, so
    /// that it may fall for a moment.
    difference: i128,
    /// The most that it has been.
    counted: u64,
}

/// Processor times at one moment: of each process by its pid and start, of each container by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Snapshot {
    processes: BTreeMap<(u32, u64), Duration>,
    containers: BTreeMap<String, Duration>,
}

impl CpuOverhead {
    /// Counts what was used since the last look, and returns all that was counted; `None` before anything was. A look
    /// that does not know everything changes nothing: the next one that does counts for both.
    pub fn count<'a>(
        &mut self,
        processes: &[HostProcesses],
        machine: &VirtualMachine,
        containers: impl IntoIterator<Item = (&'a str, Option<Duration>)>,
    ) -> Option<Duration> {
        if let Some(now) = Snapshot::new(processes, machine, containers) {
            if let Some(last) = &self.last {
                let used = gained(&last.processes, &now.processes);
                let in_containers = gained(&last.containers, &now.containers);
                self.difference = self.difference.saturating_add(used).saturating_sub(in_containers);
                self.counted = self.counted.max(u64::try_from(self.difference).unwrap_or(0));
            }
            self.last = Some(now);
        }
        self.last.is_some().then(|| Duration::from_nanos(self.counted))
    }
}

impl Snapshot {
    fn new<'a>(
        processes: &[HostProcesses],
        machine: &VirtualMachine,
        containers: impl IntoIterator<Item = (&'a str, Option<Duration>)>,
    ) -> Option<Self> {
        host_use(processes, machine).cpu?;
        let each = processes.iter().flat_map(|part| &part.processes);
        Some(Self {
            processes: each
                .map(|process| ((process.pid, process.started), process.cpu))
                .collect(),
            containers: containers
                .into_iter()
                .map(|(id, cpu)| Some((id.to_string(), cpu?)))
                .collect::<Option<_>>()?,
        })
    }
}

/// What was used between two looks, in nanoseconds, of those that are in the later one. One that is new counts from its
/// start; what one used that has gone is not known.
fn gained<Key: Ord>(before: &BTreeMap<Key, Duration>, now: &BTreeMap<Key, Duration>) -> i128 {
    let nanos = |time: &Duration| i128::try_from(time.as_nanos()).unwrap_or(i128::MAX);
    now.iter()
        .map(|(key, cpu)| nanos(cpu).saturating_sub(before.get(key).map_or(0, nanos)))
        .fold(0, i128::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::hypervisor::{CgroupPaths, KataShim};
    use crate::node::machine::{GuestProtection, MachineKind};
    use crate::node::processes::{ProcessMemory, ProcessUsage};

    fn machine(kind: MachineKind) -> VirtualMachine {
        VirtualMachine {
            shim: KataShim::Rust,
            hypervisor: Some("qemu".into()),
            kind,
            vmm_pid: None,
            virtiofsd_pid: None,
            configured_memory: None,
            cgroups: CgroupPaths::default(),
        }
    }

    fn local() -> VirtualMachine {
        machine(MachineKind::Local)
    }

    fn process(part: Part, pid: u32, millis: u64, mebibytes: Option<u64>) -> HostProcesses {
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
                    rss: mebibytes.map(|mebibytes| mebibytes << 20),
                    rss_shmem: Some(0),
                    ..ProcessMemory::default()
                },
            }],
        }
    }

    /// A VMM, virtiofsd and shim that have used 10 s together and hold 640 MiB.
    fn sandbox() -> Vec<HostProcesses> {
        vec![
            process(Part::Vmm, 20, 7_000, Some(600)),
            process(Part::Virtiofsd, 30, 2_000, Some(10)),
            process(Part::Shim, 10, 1_000, Some(30)),
        ]
    }

    fn container(millis: u64, mebibytes: u64) -> ResourceUse {
        ResourceUse {
            cpu: Some(Duration::from_millis(millis)),
            memory: Some(mebibytes << 20),
        }
    }

    #[test]
    fn the_processes_less_the_containers() {
        let containers = [container(50, 1), container(4_000, 100)];
        assert_eq!(overhead(&sandbox(), &local(), &containers), container(5_950, 539));
        assert_eq!(overhead(&sandbox(), &local(), &[]), container(10_000, 640));
    }

    #[test]
    fn less_than_nothing_is_unknown() {
        let too_much = overhead(&sandbox(), &local(), &[container(11_000, 1)]);
        assert_eq!((too_much.cpu, too_much.memory), (None, Some(639 << 20)));
        let too_large = overhead(&sandbox(), &local(), &[container(1, 641)]);
        assert_eq!(
            (too_large.cpu, too_large.memory),
            (Some(Duration::from_millis(9_999)), None)
        );
        assert_eq!(
            overhead(&sandbox(), &local(), &[container(10_000, 640)]),
            container(0, 0)
        );
    }

    #[test]
    fn without_an_input_there_is_none() {
        let nothing = ResourceUse::default();
        let known = [container(1, 1)];
        let of = |processes: &[HostProcesses], containers: &[ResourceUse]| {
            overhead(processes, &local(), containers)
        };
        assert_eq!(of(&[], &known), nothing);
        assert_eq!(of(&sandbox()[..2], &known), nothing, "no shim");
        assert_eq!(of(&sandbox()[1..], &known), nothing, "no VMM");
        assert_eq!(of(&sandbox(), &[known[0], nothing]), nothing);
        let noted = VirtualMachine {
            virtiofsd_pid: Some(30),
            ..local()
        };
        let without = [sandbox()[0].clone(), sandbox()[2].clone()];
        assert_eq!(
            overhead(&without, &noted, &known),
            nothing,
            "no virtiofsd, and there should be one"
        );
        assert_eq!(overhead(&without, &local(), &known), container(7_999, 629));
        let mut zombie = sandbox();
        zombie[0] = process(Part::Vmm, 20, 7_000, None);
        let overhead = of(&zombie, &known);
        assert_eq!((overhead.cpu.is_some(), overhead.memory), (true, None));
        let both_in_one = [process(Part::ShimAndVmm, 10, 5_000, Some(100))];
        assert_eq!(of(&both_in_one, &known), container(4_999, 99));
    }

    #[test]
    fn two_machines_are_not_mixed() {
        let containers = [container(50, 1)];
        assert_eq!(
            overhead(&sandbox(), &machine(MachineKind::PeerPod), &containers),
            ResourceUse::default()
        );
        let tdx = MachineKind::Confidential(Some(GuestProtection::Tdx));
        let hidden = overhead(&sandbox(), &machine(tdx), &containers);
        assert_eq!(
            (hidden.cpu, hidden.memory),
            (Some(Duration::from_millis(9_950)), None)
        );
    }

    /// Counts looks at a sandbox, each with the CPU time of its VMM and of its containers, in milliseconds.
    fn counted(counter: &mut CpuOverhead, vmm: u64, containers: &[(&str, Option<u64>)]) -> Option<u64> {
        let mut processes = sandbox();
        processes[0] = process(Part::Vmm, 20, vmm, Some(1));
        let containers = containers
            .iter()
            .map(|(id, cpu)| (*id, cpu.map(Duration::from_millis)));
        let counted = counter.count(&processes, &local(), containers);
        counted.map(|time| u64::try_from(time.as_millis()).unwrap())
    }

    #[test]
    fn the_counter_neither_falls_nor_jumps() {
        let mut counter = CpuOverhead::default();
        let mut look = |vmm, containers: &[(&str, Option<u64>)]| counted(&mut counter, vmm, containers);
        assert_eq!(
            look(7_000, &[("s", Some(50)), ("a", None)]),
            None,
            "not everything is known yet"
        );
        assert_eq!(look(7_000, &[("s", Some(50)), ("a", Some(4_000))]), Some(0));
        assert_eq!(look(7_100, &[("s", Some(50)), ("a", Some(4_060))]), Some(40));
        assert_eq!(
            look(7_100, &[("s", Some(50)), ("a", Some(4_065))]),
            Some(40),
            "the guest's clock is ahead"
        );
        assert_eq!(
            look(7_120, &[("s", Some(50)), ("a", Some(4_070))]),
            Some(50),
            "and that is made up for"
        );
        assert_eq!(
            look(7_150, &[("s", Some(50)), ("a", None)]),
            Some(50),
            "not everything is known"
        );
        assert_eq!(
            look(7_170, &[("s", Some(50)), ("a", Some(4_090))]),
            Some(80),
            "both looks at once"
        );
        assert_eq!(
            look(7_180, &[("s", Some(50))]),
            Some(90),
            "its 4 s go with it, and are no overhead"
        );
        assert_eq!(
            look(7_280, &[("s", Some(50)), ("b", Some(70))]),
            Some(120),
            "a new container"
        );
    }

    #[test]
    fn a_process_that_was_replaced_counts_from_its_start() {
        let mut counter = CpuOverhead::default();
        counted(&mut counter, 7_000, &[]);
        let mut processes = sandbox();
        processes[1] = process(Part::Virtiofsd, 31, 300, Some(1));
        let count = counter.count(&processes, &local(), []);
        assert_eq!(count, Some(Duration::from_millis(300)));
        assert_eq!(
            counter.count(&processes, &machine(MachineKind::PeerPod), []),
            count,
            "nothing is known"
        );
    }
}
