//! What the virtual machine of a sandbox uses of this host, beyond what its processes use as wholes: by thread, by kind
//! of memory, by disk and by network.

use super::cgroup::SandboxCgroup;
use super::host::{HostProcesses, Part};
use super::io::ProcessIo;
use super::links::HostLinks;
use super::memory::SandboxMemory;
use super::threads::Threads;
use crate::node::cgroup::CgroupMounts;
use crate::node::hypervisor::VirtualMachine;

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

impl VmUsage {
    /// Reads what the machine uses whose processes these are: 0.1 ms, 15 µs for each thread of the VMM, and 0.2 ms for
    /// each cgroup. `None` where there is no VMM on this host.
    ///
    /// The machine's `kind` should be that of
    /// [`MachineKind::with_command_line_of`](crate::node::MachineKind::with_command_line_of).
    pub fn read(
        machine: &VirtualMachine,
        processes: &[HostProcesses],
        task_pid: Option<u32>,
        mounts: Option<&CgroupMounts>,
    ) -> Option<Self> {
        let vmm = vmm(processes).filter(|_| machine.kind.is_local())?;
        let vmm_pid = vmm.processes.first()?.pid;
        let served = [Part::Vmm, Part::ShimAndVmm, Part::Virtiofsd];
        let disk = processes
            .iter()
            .filter(|part| served.contains(&part.part))
            .filter_map(|part| Some((part.part, part.io()?)));
        Some(Self {
            threads: Threads::read(processes),
            memory: SandboxMemory::of(processes, machine.kind),
            cgroup: mounts.and_then(|mounts| SandboxCgroup::read(mounts, &machine.cgroups).ok()?),
            disk: disk.collect(),
            links: HostLinks::read(task_pid.filter(|pid| *pid != 0).unwrap_or(vmm_pid)),
        })
    }
}

/// The process that is the VMM, among a sandbox's.
pub fn vmm(processes: &[HostProcesses]) -> Option<&HostProcesses> {
    processes
        .iter()
        .find(|part| matches!(part.part, Part::Vmm | Part::ShimAndVmm))
}
