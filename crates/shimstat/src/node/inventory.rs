//! All tasks of the node.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Node;
use super::annotations::{PodNames, Role};
use super::bundle::Bundle;
use super::files::ReadError;
use super::runtime::Runtime;
use super::spec::CpuSpec;
use crate::shim::address::Endpoint;

/// A task, and the way to its shim.
#[derive(Debug, Clone)]
pub struct Task {
    pub bundle: Bundle,
    /// Where its shim listens, or why that cannot be told.
    pub endpoint: Result<Endpoint, String>,
}

impl Task {
    /// Reads a bundle's address; `None` for a task that is being created or deleted.
    pub fn read(bundle: Bundle) -> Option<Self> {
        let endpoint = match bundle.endpoint() {
            Ok(endpoint) => Ok(endpoint?),
            Err(error) => Err(error.to_string()),
        };
        Some(Self { bundle, endpoint })
    }
}

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
        Task::read(bundle).map(Self::of)
    }

    /// Reads the spec of a task.
    pub fn of(Task { bundle, endpoint }: Task) -> Self {
        let spec = bundle.spec().unwrap_or_default();
        Self {
            endpoint,
            role: spec.annotations.role(&bundle.id),
            names: spec.annotations.names(),
            cpu: spec.cpu,
            bundle,
        }
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

/// The tasks of a node, read again and again. A bundle is read once, and looked at where the directory that it is in
/// has changed.
#[derive(Debug)]
pub struct Inventory {
    node: Node,
    known: HashMap<PathBuf, (Option<Stamp>, Arc<Container>)>,
    /// What there was the last time, where it is as long as these directories are as they were.
    settled: Option<Settled>,
}

#[derive(Debug)]
struct Settled {
    directories: Vec<(PathBuf, Stamp)>,
    containers: Vec<Arc<Container>>,
}

/// Tells a bundle from a later one at the same path, as its spec is written once; and a directory from itself before
/// something was added, renamed or removed in it. Device, inode, and the time of the last change in seconds and
/// nanoseconds.
type Stamp = (u64, u64, i64, i64);

/// The time of a change is only as exact as the kernel's tick. A directory that was changed longer ago than this gets
/// another time with the next change; much longer than any tick.
const LONG_AGO: Duration = Duration::from_secs(2);

impl Inventory {
    pub fn new(node: Node) -> Self {
        Self {
            node,
            known: HashMap::new(),
            settled: None,
        }
    }

    /// The tasks that are there now, but for those being created, in the order of state directory, namespace
    /// and id. A task that was there the last time is the same [`Arc`].
    pub fn read(&mut self) -> Result<Vec<Arc<Container>>, ReadError> {
        if let Some(settled) = self.settled.as_ref().filter(|settled| settled.is_so()) {
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
            let stamp = stamp(&bundle.path.join("config.json"));
            all_whole &= stamp.is_some();
            let kept = self.known.remove(&bundle.path).filter(|(old, _)| *old == stamp);
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
        self.known = known;
        self.settled = directories.filter(|_| all_whole).map(|directories| Settled {
            directories,
            containers: containers.clone(),
        });
        Ok(containers)
    }

    /// The directories that change when a bundle comes or goes; `None` where one has changed just now.
    fn settled_directories(&self) -> Result<Option<Vec<(PathBuf, Stamp)>>, ReadError> {
        let now = SystemTime::now();
        let directories = self.node.directories()?;
        Ok(directories
            .into_iter()
            .map(|directory| {
                let (dev, ino, seconds, nanos) = stamp(&directory)?;
                let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::new(
                    u64::try_from(seconds).ok()?,
                    u32::try_from(nanos).ok()?,
                ))?;
                let is_old = now.duration_since(changed).ok()? >= LONG_AGO;
                is_old.then_some((directory, (dev, ino, seconds, nanos)))
            })
            .collect())
    }
}

impl Settled {
    fn is_so(&self) -> bool {
        self.directories
            .iter()
            .all(|(directory, before)| stamp(directory) == Some(*before))
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((
        metadata.dev(),
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
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
