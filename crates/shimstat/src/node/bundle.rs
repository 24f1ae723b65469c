//! A task's bundle: the directory that containerd keeps for it under its state directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::files::{self, ReadError};
use super::spec::Spec;
use crate::shim::address::{Address, AddressError, Endpoint};

/// Limits for the files of a bundle, in bytes. An OCI spec is a few KB; one with thousands of mounts or
/// environment variables can have hundreds.
const SPEC_LIMIT: u64 = 16 << 20;
const ADDRESS_LIMIT: u64 = 64 << 10;

/// The bundle of one task. Its files are read when they are asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bundle {
    /// containerd's state directory, such as `/run/containerd`.
    pub state_dir: PathBuf,
    /// containerd's namespace, such as `k8s.io`.
    pub namespace: String,
    /// The full id of the container, which is the task's.
    pub id: String,
    /// The directory itself.
    pub path: PathBuf,
}

/// A bundle's file that could not be read, or that says what cannot be.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("{}: {source}", path.display())]
    Address { path: PathBuf, source: AddressError },
    #[error("{}: not an OCI spec: {source}", path.display())]
    Spec {
        path: PathBuf,
        source: serde_json::Error,
    },
}

impl Bundle {
    /// Where the task's shim listens; `None` for a task that is being created. `bootstrap.json` decides where
    /// both files are: containerd 2.x wrote it, and a bundle keeps its old `address` through an upgrade.
    pub fn endpoint(&self) -> Result<Option<Endpoint>, BundleError> {
        let path = self.path.join("bootstrap.json");
        if let Some(json) = files::optional(files::read(&path, ADDRESS_LIMIT))? {
            return Endpoint::from_bootstrap(&json)
                .map(Some)
                .map_err(|source| BundleError::Address { path, source });
        }
        let path = self.path.join("address");
        files::optional(files::read_text(&path, ADDRESS_LIMIT))?
            .map(|text| {
                Endpoint::from_address_file(&text).map_err(|source| BundleError::Address { path, source })
            })
            .transpose()
    }

    /// Whether the task has been created: its address file is written last. A bundle that may not be looked
    /// into counts as created, so that reading it says why not.
    pub fn is_complete(&self) -> bool {
        ["bootstrap.json", "address"]
            .iter()
            .any(|name| self.path.join(name).try_exists().unwrap_or(true))
    }

    /// What the task's OCI spec says of it.
    pub fn spec(&self) -> Result<Spec, BundleError> {
        let path = self.path.join("config.json");
        let json = files::read(&path, SPEC_LIMIT)?;
        Spec::from_json(&json).map_err(|source| BundleError::Spec { path, source })
    }

    /// A short text that a shim or containerd left in the bundle; `None` where it cannot be read.
    pub(super) fn note(&self, name: &str) -> Option<String> {
        files::read_text(&self.path.join(name), ADDRESS_LIMIT).ok()
    }

    pub(super) fn note_is_empty(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path.join(name)).is_ok_and(|note| note.is_file() && note.len() == 0)
    }

    /// Whether runc's shim runs the task, so that its statistics are those of a cgroup of this machine.
    pub fn has_runcs_shim(&self) -> bool {
        self.note("shim-binary-path").is_some_and(|path| {
            let name = path.trim().rsplit('/').next();
            name.is_some_and(|name| name.starts_with("containerd-shim-runc-"))
        })
    }

    /// When the task was created: the time of its spec, which is written once. containerd's state is in memory, so
    /// nothing is there from before the machine's start.
    pub fn created(&self) -> Option<SystemTime> {
        fs::metadata(self.path.join("config.json")).ok()?.modified().ok()
    }

    /// The pid of the task's shim, which runc's and Kata's shims note in the bundle of the task that they were
    /// started for: for a pod, its sandbox's. The shim may be gone, and its pid another's.
    pub fn shim_pid(&self) -> Option<u32> {
        let pid: u32 = self.note("shim.pid")?.trim().parse().ok()?;
        (pid != 0).then_some(pid)
    }

    /// The monitor socket that Kata's Go shim noted in its sandbox's bundle.
    pub fn monitor_address(&self) -> Result<Option<Address>, BundleError> {
        let path = self.path.join("monitor_address");
        files::optional(files::read_text(&path, ADDRESS_LIMIT))?
            .map(|text| Address::parse(&text).map_err(|source| BundleError::Address { path, source }))
            .transpose()
    }
}

/// The directory of a state directory in which the bundles are, by namespace.
pub(crate) fn tasks_dir(state_dir: &Path) -> PathBuf {
    state_dir.join("io.containerd.runtime.v2.task")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::address::TaskVersion;

    fn bundle(files: &[(&str, &str)]) -> (tempfile::TempDir, Bundle) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let bundle = Bundle {
            state_dir: dir.path().into(),
            namespace: "default".into(),
            id: "c1".into(),
            path: dir.path().into(),
        };
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
