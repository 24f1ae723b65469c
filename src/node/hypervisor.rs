//! Which hypervisor a Kata sandbox runs on, and so whether its metrics may be asked for.
//!
//! Kata's Rust shim, the default since 4.0, has no implementation of hypervisor metrics for QEMU and
//! Firecracker: `GET /metrics` reaches a `todo!()`, the shim aborts, and the sandbox dies with it
//! (kata-containers issue 13708; seen in the sources of 4.1.0).

use std::path::{Path, PathBuf};

use super::files;
use super::monitor::{GO_ROOT, RUST_ROOT};
use crate::shim::address::Address;

/// Kata writes a few KB; the sandbox's configuration is in it.
const STATE_LIMIT: u64 = 4 << 20;

/// Hypervisors for which Kata's Rust shim dies of being asked for metrics.
const DEADLY: [&str; 2] = ["qemu", "firecracker"];

/// Whether a sandbox survives being asked for its metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Risk {
    /// It does.
    None,
    /// Its shim is Kata's Rust shim, and aborts with this hypervisor.
    Deadly { hypervisor: String },
    /// Its socket is where Kata's Rust shim has it, and nothing says which hypervisor it runs on.
    Unknown { reason: String },
}

/// What is known of the risk of asking the sandbox `id` for metrics on this socket.
pub fn risk(id: &str, socket: &Address) -> Risk {
    risk_below(Path::new(RUST_ROOT), Path::new(GO_ROOT), id, socket)
}

fn risk_below(rust_root: &Path, go_root: &Path, id: &str, socket: &Address) -> Risk {
    let state = rust_root.join(id);
    if !matches!(socket, Address::Path(path) if path.starts_with(&state)) {
        return Risk::None;
    }
    match hypervisor_type(&state.join("state.json")) {
        Ok(Some(hypervisor)) => {
            let deadly = DEADLY
                .iter()
                .any(|name| hypervisor.to_ascii_lowercase().starts_with(name));
            if deadly {
                Risk::Deadly { hypervisor }
            } else {
                Risk::None
            }
        }
        // Kata 3.1.0 and 3.1.1: the Go shim's socket is here by mistake, and its state where it belongs.
        Ok(None) if go_root.join(id).join("persist.json").exists() => Risk::None,
        Ok(None) => Risk::Unknown {
            reason: format!(
                "{} is not there: the sandbox may be starting",
                state.join("state.json").display()
            ),
        },
        Err(reason) => Risk::Unknown { reason },
    }
}

/// The `hypervisor_type` in a Rust shim's `state.json`; `None` where there is no such file.
fn hypervisor_type(path: &Path) -> Result<Option<String>, String> {
    let Some(json) = files::optional(files::read(path, STATE_LIMIT)).map_err(|e| e.to_string())? else {
        return Ok(None);
    };
    let state: serde_json::Value =
        serde_json::from_slice(&json).map_err(|e| format!("{}: {e}", path.display()))?;
    match state
        .pointer("/hypervisor/hypervisor_type")
        .and_then(|t| t.as_str())
    {
        Some(hypervisor) if !hypervisor.is_empty() => Ok(Some(hypervisor.chars().take(40).collect())),
        _ => Err(format!("{} names no hypervisor", path.display())),
    }
}

/// Whether the process is one of Kata's shims, by the name of its program; `true` where that cannot be told.
pub fn is_kata_shim(pid: i32) -> bool {
    let exe: Option<PathBuf> = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    exe.is_none_or(|exe| {
        exe.file_name()
            .is_some_and(|name| name.to_string_lossy().contains("kata"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Roots {
        dir: tempfile::TempDir,
    }

    impl Roots {
        fn new() -> Self {
            let roots = Self {
                dir: tempfile::tempdir().unwrap(),
            };
            fs::create_dir_all(roots.dir.path().join("kata/s1")).unwrap();
            fs::create_dir_all(roots.dir.path().join("sbs/s1")).unwrap();
            roots
        }

        fn state(&self, json: &str) {
            fs::write(self.dir.path().join("kata/s1/state.json"), json).unwrap();
        }

        fn risk(&self, socket: &str) -> Risk {
            let (rust, go) = (self.dir.path().join("kata"), self.dir.path().join("sbs"));
            risk_below(&rust, &go, "s1", &Address::Path(self.dir.path().join(socket)))
        }
    }

    #[test]
    fn qemu_and_firecracker_below_the_rust_shim_are_deadly() {
        let roots = Roots::new();
        for name in ["qemu", "firecracker", "QEMU"] {
            roots.state(&format!(r#"{{"hypervisor":{{"hypervisor_type":"{name}"}}}}"#));
            let expected = Risk::Deadly {
                hypervisor: name.into(),
            };
            assert_eq!(roots.risk("kata/s1/shim-monitor.sock"), expected);
            assert_eq!(
                roots.risk("sbs/s1/shim-monitor.sock"),
                Risk::None,
                "that is the Go shim's socket"
            );
        }
    }

    #[test]
    fn the_recorded_cloud_hypervisor_sandbox_may_be_asked() {
        let roots = Roots::new();
        roots.state(include_str!("../../tests/fixtures/kata-3.30-rs/state.json"));
        assert_eq!(roots.risk("kata/s1/shim-monitor.sock"), Risk::None);
    }

    #[test]
    fn what_cannot_be_told_is_unknown() {
        let roots = Roots::new();
        assert!(matches!(
            roots.risk("kata/s1/shim-monitor.sock"),
            Risk::Unknown { .. }
        ));
        for broken in [
            "",
            "{",
            "[]",
            r#"{"hypervisor":{}}"#,
            r#"{"hypervisor":{"hypervisor_type":""}}"#,
        ] {
            roots.state(broken);
            assert!(
                matches!(roots.risk("kata/s1/shim-monitor.sock"), Risk::Unknown { .. }),
                "{broken}"
            );
        }
    }

    #[test]
    fn a_go_shim_with_a_misplaced_socket_may_be_asked() {
        let roots = Roots::new();
        fs::write(roots.dir.path().join("sbs/s1/persist.json"), "{}").unwrap();
        assert_eq!(roots.risk("kata/s1/shim-monitor.sock"), Risk::None);
    }
}
