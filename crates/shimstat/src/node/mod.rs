//! Which containers and sandboxes are on this node: containerd's state directories, the bundles in them, and
//! the monitor sockets of sandboxes. Reads files and nothing else; containerd itself is not asked, and need
//! not run.
//!
//! The places and the order in which containerd writes them were seen on containerd 1.6.20, 1.7.24 and 2.1.9.

pub mod annotations;
mod bundle;
pub mod cgroup;
mod container;
pub mod device;
mod files;
mod find;
pub mod gvisor;
pub mod hypervisor;
mod id;
pub mod init_process;
mod inventory;
mod machine;
pub mod monitor;
mod mountinfo;
mod names;
pub mod network;
pub mod pace;
mod pods;
mod proc_fs;
pub mod processes;
mod runtime;
mod spec;

use std::collections::HashSet;
use std::path::PathBuf;

pub use annotations::{Annotations, PodNames, Role};
pub use bundle::{Bundle, BundleError};
pub use container::{Container, Description};
pub use files::ReadError;
pub use find::FindError;
pub use id::{Id, IdError};
pub use inventory::Inventory;
pub use machine::{GuestProtection, MachineKind};
pub use names::Wanted;
pub use pods::{Pod, pods};
pub use processes::{HostProcesses, Part, ProcessMemory, ProcessUsage, host_processes};
pub use runtime::Runtime;
pub use spec::{CpuSpec, Spec};

/// containerd's usual state directories: its own, k3s's and RKE2's, Docker's, MicroK8s's.
pub const USUAL_STATE_DIRS: [&str; 4] = [
    "/run/containerd",
    "/run/k3s/containerd",
    "/run/docker/containerd/daemon",
    "/var/snap/microk8s/common/run/containerd",
];

/// The containers and sandboxes of this node.
#[derive(Debug, Clone)]
pub struct Node {
    state_dirs: Vec<PathBuf>,
    namespace: Option<String>,
}

impl Node {
    /// A node whose containerd keeps its state in these directories; with none given, in those of the usual
    /// ones that exist. A namespace limits everything to the tasks in it.
    pub fn new(state_dirs: Vec<PathBuf>, namespace: Option<String>) -> Self {
        let state_dirs = if state_dirs.is_empty() {
            // One that may not be looked into is kept, so that looking says why not.
            let exists = |dir: &PathBuf| bundle::tasks_dir(dir).try_exists().unwrap_or(true);
            USUAL_STATE_DIRS
                .iter()
                .map(PathBuf::from)
                .filter(exists)
                .collect()
        } else {
            state_dirs
        };
        Self {
            state_dirs: without_aliases(state_dirs),
            namespace,
        }
    }

    /// Whether there is a state directory to look into. Without one nothing can be said of the node's tasks, not
    /// even that there are none.
    pub fn is_there(&self) -> bool {
        // One that may not be looked at counts, so that looking says why not.
        self.state_dirs.iter().any(|dir| dir.try_exists().unwrap_or(true))
    }

    /// The one namespace that it is limited to, where it is.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }
}

/// Each directory once, under the first of its names: `/run/containerd` may be a link to `/run/k3s/containerd`.
fn without_aliases(directories: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = HashSet::with_capacity(directories.len());
    directories
        .into_iter()
        // One that cannot be resolved is kept, so that looking says why not.
        .filter(|directory| seen.insert(directory.canonicalize().unwrap_or_else(|_| directory.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn one_directory_by_several_names_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let (k3s, link) = (dir.path().join("k3s"), dir.path().join("containerd"));
        fs::create_dir_all(k3s.join("io.containerd.runtime.v2.task/k8s.io/c1")).unwrap();
        std::os::unix::fs::symlink(&k3s, &link).unwrap();
        let missing = dir.path().join("missing");
        let given = vec![
            link.clone(),
            missing.clone(),
            k3s.clone(),
            k3s.join("../k3s"),
            missing.clone(),
        ];
        let node = Node::new(given, None);
        assert_eq!(node.state_dirs, [link, missing]);
        assert_eq!(node.bundles().unwrap().len(), 1);
    }
}
