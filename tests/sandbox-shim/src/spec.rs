//! The OCI spec that containerd puts into a bundle: only the parts that matter to a shim serving pods.

use std::{fs, io, path::Path};

use serde_json::{Value, json};

/// `config.json` of one bundle.
pub struct Spec(Value);

impl Spec {
    /// Reads `<bundle>/config.json`.
    pub fn read(bundle: &Path) -> io::Result<Self> {
        let path = bundle.join("config.json");
        let text =
            fs::read(&path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        serde_json::from_slice(&text).map(Self).map_err(io::Error::other)
    }

    /// The same of a bundle that may have none: containerd gives none to a sandbox that the shim manages.
    pub fn read_or_managed(bundle: &Path) -> io::Result<Self> {
        match Self::read(bundle) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // As Kata's Rust shim does it.
                Ok(Self(
                    json!({"annotations": {"io.kata-runtime.test.flavour": "rust"}}),
                ))
            }
            read => read,
        }
    }

    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.0.get("annotations")?.get(key)?.as_str()
    }

    /// The sandbox that this container lives in; `None` for a sandbox and for a container of its own.
    pub fn sandbox_id(&self) -> Option<&str> {
        match self.annotation("io.kubernetes.cri.container-type") {
            Some("container") => self.annotation("io.kubernetes.cri.sandbox-id"),
            _ => None,
        }
    }

    /// The path of the network namespace that the container was told to join, if any.
    pub fn netns(&self) -> Option<&str> {
        let namespaces = self.0.get("linux")?.get("namespaces")?.as_array()?;
        let network = namespaces
            .iter()
            .find(|n| n.get("type").and_then(Value::as_str) == Some("network"))?;
        network.get("path")?.as_str()
    }
}
