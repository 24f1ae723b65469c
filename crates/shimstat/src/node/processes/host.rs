//! Finding the processes of a sandbox.

use std::fs;
use std::time::{Duration, Instant};

use super::refresh::Refresh;
use super::usage::ProcessUsage;
use crate::node::cgroup::CgroupMounts;
use crate::node::files;
use crate::node::hypervisor::VirtualMachine;
use crate::node::proc_fs::{Roots, Stat};

/// A line of children has at most 8 bytes for each.
const CHILDREN_LIMIT: u64 = 64 << 10;

/// How many threads' and processes' children are looked for. A shim has some ten threads.
const MAX_CHILDREN: usize = 256;

/// The members of a cgroup have at most 8 bytes each.
const MEMBERS_LIMIT: u64 = 64 << 10;

/// How many members of a sandbox's cgroup are looked at. It has some ten.
const MAX_MEMBERS: usize = 256;

/// What a process is to its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The virtual machine monitor. The guest's memory and processors are its own.
    Vmm,
    /// Kernel threads that move the VMM's network and socket packets. From Linux 6.4 on they are threads of the
    /// VMM instead, unless the machine is set up otherwise.
    Vhost,
    /// Shares files of the host with the guest.
    Virtiofsd,
    /// containerd's shim, which runs the sandbox.
    Shim,
    /// One process is both: Kata's built-in Dragonball.
    ShimAndVmm,
}

/// The processes that are one part of a sandbox, and what they use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostProcesses {
    /// What they do for the sandbox.
    pub part: Part,
    /// virtiofsd can be two: the one that the shim started waits, and its child does the work.
    pub processes: Vec<ProcessUsage>,
}

impl HostProcesses {
    /// Processor time of all the processes, in user mode and in the kernel.
    pub fn cpu(&self) -> Duration {
        self.processes.iter().map(|process| process.cpu).sum()
    }

    /// Resident memory in bytes. Of virtiofsd without what it shares with others: that is the guest's memory,
    /// and counted with the VMM's.
    pub fn memory(&self) -> Option<u64> {
        let memory = |process: &ProcessUsage| match self.part {
            Part::Virtiofsd => process.memory.private(),
            Part::Vmm | Part::Vhost | Part::Shim | Part::ShimAndVmm => process.memory.resident(),
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

/// Finds the processes of a sandbox, as far as they are known, and reads what they use: the VMM first.
///
/// `shim_pid` is the one noted in the sandbox's bundle, `task_pid` the one that its shim gives for its task (`State`):
/// with Kata the VMM's. Notes can be of processes that are gone, with their pids another's by now: a process that is
/// of another name is left out. A machine that is not on this host has only its shim here.
pub fn host_processes(
    machine: Option<&VirtualMachine>,
    shim_pid: Option<u32>,
    task_pid: Option<u32>,
) -> Vec<HostProcesses> {
    let mounts = machine.and_then(|_| CgroupMounts::host().ok());
    find(Roots::host(), mounts, machine, shim_pid, task_pid)
}

/// Finds the processes of one sandbox time and again. Which they are is remembered, for a minute at most; what each uses is
/// read every time. Where one of them has ended, or its pid is another's by now, all are looked for again.
#[derive(Debug, Default)]
pub(super) struct ProcessFinder {
    known: Option<KnownProcesses>,
}

#[derive(Debug)]
struct KnownProcesses {
    sought: Sought,
    found: Vec<HostProcesses>,
    refresh: Refresh,
}

/// What the search starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sought {
    machine: VirtualMachine,
    shim_pid: Option<u32>,
    task_pid: Option<u32>,
}

impl ProcessFinder {
    pub fn find(
        &mut self,
        roots: Roots<'_>,
        mounts: Option<&CgroupMounts>,
        machine: &VirtualMachine,
        shim_pid: Option<u32>,
        task_pid: Option<u32>,
    ) -> Vec<HostProcesses> {
        let now = Instant::now();
        let is_sought = |sought: &Sought| {
            (sought.shim_pid, sought.task_pid) == (shim_pid, task_pid) && sought.machine == *machine
        };
        let known = self.known.take().filter(|known| is_sought(&known.sought));
        let same = |known: &KnownProcesses| {
            let is_fresh = !known.found.is_empty() && !known.refresh.is_due(now);
            is_fresh.then(|| again(roots, &known.found)).flatten()
        };
        if let Some(found) = known.as_ref().and_then(same) {
            self.known = known;
            return found;
        }
        let found = find(roots, mounts, Some(machine), shim_pid, task_pid);
        let keys = |found: &[HostProcesses]| -> Vec<_> {
            let each = found.iter().flat_map(|part| &part.processes);
            each.map(|process| (process.pid, process.started)).collect()
        };
        let refresh = match &known {
            Some(known) if keys(&known.found) == keys(&found) => known.refresh.again(now),
            _ => Refresh::new(now),
        };
        self.known = Some(KnownProcesses {
            sought: Sought {
                machine: machine.clone(),
                shim_pid,
                task_pid,
            },
            found: found.clone(),
            refresh,
        });
        found
    }
}

/// What the same processes use now; `None` where one of them is another or gone.
fn again(roots: Roots<'_>, known: &[HostProcesses]) -> Option<Vec<HostProcesses>> {
    let same = |known: &ProcessUsage| {
        let now = ProcessUsage::read_in(roots, known.pid).ok()?;
        (now.pid == known.pid && now.started == known.started && now.name == known.name).then_some(now)
    };
    let parts = known.iter().map(|part| {
        let processes = part.processes.iter().map(same).collect::<Option<_>>()?;
        Some(HostProcesses {
            part: part.part,
            processes,
        })
    });
    parts.collect()
}

fn find(
    roots: Roots<'_>,
    mounts: Option<&CgroupMounts>,
    machine: Option<&VirtualMachine>,
    shim_pid: Option<u32>,
    task_pid: Option<u32>,
) -> Vec<HostProcesses> {
    let read = |pid| ProcessUsage::read_in(roots, pid).ok();
    let is_shim = |process: &ProcessUsage| process.name.contains("shim");
    let task = task_pid.filter(|pid| *pid != 0).and_then(read);
    // Not every shim notes its pid. It is the parent of what it starts, or its own task: Dragonball runs in it,
    // and for a machine that is elsewhere it reports itself.
    let shim = match (shim_pid, &task) {
        (Some(pid), _) => read(pid),
        (None, Some(task)) if is_shim(task) => Some(task.clone()),
        (None, Some(task)) => read(task.parent),
        (None, None) => None,
    }
    .filter(is_shim);
    let found = |part, processes: Vec<ProcessUsage>| {
        (!processes.is_empty()).then_some(HostProcesses { part, processes })
    };
    let Some(machine) = machine.filter(|machine| machine.kind.is_local()) else {
        return found(Part::Shim, shim.into_iter().collect())
            .into_iter()
            .collect();
    };
    let noted = || machine.vmm_pid.and_then(read).filter(|vmm| is_vmm(&vmm.name));
    let vmm = task.or_else(noted);
    let vhost = vmm
        .as_ref()
        .map(|vmm| vhost_workers(roots, mounts, vmm.pid))
        .unwrap_or_default();
    let virtiofsd = virtiofsds(roots, machine, shim.as_ref());
    let one = |process: Option<ProcessUsage>| process.into_iter().collect();
    let (first, last) = match (vmm, shim) {
        (Some(vmm), Some(shim)) if vmm.pid == shim.pid => (found(Part::ShimAndVmm, vec![shim]), None),
        (vmm, shim) => (found(Part::Vmm, one(vmm)), found(Part::Shim, one(shim))),
    };
    [
        first,
        found(Part::Vhost, vhost),
        found(Part::Virtiofsd, virtiofsd),
        last,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// How hypervisors' names begin, as the kernel cuts them.
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
fn virtiofsds(roots: Roots<'_>, machine: &VirtualMachine, shim: Option<&ProcessUsage>) -> Vec<ProcessUsage> {
    let read = |pid: u32| {
        let process = ProcessUsage::read_in(roots, pid).ok()?;
        process.name.starts_with("virtiofsd").then_some(process)
    };
    let mut all: Vec<ProcessUsage> = match machine.virtiofsd_pid.and_then(read) {
        Some(noted) => vec![noted],
        None => shim
            .map(|shim| children(roots, shim.pid))
            .unwrap_or_default()
            .into_iter()
            .filter_map(read)
            .collect(),
    };
    let workers: Vec<_> = all
        .iter()
        .flat_map(|process| children(roots, process.pid))
        .filter_map(read)
        .collect();
    all.extend(workers);
    all
}

/// The kernel threads that vhost runs for a VMM. They are called after it, and are in its cgroup (Linux before 6.4,
/// drivers/vhost/vhost.c: `kthread_create(vhost_worker, worker, "vhost-%d", current->pid)`).
fn vhost_workers(roots: Roots<'_>, mounts: Option<&CgroupMounts>, vmm: u32) -> Vec<ProcessUsage> {
    let directory = mounts.and_then(|mounts| mounts.memory_directory(vmm));
    let members = directory.map(|directory| files::read_text(&directory.join("cgroup.procs"), MEMBERS_LIMIT));
    let Some(Ok(members)) = members else {
        return Vec::new();
    };
    let name = format!("vhost-{vmm}");
    // Most members are something else: a name alone costs a third of all that a process uses.
    let is_called_so = |pid: &u32| {
        let stat = roots.parse(*pid, "stat", Stat::parse);
        stat.is_ok_and(|stat| stat.name == name)
    };
    members
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .filter(|pid| *pid != vmm)
        .take(MAX_MEMBERS)
        .filter(is_called_so)
        .filter_map(|pid| ProcessUsage::read_in(roots, pid).ok())
        .filter(|process| process.name == name)
        .collect()
}

/// The pids of a process's children; none where the kernel does not say.
fn children(roots: Roots<'_>, pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(roots.path(pid, "task")) else {
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
mod tests;
