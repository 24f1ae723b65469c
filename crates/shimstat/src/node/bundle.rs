//! A container's bundle: the directory that containerd, CRI-O or podman keeps for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::conmon::Conmon;
use super::files::{self, ReadError};
use super::id::Id;
use super::oci_state;
use super::rootless;
use super::spec::{self, Spec};
use crate::shim::address::{Address, AddressError, Endpoint};

/// Limits for the files of a bundle, in bytes. An OCI spec is a few KB; one with thousands of mounts or
/// environment variables can have hundreds.
const SPEC_LIMIT: u64 = 16 << 20;
const ADDRESS_LIMIT: u64 = 64 << 10;

/// conmon's note of a container's first process.
const PID_FILE: &str = "pidfile";

/// containers/storage's run root and its root, where they are not a user's.
const RUN_ROOT: &str = "/run/containers/storage";
const GRAPH_ROOT: &str = "/var/lib/containers/storage";

/// The bundle of one container. Its files are read when they are asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bundle {
    /// containerd's state directory, such as `/run/containerd`, or the run root of containers/storage.
    pub state_dir: PathBuf,
    /// containerd's namespace, such as `k8s.io`. `default` in containers/storage: CRI-O tells its shims so.
    pub namespace: String,
    /// The full id of the container, which is the task's.
    pub id: String,
    /// The directory itself.
    pub path: PathBuf,
    /// Who keeps the bundle.
    pub layout: Layout,
}

/// Which manager keeps a bundle, which decides where it is and what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// A task of containerd: `<state>/io.containerd.runtime.v2.task/<namespace>/<id>`.
    Task,
    /// A sandbox that containerd has its shim manage (`sandboxer = "shim"`):
    /// `<state>/io.containerd.sandbox.controller.v1.shim/<namespace>/<id>`. It has no spec.
    Sandbox,
    /// A container of CRI-O or podman: `<run root>/<driver>-containers/<id>/userdata`. It has a shim only under CRI-O, for
    /// runtimes of type `vm`.
    Storage,
}

/// A bundle's file that could not be read, or does not make sense.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The shim's address is in the file, but not one that can be called.
    #[error("{}: {source}", path.display())]
    Address {
        /// `bootstrap.json`, `address` or `monitor_address`.
        path: PathBuf,
        /// What is wrong with the address in it.
        source: AddressError,
    },
    /// Its shim listens where only a mount namespace leads, as under rootless Docker, and there is no way into that.
    #[error("its shim is in the mount namespace of a user's Docker, which cannot be entered: {0}")]
    MountNamespace(ReadError),
    /// The file is not the JSON of an OCI spec.
    #[error("{}: not an OCI spec: {source}", path.display())]
    Spec {
        /// The bundle's `config.json`.
        path: PathBuf,
        /// Where the JSON is wrong.
        source: serde_json::Error,
    },
}

impl Bundle {
    /// Where the container's shim listens; `None` where it has none, or is being created. `bootstrap.json` decides where
    /// both files are: containerd 2.x wrote it, and a bundle keeps its old `address` through an upgrade.
    pub fn endpoint(&self) -> Result<Option<Endpoint>, BundleError> {
        let path = self.path.join("bootstrap.json");
        let endpoint = match files::optional(files::read(&path, ADDRESS_LIMIT))? {
            Some(json) => Endpoint::from_bootstrap(&json)
                .map(Some)
                .map_err(|source| BundleError::Address { path, source })?,
            None => {
                let path = self.path.join("address");
                files::optional(files::read_text(&path, ADDRESS_LIMIT))?
                    .map(|text| {
                        Endpoint::from_address_file(&text)
                            .map_err(|source| BundleError::Address { path, source })
                    })
                    .transpose()?
            }
        };
        let Some(endpoint) = endpoint else { return Ok(None) };
        Ok(Some(
            match rootless::run_dir(&self.state_dir).map_err(BundleError::MountNamespace)? {
                Some(own) => endpoint.moved("/run/containerd".as_ref(), &own),
                None => endpoint,
            },
        ))
    }

    /// Whether the container has been created: its address file is written last, and conmon's pid file where there is
    /// no shim. A bundle that may not be looked into counts as created, so that reading it says why not.
    pub fn is_complete(&self) -> bool {
        let marks: &[&str] = match self.layout {
            Layout::Task | Layout::Sandbox => &["bootstrap.json", "address"],
            Layout::Storage => &["address", PID_FILE],
        };
        marks
            .iter()
            .any(|name| self.path.join(name).try_exists().unwrap_or(true))
            || (self.layout == Layout::Storage && self.init_pid().is_some())
    }

    /// What the container's OCI spec says of it. A sandbox that its shim manages has none.
    pub(super) fn spec(&self) -> Result<Spec, BundleError> {
        let path = self.spec_path();
        let json = files::read(&path, SPEC_LIMIT)?;
        Spec::from_json(&json).map_err(|source| BundleError::Spec { path, source })
    }

    /// Where on the host its mounts come from; none where its spec cannot be read. Untrusted text.
    pub(super) fn mount_sources(&self) -> Vec<String> {
        let json = files::read(&self.spec_path(), SPEC_LIMIT);
        json.map_or_else(|_| Vec::new(), |json| spec::mount_sources(&json))
    }

    /// podman keeps its specs in the root of containers/storage, beside a pid file in the run root.
    fn spec_path(&self) -> PathBuf {
        const NAME: &str = "config.json";
        let own = self.path.join(NAME);
        if self.layout != Layout::Storage || own.exists() {
            return own;
        }
        let below = self.path.strip_prefix(RUN_ROOT);
        let usual = below.map(|below| Path::new(GRAPH_ROOT).join(below).join(NAME));
        if let Ok(usual) = usual
            && usual.exists()
        {
            return usual;
        }
        let told = self.conmon().and_then(|conmon| conmon.bundle);
        told.map_or(own, |bundle| bundle.join(NAME))
    }

    /// The conmon that watches the container, where it has one instead of a shim.
    pub(super) fn conmon(&self) -> Option<Conmon> {
        if self.layout != Layout::Storage {
            return None;
        }
        // CRI-O's name for the file, and podman's.
        let pid = self.pid("conmon-pidfile").or_else(|| self.pid("conmon.pid"))?;
        Conmon::read(pid, &self.id)
    }

    /// The pid of a container that has no shim, as conmon noted it when it started. The process may be gone, and its pid
    /// another's.
    pub(crate) fn init_pid(&self) -> Option<u32> {
        self.pid(PID_FILE).or_else(|| match self.layout {
            Layout::Storage => oci_state::init_pid(&self.id),
            Layout::Task | Layout::Sandbox => None,
        })
    }

    /// A short text that a shim or containerd left in the bundle; `None` where it cannot be read.
    pub(super) fn note(&self, name: &str) -> Option<String> {
        files::read_text(&self.path.join(name), ADDRESS_LIMIT).ok()
    }

    /// The path of the shim's program, where it is noted.
    pub(super) fn shim_binary(&self) -> Result<Option<String>, ReadError> {
        files::optional(files::read_text(
            &self.path.join("shim-binary-path"),
            ADDRESS_LIMIT,
        ))
    }

    pub(super) fn note_is_empty(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path.join(name)).is_ok_and(|note| note.is_file() && note.len() == 0)
    }

    /// Whether it says itself which shim runs its container.
    pub(super) fn names_its_shim(&self) -> bool {
        self.path.join("shim-binary-path").exists()
    }

    /// Whether it says itself that runc's shim runs its container. Quicker to tell than the runtime, which takes the spec.
    pub(crate) fn names_runcs_shim(&self) -> bool {
        matches!(self.shim_binary(), Ok(Some(path)) if is_runcs_shim(&path))
    }

    /// The id of the sandbox whose shim the container was given to. containerd notes it since 2.3.
    pub(crate) fn noted_sandbox(&self) -> Option<Id> {
        Id::parse(self.note("sandbox")?.trim()).ok()
    }

    /// The file that is written once, when the container is created, and so tells it from a later one at the same path.
    pub(super) fn birth_certificate(&self) -> PathBuf {
        self.path.join(match self.layout {
            Layout::Task => "config.json",
            Layout::Sandbox => "shim-binary-path",
            // podman has its spec elsewhere. conmon writes the other when a container starts.
            Layout::Storage if self.path.join("config.json").exists() => "config.json",
            Layout::Storage => PID_FILE,
        })
    }

    /// When the container was created: the time of a file that is written once. containerd's state is in memory, so
    /// nothing is there from before the machine's start.
    pub fn created(&self) -> Result<SystemTime, ReadError> {
        let path = self.birth_certificate();
        let modified = fs::metadata(&path).and_then(|file| file.modified());
        modified.map_err(|source| ReadError { path, source })
    }

    /// The pid of the task's shim, which Kata's and gVisor's shims note in the bundle of the task that they were
    /// started for: for a pod, its sandbox's. The shim may be gone, and its pid another's.
    pub fn shim_pid(&self) -> Option<u32> {
        self.pid("shim.pid")
    }

    pub(super) fn pid(&self, name: &str) -> Option<u32> {
        self.note(name)?.trim().parse().ok().filter(|pid| *pid != 0)
    }

    /// The monitor socket that Kata's Go shim noted in its sandbox's bundle.
    pub(crate) fn monitor_address(&self) -> Result<Option<Address>, BundleError> {
        let path = self.path.join("monitor_address");
        files::optional(files::read_text(&path, ADDRESS_LIMIT))?
            .map(|text| Address::parse(&text).map_err(|source| BundleError::Address { path, source }))
            .transpose()
    }
}

/// Whether the path of a shim's program is that of runc's.
pub(super) fn is_runcs_shim(path: &str) -> bool {
    let name = path.trim().rsplit('/').next();
    name.is_some_and(|name| name.starts_with("containerd-shim-runc-"))
}

#[cfg(test)]
impl Bundle {
    /// A task's bundle in containerd's usual state directory, with its files elsewhere.
    pub(crate) fn of_task(namespace: &str, id: &str, path: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: "/run/containerd".into(),
            namespace: namespace.into(),
            id: id.into(),
            path: path.into(),
            layout: Layout::Task,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::address::{Protocol, TaskVersion};

    fn bundle(files: &[(&str, &str)]) -> (tempfile::TempDir, Bundle) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let bundle = Bundle::of_task("default", "c1", dir.path());
        (dir, bundle)
    }

    #[test]
    fn bootstrap_json_decides_over_an_older_address() {
        let (_dir, bundle) = bundle(&[
            ("address", "unix:///run/old"),
            (
                "bootstrap.json",
                r#"{"version":3,"address":"unix:///run/new","protocol":"ttrpc"}"#,
            ),
        ]);
        let endpoint = bundle.endpoint().unwrap().unwrap();
        assert_eq!(
            endpoint,
            Endpoint {
                address: Address::Path("/run/new".into()),
                protocol: Protocol::Ttrpc,
                version: TaskVersion::V3
            }
        );
    }

    #[test]
    fn a_bundle_without_an_address_is_being_created() {
        let (_dir, bundle) = bundle(&[("config.json", "{}")]);
        assert_eq!(bundle.endpoint().unwrap(), None);
        assert!(!bundle.is_complete());
    }

    #[test]
    fn a_broken_file_is_an_error_that_names_it() {
        let (dir, bundle) = bundle(&[("bootstrap.json", "{"), ("config.json", "[")]);
        let error = bundle.endpoint().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{}/bootstrap.json: not the JSON", dir.path().display())),
            "{error}"
        );
        let error = bundle.spec().unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{}/config.json: not an OCI spec", dir.path().display())),
            "{error}"
        );
    }

    #[test]
    fn only_a_go_sandbox_notes_its_monitor_address() {
        let text = include_str!("../../tests/fixtures/kata-3.30-go/bundle-sandbox/monitor_address");
        let (_dir, sandbox) = bundle(&[("monitor_address", text)]);
        let path =
            "/run/vc/sbs/65e7a235858e772e3fab8d15f82f38bec74b7b8ebbba6033d79f0bc59753d99a/shim-monitor.sock";
        assert_eq!(
            sandbox.monitor_address().unwrap(),
            Some(Address::Path(path.into()))
        );
        let (_dir, child) = bundle(&[]);
        assert_eq!(child.monitor_address().unwrap(), None);
    }
}
