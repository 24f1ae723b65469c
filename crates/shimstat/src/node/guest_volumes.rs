//! The volumes of a Kata pod that are in its guest's memory, and where the guest has them.
//!
//! | volume | in the guest |
//! |---|---|
//! | the pod's `/dev/shm` | `/run/kata-containers/sandbox/shm` |
//! | an `emptyDir` with `medium: Memory` | `/run/kata-containers/sandbox/ephemeral/<name>` |
//!
//! Source: Kata 4.1.0, `src/runtime/virtcontainers/kata_agent.go` (`ephemeralPath`, `kataGuestSandboxDir`),
//! `src/runtime-rs/crates/resource/src/volume/{shm,ephemeral}_volume.rs`.
//!
//! Volumes on block devices are among the agent's metrics (`kata_guest_filesystem_bytes`). Directories of the host that the
//! guest shares are never asked about: the agent would wait for the host's virtiofsd, and the host knows them better.

use std::collections::BTreeSet;
use std::path::Path;

use super::container::Container;

/// Where the guest keeps what all containers of the sandbox share.
const SANDBOX: &str = "/run/kata-containers/sandbox";

/// The parent of a pod's `emptyDir` volumes, as the kubelet names it.
const EMPTY_DIRS: &str = "kubernetes.io~empty-dir";

/// The most volumes of a pod that are asked about.
const MOST: usize = 16;

/// A volume that may be in a guest's memory. Whether it is, the guest knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GuestVolume {
    /// The name that the pod gives it; `shm` for `/dev/shm`. Untrusted text.
    pub name: String,
    /// Where the guest has it mounted.
    pub path: String,
}

impl GuestVolume {
    /// Those of a pod's containers. Their specs are read.
    pub fn of_pod<'a>(containers: impl IntoIterator<Item = &'a Container>) -> Vec<Self> {
        let sources = containers.into_iter().flat_map(|one| one.bundle.mount_sources());
        Self::of_mounts(sources)
    }

    fn of_mounts(sources: impl Iterator<Item = String>) -> Vec<Self> {
        let names: BTreeSet<String> = sources
            .filter_map(|source| Some(empty_dir(&source)?.to_string()))
            .collect();
        let shm = Self {
            name: "shm".to_string(),
            path: format!("{SANDBOX}/shm"),
        };
        let ephemeral = names.into_iter().map(|name| Self {
            path: format!("{SANDBOX}/ephemeral/{name}"),
            name,
        });
        std::iter::once(shm).chain(ephemeral).take(MOST).collect()
    }
}

/// The name of the `emptyDir` at a path of the host.
fn empty_dir(source: &str) -> Option<&str> {
    let path = Path::new(source);
    (path.parent()?.file_name()? == EMPTY_DIRS).then(|| path.file_name()?.to_str())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volumes(sources: &[&str]) -> Vec<(String, String)> {
        GuestVolume::of_mounts(sources.iter().map(ToString::to_string))
            .into_iter()
            .map(|volume| (volume.name, volume.path))
            .collect()
    }

    #[test]
    fn a_pods_empty_dirs_are_asked_about_once_beside_its_shm() {
        let pod = "/var/lib/kubelet/pods/4f8a/volumes/kubernetes.io";
        let sources = [
            "proc",
            &format!("{pod}~empty-dir/scratch"),
            &format!("{pod}~empty-dir/cache"),
            &format!("{pod}~empty-dir/scratch"),
            &format!("{pod}~projected/token"),
            "/var/lib/kubelet/pods/4f8a/etc-hosts",
        ];
        let sandbox = "/run/kata-containers/sandbox";
        assert_eq!(
            volumes(&sources),
            [
                ("shm".into(), format!("{sandbox}/shm")),
                ("cache".into(), format!("{sandbox}/ephemeral/cache")),
                ("scratch".into(), format!("{sandbox}/ephemeral/scratch")),
            ]
        );
    }

    #[test]
    fn no_source_leads_out_of_the_guests_directory_and_there_are_not_many() {
        for source in [
            "/x/kubernetes.io~empty-dir/..",
            "/x/kubernetes.io~empty-dir/../../etc",
            "/x/kubernetes.io~empty-dir/a/b",
            "/kubernetes.io~empty-dir",
            "kubernetes.io~empty-dir/",
            "",
        ] {
            assert_eq!(volumes(&[source]).len(), 1, "{source}");
        }
        let many: Vec<_> = (0..100).map(|n| format!("/x/{EMPTY_DIRS}/{n}")).collect();
        assert_eq!(
            volumes(&many.iter().map(String::as_str).collect::<Vec<_>>()).len(),
            MOST
        );
    }
}
