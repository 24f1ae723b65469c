//! What this machine knows of the selected container, without asking its shim.

use std::time::{Duration, Instant, SystemTime};

use shimstat::node::{HostProcesses, Role, host_processes, hypervisor};

use super::row::Row;
use super::tree::Key;

/// The host processes of the selected container, and what its files say.
#[derive(Debug, Clone)]
pub struct HostSide {
    /// The container that was selected.
    pub selected: Key,
    /// The sandbox (or plain container) whose processes these are.
    key: Key,
    /// The runtime's name. Untrusted text, as is the hypervisor's.
    pub runtime: Option<String>,
    /// How old the selected container is.
    pub age: Option<Duration>,
    /// Each with its per cent of one processor, where it was looked at before.
    pub parts: Vec<(HostProcesses, Option<f64>)>,
    taken: Instant,
}

impl HostSide {
    /// Reads the processes of a container, or of its sandbox where it is in one. Rates are against an earlier
    /// reading of the same.
    pub fn read(selected: &Row, sandbox: Option<&Row>, before: Option<&Self>) -> Self {
        let subject = subject(selected, sandbox);
        let bundle = &subject.container.bundle;
        let before = before.filter(|before| before.key == bundle.path);
        let machine = hypervisor::virtual_machine(&bundle.id);
        let task_pid = subject.sample.as_ref().map(|sample| sample.state.pid);
        let taken = Instant::now();
        let parts = host_processes(machine.as_ref(), bundle.shim_pid(), task_pid)
            .into_iter()
            .map(|new| {
                let cpu = before.and_then(|before| {
                    let (old, _) = before.parts.iter().find(|(old, _)| old.part == new.part)?;
                    new.cpu_percent_since(old, taken.saturating_duration_since(before.taken))
                });
                (new, cpu)
            })
            .collect();
        let created = selected.container.bundle.created();
        Self {
            selected: selected.container.bundle.path.clone(),
            key: bundle.path.clone(),
            runtime: subject.container.runtime().map(|runtime| runtime.to_string()),
            age: created.and_then(|created| SystemTime::now().duration_since(created).ok()),
            parts,
            taken,
        }
    }
}

/// Whose processes to show for a container: its sandbox's, or its own where it is in none.
fn subject<'a>(row: &'a Row, sandbox: Option<&'a Row>) -> &'a Row {
    match row.container.role() {
        Role::Plain | Role::Sandbox => row,
        Role::InSandbox(_) => sandbox.unwrap_or(row),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::top::fixtures::{pod, row};

    #[test]
    fn a_container_of_a_pod_leads_to_its_sandboxs_processes() {
        let (sandbox, member, plain) = (pod("p", "shop", "web"), row("m", Some("p")), row("c", None));
        let id = |row: &Row| row.container.bundle.id.clone();
        assert_eq!(id(subject(&member, Some(&sandbox))), "p");
        assert_eq!(id(subject(&sandbox, Some(&sandbox))), "p");
        assert_eq!(id(subject(&plain, None)), "c");
    }
}
