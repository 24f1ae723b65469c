//! What sandboxes' virtual machines use of this host, from scrape to scrape.

mod families;
mod mappings;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use promtext::{Page, PageReader, Relabel};
use shimstat::node::cgroup::CgroupMounts;
use shimstat::node::hypervisor;
use shimstat::node::processes::{CpuOverhead, ResourceUse, RoleTimes, VmUsage, overhead, vmm};
use shimstat::node::{MachineKind, Pod, host_processes};

use self::families::VmRow;
pub use self::families::describe;
use self::mappings::{Mappings, ProcessKey};

/// What each container of a pod uses, by its id.
pub type Uses = Vec<(String, ResourceUse)>;

/// Watches virtual machines: what is counted from one look to the next is kept here.
#[derive(Default)]
pub struct Vms {
    /// By the key of the pod.
    known: Mutex<HashMap<PathBuf, Known>>,
    mappings: Arc<Mappings>,
}

/// What is known of a machine since an earlier look.
struct Known {
    vmm: ProcessKey,
    /// The pid that its shim gave for its task.
    task_pid: Option<u32>,
    kind: MachineKind,
    roles: RoleTimes,
    overhead: CpuOverhead,
}

impl Vms {
    /// Looks at the virtual machine of a pod; `None` where it has none on this host. Nobody is asked, so this works
    /// with a guest that hangs.
    ///
    /// `task_pid` is that of the sandbox's task where its shim has just told it. `uses` is what all of the pod's
    /// containers use; `None` where one of them is not known.
    pub fn look(
        &self,
        pod: &Pod,
        task_pid: Option<u32>,
        uses: Option<&Uses>,
        labels: Relabel,
        reader: &PageReader,
    ) -> Option<Result<Page, promtext::Error>> {
        // A shim that notes a virtual machine has a monitor as well. Most containers are runc's.
        if pod.monitor.is_empty() {
            return None;
        }
        let mut machine = hypervisor::virtual_machine(&pod.id)?;
        let before = self.known().remove(&pod.key);
        let task_pid = task_pid.filter(|pid| *pid != 0);
        let shim_pid = pod.main().and_then(|main| main.shim_pid());
        let remembered = before.as_ref().and_then(|known| known.task_pid);
        let processes = host_processes(Some(&machine), shim_pid, task_pid.or(remembered));
        let process = vmm(&processes)?.processes.first()?;
        let vmm = (process.pid, process.started);
        let same = before.filter(|known| known.vmm == vmm);
        if same.is_none() && task_pid.is_none() && remembered.is_some() {
            // The task that is remembered is gone, and its pid may be another's.
            return None;
        }
        let mut known = same.unwrap_or_else(|| Known {
            vmm,
            task_pid: None,
            kind: machine.kind.with_command_line_of(Some(vmm.0)),
            roles: RoleTimes::default(),
            overhead: CpuOverhead::default(),
        });
        known.task_pid = task_pid.or(known.task_pid);
        machine.kind = known.kind;
        let usage = VmUsage::read(&machine, &processes, known.task_pid, CgroupMounts::host().ok())?;
        let mapped = match usage.memory.guest {
            None if machine.kind.shows_memory() => self.mappings.get(vmm, &processes, machine.kind),
            _ => None,
        };
        let memory = match &mapped {
            Some((memory, age)) => (memory, *age),
            None => (&usage.memory, Duration::ZERO),
        };
        let (overhead_cpu, overhead_memory) = match uses {
            None => (None, None),
            Some(uses) => {
                let each = uses.iter().map(|(id, used)| (id.as_str(), used.cpu));
                let all: Vec<_> = uses.iter().map(|(_, used)| *used).collect();
                (
                    known.overhead.count(&processes, &machine, each),
                    overhead(&processes, &machine, &all).memory,
                )
            }
        };
        let handler = pod.first().and_then(|first| first.description().ok());
        let text = families::text(&VmRow {
            handler: handler.and_then(|description| description.handler.as_deref()),
            machine: &machine,
            processes: &processes,
            usage: &usage,
            memory,
            roles: usage.threads.as_ref().map(|threads| known.roles.count(threads)),
            overhead_cpu,
            overhead_memory,
        });
        self.known().insert(pod.key.clone(), known);
        Some(reader.read(text, labels))
    }

    /// Forgets the machines of pods that are gone.
    pub fn keep<'a>(&self, pods: impl IntoIterator<Item = &'a Path>) {
        let mut known = self.known();
        if known.is_empty() {
            return;
        }
        let here: HashSet<&Path> = pods.into_iter().collect();
        known.retain(|key, _| here.contains(key.as_path()));
        let vmms: HashSet<ProcessKey> = known.values().map(|known| known.vmm).collect();
        drop(known);
        self.mappings.keep(|vmm| vmms.contains(&vmm));
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PathBuf, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
