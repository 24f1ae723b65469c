//! All tasks of the node.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::Node;
use super::annotations::{PodNames, Role};
use super::bundle::Bundle;
use super::files::ReadError;
use super::runtime::Runtime;
use super::spec::CpuSpec;
use crate::shim::address::Endpoint;

/// A task with what its bundle says of it. None of this changes while the task exists.
#[derive(Debug, Clone)]
pub struct Container {
    pub bundle: Bundle,
    /// Where its shim listens, or why that cannot be told.
    pub endpoint: Result<Endpoint, String>,
    /// What it is to its pod; [`Role::Plain`] where its spec cannot be read.
    pub role: Role,
    /// The names that people know it by.
    pub names: PodNames,
    /// What its spec sets of the CPU; nothing where that cannot be read.
    pub cpu: CpuSpec,
}

impl Container {
    /// Reads a bundle; `None` for a task that is being created or deleted.
    pub fn read(bundle: Bundle) -> Option<Self> {
        let endpoint = match bundle.endpoint() {
            Ok(endpoint) => Ok(endpoint?),
            Err(error) => Err(error.to_string()),
        };
        let spec = bundle.spec().unwrap_or_default();
        Some(Self {
            endpoint,
            role: spec.annotations.role(&bundle.id),
            names: spec.annotations.names(),
            cpu: spec.cpu,
            bundle,
        })
    }

    /// The runtime that runs it; `None` where nothing tells. Read anew each time: Kata's shim notes its hypervisor a
    /// moment after the bundle is there.
    pub fn runtime(&self) -> Option<Runtime> {
        Runtime::of(&self.bundle, self.sandbox_id())
    }

    /// The id of the sandbox that it is or runs in; a plain container has none.
    pub fn sandbox_id(&self) -> Option<&str> {
        match &self.role {
            Role::Plain => None,
            Role::Sandbox => Some(&self.bundle.id),
            Role::InSandbox(id) => Some(id),
        }
    }
}

/// The tasks of a node, read again and again. A bundle is read once.
#[derive(Debug)]
pub struct Inventory {
    node: Node,
    known: HashMap<PathBuf, (Option<Stamp>, Arc<Container>)>,
}

/// Tells a bundle from a later one at the same path: its spec is written once.
type Stamp = (u64, u64, i64, i64);

impl Inventory {
    pub fn new(node: Node) -> Self {
        Self {
            node,
            known: HashMap::new(),
        }
    }

    /// The tasks that are there now, but for those being created, in the order of state directory, namespace
    /// and id. A task that was there the last time is the same [`Arc`].
    pub fn read(&mut self) -> Result<Vec<Arc<Container>>, ReadError> {
        let mut known = HashMap::with_capacity(self.known.len());
        let mut containers = Vec::with_capacity(self.known.len());
        for bundle in self.node.bundles()? {
            // A bundle without a spec is read all the same: so it says what is wrong with it.
            let stamp = stamp(&bundle);
            let kept = self.known.remove(&bundle.path).filter(|(old, _)| *old == stamp);
            let container = match kept {
                Some((_, container)) => container,
                None => match Container::read(bundle) {
                    Some(container) => Arc::new(container),
                    None => continue,
                },
            };
            known.insert(container.bundle.path.clone(), (stamp, container.clone()));
            containers.push(container);
        }
        self.known = known;
        Ok(containers)
    }
}

fn stamp(bundle: &Bundle) -> Option<Stamp> {
    let spec = fs::metadata(bundle.path.join("config.json")).ok()?;
    Some((spec.dev(), spec.ino(), spec.mtime(), spec.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

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
        containers.iter().map(|c| c.bundle.id.as_str()).collect()
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
        assert_eq!(first[1].role, Role::Sandbox);

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
        assert_eq!(later[1].role, Role::InSandbox("x".into()));
        assert_eq!(later[1].sandbox_id(), Some("x"));
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
        assert_eq!(containers[0].role, Role::Plain);
        assert!(
            containers[0]
                .endpoint
                .as_ref()
                .unwrap_err()
                .contains("bootstrap.json")
        );
    }
}
