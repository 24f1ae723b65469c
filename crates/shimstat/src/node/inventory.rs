//! All containers of the node, read again and again.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::container::Container;
use super::files::{FileStamp, ReadError};
use super::monitor;
use super::pods::{Pod, name_sandboxes, pods};
use super::state_dirs::Node;
use crate::shim::address::Address;

/// The containers of a node, read again and again. A bundle is read once, and looked at again only where the directory
/// that it is in has changed.
#[derive(Debug)]
pub struct Inventory {
    node: Node,
    known: HashMap<PathBuf, (Option<FileStamp>, Arc<Container>)>,
    /// What there was the last time. It still holds while these directories are unchanged.
    settled: Option<Settled>,
    /// Where the monitors listen of sandboxes that have one, by the path of the sandbox's bundle.
    monitors: HashMap<PathBuf, (Arc<Container>, Vec<Address>)>,
}

#[derive(Debug)]
struct Settled {
    directories: Vec<(PathBuf, FileStamp)>,
    containers: Vec<Arc<Container>>,
}

impl Inventory {
    /// An inventory of the bundles in a node's state directories. Nothing is read yet.
    pub fn new(node: Node) -> Self {
        Self {
            node,
            known: HashMap::new(),
            settled: None,
            monitors: HashMap::new(),
        }
    }

    /// The node that it reads.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The pods that are there now, in the order of [`pods`], each with the addresses of its monitor where it has one;
    /// after them the sandboxes that have a monitor's socket and are not known to containerd (not where the node is
    /// limited to a namespace: such a sandbox is in none).
    pub fn pods(&mut self) -> Result<Vec<Pod>, ReadError> {
        let mut pods = pods(&self.read()?);
        let mut monitors = HashMap::with_capacity(self.monitors.len());
        for pod in &mut pods {
            let Some(main) = pod.main() else { continue };
            let addresses = self.monitor(main);
            if !addresses.is_empty() {
                monitors.insert(pod.key.clone(), (main.clone(), addresses.clone()));
                pod.monitor = addresses;
            }
        }
        self.monitors = monitors;
        if self.node.namespace().is_none() {
            let known: HashSet<&str> = pods
                .iter()
                .flat_map(Pod::all)
                .map(|container| container.id())
                .collect();
            let mut unknown = monitor::sandboxes("")?;
            unknown.retain(|id, _| !known.contains(id.as_str()));
            pods.extend(
                unknown
                    .into_iter()
                    .map(|(id, addresses)| Pod::unknown_to_containerd(id, addresses)),
            );
        }
        Ok(pods)
    }

    /// Where the monitor of a sandbox listens, where it has one. A sandbox that is just starting may get one yet, so
    /// only what was found is remembered.
    fn monitor(&self, main: &Arc<Container>) -> Vec<Address> {
        match self.monitors.get(&main.bundle.path) {
            Some((known, addresses)) if Arc::ptr_eq(known, main) => addresses.clone(),
            // A note that cannot be read names no socket to ask.
            _ => monitor::known(main.id(), Some(&main.bundle)).unwrap_or_default(),
        }
    }

    /// The containers that are there now except those being created, in the order of state directory, namespace
    /// and id. A container that was there the last time is the same [`Arc`].
    pub fn read(&mut self) -> Result<Vec<Arc<Container>>, ReadError> {
        let is_read = |settled: &&Settled| settled.containers.iter().all(|container| !container.is_misread());
        if let Some(settled) = self
            .settled
            .as_ref()
            .filter(|settled| settled.still_holds())
            .filter(is_read)
        {
            return Ok(settled.containers.clone());
        }
        // Before they are listed: what changes meanwhile is seen the next time.
        let directories = self.settled_directories()?;
        let mut known = HashMap::with_capacity(self.known.len());
        let mut containers = Vec::with_capacity(self.known.len());
        // A bundle that is not whole may become so without a trace in the directory that it is in.
        let mut all_whole = true;
        for bundle in self.node.bundles()? {
            // A bundle without a spec is read all the same: so it says what is wrong with it.
            let stamp = FileStamp::of(&bundle.birth_certificate()).ok();
            all_whole &= stamp.is_some();
            let kept = self
                .known
                .remove(&bundle.path)
                .filter(|(old, container)| *old == stamp && !container.is_misread());
            let container = match kept {
                Some((_, container)) => container,
                None => match Container::read(bundle) {
                    Some(container) => Arc::new(container),
                    None => {
                        all_whole = false;
                        continue;
                    }
                },
            };
            known.insert(container.bundle.path.clone(), (stamp, container.clone()));
            containers.push(container);
        }
        name_sandboxes(&containers);
        self.known = known;
        self.settled = directories.filter(|_| all_whole).map(|directories| Settled {
            directories,
            containers: containers.clone(),
        });
        Ok(containers)
    }

    /// The directories that change when a bundle comes or goes; `None` where one has changed just now.
    fn settled_directories(&self) -> Result<Option<Vec<(PathBuf, FileStamp)>>, ReadError> {
        let now = SystemTime::now();
        let directories = self.node.directories()?;
        Ok(directories
            .into_iter()
            .map(|directory| {
                let stamp = FileStamp::of(&directory).ok()?;
                stamp.is_settled(now).then_some((directory, stamp))
            })
            .collect())
    }
}

impl Settled {
    fn still_holds(&self) -> bool {
        self.directories
            .iter()
            .all(|(directory, before)| FileStamp::of(directory).is_ok_and(|now| now == *before))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::node::Role;

    fn add(state: &Path, task: &str, annotations: &[(&str, &str)]) -> PathBuf {
        let path = state.join("io.containerd.runtime.v2.task").join(task);
        fs::create_dir_all(&path).unwrap();
        let annotations: HashMap<_, _> = annotations.iter().copied().collect();
        fs::write(
            path.join("config.json"),
            serde_json::json!({ "annotations": annotations }).to_string(),
        )
        .unwrap();
        fs::write(path.join("address"), "unix:///run/s").unwrap();
        path
    }

    fn ids(containers: &[Arc<Container>]) -> Vec<&str> {
        containers.iter().map(|c| c.id()).collect()
    }

    #[test]
    fn sees_what_comes_and_goes_and_reads_a_bundle_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut inventory = Inventory::new(Node::new(vec![dir.path().into()], None));
        assert!(inventory.read().unwrap().is_empty());
        let sandbox = add(
            dir.path(),
            "k8s.io/pod1",
            &[("io.kubernetes.cri.container-type", "sandbox")],
        );
        add(dir.path(), "default/b", &[]);
        let creating = dir.path().join("io.containerd.runtime.v2.task/default/a");
        fs::create_dir(&creating).unwrap();
        let first = inventory.read().unwrap();
        assert_eq!(ids(&first), ["b", "pod1"]);
        assert_eq!(first[1].role(), &Role::Sandbox);

        let again = inventory.read().unwrap();
        assert!(Arc::ptr_eq(&first[1], &again[1]), "known by now");

        // Deleted, and another of the same id made: its spec is another file.
        fs::remove_dir_all(&sandbox).unwrap();
        fs::write(dir.path().join("occupies-the-inode"), "").unwrap();
        add(
            dir.path(),
            "k8s.io/pod1",
            &[
                ("io.kubernetes.cri.container-type", "container"),
                ("io.kubernetes.cri.sandbox-id", "x"),
            ],
        );
        let later = inventory.read().unwrap();
        assert_eq!(later[1].role(), &Role::InSandbox("x".into()));
        assert_eq!(later[1].sandbox_id(), Some("x"));
    }

    #[test]
    fn directories_that_are_as_they_were_are_not_listed_again() {
        let dir = tempfile::tempdir().unwrap();
        let tasks = dir.path().join("io.containerd.runtime.v2.task");
        let age = |directory: &Path| {
            let hour_ago = SystemTime::now() - Duration::from_secs(3600);
            fs::File::open(directory).unwrap().set_modified(hour_ago).unwrap();
        };
        add(dir.path(), "default/a", &[]);
        let creating = tasks.join("default/c");
        fs::create_dir(&creating).unwrap();
        let mut inventory = Inventory::new(Node::new(vec![dir.path().into()], None));
        assert_eq!(ids(&inventory.read().unwrap()), ["a"]);
        assert!(inventory.settled.is_none(), "changed just now");

        // In which another directory of containerd's may appear.
        age(dir.path());
        age(&tasks);
        age(&tasks.join("default"));
        assert_eq!(ids(&inventory.read().unwrap()), ["a"]);
        assert!(inventory.settled.is_none(), "one is being created");
        // The directory that it is in does not change.
        add(dir.path(), "default/c", &[]);
        assert_eq!(ids(&inventory.read().unwrap()), ["a", "c"]);
        assert!(inventory.settled.is_some());
        let known = inventory.read().unwrap();

        add(dir.path(), "default/b", &[]);
        let later = inventory.read().unwrap();
        assert_eq!(ids(&later), ["a", "b", "c"]);
        assert!(Arc::ptr_eq(&known[1], &later[2]));
        age(&tasks.join("default"));
        assert_eq!(inventory.read().unwrap().len(), 3);
        assert!(inventory.settled.is_some());
        fs::rename(tasks.join("default/a"), tasks.join("default/.a")).unwrap();
        assert_eq!(ids(&inventory.read().unwrap()), ["b", "c"]);

        // Another namespace.
        age(&tasks.join("default"));
        inventory.read().unwrap();
        assert!(inventory.settled.is_some());
        add(dir.path(), "other/d", &[]);
        assert_eq!(ids(&inventory.read().unwrap()), ["b", "c", "d"]);
    }

    #[test]
    fn a_broken_bundle_is_listed_with_its_fault() {
        let dir = tempfile::tempdir().unwrap();
        let path = add(dir.path(), "default/b", &[]);
        fs::write(path.join("config.json"), "{").unwrap();
        fs::write(path.join("bootstrap.json"), "{").unwrap();
        let containers = Inventory::new(Node::new(vec![dir.path().into()], None))
            .read()
            .unwrap();
        assert_eq!(containers[0].role(), &Role::Plain);
        assert!(
            containers[0]
                .source
                .as_ref()
                .unwrap_err()
                .to_string()
                .contains("bootstrap.json")
        );
    }
}
