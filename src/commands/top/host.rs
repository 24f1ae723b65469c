//! What the processes around a sandbox use on this machine: its virtual machine monitor, virtiofsd, its shim. Read
//! from `/proc`: neither the shim nor the guest is asked for it.

use std::time::{Duration, Instant, SystemTime};

use kata_runtime::node::hypervisor::{self, VirtualMachine};
use kata_runtime::node::{ProcessUsage, Role};

use super::row::Row;
use super::tree::Key;

/// What this machine knows of the selected container, without asking its shim.
#[derive(Debug, Clone)]
pub struct HostSide {
    /// The container that was selected.
    pub selected: Key,
    /// The sandbox (or plain container) whose processes these are.
    pub key: Key,
    /// The runtime's name. Untrusted text, as is the hypervisor's.
    pub runtime: Option<String>,
    /// The hypervisor's name, where there is one.
    pub hypervisor: Option<String>,
    /// How old the selected container is.
    pub age: Option<Duration>,
    pub parts: Vec<Part>,
    taken: Instant,
}

/// A process, and what it uses.
#[derive(Debug, Clone)]
pub struct Part {
    pub what: What,
    pub usage: ProcessUsage,
    /// Per cent of one processor, where it was looked at before.
    pub cpu: Option<f64>,
    /// Resident memory in bytes. virtiofsd's is without the guest's memory, which it shares with the VMM.
    pub memory: Option<u64>,
}

/// What a process is to its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Vmm,
    Virtiofsd,
    Shim,
    /// One process is both: Kata's built-in Dragonball.
    ShimAndVmm,
}

impl HostSide {
    /// Reads what is around a container, whose sandbox is given where it is in one. Rates are reckoned from an
    /// earlier reading of the same.
    pub fn read(selected: &Row, sandbox: Option<&Row>, before: Option<&Self>) -> Self {
        let subject = subject(selected, sandbox);
        let bundle = &subject.container.bundle;
        let before = before.filter(|before| before.key == bundle.path);
        let machine = hypervisor::virtual_machine(&bundle.id);
        let taken = Instant::now();
        let elapsed = before.map(|before| taken.saturating_duration_since(before.taken));
        let parts = processes(subject, machine.as_ref())
            .into_iter()
            .filter_map(|(what, pid)| {
                let usage = ProcessUsage::read(pid)
                    .ok()
                    .filter(|usage| is_it(what, &usage.name))?;
                let old = before.and_then(|before| before.parts.iter().find(|part| part.what == what));
                Some(Part {
                    what,
                    cpu: old.and_then(|old| usage.cpu_percent_since(&old.usage, elapsed?)),
                    memory: match what {
                        What::Virtiofsd => usage.memory.private(),
                        _ => usage.memory.resident(),
                    },
                    usage,
                })
            })
            .collect();
        let created = selected.container.bundle.created();
        Self {
            selected: selected.container.bundle.path.clone(),
            key: bundle.path.clone(),
            runtime: subject.container.runtime().map(|runtime| runtime.to_string()),
            hypervisor: machine.and_then(|machine| machine.hypervisor),
            age: created.and_then(|created| SystemTime::now().duration_since(created).ok()),
            parts,
            taken,
        }
    }
}

/// The pids around a sandbox. The VMM's is the one that the shim last gave for the sandbox's task, or else the one
/// that it noted. The shim's is noted in the bundle, or it is the parent of the task's first process.
fn processes(row: &Row, machine: Option<&VirtualMachine>) -> Vec<(What, u32)> {
    let answered = row
        .sample
        .as_ref()
        .map(|sample| sample.state.pid)
        .filter(|pid| *pid != 0);
    let vmm = machine.and_then(|machine| answered.or(machine.vmm_pid));
    let virtiofsd = machine.and_then(|machine| machine.virtiofsd_pid);
    let parent = || Some(ProcessUsage::read(answered?).ok()?.parent);
    match (vmm, row.container.bundle.shim_pid().or_else(parent)) {
        (Some(vmm), Some(shim)) if vmm == shim => vec![(What::ShimAndVmm, shim)],
        (vmm, shim) => [(What::Vmm, vmm), (What::Virtiofsd, virtiofsd), (What::Shim, shim)]
            .into_iter()
            .filter_map(|(what, pid)| Some((what, pid?)))
            .collect(),
    }
}

/// Whether a process can be what a note says: the one that it was written about may be gone, and its pid another's.
fn is_it(what: What, name: &str) -> bool {
    match what {
        // What State says is so now; notes of a VMM are of a process that the sandbox ends with.
        What::Vmm => true,
        What::Virtiofsd => name.starts_with("virtiofsd"),
        What::Shim | What::ShimAndVmm => name.contains("shim"),
    }
}

/// Whose processes to show for a container: its sandbox's, or its own where it is in none.
fn subject<'a>(row: &'a Row, sandbox: Option<&'a Row>) -> &'a Row {
    match row.container.role {
        Role::Plain | Role::Sandbox => row,
        Role::InSandbox(_) => sandbox.unwrap_or(row),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::top::fixtures::{pod, row, using};
    use kata_runtime::node::hypervisor::KataShim;

    fn machine(vmm_pid: Option<u32>) -> VirtualMachine {
        VirtualMachine {
            shim: KataShim::Go,
            hypervisor: Some("clh".into()),
            vmm_pid,
            virtiofsd_pid: Some(7751),
        }
    }

    #[test]
    fn the_vmm_is_what_state_says_or_else_what_was_noted() {
        let asked = using(pod("p", "shop", "web"), 1.0, 1);
        assert_eq!(
            processes(&asked, Some(&machine(Some(7752)))),
            [(What::Vmm, 4321), (What::Virtiofsd, 7751)]
        );
        let silent = pod("p", "shop", "web");
        assert_eq!(
            processes(&silent, Some(&machine(Some(7752)))),
            [(What::Vmm, 7752), (What::Virtiofsd, 7751)]
        );
        assert_eq!(
            processes(&silent, Some(&machine(None))),
            [(What::Virtiofsd, 7751)]
        );
        assert_eq!(processes(&asked, None), [], "runc's pid is no VMM");
    }

    #[test]
    fn a_pid_that_is_anothers_by_now_is_not_shown() {
        assert!(is_it(What::Shim, "containerd-shim") && !is_it(What::Shim, "nginx"));
        assert!(is_it(What::Virtiofsd, "virtiofsd") && !is_it(What::Virtiofsd, "sshd"));
    }

    #[test]
    fn a_container_of_a_pod_leads_to_its_sandboxs_processes() {
        let (sandbox, member, plain) = (pod("p", "shop", "web"), row("m", Some("p")), row("c", None));
        let id = |row: &Row| row.container.bundle.id.clone();
        assert_eq!(id(subject(&member, Some(&sandbox))), "p");
        assert_eq!(id(subject(&sandbox, Some(&sandbox))), "p");
        assert_eq!(id(subject(&plain, None)), "c");
    }
}
