//! Where containers' bundles are kept, by who keeps them.

use std::fs;
use std::path::{Path, PathBuf};

use super::bundle::Layout;
use super::files::ReadError;
use super::shelf;

/// A directory in which bundles are usually kept. One whose path has `<uid>` in it stands for one of each user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsualPlace {
    /// The directory's absolute path.
    pub path: &'static str,
    /// Who keeps bundles there.
    pub keeper: &'static str,
    /// Where that is written.
    pub source: &'static str,
    storage: bool,
}

const fn containerd(path: &'static str, keeper: &'static str, source: &'static str) -> UsualPlace {
    UsualPlace {
        path,
        keeper,
        source,
        storage: false,
    }
}

const fn storage(path: &'static str, keeper: &'static str, source: &'static str) -> UsualPlace {
    UsualPlace {
        path,
        keeper,
        source,
        storage: true,
    }
}

/// Stands for a user's id in a path.
const UID: &str = "<uid>";

/// The directories in which bundles are looked for by default: containerd's state directories, and the run roots of
/// containers/storage.
pub const USUAL_PLACES: [UsualPlace; 12] = [
    containerd(
        "/run/containerd",
        "containerd",
        "https://github.com/containerd/containerd/blob/main/defaults/defaults_unix.go",
    ),
    containerd(
        "/run/k3s/containerd",
        "k3s, RKE2",
        "https://github.com/k3s-io/k3s/blob/main/pkg/agent/config/config_linux.go",
    ),
    containerd(
        "/run/docker/containerd/daemon",
        "Docker",
        "https://github.com/moby/moby/blob/master/daemon/internal/libcontainerd/supervisor/remote_daemon.go",
    ),
    containerd(
        "/var/snap/microk8s/common/run/containerd",
        "MicroK8s",
        "https://github.com/canonical/microk8s/blob/master/microk8s-resources/default-args/containerd",
    ),
    containerd(
        "/run/k0s/containerd",
        "k0s",
        "https://github.com/k0sproject/k0s/blob/main/docs/runtime.md",
    ),
    containerd(
        "/run/host-containerd",
        "Bottlerocket's host containers",
        "https://github.com/bottlerocket-os/bottlerocket-core-kit/tree/develop/packages/host-ctr",
    ),
    containerd(
        "/system/run/containerd",
        "Talos' system services",
        "https://github.com/siderolabs/talos/blob/main/pkg/machinery/constants/constants.go",
    ),
    containerd(
        "/run/snap.docker/containerd/daemon",
        "Docker's snap",
        "https://github.com/canonical/docker-snap",
    ),
    containerd(
        "/run/user/<uid>/containerd",
        "rootless containerd",
        "https://github.com/containerd/nerdctl/blob/main/extras/rootless/containerd-rootless.sh",
    ),
    containerd(
        "/run/user/<uid>/docker/containerd/daemon",
        "rootless Docker",
        "https://github.com/moby/moby/blob/master/contrib/dockerd-rootless.sh",
    ),
    storage(
        "/run/containers/storage",
        "CRI-O, podman",
        "https://github.com/containers/storage/blob/main/docs/containers-storage.conf.5.md",
    ),
    storage(
        "/run/user/<uid>/containers",
        "rootless podman",
        "https://github.com/containers/storage/blob/main/docs/containers-storage.conf.5.md",
    ),
];

/// A directory in which bundles were looked for, and what was found.
#[derive(Debug)]
pub struct Place {
    /// The directory.
    pub path: PathBuf,
    /// The entry of [`USUAL_PLACES`] that it is, where it is one.
    pub usual: Option<&'static UsualPlace>,
    /// What is in it.
    pub found: PlaceFound,
}

/// What there is in a [`Place`].
#[derive(Debug)]
pub enum PlaceFound {
    /// There is no such directory.
    Missing,
    /// The directory is there, and nothing in it is anybody's bundles.
    NoBundles,
    /// It is another name of this place, which is the one that is listed.
    SameAs(PathBuf),
    /// How many bundles there are, those being created included. A sandbox that its shim manages (`sandboxer = "shim"`)
    /// has a bundle of another kind.
    Bundles {
        /// Bundles of containers.
        containers: usize,
        /// Bundles of sandboxes that their shims manage.
        sandboxes: usize,
    },
    /// It may not be looked into.
    Unreadable(ReadError),
}

/// The usual places that may be there, in the order of the table. Of those of users, the ones of users that have a
/// runtime directory.
pub fn usual_places() -> impl Iterator<Item = (PathBuf, &'static UsualPlace)> {
    let users = shelf::list(Path::new("/run/user"), |uid| {
        uid.bytes().all(|b| b.is_ascii_digit())
    });
    let users = users.unwrap_or_default();
    USUAL_PLACES.iter().flat_map(move |place| {
        let paths: Vec<_> = match place.path.split_once(UID) {
            Some((before, after)) => users
                .iter()
                .map(|uid| PathBuf::from(format!("{before}{uid}{after}")))
                .collect(),
            None => vec![PathBuf::from(place.path)],
        };
        paths.into_iter().map(move |path| (path, place))
    })
}

/// The usual places in which bundles are, or may be.
pub(super) fn usual_with_bundles() -> Vec<PathBuf> {
    usual_places()
        .filter(|(path, place)| match place.storage {
            false => shelf::is_state_dir(path),
            true => shelf::is_storage(path),
        })
        .map(|(path, _)| path)
        .collect()
}

/// Looks at places, without reading any bundle.
pub(super) fn look(paths: impl IntoIterator<Item = (PathBuf, Option<&'static UsualPlace>)>) -> Vec<Place> {
    let mut seen: Vec<(PathBuf, PathBuf)> = Vec::new();
    let mut places = Vec::new();
    for (path, usual) in paths {
        let found = match fs::canonicalize(&path) {
            Ok(real) => match seen.iter().find(|(other, _)| *other == real) {
                Some((_, first)) => PlaceFound::SameAs(first.clone()),
                None => {
                    seen.push((real, path.clone()));
                    look_into(&path)
                }
            },
            Err(source) => {
                let error = ReadError {
                    path: path.clone(),
                    source,
                };
                if error.is_missing() {
                    PlaceFound::Missing
                } else {
                    PlaceFound::Unreadable(error)
                }
            }
        };
        places.push(Place { path, usual, found });
    }
    places
}

fn look_into(path: &Path) -> PlaceFound {
    let count = || {
        let (mut containers, mut sandboxes, mut shelves) = (0, 0, 0);
        for shelf in shelf::shelves(path, None)? {
            shelves += 1;
            let count = shelf.bundles()?.len();
            match shelf.layout {
                Layout::Sandbox => sandboxes += count,
                Layout::Task | Layout::Storage => containers += count,
            }
        }
        Ok::<_, ReadError>((containers, sandboxes, shelves))
    };
    match count() {
        Ok((_, _, 0)) if !shelf::is_state_dir(path) && !shelf::is_storage(path) => PlaceFound::NoBundles,
        Ok((containers, sandboxes, _)) => PlaceFound::Bundles {
            containers,
            sandboxes,
        },
        Err(error) => PlaceFound::Unreadable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_named_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let add = |path: &str| fs::create_dir_all(at(path)).unwrap();
        add("containerd/io.containerd.runtime.v2.task/k8s.io/c1");
        add("containerd/io.containerd.runtime.v2.task/default/c2");
        add("containerd/io.containerd.sandbox.controller.v1.shim/k8s.io/s1");
        add("storage/overlay-containers/c3/userdata");
        add("idle/io.containerd.runtime.v2.task");
        add("other/x");
        std::os::unix::fs::symlink(at("containerd"), at("link")).unwrap();
        let paths = ["containerd", "link", "storage", "idle", "other", "none"];
        let found: Vec<_> = look(paths.map(|name| (at(name), None)))
            .into_iter()
            .map(|place| match place.found {
                PlaceFound::Missing => "missing".to_string(),
                PlaceFound::NoBundles => "none".to_string(),
                PlaceFound::SameAs(path) => format!("= {}", path.file_name().unwrap().display()),
                PlaceFound::Bundles {
                    containers,
                    sandboxes,
                } => format!("{containers}+{sandboxes}"),
                PlaceFound::Unreadable(error) => error.to_string(),
            })
            .collect();
        assert_eq!(found, ["2+1", "= containerd", "1+0", "0+0", "none", "missing"]);
    }
}
