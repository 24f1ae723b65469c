//! Finding bundles: by full id, by the beginning of one, or all of them.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use super::bundle::{Bundle, Layout};
use super::files::ReadError;
use super::id::Id;
use super::places::USUAL_PLACES;
use super::shelf::{self, Shelf};
use super::state_dirs::Node;

/// Why an id does not lead to exactly one bundle.
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
    Ambiguous {
        /// The id or its beginning, as it was asked for.
        wanted: String,
        /// The bundles that fit.
        candidates: Vec<Bundle>,
    },
    /// A directory could not be listed, so nothing can be said of what is in it.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Node {
    /// The bundle of the container with this id, or else of the only one whose id starts with it. A container that is
    /// being created is not found: nothing can be asked of it.
    pub fn find(&self, wanted: &Id) -> Result<Bundle, FindError> {
        let shelves = self.shelves()?;
        // A full id is found without listing a directory of thousands.
        let mut found = Vec::new();
        for shelf in &shelves {
            let candidate = shelf.bundle(wanted.as_str());
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
            for shelf in &shelves {
                found.extend(shelf.bundles_from(wanted.as_str())?);
            }
        }
        let found = without_counterparts(found);
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

    /// The bundles of all containers, those being created too, in the order of state directory, namespace and id.
    pub fn bundles(&self) -> Result<Vec<Bundle>, ReadError> {
        let mut bundles = Vec::new();
        for shelf in self.shelves()? {
            bundles.extend(shelf.bundles()?);
        }
        bundles.sort();
        Ok(without_counterparts(bundles))
    }

    /// The directories in which bundles are, and those in which such directories are.
    pub(super) fn directories(&self) -> Result<Vec<PathBuf>, ReadError> {
        let mut directories: Vec<_> = self
            .shelves()?
            .iter()
            .map(|shelf| shelf.path().to_path_buf())
            // With a namespace given, it need not be there. Where it comes, the directory above changes.
            .filter(|path| path.is_dir())
            .collect();
        directories.extend(self.state_dirs.iter().flat_map(|root| shelf::above(root)));
        Ok(directories)
    }

    /// The bundle of another container beside this one, where there is one: a container's sandbox is in the same
    /// namespace of the same containerd.
    pub fn sibling(&self, bundle: &Bundle, id: &Id) -> Option<Bundle> {
        shelf::existing_beside(bundle, id.as_str())
    }

    fn shelves(&self) -> Result<Vec<Shelf>, ReadError> {
        let mut shelves = Vec::new();
        for root in &self.state_dirs {
            shelves.extend(shelf::shelves(root, self.namespace.as_deref())?);
        }
        Ok(shelves)
    }

    /// Where tasks are looked for, as a sentence for people.
    pub fn looked_in(&self) -> String {
        if self.state_dirs.is_empty() {
            let (shown, others) = USUAL_PLACES.split_at(2);
            return format!(
                "no container engine was found: there are no containers in the usual places ({} and {} others)",
                shown
                    .iter()
                    .map(|place| place.path)
                    .collect::<Vec<_>>()
                    .join(", "),
                others.len()
            );
        }
        let places: Vec<_> = self
            .state_dirs
            .iter()
            .map(|dir| shelf::shown(dir).display().to_string())
            .collect();
        let namespace = self
            .namespace
            .as_ref()
            .map(|n| format!(" (namespace {n} only)"))
            .unwrap_or_default();
        format!("looked in {}{namespace}", places.join(", "))
    }
}

/// A sandbox that its shim manages is one even where containerd has a task of the same id.
fn without_counterparts(mut bundles: Vec<Bundle>) -> Vec<Bundle> {
    if bundles.iter().any(|bundle| bundle.layout == Layout::Sandbox) {
        let paths: HashSet<_> = bundles.iter().map(|bundle| bundle.path.clone()).collect();
        bundles.retain(|bundle| {
            bundle.layout != Layout::Sandbox
                || shelf::counterpart(bundle).is_none_or(|task| !paths.contains(&task.path))
        });
    }
    bundles
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
            self.dir.path().join("io.containerd.runtime.v2.task").join(task)
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
            format!(
                "looked in {}",
                fixture.dir.path().join("io.containerd.runtime.v2.task").display()
            )
        );
        let nowhere = Node {
            state_dirs: Vec::new(),
            namespace: None,
        };
        let looked = nowhere.looked_in();
        assert!(
            looked.contains("/run/k3s/containerd") && looked.contains("no container engine"),
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
