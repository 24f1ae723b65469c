//! What this host knows about the selected line, without asking a shim.

use std::time::{Duration, Instant, SystemTime};

use shimstat::node::{HostProcesses, host_processes, hypervisor};

use super::tree::{Key, Line, Tree};

/// The processes of a sandbox on this host, and what the bundle's files say.
#[derive(Debug, Clone)]
pub struct HostSide {
    /// The line that was selected.
    pub selected: Key,
    /// The pod whose processes these are.
    pod: Key,
    /// The runtime's name. Untrusted text, as is the hypervisor's.
    pub runtime: Option<String>,
    /// How old the selected container is.
    pub age: Option<Duration>,
    /// Each with its percentage of one processor, if it has been read before.
    pub parts: Vec<(HostProcesses, Option<f64>)>,
    taken: Instant,
}

impl HostSide {
    /// Reads the processes of the line's pod, or of its container if that is in no pod. Percentages are since an earlier
    /// reading of the same.
    pub fn read(tree: &Tree, line: &Line, before: Option<&Self>) -> Option<Self> {
        let group = tree.group(line)?;
        let before = before.filter(|before| before.pod == group.key);
        let main = group.main()?;
        let machine = hypervisor::virtual_machine(&group.id);
        let task_pid = main.sample.as_ref().map(|sample| sample.state.pid);
        let taken = Instant::now();
        let parts = host_processes(machine.as_ref(), main.container.shim_pid(), task_pid)
            .into_iter()
            .map(|new| {
                let cpu = before.and_then(|before| {
                    let (old, _) = before.parts.iter().find(|(old, _)| old.part == new.part)?;
                    new.cpu_percent_since(old, taken.saturating_duration_since(before.taken))
                });
                (new, cpu)
            })
            .collect();
        let created = tree.row(line).and_then(|row| row.container.bundle.created());
        Some(Self {
            selected: tree.key(line)?.clone(),
            pod: group.key.clone(),
            runtime: main.container.runtime().map(|runtime| runtime.to_string()),
            age: created.and_then(|created| SystemTime::now().duration_since(created).ok()),
            parts,
            taken,
        })
    }
}
