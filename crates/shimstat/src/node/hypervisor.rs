//! What Kata's shims note of a sandbox's virtual machine: which hypervisor it runs on, and so whether its metrics
//! may be asked for, and the processes behind it.
//!
//! The Go shim keeps `/run/vc/sbs/<id>/persist.json`, the Rust shim `/run/kata/<id>/state.json`; both are root's.
//!
//! Kata's Rust shim, the default since 4.0, has no implementation of hypervisor metrics for QEMU and
//! Firecracker: `GET /metrics` reaches a `todo!()`, the shim aborts, and the sandbox dies with it
//! (kata-containers issue 13708; seen in the sources of 4.1.0).

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use super::files::{self, FileStamp, ReadError};
use super::id::Id;
use super::machine::MachineKind;
use super::monitor::{GO_ROOT, RUST_ROOT, SOCKET};
use crate::shim::address::Address;

/// Kata writes a few KB; the sandbox's configuration is in it.
const STATE_LIMIT: u64 = 4 << 20;

/// Hypervisors for which Kata's Rust shim dies of being asked for metrics.
const DEADLY: [&str; 2] = ["qemu", "firecracker"];

/// The longest name of a hypervisor that is passed on, in characters.
const NAME_LIMIT: usize = 40;

/// The virtual machine of a Kata sandbox, as its shim noted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualMachine {
    /// Which of Kata's shims runs it.
    pub shim: KataShim,
    /// `qemu`, `clh`, `firecracker`, `dragonball`, …
    pub hypervisor: Option<String>,
    /// What the notes tell of where it runs and whether its memory is encrypted; see
    /// [`MachineKind::with_command_line_of`].
    pub kind: MachineKind,
    /// The hypervisor's process on the host, as noted when it started: it may be gone, and its pid another's. The
    /// Rust shim does not note it for every hypervisor (3.30 leaves Cloud Hypervisor's out), and Dragonball runs
    /// within the shim; the task service's `State` names it too.
    pub vmm_pid: Option<u32>,
    /// The process that shares files with the guest, where it is one of its own.
    pub virtiofsd_pid: Option<u32>,
    /// Memory in bytes that the guest was configured with: at boot, and with the Go shim what was plugged in
    /// later. The Rust shim does not note the latter.
    pub configured_memory: Option<u64>,
    /// The cgroups on the host that hold its processes.
    pub cgroups: CgroupPaths,
}

/// Kata's two implementations of its shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KataShim {
    /// `src/runtime`, which listens in `/run/vc/sbs`.
    Go,
    /// `src/runtime-rs`, which listens in `/run/kata`.
    Rust,
}

impl KataShim {
    /// `go` or `rust`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Rust => "rust",
        }
    }
}

/// The cgroups on the host that a shim made for its sandbox, as cgroupfs or systemd paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupPaths {
    /// Holds the sandbox's processes, or its virtual processors alone where there is an `overhead`.
    pub sandbox: Option<String>,
    /// Holds what is not a virtual processor, unless `sandbox_cgroup_only` is set.
    pub overhead: Option<String>,
}

/// The virtual machine of the sandbox `id`. `None` where no Kata shim has noted one: another runtime, or a sandbox that is
/// just starting. An error where its notes cannot be read.
pub fn virtual_machine(id: &str) -> Result<Option<VirtualMachine>, ReadError> {
    virtual_machine_below(Path::new(GO_ROOT), Path::new(RUST_ROOT), id)
}

fn virtual_machine_below(
    go_root: &Path,
    rust_root: &Path,
    id: &str,
) -> Result<Option<VirtualMachine>, ReadError> {
    MachineNotes::default().read_below(go_root, rust_root, id)
}

/// What the shim of one sandbox has noted, read again when the file has changed.
#[derive(Debug, Default)]
pub(super) struct MachineNotes {
    read: Option<(PathBuf, FileStamp, VirtualMachine)>,
}

impl MachineNotes {
    pub fn read(&mut self, id: &str) -> Result<Option<VirtualMachine>, ReadError> {
        self.read_below(Path::new(GO_ROOT), Path::new(RUST_ROOT), id)
    }

    fn read_below(
        &mut self,
        go_root: &Path,
        rust_root: &Path,
        id: &str,
    ) -> Result<Option<VirtualMachine>, ReadError> {
        // It may come from an annotation, and becomes part of a path here.
        let Ok(id) = Id::parse(id) else {
            return Ok(None);
        };
        let mut note = |root: &Path, file, parse: fn(&Value) -> Option<VirtualMachine>| {
            let path = root.join(id.as_str()).join(file);
            // Of before it is read: a file that changes meanwhile is read again the next time.
            let Some(stamp) = files::optional(FileStamp::of(&path))? else {
                return Ok(None);
            };
            if let Some((known, same, machine)) = &self.read
                && (known, same) == (&path, &stamp)
            {
                return Ok(Some(machine.clone()));
            }
            let state = match read_json(&path) {
                Err(StateError::Read(error)) => return Err(error),
                // It may be half written.
                state => state.ok().flatten(),
            };
            let machine = state.as_ref().and_then(parse);
            if let Some(machine) = &machine {
                let is_settled = stamp.is_settled(SystemTime::now());
                self.read = is_settled.then(|| (path, stamp, machine.clone()));
            }
            Ok(machine)
        };
        match note(go_root, "persist.json", from_go)? {
            None => note(rust_root, "state.json", from_rust),
            machine => Ok(machine),
        }
    }
}

/// From `persist.json`: `SandboxState` of the Go shim's virtcontainers/persist/api/sandbox.go.
pub(super) fn from_go(state: &Value) -> Option<VirtualMachine> {
    let machine = state.get("HypervisorState")?;
    // A remote hypervisor's state is empty (virtcontainers/remote.go), and only the configuration names it.
    let hypervisor = machine
        .get("Type")
        .and_then(hypervisor_name)
        .or_else(|| hypervisor_name(state.pointer("/Config/HypervisorType")?));
    let megabytes = |value: Option<&Value>| value?.as_u64()?.checked_mul(1 << 20);
    let plugged = megabytes(machine.get("HotpluggedMemory")).unwrap_or(0);
    Some(VirtualMachine {
        shim: KataShim::Go,
        kind: MachineKind::from_hypervisor(hypervisor.as_deref()),
        hypervisor,
        vmm_pid: machine.get("Pid").and_then(pid),
        virtiofsd_pid: machine.get("VirtiofsDaemonPid").and_then(pid),
        configured_memory: megabytes(state.pointer("/Config/HypervisorConfig/MemorySize"))
            .filter(|memory| *memory > 0)
            .and_then(|memory| memory.checked_add(plugged)),
        cgroups: CgroupPaths {
            sandbox: state.get("SandboxCgroupPath").and_then(text),
            overhead: state.get("OverheadCgroupPath").and_then(text),
        },
    })
}

/// From `state.json`: `HypervisorState` and `CgroupState` of runtime-rs (crates/hypervisor/src/hypervisor_persist.rs,
/// crates/resource/src/cgroups/cgroup_persist.rs).
pub(super) fn from_rust(state: &Value) -> Option<VirtualMachine> {
    let machine = state.get("hypervisor")?;
    let config = |key| machine.get("config")?.get(key);
    let hypervisor = machine.get("hypervisor_type").and_then(hypervisor_name);
    let cgroup = |key| state.pointer("/resource/cgroup_state")?.get(key);
    // The path of the overhead's cgroup is noted even where there is none.
    let all_in_one = cgroup("sandbox_cgroup_only").and_then(Value::as_bool) == Some(true);
    Some(VirtualMachine {
        shim: KataShim::Rust,
        kind: MachineKind::from_runtime_rs(hypervisor.as_deref(), machine),
        hypervisor,
        vmm_pid: machine.get("pid").and_then(pid),
        virtiofsd_pid: machine.get("virtiofs_daemon_pid").and_then(pid),
        configured_memory: config("default_memory")
            .and_then(Value::as_u64)
            .filter(|megabytes| *megabytes > 0)
            .and_then(|megabytes| megabytes.checked_mul(1 << 20)),
        cgroups: CgroupPaths {
            sandbox: cgroup("path").and_then(text),
            overhead: cgroup("overhead_path").and_then(text).filter(|_| !all_in_one),
        },
    })
}

fn pid(value: &Value) -> Option<u32> {
    u32::try_from(value.as_u64()?).ok().filter(|pid| *pid != 0)
}

fn text(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    (!text.is_empty()).then(|| text.to_string())
}

/// Why a shim's state does not tell on which hypervisor its sandbox runs.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file is not JSON.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where the JSON is wrong.
        source: serde_json::Error,
    },
    /// The file can be read, and the hypervisor's name is missing.
    #[error("{} names no hypervisor", path.display())]
    NoHypervisor {
        /// The file.
        path: PathBuf,
    },
    /// The shim has not written the file.
    #[error("{} is not there: the sandbox may be starting", path.display())]
    Missing {
        /// Where it would be.
        path: PathBuf,
    },
}

/// A file of JSON that a shim keeps; `None` where it is not there.
fn read_json(path: &Path) -> Result<Option<Value>, StateError> {
    let Some(json) = files::optional(files::read(path, STATE_LIMIT))? else {
        return Ok(None);
    };
    serde_json::from_slice(&json)
        .map(Some)
        .map_err(|source| StateError::Json {
            path: path.to_path_buf(),
            source,
        })
}

fn hypervisor_name(value: &Value) -> Option<String> {
    let name = value.as_str().filter(|name| !name.is_empty())?;
    Some(name.chars().take(NAME_LIMIT).collect())
}

/// Whether a sandbox survives being asked for its metrics.
#[derive(Debug)]
pub enum Risk {
    /// It does.
    None,
    /// Its shim is Kata's Rust shim, and aborts with this hypervisor.
    Deadly {
        /// The hypervisor, as the shim calls it.
        hypervisor: String,
    },
    /// Its socket is where Kata's Rust shim has it, and nothing says which hypervisor it runs on.
    Unknown {
        /// Why the hypervisor is not known.
        reason: StateError,
    },
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("there is no risk"),
            Self::Deadly { hypervisor } => write!(
                f,
                "it runs on {hypervisor} under Kata's Rust shim, which aborts when it is asked for metrics of that \
                 hypervisor, and the sandbox dies with it (kata-containers issue 13708)"
            ),
            Self::Unknown { reason } => write!(
                f,
                "it may run on QEMU or Firecracker under Kata's Rust shim, which aborts when it is asked for their \
                 metrics, and the sandbox dies with it (kata-containers issue 13708): {reason}"
            ),
        }
    }
}

/// What is known of the risk of asking the sandbox `id` for metrics on this socket.
pub fn risk(id: &str, socket: &Address) -> Risk {
    risk_below(Path::new(RUST_ROOT), Path::new(GO_ROOT), id, socket)
}

fn risk_below(rust_root: &Path, go_root: &Path, id: &str, socket: &Address) -> Risk {
    let Address::Path(socket) = socket else {
        return Risk::None;
    };
    let Some(state) = rust_state_dir(rust_root, id, socket) else {
        return Risk::None;
    };
    let path = state.join("state.json");
    match hypervisor_type(&path) {
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
        Ok(None) if has_go_state(go_root, &state) => Risk::None,
        Ok(None) => Risk::Unknown {
            reason: StateError::Missing { path },
        },
        Err(reason) => Risk::Unknown { reason },
    }
}

/// Where Kata's Rust shim keeps the state of the sandbox that listens at `socket`; `None` where the socket is not the
/// Rust shim's. The same socket has many names: `/var/run` is a link to `/run`, and a directory can be mounted twice.
fn rust_state_dir(rust_root: &Path, id: &str, socket: &Path) -> Option<PathBuf> {
    let own = rust_root.join(id);
    if socket.starts_with(&own) {
        return Some(own);
    }
    // Before each question: where there is no such directory, no socket needs to be resolved to know that it is not in it.
    let root = fs::canonicalize(rust_root).ok()?;
    let has_own = own.exists();
    if has_own && same_file(socket, &own.join(SOCKET)) {
        return Some(own);
    }
    let real = match fs::canonicalize(socket) {
        Ok(real) => real,
        Err(_) => fs::canonicalize(socket.parent()?).ok()?,
    };
    if has_own && real.ancestors().any(|directory| same_file(directory, &own)) {
        return Some(own);
    }
    let below = real.strip_prefix(root).ok()?;
    Some(rust_root.join(below.components().next()?))
}

fn same_file(a: &Path, b: &Path) -> bool {
    let identity = |path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    identity(a).is_some_and(|a| identity(b) == Some(a))
}

fn has_go_state(go_root: &Path, rust_state: &Path) -> bool {
    rust_state
        .file_name()
        .is_some_and(|id| go_root.join(id).join("persist.json").exists())
}

/// The `hypervisor_type` in a Rust shim's `state.json`; `None` where there is no such file.
fn hypervisor_type(path: &Path) -> Result<Option<String>, StateError> {
    let Some(state) = read_json(path)? else {
        return Ok(None);
    };
    match state
        .pointer("/hypervisor/hypervisor_type")
        .and_then(hypervisor_name)
    {
        Some(hypervisor) => Ok(Some(hypervisor)),
        None => Err(StateError::NoHypervisor {
            path: path.to_path_buf(),
        }),
    }
}

/// Whether the process is one of Kata's shims, by the name of its program; `true` where the name cannot be read.
pub(crate) fn is_kata_shim(pid: i32) -> bool {
    let exe: Option<PathBuf> = fs::read_link(format!("/proc/{pid}/exe")).ok();
    exe.is_none_or(|exe| {
        exe.file_name()
            .is_some_and(|name| name.to_string_lossy().contains("kata"))
    })
}

#[cfg(test)]
mod tests;
