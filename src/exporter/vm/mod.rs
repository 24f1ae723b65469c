//! What sandboxes' virtual machines use of this host, from scrape to scrape.

mod families;
mod mappings;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use promtext::{Page, PageReader, Relabel};
use shimstat::node::cgroup::CgroupMounts;
use shimstat::node::processes::{CpuOverhead, ResourceUse, RoleTimes, SandboxReader, VmParts, overhead, vmm};
use shimstat::node::{MachineKind, Pod};

use self::families::VmRow;
pub use self::families::describe;
use self::mappings::{Mappings, ProcessKey};

/// What each container of a pod uses, by its id.
pub type Uses = Vec<(String, ResourceUse)>;

/// Watches virtual machines: what is counted from one look to the next is kept here.
#[derive(Default)]
pub struct Vms {
    /// By the key of the pod.
    watched: Mutex<HashMap<PathBuf, Watched>>,
    mappings: Arc<Mappings>,
}

/// A sandbox that was looked at before.
#[derive(Default)]
struct Watched {
    reader: SandboxReader,
    known: Option<Known>,
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

/// What a look at a pod's machine takes.
pub struct VmRequest<'a> {
    pub pod: &'a Pod,
    /// Of the sandbox's task, where its shim has just told it.
    pub task_pid: Option<u32>,
    /// What all of the pod's containers use; `None` where one of them is not known.
    pub uses: Option<&'a Uses>,
    pub wanted: VmParts,
}

impl Vms {
    /// Looks at the virtual machine of a pod; `None` where it has none on this host. Nobody is asked, so this works
    /// with a guest that hangs.
    pub fn look(
        &self,
        request: &VmRequest<'_>,
        labels: Relabel,
        reader: &PageReader,
    ) -> Option<Result<Page, promtext::Error>> {
        // A shim that notes a virtual machine has a monitor as well. Most containers are runc's.
        if request.pod.monitor.is_empty() {
            return None;
        }
        let mut watched = self.watched().remove(&request.pod.key).unwrap_or_default();
        let text = watched.look(request, &self.mappings);
        // One without a machine costs a lookup of its notes each time, and nothing is remembered of it.
        if watched.known.is_some() {
            self.watched().insert(request.pod.key.clone(), watched);
        }
        Some(reader.read(text?, labels))
    }

    /// Forgets the machines of pods that are gone.
    pub fn keep<'a>(&self, pods: impl IntoIterator<Item = &'a Path>) {
        let mut watched = self.watched();
        if watched.is_empty() {
            return;
        }
        let here: HashSet<&Path> = pods.into_iter().collect();
        watched.retain(|key, _| here.contains(key.as_path()));
        let vmms = watched
            .values()
            .filter_map(|watched| Some(watched.known.as_ref()?.vmm));
        let vmms: HashSet<ProcessKey> = vmms.collect();
        drop(watched);
        self.mappings.keep(|vmm| vmms.contains(&vmm));
    }

    fn watched(&self) -> MutexGuard<'_, HashMap<PathBuf, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    /// The samples of the pod's machine; `None` where it has none, or its shim's notes cannot be read just now.
    fn look(&mut self, request: &VmRequest<'_>, mappings: &Arc<Mappings>) -> Option<Vec<u8>> {
        let mut machine = self.reader.machine(&request.pod.id)?;
        let before = self.known.take();
        let task_pid = request.task_pid.filter(|pid| *pid != 0);
        let shim_pid = request.pod.main().and_then(|main| main.shim_pid());
        let remembered = before.as_ref().and_then(|known| known.task_pid);
        let processes = self.reader.processes(&machine, shim_pid, task_pid.or(remembered));
        let process = vmm(&processes)?.processes.first()?;
        let vmm = (process.pid, process.started);
        let same = before.filter(|known| known.vmm == vmm);
        if same.is_none() && task_pid.is_none() && remembered.is_some() {
            // The task that is remembered is gone, and its pid may be another's.
            return None;
        }
        let known = self.known.insert(same.unwrap_or_else(|| Known {
            vmm,
            task_pid: None,
            kind: machine.kind.with_command_line_of(Some(vmm.0)),
            roles: RoleTimes::default(),
            overhead: CpuOverhead::default(),
        }));
        known.task_pid = task_pid.or(known.task_pid);
        machine.kind = known.kind;
        let mounts = CgroupMounts::host().ok();
        let usage = self
            .reader
            .usage(&machine, &processes, known.task_pid, mounts, request.wanted)?;
        let mapped = match usage.memory.guest {
            None if machine.kind.shows_memory() => mappings.get(vmm, &processes, machine.kind),
            _ => None,
        };
        let memory = match &mapped {
            Some((memory, age)) => (memory, *age),
            None => (&usage.memory, Duration::ZERO),
        };
        let (overhead_cpu, overhead_memory) = match request.uses {
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
        let handler = request.pod.first().and_then(|first| first.description().ok());
        Some(families::text(&VmRow {
            handler: handler.and_then(|description| description.handler.as_deref()),
            machine: &machine,
            processes: &processes,
            usage: &usage,
            memory,
            roles: usage.threads.as_ref().map(|threads| known.roles.count(threads)),
            overhead_cpu,
            overhead_memory,
        }))
    }
}
