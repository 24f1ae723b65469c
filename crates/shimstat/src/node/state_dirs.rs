//! The node: the directories in which bundles are.

use std::collections::HashSet;
use std::path::PathBuf;

use super::places::{self, Place};

/// The containers and sandboxes of this node.
#[derive(Debug, Clone)]
pub struct Node {
    pub(super) state_dirs: Vec<PathBuf>,
    pub(super) namespace: Option<String>,
}

impl Node {
    /// A node whose bundles are in these directories: state directories of containerd, or run roots of
    /// containers/storage. With none given, in those of the [usual ones](super::USUAL_PLACES) that have any, or may not be looked
    /// into. A namespace limits everything to the containers in it.
    pub fn new(state_dirs: Vec<PathBuf>, namespace: Option<String>) -> Self {
        let state_dirs = if state_dirs.is_empty() {
            places::usual_with_bundles()
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

    /// Where bundles are looked for, and what is there, without reading any: the usual places, then those of this node's
    /// directories that are not among them.
    pub fn places(&self) -> Vec<Place> {
        let mut paths: Vec<_> = places::usual_places()
            .map(|(path, place)| (path, Some(place)))
            .collect();
        for path in &self.state_dirs {
            if !paths.iter().any(|(known, _)| known == path) {
                paths.push((path.clone(), None));
            }
        }
        places::look(paths)
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
