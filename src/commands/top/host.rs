//! What this host knows about the selected line, without asking a shim.

use std::time::{Duration, Instant, SystemTime};

use shimstat::node::processes::{Thread, ThreadRole, VmUsage, overhead, vmm};
use shimstat::node::{HostProcesses, host_processes, hypervisor};

use super::tree::{Line, RowKey, Tree};
use crate::show::fields;

/// The processes of a sandbox on this host, and what the bundle's files say.
#[derive(Debug, Clone)]
pub struct HostSide {
    /// The line that was selected.
    pub selected: RowKey,
    /// The pod whose processes these are.
    pod: RowKey,
    /// The runtime's name. Untrusted text, as is the hypervisor's.
    pub runtime: Option<String>,
    /// How old the selected container is.
    pub age: Option<Duration>,
    /// Each with its percentage of one processor, if it has been read before.
    pub parts: Vec<(HostProcesses, Option<f64>)>,
    /// Whether its virtual machine is on another host.
    pub is_elsewhere: bool,
    /// What the virtual machine uses, where there is one on this host.
    pub vm: Option<VmSide>,
    taken: Instant,
}

/// A virtual machine, as this host sees it.
#[derive(Debug, Clone)]
pub struct VmSide {
    pub usage: VmUsage,
    /// Whether the guest's memory is among the VMM's.
    pub shows_memory: bool,
    /// How long its virtual processors waited for one of this host's, in per cent of one.
    pub waiting: Option<f64>,
    /// What the sandbox costs beyond its containers: per cent of one processor, and bytes.
    pub overhead: (Option<f64>, Option<u64>),
}

impl HostSide {
    /// Reads the processes of the line's pod, or of its container if that is in no pod. Percentages are since an earlier
    /// reading of the same.
    pub fn read(tree: &Tree, line: &Line, before: Option<&Self>) -> Option<Self> {
        let group = tree.group(line)?;
        let before = before.filter(|before| before.pod == group.key);
        let main = group.main()?;
        let mut machine = hypervisor::virtual_machine(&group.id).ok().flatten();
        let task_pid = main.sample.as_ref().map(|sample| sample.state.pid);
        let taken = Instant::now();
        let processes = host_processes(machine.as_ref(), main.container.shim_pid(), task_pid);
        let parts: Vec<_> = processes
            .iter()
            .map(|new| {
                let cpu = before.and_then(|before| {
                    let (old, _) = before.parts.iter().find(|(old, _)| old.part == new.part)?;
                    new.cpu_percent_since(old, taken.saturating_duration_since(before.taken))
                });
                (new.clone(), cpu)
            })
            .collect();
        let vmm_pid = vmm(&processes).and_then(|part| Some(part.processes.first()?.pid));
        let vm = machine.as_mut().zip(vmm_pid).and_then(|(machine, vmm_pid)| {
            machine.kind = machine.kind.with_command_line_of(Some(vmm_pid));
            let usage = VmUsage::read(machine, &processes, task_pid, None)?;
            let waiting = before.and_then(|before| {
                let elapsed = taken.saturating_duration_since(before.taken);
                let (old, new) = (
                    before.vm.as_ref()?.usage.threads.as_ref()?,
                    usage.threads.as_ref()?,
                );
                let is_vcpu = |thread: &Thread| matches!(thread.role, ThreadRole::Vcpu(_));
                new.share_since(old, elapsed, is_vcpu)?.wait
            });
            let cpu = parts.iter().map(|(_, cpu)| *cpu).sum::<Option<f64>>();
            let uses: Vec<_> = group.uses();
            Some(VmSide {
                usage,
                shows_memory: machine.kind.shows_memory(),
                waiting,
                overhead: (
                    // They are read one after the other.
                    cpu.zip(group.number(&fields::CPU))
                        .map(|(all, used)| (all - used).max(0.0)),
                    overhead(&processes, machine, &uses).memory,
                ),
            })
        });
        let created = tree.row(line).and_then(|row| row.container.bundle.created().ok());
        Some(Self {
            selected: tree.key(line)?.clone(),
            pod: group.key.clone(),
            runtime: main.container.runtime().map(|runtime| runtime.to_string()),
            age: created.and_then(|created| SystemTime::now().duration_since(created).ok()),
            parts,
            is_elsewhere: machine.is_some_and(|machine| !machine.kind.is_local()),
            vm,
            taken,
        })
    }
}
