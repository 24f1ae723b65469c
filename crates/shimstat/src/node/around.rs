//! The processes around a sandbox on this machine: its virtual machine monitor, virtiofsd, its shim. Neither the
//! shim nor the guest is asked for what they use.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::files;
use super::hypervisor::VirtualMachine;
use super::usage::ProcessUsage;

/// A line of children has 8 bytes for each at the most.
const CHILDREN_LIMIT: u64 = 64 << 10;

/// How many threads' and processes' children are looked for. A shim has some ten threads.
const MAX_CHILDREN: usize = 256;

/// What a process is to its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The virtual machine monitor. The guest's memory and processors are its own.
    Vmm,
    /// Shares files of the host with the guest.
    Virtiofsd,
    Shim,
    /// One process is both: Kata's built-in Dragonball.
    ShimAndVmm,
}

/// A part of a sandbox, and what it uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Around {
    pub part: Part,
    /// virtiofsd are two: the one that the shim started waits, and its child does the work.
    pub processes: Vec<ProcessUsage>,
}

impl Around {
    /// Processor time of all its processes, in user mode and in the kernel.
    pub fn cpu(&self) -> Duration {
        self.processes.iter().map(|process| process.cpu).sum()
    }

    /// Resident memory in bytes. Of virtiofsd without what it shares with others: that is the guest's memory,
    /// and counted with the VMM's.
    pub fn memory(&self) -> Option<u64> {
        let memory = |process: &ProcessUsage| match self.part {
            Part::Virtiofsd => process.memory.private(),
            Part::Vmm | Part::Shim | Part::ShimAndVmm => process.memory.resident(),
        };
        self.processes.iter().map(memory).sum()
    }

    /// Processor time since an earlier look, in per cent of one processor, where the processes are the same.
    pub fn cpu_percent_since(&self, before: &Self, elapsed: Duration) -> Option<f64> {
        let same = self.processes.len() == before.processes.len();
        let pairs = self.processes.iter().zip(&before.processes);
        let percents = pairs.map(|(new, old)| new.cpu_percent_since(old, elapsed));
        percents.sum::<Option<f64>>().filter(|_| same)
    }
}

/// Finds the processes around a sandbox, as far as they can be told, and reads what they use.
///
/// `shim_pid` is the one noted in its bundle, `task_pid` the one that its shim gives for its task (`State`): with
/// Kata the VMM's. Notes can be of processes that are gone, with their pids another's by now: a process that is
/// not called as it should be is left out.
pub fn around(machine: Option<&VirtualMachine>, shim_pid: Option<u32>, task_pid: Option<u32>) -> Vec<Around> {
    around_in(Path::new("/proc"), machine, shim_pid, task_pid)
}

fn around_in(
    proc: &Path,
    machine: Option<&VirtualMachine>,
    shim_pid: Option<u32>,
    task_pid: Option<u32>,
) -> Vec<Around> {
    let read = |pid| ProcessUsage::read_in(proc, pid).ok();
    let task = task_pid.filter(|pid| *pid != 0).and_then(read);
    // Not every shim notes its pid; it is the parent of what it starts.
    let shim = shim_pid
        .or(task.as_ref().map(|task| task.parent))
        .and_then(read)
        .filter(|shim| shim.name.contains("shim"));
    let Some(machine) = machine else {
        return shim
            .map(|shim| found(Part::Shim, vec![shim]))
            .into_iter()
            .collect();
    };
    let noted = || machine.vmm_pid.and_then(read).filter(|vmm| is_vmm(&vmm.name));
    let vmm = task.or_else(noted);
    let virtiofsd = virtiofsds(proc, machine, shim.as_ref());
    let virtiofsd = Some(virtiofsd)
        .filter(|all| !all.is_empty())
        .map(|all| found(Part::Virtiofsd, all));
    match (vmm, shim) {
        (Some(vmm), Some(shim)) if vmm.pid == shim.pid => Some(found(Part::ShimAndVmm, vec![shim]))
            .into_iter()
            .chain(virtiofsd)
            .collect(),
        (vmm, shim) => {
            let vmm = vmm.map(|vmm| found(Part::Vmm, vec![vmm]));
            let shim = shim.map(|shim| found(Part::Shim, vec![shim]));
            vmm.into_iter().chain(virtiofsd).chain(shim).collect()
        }
    }
}

fn found(part: Part, processes: Vec<ProcessUsage>) -> Around {
    Around { part, processes }
}

/// The beginnings of hypervisors' names, as the kernel cuts them.
const VMMS: [&str; 6] = [
    "qemu",
    "cloud-hyperviso",
    "firecracker",
    "stratovirt",
    "dragonball",
    "openvmm",
];

fn is_vmm(name: &str) -> bool {
    VMMS.iter().any(|vmm| name.starts_with(vmm))
}

/// The sandbox's virtiofsd: the process that the shim noted, or (the Rust shim notes none) that it started, with
/// the children that do the work for it.
fn virtiofsds(proc: &Path, machine: &VirtualMachine, shim: Option<&ProcessUsage>) -> Vec<ProcessUsage> {
    let read = |pid: u32| {
        let process = ProcessUsage::read_in(proc, pid).ok()?;
        process.name.starts_with("virtiofsd").then_some(process)
    };
    let mut all: Vec<ProcessUsage> = match machine.virtiofsd_pid.and_then(read) {
        Some(noted) => vec![noted],
        None => shim
            .map(|shim| children(proc, shim.pid))
            .unwrap_or_default()
            .into_iter()
            .filter_map(read)
            .collect(),
    };
    let workers: Vec<_> = all
        .iter()
        .flat_map(|process| children(proc, process.pid))
        .filter_map(read)
        .collect();
    all.extend(workers);
    all
}

/// The pids of a process's children; none where the kernel does not say.
fn children(proc: &Path, pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(proc.join(pid.to_string()).join("task")) else {
        return Vec::new();
    };
    threads
        .flatten()
        .take(MAX_CHILDREN)
        .filter_map(|thread| files::read_text(&thread.path().join("children"), CHILDREN_LIMIT).ok())
        .flat_map(|pids| {
            pids.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<u32>>()
        })
        .take(MAX_CHILDREN)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::hypervisor::KataShim;

    /// A `/proc` of processes: pid, name, parent, ticks in user mode, resident kB, shared kB.
    fn proc(processes: &[(u32, &str, u32, u64, u64, u64)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (pid, name, parent, ticks, rss, shared) in processes {
            let task = dir.path().join(format!("{pid}/task/{pid}"));
            fs::create_dir_all(&task).unwrap();
            let write =
                |file: &str, text: String| fs::write(dir.path().join(format!("{pid}/{file}")), text).unwrap();
            write(
                "stat",
                format!(
                    "{pid} ({name}) S {parent} 5 6 7 8 9 10 11 12 13 {ticks} 0 16 17 18 19 20 21 777 23\n"
                ),
            );
            write(
                "status",
                format!("Name:\t{name}\nVmRSS:\t{rss} kB\nRssShmem:\t{shared} kB\n"),
            );
            let children: String = processes
                .iter()
                .filter(|(_, _, of, ..)| of == pid)
                .map(|(child, ..)| format!("{child} "))
                .collect();
            fs::write(task.join("children"), children).unwrap();
        }
        dir
    }

    fn machine(vmm_pid: Option<u32>, virtiofsd_pid: Option<u32>) -> VirtualMachine {
        VirtualMachine {
            shim: KataShim::Go,
            hypervisor: Some("clh".into()),
            vmm_pid,
            virtiofsd_pid,
        }
    }

    fn parts(around: &[Around]) -> Vec<(Part, Vec<u32>)> {
        let pids = |one: &Around| one.processes.iter().map(|process| process.pid).collect();
        around.iter().map(|one| (one.part, pids(one))).collect()
    }

    const KATA: [(u32, &str, u32, u64, u64, u64); 5] = [
        (10, "containerd-shim", 1, 700, 45_000, 0),
        (20, "cloud-hyperviso", 10, 550, 320_000, 100_000),
        (30, "virtiofsd", 10, 0, 3_800, 0),
        (31, "virtiofsd", 30, 200, 90_000, 80_000),
        (40, "nginx", 1, 1, 1, 0),
    ];

    #[test]
    fn finds_the_parts_of_a_kata_sandbox() {
        let proc = proc(&KATA);
        let noted = machine(Some(20), Some(30));
        let around = around_in(proc.path(), Some(&noted), Some(10), Some(20));
        assert_eq!(
            parts(&around),
            [
                (Part::Vmm, vec![20]),
                (Part::Virtiofsd, vec![30, 31]),
                (Part::Shim, vec![10])
            ]
        );
        assert_eq!(around[0].cpu(), Duration::from_millis(5500));
        assert_eq!(
            around[0].memory(),
            Some(320_000 << 10),
            "the guest's memory is the VMM's"
        );
        assert_eq!(around[1].cpu(), Duration::from_secs(2), "the child does the work");
        assert_eq!(
            around[1].memory(),
            Some(13_800 << 10),
            "without the guest's memory"
        );
    }

    #[test]
    fn finds_them_by_their_parents_where_nothing_is_noted() {
        let proc = proc(&KATA);
        let around = around_in(proc.path(), Some(&machine(None, None)), None, Some(20));
        assert_eq!(
            parts(&around),
            [
                (Part::Vmm, vec![20]),
                (Part::Virtiofsd, vec![30, 31]),
                (Part::Shim, vec![10])
            ]
        );
    }

    #[test]
    fn a_note_of_a_process_whose_pid_is_anothers_is_not_believed() {
        let proc = proc(&KATA);
        let stale = machine(Some(40), Some(40));
        assert_eq!(parts(&around_in(proc.path(), Some(&stale), Some(40), None)), []);
        assert_eq!(
            parts(&around_in(
                proc.path(),
                Some(&machine(Some(99), None)),
                Some(99),
                Some(99)
            )),
            []
        );
    }

    #[test]
    fn without_a_virtual_machine_there_is_a_shim_at_most() {
        let proc = proc(&KATA);
        assert_eq!(
            parts(&around_in(proc.path(), None, Some(10), Some(40))),
            [(Part::Shim, vec![10])]
        );
        assert_eq!(parts(&around_in(proc.path(), None, None, Some(40))), []);
    }

    #[test]
    fn a_shim_that_is_the_vmm_counts_once() {
        let proc = proc(&KATA);
        let around = around_in(proc.path(), Some(&machine(None, None)), Some(10), Some(10));
        assert_eq!(
            parts(&around),
            [(Part::ShimAndVmm, vec![10]), (Part::Virtiofsd, vec![30, 31])]
        );
    }

    #[test]
    fn rates_are_of_the_same_processes() {
        let proc = proc(&KATA);
        let look = || around_in(proc.path(), Some(&machine(Some(20), Some(30))), Some(10), None);
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
        let found = children(Path::new("/proc"), std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&child.id()), "{found:?}");
    }
}
