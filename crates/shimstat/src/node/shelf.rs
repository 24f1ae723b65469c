//! The directories in which bundles lie side by side.

use std::fs;
use std::path::{Path, PathBuf};

use super::bundle::{Bundle, Layout};
use super::files::{self, ReadError};

/// containerd's directory of tasks, and that of sandboxes which their shims manage (`sandboxer = "shim"`; since 2.0).
/// Both have a directory for each of containerd's namespaces.
const TASKS: &str = "io.containerd.runtime.v2.task";
const SANDBOXES: &str = "io.containerd.sandbox.controller.v1.shim";

/// What ends the name of a storage driver's directory of containers (`overlay-containers`).
const STORAGE: &str = "-containers";

/// What CRI-O tells shims for a namespace. containers/storage has none.
const STORAGE_NAMESPACE: &str = "default";

/// The directory in a container's, in containers/storage, that is its bundle.
const USERDATA: &str = "userdata";

/// A directory with a bundle for each container, all of one root, namespace and layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shelf {
    root: PathBuf,
    namespace: String,
    pub layout: Layout,
    path: PathBuf,
}

impl Shelf {
    /// The bundle of a container with this id, whether there is one or not.
    pub fn bundle(&self, id: &str) -> Bundle {
        let own = self.path.join(id);
        Bundle {
            state_dir: self.root.clone(),
            namespace: self.namespace.clone(),
            id: id.to_string(),
            path: match self.layout {
                Layout::Task | Layout::Sandbox => own,
                Layout::Storage => own.join(USERDATA),
            },
            layout: self.layout,
        }
    }

    /// The bundles that are there.
    pub fn bundles(&self) -> Result<Vec<Bundle>, ReadError> {
        self.bundles_from("")
    }

    /// The bundles whose ids start with a text.
    pub fn bundles_from(&self, prefix: &str) -> Result<Vec<Bundle>, ReadError> {
        let names = list(&self.path, |name| name.starts_with(prefix))?;
        let bundles = names.iter().map(|id| self.bundle(id));
        Ok(match self.layout {
            Layout::Task | Layout::Sandbox => bundles.collect(),
            // The lock files of containers/storage lie beside the containers.
            Layout::Storage => bundles.filter(|bundle| bundle.path.is_dir()).collect(),
        })
    }

    /// Whose change tells that a bundle has come or gone.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The shelves of a state directory of containerd, or of a run root of containers/storage; with a namespace, those of
/// that one. A directory that is not there has none.
pub(super) fn shelves(root: &Path, namespace: Option<&str>) -> Result<Vec<Shelf>, ReadError> {
    let shelf = |namespace: &str, layout, path| Shelf {
        root: root.to_path_buf(),
        namespace: namespace.to_string(),
        layout,
        path,
    };
    let mut shelves = Vec::new();
    for (name, layout) in [(TASKS, Layout::Task), (SANDBOXES, Layout::Sandbox)] {
        let directory = root.join(name);
        let namespaces = match namespace {
            Some(namespace) => vec![namespace.to_string()],
            None => list(&directory, |_| true)?,
        };
        shelves.extend(
            namespaces
                .iter()
                .map(|namespace| shelf(namespace, layout, directory.join(namespace))),
        );
    }
    if namespace.is_none_or(|namespace| namespace == STORAGE_NAMESPACE) && !is_state_dir(root) {
        let drivers = list(root, |name| name.len() > STORAGE.len() && name.ends_with(STORAGE))?;
        shelves.extend(
            drivers
                .iter()
                .map(|driver| shelf(STORAGE_NAMESPACE, Layout::Storage, root.join(driver))),
        );
    }
    Ok(shelves)
}

/// The directories in which shelves come and go.
pub(super) fn above(root: &Path) -> Vec<PathBuf> {
    let containerd = [TASKS, SANDBOXES].map(|name| root.join(name));
    let all_there = containerd.iter().all(|directory| directory.is_dir());
    let root = (!all_there).then(|| root.to_path_buf());
    containerd
        .into_iter()
        .filter(|directory| directory.is_dir())
        .chain(root)
        .collect()
}

/// Whether a directory is a state directory of containerd. One that may not be looked into may be, and then looking says
/// why not.
pub(super) fn is_state_dir(root: &Path) -> bool {
    [TASKS, SANDBOXES]
        .iter()
        .any(|name| root.join(name).try_exists().unwrap_or(true))
}

/// Whether a directory has containers of a storage driver, or may not be looked into.
pub(super) fn is_storage(root: &Path) -> bool {
    list(root, |name| name.ends_with(STORAGE)).map_or(true, |drivers| !drivers.is_empty())
}

/// The directory of the tasks of a state directory, for people.
pub(super) fn shown(root: &Path) -> PathBuf {
    if is_state_dir(root) || !is_storage(root) {
        root.join(TASKS)
    } else {
        root.to_path_buf()
    }
}

/// The bundle of another container beside this one, as a pod's sandbox is, whether there is one or not.
pub(super) fn beside(bundle: &Bundle, id: &str) -> Bundle {
    let directory = |path: &Path, levels| {
        path.ancestors()
            .nth(levels)
            .unwrap_or(Path::new("/"))
            .to_path_buf()
    };
    let path = match bundle.layout {
        Layout::Task | Layout::Sandbox => directory(&bundle.path, 1).join(id),
        Layout::Storage => directory(&bundle.path, 2).join(id).join(USERDATA),
    };
    Bundle {
        id: id.to_string(),
        path,
        ..bundle.clone()
    }
}

/// The bundle of a pod's sandbox, as if it were a task's, for the pod of this bundle.
pub(super) fn pod_bundle(bundle: &Bundle, sandbox_id: &str) -> Bundle {
    let task = match bundle.layout {
        Layout::Sandbox => counterpart(bundle),
        Layout::Task | Layout::Storage => None,
    };
    beside(task.as_ref().unwrap_or(bundle), sandbox_id)
}

/// The bundle of another container beside this one, where there is one: a task, or a sandbox that its shim manages. One
/// that may not be looked at is kept, so that reading it says why not.
pub(super) fn existing_beside(bundle: &Bundle, id: &str) -> Option<Bundle> {
    let task = match bundle.layout {
        Layout::Sandbox => counterpart(bundle)?,
        Layout::Task | Layout::Storage => bundle.clone(),
    };
    let beside = beside(&task, id);
    let exists = |bundle: &Bundle| bundle.path.try_exists().unwrap_or(true);
    if exists(&beside) {
        return Some(beside);
    }
    counterpart(&beside).filter(exists)
}

/// The same bundle in the other one of containerd's two directories.
pub(super) fn counterpart(bundle: &Bundle) -> Option<Bundle> {
    let (layout, name) = match bundle.layout {
        Layout::Task => (Layout::Sandbox, SANDBOXES),
        Layout::Sandbox => (Layout::Task, TASKS),
        Layout::Storage => return None,
    };
    // Not made from the state directory: containers of tests are elsewhere.
    let (namespace, directory) = (bundle.path.parent()?, bundle.path.parent()?.parent()?);
    Some(Bundle {
        path: directory
            .with_file_name(name)
            .join(namespace.file_name()?)
            .join(&bundle.id),
        layout,
        ..bundle.clone()
    })
}

/// The names in a directory that are wanted, except those that begin with a dot: containerd renames a bundle
/// so before it deletes it. A directory that is not there has none.
pub(super) fn list(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>, ReadError> {
    let error = |source| ReadError {
        path: directory.to_path_buf(),
        source,
    };
    let Some(entries) = files::optional(fs::read_dir(directory).map_err(error))? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(error)?.file_name();
        // containerd's names are UTF-8.
        if let Some(name) = name
            .to_str()
            .filter(|name| !name.starts_with('.') && wanted(name))
        {
            names.push(name.to_string());
        }
    }
    Ok(names)
}
