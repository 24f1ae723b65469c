//! What the virtual machine of a sandbox uses of this host, beyond what its processes use as wholes: by thread, by kind
//! of memory, by disk and by network.

use super::cgroup::{CgroupReader, SandboxCgroup};
use super::host::{HostProcesses, Part, ProcessFinder};
use super::io::ProcessIo;
use super::links::HostLinks;
use super::memory::SandboxMemory;
use super::threads::{ThreadReader, Threads};
use crate::node::cgroup::CgroupMounts;
use crate::node::hypervisor::{MachineNotes, VirtualMachine};
use crate::node::proc_fs::Roots;

/// What a virtual machine of this host uses of it, read at one moment. What cannot be read is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmUsage {
    /// The threads of the VMM and of vhost.
    pub threads: Option<Threads>,
    /// From `/proc/<pid>/status`: see [`SandboxMemory::of`] for when the guest's is not known.
    pub memory: SandboxMemory,
    /// What the kernel counts for the cgroups that the shim made.
    pub cgroup: Option<SandboxCgroup>,
    /// Of virtiofsd and of the VMM, where it can be read.
    pub disk: Vec<(Part, ProcessIo)>,
    /// The host's side of the guest's network.
    pub links: Option<HostLinks>,
}

/// What of a machine is wanted. Its memory is always read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VmParts {
    /// [`VmUsage::threads`].
    pub threads: bool,
    /// [`VmUsage::cgroup`].
    pub cgroup: bool,
    /// [`VmUsage::disk`].
    pub disk: bool,
    /// [`VmUsage::links`].
    pub links: bool,
}

impl VmParts {
    /// All there is.
    pub const ALL: Self = Self {
        threads: true,
        cgroup: true,
        disk: true,
        links: true,
    };

    /// What is in both.
    pub fn and(self, other: Self) -> Self {
        Self {
            threads: self.threads && other.threads,
            cgroup: self.cgroup && other.cgroup,
            disk: self.disk && other.disk,
            links: self.links && other.links,
        }
    }

    /// Whether all that the other has is in this.
    pub fn has_all(self, other: Self) -> bool {
        self.and(other) == other
    }
}

impl VmUsage {
    /// Reads what the machine uses whose processes these are, once: see [`SandboxReader::usage`].
    pub fn read(
        machine: &VirtualMachine,
        processes: &[HostProcesses],
        task_pid: Option<u32>,
        mounts: Option<&CgroupMounts>,
    ) -> Option<Self> {
        SandboxReader::default().usage(machine, processes, task_pid, mounts, VmParts::ALL)
    }
}

/// Reads one sandbox time and again, for less than the first time: its shim's notes when they have changed, which
/// processes and threads there are once a minute, and their figures every time.
#[derive(Debug, Default)]
pub struct SandboxReader {
    notes: MachineNotes,
    processes: ProcessFinder,
    threads: ThreadReader,
    cgroup: CgroupReader,
}

impl SandboxReader {
    /// What its shim has noted: see [`virtual_machine`](crate::node::hypervisor::virtual_machine). `None` also where it
    /// cannot be read.
    pub fn machine(&mut self, id: &str) -> Option<VirtualMachine> {
        self.notes.read(id).ok().flatten()
    }

    /// What its processes use: see [`host_processes`](super::host_processes). The machine is that of
    /// [`machine`](Self::machine), as it was noted.
    pub fn processes(
        &mut self,
        machine: &VirtualMachine,
        shim_pid: Option<u32>,
        task_pid: Option<u32>,
    ) -> Vec<HostProcesses> {
        let mounts = CgroupMounts::host().ok();
        self.processes
            .find(Roots::host(), mounts, machine, shim_pid, task_pid)
    }

    /// What the machine uses whose processes these are. `None` where there is no VMM on this host.
    ///
    /// The machine's `kind` should be that of
    /// [`MachineKind::with_command_line_of`](crate::node::MachineKind::with_command_line_of).
    pub fn usage(
        &mut self,
        machine: &VirtualMachine,
        processes: &[HostProcesses],
        task_pid: Option<u32>,
        mounts: Option<&CgroupMounts>,
        wanted: VmParts,
    ) -> Option<VmUsage> {
        let vmm = vmm(processes).filter(|_| machine.kind.is_local())?;
        let vmm_pid = vmm.processes.first()?.pid;
        let has_disk = |part| matches!(part, Part::Vmm | Part::ShimAndVmm | Part::Virtiofsd);
        let disk = processes
            .iter()
            .filter(|part| wanted.disk && has_disk(part.part))
            .filter_map(|part| Some((part.part, part.io()?)));
        let disk = disk.collect();
        let mut threads = || self.threads.read(Roots::host(), processes);
        let mut cgroup = |mounts| self.cgroup.read(mounts, &machine.cgroups).ok()?;
        Some(VmUsage {
            threads: if wanted.threads { threads() } else { None },
            memory: SandboxMemory::of(processes, machine.kind),
            cgroup: mounts.filter(|_| wanted.cgroup).and_then(&mut cgroup),
            disk,
            links: match wanted.links {
                true => HostLinks::read(task_pid.filter(|pid| *pid != 0).unwrap_or(vmm_pid)),
                false => None,
            },
        })
    }
}

/// The process that is the VMM, among a sandbox's.
pub fn vmm(processes: &[HostProcesses]) -> Option<&HostProcesses> {
    processes
        .iter()
        .find(|part| matches!(part.part, Part::Vmm | Part::ShimAndVmm))
}
