//! What there is to ask: the node's tasks and sandboxes, by the shim that answers for them.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use shimstat::node::{Container, Inventory, PodNames, ReadError, Role, monitor};
use shimstat::shim::address::{Address, Endpoint, TaskVersion};

/// A shim with all that it answers for: a pod, or one container; or a sandbox of which no more than its monitor's
/// socket is known.
#[derive(Debug)]
pub struct Unit {
    /// The way to it.
    pub endpoint: Endpoint,
    /// The sandbox, where it is one with a monitor (Kata's).
    pub sandbox: Option<Sandbox>,
    pub tasks: Vec<Arc<Container>>,
}

/// A sandbox that has, or had, a monitor.
#[derive(Debug, Clone)]
pub struct Sandbox {
    pub id: String,
    pub names: PodNames,
    /// Where its monitor listens.
    pub addresses: Vec<Address>,
    /// Whether containerd knows it: then its shim can be asked whether it runs.
    pub has_task: bool,
}

impl Unit {
    /// Whether it is the same as another, read a moment before or after.
    pub fn is_like(&self, other: &Self) -> bool {
        let id = |unit: &Self| unit.sandbox.as_ref().map(|sandbox| sandbox.id.clone());
        self.tasks.len() == other.tasks.len()
            && self
                .tasks
                .iter()
                .zip(&other.tasks)
                .all(|(one, other)| Arc::ptr_eq(one, other))
            && id(self) == id(other)
    }

    /// Whether this task's network is that of the unit. All tasks of a pod are in one network, and it is told of
    /// once: by the sandbox, or where there is none by the first.
    pub fn tells_network(&self, task: &Container) -> bool {
        let has_sandbox = self.tasks.iter().any(|task| task.role == Role::Sandbox);
        match &task.role {
            Role::Plain | Role::Sandbox => true,
            Role::InSandbox(sandbox) => {
                let mut siblings = self
                    .tasks
                    .iter()
                    .filter(|task| task.sandbox_id() == Some(sandbox));
                !has_sandbox && siblings.next().is_some_and(|first| first.bundle == task.bundle)
            }
        }
    }
}

/// What is on the node now.
#[derive(Debug, Default)]
pub struct Listing {
    pub units: Vec<Arc<Unit>>,
    /// Tasks whose bundle does not say where their shim listens.
    pub unreachable: Vec<Arc<Container>>,
}

impl Listing {
    /// The sandboxes that have a monitor, by id.
    pub fn sandboxes(&self) -> Vec<&Sandbox> {
        let mut sandboxes: Vec<_> = self
            .units
            .iter()
            .filter_map(|unit| unit.sandbox.as_ref())
            .collect();
        sandboxes.sort_by(|one, other| one.id.cmp(&other.id));
        sandboxes
    }
}

/// Reads the node again and again; what cannot have changed is kept.
#[derive(Debug)]
pub struct Lister {
    inventory: Inventory,
    /// Whether sandboxes that containerd does not know count as well.
    orphans: bool,
    /// Where the monitors of sandboxes listen that have one.
    monitors: HashMap<PathBuf, (Arc<Container>, Vec<Address>)>,
}

impl Lister {
    pub fn new(inventory: Inventory, orphans: bool) -> Self {
        Self {
            inventory,
            orphans,
            monitors: HashMap::new(),
        }
    }

    /// What is there now.
    pub fn list(&mut self) -> Result<Listing, ReadError> {
        let tasks = self.inventory.read()?;
        let mut listing = Listing::default();
        let mut places: HashMap<Address, usize> = HashMap::with_capacity(tasks.len());
        let mut units: Vec<Unit> = Vec::with_capacity(tasks.len());
        let mut monitors = HashMap::with_capacity(self.monitors.len());
        let known: HashSet<String> = tasks.iter().map(|task| task.bundle.id.clone()).collect();
        for task in tasks {
            let Ok(endpoint) = &task.endpoint else {
                listing.unreachable.push(task);
                continue;
            };
            let place = *places.entry(endpoint.address.clone()).or_insert_with(|| {
                units.push(Unit {
                    endpoint: endpoint.clone(),
                    sandbox: None,
                    tasks: Vec::new(),
                });
                units.len() - 1
            });
            let addresses = match &task.role {
                Role::InSandbox(_) => Vec::new(),
                Role::Plain | Role::Sandbox => self.monitor(&task),
            };
            if let Some(unit) = units.get_mut(place) {
                if !addresses.is_empty() {
                    monitors.insert(task.bundle.path.clone(), (task.clone(), addresses.clone()));
                    unit.sandbox = Some(Sandbox {
                        id: task.bundle.id.clone(),
                        names: task.names.clone(),
                        addresses,
                        has_task: true,
                    });
                }
                unit.tasks.push(task);
            }
        }
        self.monitors = monitors;
        if self.orphans {
            units.extend(orphans(&known)?);
        }
        listing.units = units.into_iter().map(Arc::new).collect();
        Ok(listing)
    }

    /// Where the task's monitor listens, where it is a sandbox that has one. A sandbox that is just starting may get
    /// one yet, so that only what was found is kept.
    fn monitor(&self, task: &Arc<Container>) -> Vec<Address> {
        match self.monitors.get(&task.bundle.path) {
            Some((kept, addresses)) if Arc::ptr_eq(kept, task) => addresses.clone(),
            _ => monitor::known(&task.bundle.id, Some(&task.bundle)).unwrap_or_default(),
        }
    }
}

/// The sandboxes that have a monitor's socket and no bundle.
fn orphans(known: &HashSet<String>) -> Result<Vec<Unit>, ReadError> {
    let unknown = monitor::sandboxes("")?
        .into_iter()
        .filter(|(id, _)| !known.contains(id));
    let unit = |(id, addresses): (String, Vec<Address>)| {
        let address = addresses.first()?.clone();
        Some(Unit {
            // There is no task to ask for, so that the version does not matter.
            endpoint: Endpoint {
                address,
                version: TaskVersion::V2,
            },
            sandbox: Some(Sandbox {
                id,
                names: PodNames::default(),
                addresses,
                has_task: false,
            }),
            tasks: Vec::new(),
        })
    };
    Ok(unknown.filter_map(unit).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shimstat::node::Node;
    use std::fs;
    use std::path::Path;

    fn task(state: &Path, id: &str, shim: &str, annotations: &[(&str, &str)]) -> PathBuf {
        let path = state.join("io.containerd.runtime.v2.task/k8s.io").join(id);
        fs::create_dir_all(&path).unwrap();
        let annotations: HashMap<_, _> = annotations.iter().copied().collect();
        let spec = serde_json::json!({ "annotations": annotations });
        fs::write(path.join("config.json"), spec.to_string()).unwrap();
        fs::write(path.join("address"), format!("unix:///run/{shim}")).unwrap();
        path
    }

    const SANDBOX: &[(&str, &str)] = &[("io.kubernetes.cri.container-type", "sandbox")];

    fn child(sandbox: &str) -> [(&str, &str); 2] {
        [
            ("io.kubernetes.cri.container-type", "container"),
            ("io.kubernetes.cri.sandbox-id", sandbox),
        ]
    }

    fn lister(state: &Path) -> Lister {
        Lister::new(Inventory::new(Node::new(vec![state.into()], None)), false)
    }

    fn ids(unit: &Unit) -> Vec<&str> {
        unit.tasks.iter().map(|task| task.bundle.id.as_str()).collect()
    }

    #[test]
    fn a_pod_is_one_unit_and_only_katas_have_a_monitor() {
        let dir = tempfile::tempdir().unwrap();
        let kata = task(dir.path(), "kata-pod", "s1", SANDBOX);
        fs::write(
            kata.join("monitor_address"),
            "unix:///run/vc/sbs/kata-pod/shim-monitor.sock",
        )
        .unwrap();
        task(dir.path(), "a-child", "s1", &child("kata-pod"));
        task(dir.path(), "runc-pod", "s2", SANDBOX);
        let plain = task(dir.path(), "vm", "s3", &[]);
        fs::write(plain.join("monitor_address"), "abstract-name").unwrap();
        task(dir.path(), "zz", "s4", &[]);
        let broken = task(dir.path(), "broken", "s5", &[]);
        fs::write(broken.join("bootstrap.json"), "{").unwrap();

        let mut lister = lister(dir.path());
        let listing = lister.list().unwrap();
        let units: Vec<_> = listing.units.iter().map(|unit| ids(unit)).collect();
        assert_eq!(
            units,
            [
                vec!["a-child", "kata-pod"],
                vec!["runc-pod"],
                vec!["vm"],
                vec!["zz"]
            ]
        );
        let sandboxes: Vec<_> = listing
            .sandboxes()
            .iter()
            .map(|sandbox| sandbox.id.as_str())
            .collect();
        assert_eq!(sandboxes, ["kata-pod", "vm"]);
        assert_eq!(listing.unreachable[0].bundle.id, "broken");

        let again = lister.list().unwrap();
        assert!(listing.units[0].is_like(&again.units[0]));
        task(dir.path(), "b-child", "s1", &child("kata-pod"));
        assert!(!listing.units[0].is_like(&lister.list().unwrap().units[0]));
    }

    #[test]
    fn a_pods_network_is_told_of_once() {
        let dir = tempfile::tempdir().unwrap();
        task(dir.path(), "pod", "s1", SANDBOX);
        task(dir.path(), "a", "s1", &child("pod"));
        task(dir.path(), "lone1", "s2", &child("gone"));
        task(dir.path(), "lone2", "s2", &child("gone"));
        task(dir.path(), "plain", "s3", &[]);
        let listing = lister(dir.path()).list().unwrap();
        let telling: Vec<_> = listing
            .units
            .iter()
            .flat_map(|unit| unit.tasks.iter().filter(|task| unit.tells_network(task)))
            .map(|task| task.bundle.id.as_str())
            .collect();
        assert_eq!(telling, ["pod", "lone1", "plain"]);
    }

    #[test]
    fn a_monitor_that_comes_later_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = task(dir.path(), "pod", "s1", SANDBOX);
        let mut lister = lister(dir.path());
        assert!(lister.list().unwrap().sandboxes().is_empty());
        fs::write(path.join("monitor_address"), "unix:///run/m").unwrap();
        let listing = lister.list().unwrap();
        assert_eq!(listing.sandboxes()[0].addresses, [Address::Path("/run/m".into())]);
        assert!(listing.sandboxes()[0].has_task);
    }
}
