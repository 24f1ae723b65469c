//! Kata has two shims, one in Go and one in Rust, whose monitor sockets differ in place and manner.
//!
//! Annotations on the sandbox choose:
//!
//! - `io.kata-runtime.test.flavour`: `go` (when absent) or `rust`
//! - `io.kata-runtime.test.hypervisor`: the name of the hypervisor that the sandbox claims to run on, `clh`
//!   when absent. With the Rust flavour and `qemu` or `firecracker`, asking for `/metrics` aborts the shim,
//!   as it does in Kata 4.1.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::spec::Spec;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Go,
    Rust,
}

/// How a sandbox shows itself beside containerd.
#[derive(Clone, Debug)]
pub struct Flavour {
    pub kind: Kind,
    pub hypervisor: String,
}

impl Flavour {
    pub fn of(spec: &Spec) -> Self {
        let kind = match spec.annotation("io.kata-runtime.test.flavour") {
            Some("rust") => Kind::Rust,
            _ => Kind::Go,
        };
        let hypervisor = spec
            .annotation("io.kata-runtime.test.hypervisor")
            .unwrap_or("clh")
            .to_owned();
        Self { kind, hypervisor }
    }

    /// The directory that holds the monitor socket and the sandbox's recorded state.
    pub fn directory(&self, sandbox: &str) -> PathBuf {
        match self.kind {
            Kind::Go => Path::new("/run/vc/sbs").join(sandbox),
            Kind::Rust => Path::new("/run/kata").join(sandbox),
        }
    }

    pub fn monitor_socket(&self, sandbox: &str) -> PathBuf {
        self.directory(sandbox).join("shim-monitor.sock")
    }

    /// Kata's Rust shim has no hypervisor metrics for these: the question reaches a `todo!()`.
    pub fn dies_when_asked(&self) -> bool {
        self.kind == Kind::Rust && matches!(self.hypervisor.as_str(), "qemu" | "firecracker")
    }

    /// Writes the file in which Kata records a sandbox: the Go shim's `persist.json` or the Rust shim's
    /// `state.json`, with the fields that say which hypervisor runs it and where.
    pub fn record(
        &self,
        sandbox: &str,
        vmm_pid: u32,
        agent_url: &str,
        netns: Option<&str>,
    ) -> io::Result<()> {
        let (name, state) = match self.kind {
            Kind::Go => (
                "persist.json",
                json!({
                    "State": "running",
                    "SandboxContainer": sandbox,
                    "HypervisorState": {"Type": self.hypervisor, "VirtiofsDaemonPid": 0, "Pid": vmm_pid},
                    "AgentState": {"URL": agent_url},
                }),
            ),
            Kind::Rust => (
                "state.json",
                json!({
                    "sandbox_type": "virt_container",
                    "hypervisor": {
                        "hypervisor_type": self.hypervisor,
                        "id": sandbox,
                        "pid": null,
                        "netns": netns,
                        "run_dir": self.directory(sandbox),
                    },
                }),
            ),
        };
        fs::write(self.directory(sandbox).join(name), state.to_string())
    }
}
