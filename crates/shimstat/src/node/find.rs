//! Finding bundles: by full id, by the beginning of one, or all of them.

use std::fs;
use std::path::{Path, PathBuf};

use super::bundle::{Bundle, tasks_dir};
use super::files::{self, ReadError};
use super::id::Id;
use super::{Node, USUAL_STATE_DIRS};

/// Why there is no one bundle to speak of.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// No task has this id or one that starts with it.
    #[error("no task has this id")]
    Missing,
    /// The only task that fits is being created in this bundle: nothing can be asked of it yet.
    #[error("a task is being created in {}", .0.display())]
    Creating(PathBuf),
    /// Several tasks fit.
    #[error("multiple containers found ({wanted})")]
    Ambiguous { wanted: String, candidates: Vec<Bundle> },
    /// A directory could not be listed, so nothing can be said of what is in it.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Node {
    /// The bundle of the task with this id, or else of the only one whose id begins so. A task that is being
    /// created is not found: nothing can be asked of it.
    pub fn find(&self, wanted: &Id) -> Result<Bundle, FindError> {
        let mut directories = Vec::new();
        for state_dir in &self.state_dirs {
            for namespace in self.namespaces(state_dir)? {
                let directory = tasks_dir(state_dir).join(&namespace);
                directories.push((state_dir, namespace, directory));
            }
        }
        let bundle = |(state_dir, namespace, directory): &(&PathBuf, String, PathBuf), id: &str| Bundle {
            state_dir: state_dir.to_path_buf(),
            namespace: namespace.clone(),
            id: id.to_string(),
            path: directory.join(id),
        };

        // A full id is found without listing a directory of thousands.
        let mut found = Vec::new();
        for place in &directories {
            let candidate = bundle(place, wanted.as_str());
            match fs::symlink_metadata(&candidate.path) {
                Ok(_) => found.push(candidate),
                Err(source) => {
                    let error = ReadError {
                        path: candidate.path,
                        source,
                    };
                    if !error.is_missing() {
                        return Err(error.into());
                    }
                }
            }
        }
        if found.is_empty() {
            for place in &directories {
                let names = list(&place.2, |name| name.starts_with(wanted.as_str()))?;
                found.extend(names.iter().map(|name| bundle(place, name)));
            }
        }
        let (mut complete, creating): (Vec<_>, Vec<_>) = found.into_iter().partition(Bundle::is_complete);
        match (complete.pop(), complete.is_empty()) {
            (Some(bundle), true) => Ok(bundle),
            (Some(bundle), false) => {
                complete.push(bundle);
                complete.sort();
                Err(FindError::Ambiguous {
                    wanted: wanted.to_string(),
                    candidates: complete,
                })
            }
            (None, _) => Err(match creating.into_iter().next() {
                Some(bundle) => FindError::Creating(bundle.path),
                None => FindError::Missing,
            }),
        }
    }

    /// The bundles of all tasks, those being created too, in the order of state directory, namespace and id.
    pub fn bundles(&self) -> Result<Vec<Bundle>, ReadError> {
        let mut bundles = Vec::new();
        for state_dir in &self.state_dirs {
            for namespace in self.namespaces(state_dir)? {
                let directory = tasks_dir(state_dir).join(&namespace);
                bundles.extend(list(&directory, |_| true)?.into_iter().map(|id| Bundle {
                    state_dir: state_dir.clone(),
                    namespace: namespace.clone(),
                    path: directory.join(&id),
                    id,
                }));
            }
        }
        bundles.sort();
        Ok(bundles)
    }

    /// The directories in which bundles are, and those in which such directories are.
    pub(super) fn directories(&self) -> Result<Vec<PathBuf>, ReadError> {
        let mut directories = Vec::new();
        for state_dir in &self.state_dirs {
            let tasks = tasks_dir(state_dir);
            directories.extend(self.namespaces(state_dir)?.iter().map(|name| tasks.join(name)));
            directories.push(tasks);
        }
        Ok(directories)
    }

    /// The bundle of another task beside this one, where there is one: a container's sandbox is in the same
    /// namespace of the same containerd.
    pub fn sibling(&self, bundle: &Bundle, id: &Id) -> Option<Bundle> {
        let path = bundle.path.with_file_name(id.as_str());
        // One that may not be looked at is kept, so that reading it says why not.
        let exists = path.try_exists().unwrap_or(true);
        exists.then(|| Bundle {
            id: id.to_string(),
            path,
            ..bundle.clone()
        })
    }

    fn namespaces(&self, state_dir: &Path) -> Result<Vec<String>, ReadError> {
        match &self.namespace {
            Some(namespace) => Ok(vec![namespace.clone()]),
            None => list(&tasks_dir(state_dir), |_| true),
        }
    }

    /// Where tasks are looked for, as a sentence for people.
    pub fn looked_in(&self) -> String {
        if self.state_dirs.is_empty() {
            return format!(
                "no containerd state directory was found (looked for {}); name yours with --state",
                USUAL_STATE_DIRS.join(", ")
            );
        }
        let places: Vec<_> = self
            .state_dirs
            .iter()
            .map(|dir| tasks_dir(dir).display().to_string())
            .collect();
        let namespace = self
            .namespace
            .as_ref()
            .map(|n| format!(" (namespace {n} only)"))
            .unwrap_or_default();
        format!("looked in {}{namespace}", places.join(", "))
    }
}

/// The names in a directory that are wanted, but for those that begin with a dot: containerd renames a bundle
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
        // A name that is no UTF-8 is none of containerd's.
        if let Some(name) = name
            .to_str()
            .filter(|name| !name.starts_with('.') && wanted(name))
        {
            names.push(name.to_string());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        dir: tempfile::TempDir,
    }

    impl Fixture {
        fn new(tasks: &[&str]) -> Self {
            let fixture = Self {
                dir: tempfile::tempdir().unwrap(),
            };
            for task in tasks {
                fixture.add(task);
                fs::write(fixture.task(task).join("address"), "unix:///run/s").unwrap();
            }
            fixture
        }

        fn add(&self, task: &str) {
            fs::create_dir_all(self.task(task)).unwrap();
        }

        fn task(&self, task: &str) -> PathBuf {
            tasks_dir(self.dir.path()).join(task)
        }

        fn find(&self, wanted: &str) -> Result<String, FindError> {
            self.find_in(None, wanted)
        }

        fn find_in(&self, namespace: Option<&str>, wanted: &str) -> Result<String, FindError> {
            let node = Node::new(vec![self.dir.path().into()], namespace.map(str::to_string));
            node.find(&Id::parse(wanted).unwrap())
                .map(|b| format!("{}/{}", b.namespace, b.id))
        }
    }

    #[test]
    fn a_full_id_wins_over_longer_ones_that_begin_with_it() {
        let node = Fixture::new(&["default/web", "default/web-1", "k8s.io/webapp"]);
        assert_eq!(node.find("web").unwrap(), "default/web");
        assert_eq!(node.find("web-").unwrap(), "default/web-1");
        assert_eq!(node.find("weba").unwrap(), "k8s.io/webapp");
    }

    #[test]
    fn a_beginning_that_fits_several_is_ambiguous_and_names_them() {
        let node = Fixture::new(&["default/abc1", "k8s.io/abc2", "k8s.io/abd"]);
        match node.find("abc").unwrap_err() {
            error @ FindError::Ambiguous { .. } => {
                assert_eq!(error.to_string(), "multiple containers found (abc)");
                let FindError::Ambiguous { candidates, .. } = error else {
                    unreachable!()
                };
                let names: Vec<_> = candidates
                    .iter()
                    .map(|b| format!("{}/{}", b.namespace, b.id))
                    .collect();
                assert_eq!(names, ["default/abc1", "k8s.io/abc2"]);
            }
            other => panic!("{other}"),
        }
        assert_eq!(node.find_in(Some("default"), "abc").unwrap(), "default/abc1");
    }

    #[test]
    fn the_same_id_in_two_namespaces_is_ambiguous() {
        let node = Fixture::new(&["default/x", "moby/x"]);
        assert!(
            matches!(node.find("x"), Err(FindError::Ambiguous { candidates, .. }) if candidates.len() == 2)
        );
        assert_eq!(node.find_in(Some("moby"), "x").unwrap(), "moby/x");
    }

    #[test]
    fn a_task_being_created_or_deleted_is_not_found() {
        let node = Fixture::new(&["default/ab2"]);
        node.add("default/ab1");
        node.add("default/.ab3");
        fs::write(node.task("default/.ab3").join("address"), "unix:///run/s").unwrap();
        assert_eq!(node.find("ab").unwrap(), "default/ab2");
        let error = node.find("ab1").unwrap_err().to_string();
        assert!(error.contains("being created"), "{error}");
        assert!(matches!(node.find("ab3"), Err(FindError::Missing)));
    }

    #[test]
    fn a_missing_id_says_where_was_looked() {
        let fixture = Fixture::new(&["default/x"]);
        assert!(matches!(fixture.find("y"), Err(FindError::Missing)));
        let node = Node::new(vec![fixture.dir.path().into()], None);
        assert_eq!(
            node.looked_in(),
            format!("looked in {}", tasks_dir(fixture.dir.path()).display())
        );
        let nowhere = Node {
            state_dirs: Vec::new(),
            namespace: None,
        };
        let looked = nowhere.looked_in();
        assert!(
            looked.contains("/run/k3s/containerd") && looked.contains("--state"),
            "{looked}"
        );
    }

    #[test]
    fn several_state_directories_are_one_node() {
        let (a, b) = (Fixture::new(&["default/x1"]), Fixture::new(&["default/x2"]));
        let node = Node::new(vec![a.dir.path().into(), b.dir.path().into()], None);
        assert_eq!(
            node.find(&Id::parse("x2").unwrap()).unwrap().state_dir,
            b.dir.path()
        );
        assert!(matches!(
            node.find(&Id::parse("x").unwrap()),
            Err(FindError::Ambiguous { .. })
        ));
    }
}
