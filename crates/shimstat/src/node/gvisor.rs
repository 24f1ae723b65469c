//! What gVisor's `runsc` leaves on disk of a container: where its sandbox listens, in which cgroup it runs, and the
//! state that runsc saw last. Nobody is asked.
//!
//! gVisor's shim has one directory a containerd namespace, `<root>/<namespace>`, with a state file for each container
//! and a control socket for each sandbox
//! ([pkg/shim/v1/proc/init.go](https://github.com/google/gvisor/blob/master/pkg/shim/v1/proc/init.go), `NewRunsc`;
//! [runsc/container/state_file.go](https://github.com/google/gvisor/blob/master/runsc/container/state_file.go)). Seen on
//! release-20260817, under containerd and under CRI-O.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use serde::Deserialize;

use super::bundle::Bundle;
use super::cgroup::CgroupMounts;
use super::files::{self, ReadError};
use super::id::{Id, IdError};
use crate::shim::address::Address;

/// Where gVisor's shim keeps its state unless it is told otherwise, whichever containerd started it (`RunscRoot` of
/// [pkg/shim/v1/proc/proc.go](https://github.com/google/gvisor/blob/master/pkg/shim/v1/proc/proc.go)).
const DEFAULT_ROOT: &str = "/run/containerd/runsc";

/// Where a sandbox listens if it cannot in its root (`createControlSocket` of
/// [runsc/sandbox/sandbox.go](https://github.com/google/gvisor/blob/master/runsc/sandbox/sandbox.go)). Its last resort is
/// `/tmp`, in which anybody may listen: not taken.
const OTHER_SOCKET_DIRS: [&str; 2] = ["/run", "/var/run"];

/// Limits in bytes. A state file repeats the container's OCI spec, which is a few KB and can be hundreds.
const STATE_LIMIT: u64 = 16 << 20;
const OPTIONS_LIMIT: u64 = 1 << 20;
const CPU_LIMIT: u64 = 64 << 10;
const ARGUMENTS_LIMIT: u64 = 1 << 20;

/// A file of gVisor's that could not be read, or does not make sense.
#[derive(Debug, thiserror::Error)]
pub enum GvisorError {
    /// The file could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// No state file is named by this id: it could lead elsewhere.
    #[error("{id:?}: {source}")]
    Id {
        /// The id of a container or sandbox, as it was given.
        id: String,
        /// What is wrong with it.
        source: IdError,
    },
    /// The file is not the JSON that gVisor writes.
    #[error("{}: not as gVisor writes it: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where the JSON is wrong.
        source: serde_json::Error,
    },
    /// The bundle's options name a root directory that cannot be followed.
    #[error("{}: gVisor's root {root:?} is not an absolute path", path.display())]
    Root {
        /// The file with the options.
        path: PathBuf,
        /// The root directory that it names.
        root: String,
    },
    /// The state file describes another container than the one it is named after.
    #[error("{}: it is the state of container {id:?} in sandbox {sandbox:?}", path.display())]
    OtherContainer {
        /// The state file.
        path: PathBuf,
        /// The container that it describes.
        id: String,
        /// The sandbox that it describes.
        sandbox: String,
    },
    /// The control socket is noted in a place where no gVisor sandbox listens, and is not connected to.
    #[error(
        "sandbox {sandbox} says that it listens on {socket:?}, and gVisor's sandboxes do in {} or /run",
        root.display()
    )]
    ControlSocket {
        /// The sandbox's id.
        sandbox: String,
        /// The socket that its state file names.
        socket: PathBuf,
        /// gVisor's root directory.
        root: PathBuf,
    },
}

/// The directory in which gVisor keeps the state of a bundle's container: the shim notes in the bundle which options it
/// was given, by containerd or its own configuration file.
pub fn root(bundle: &Bundle) -> Result<PathBuf, GvisorError> {
    /// `GvisorState` of pkg/shim/v1/runsc/state.go.
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct ShimState {
        options: Options,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Options {
        root: String,
        /// Passed on to runsc as flags, after `--root`.
        #[serde(rename = "runscConfig")]
        flags: Option<BTreeMap<String, String>>,
    }

    let path = bundle.path.join("state.json");
    let options = match files::optional(files::read(&path, OPTIONS_LIMIT))? {
        None => Options::default(),
        Some(json) => match serde_json::from_slice::<ShimState>(&json) {
            Ok(state) => state.options,
            Err(source) => return Err(GvisorError::Json { path, source }),
        },
    };
    let flag = options.flags.and_then(|mut flags| flags.remove("root"));
    let (root, namespace) = match (flag, options.root) {
        (Some(root), _) => (root, ""),
        (None, root) if root.is_empty() => (DEFAULT_ROOT.to_string(), bundle.namespace.as_str()),
        (None, root) => (root, bundle.namespace.as_str()),
    };
    if !Path::new(&root).is_absolute() {
        return Err(GvisorError::Root { path, root });
    }
    Ok(Path::new(&root)
        .components()
        .chain(Path::new(namespace).components())
        .collect())
}

/// A container as runsc wrote it down last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GvisorState {
    /// The container's id.
    pub id: String,
    /// Its status when runsc wrote the file.
    pub status: Status,
    /// `None` once it has been destroyed.
    pub sandbox: Option<GvisorSandbox>,
}

/// A container's status in its state file (`runsc/container/status.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is being created.
    Creating,
    /// It was created, and its first process was not started.
    Created,
    /// Its first process was started.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Its first process has ended.
    Stopped,
    /// A word that gVisor has not used so far.
    #[serde(other)]
    Unknown,
}

/// The sandbox that a container is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GvisorSandbox {
    /// The sandbox's id: the one of the container that it was made for, in a pod the pause container's.
    pub id: String,
    /// The pid of its process, in the pid namespace that runsc was started in.
    pub pid: Option<u32>,
    /// Its cgroup on the host; `None` where it was not given one of its own.
    pub cgroup: Option<GvisorCgroup>,
    /// Whether it uses the host's network stack (`--network=host`) rather than its own. The counters are then those of
    /// the network namespace that it is in, which for a pod on the host's network is the host's.
    pub host_network_stack: bool,
    /// Where it says that it listens.
    socket: PathBuf,
    root: PathBuf,
}

/// A sandbox's cgroup on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GvisorCgroup {
    /// Below the mount point of a controller.
    V1(PathBuf),
    /// Below the mount point of the one hierarchy.
    V2(PathBuf),
}

#[derive(Deserialize)]
struct StateFile {
    id: String,
    status: Status,
    sandbox: Option<SandboxState>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SandboxState {
    id: String,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    cgroup: CgroupState,
    #[serde(default)]
    control_socket_path: PathBuf,
    #[serde(default)]
    metric_metadata: Option<BTreeMap<String, String>>,
}

/// One of these is there, or `cgroupunknown` (`CgroupJSON` of runsc/cgroup/cgroup.go).
#[derive(Default, Deserialize)]
#[serde(default)]
struct CgroupState {
    cgroupv1: Option<CgroupV1>,
    cgroupv2: Option<CgroupV2>,
    cgroupsystemd: Option<CgroupV2>,
}

#[derive(Deserialize)]
struct CgroupV1 {
    name: String,
    parents: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct CgroupV2 {
    path: String,
}

impl GvisorState {
    /// Reads the state of a container in a sandbox; `None` where gVisor does not have it (any more).
    pub fn read(root: &Path, id: &str, sandbox: &str) -> Result<Option<Self>, GvisorError> {
        for id in [id, sandbox] {
            Id::parse(id).map_err(|source| GvisorError::Id {
                id: id.to_string(),
                source,
            })?;
        }
        let path = root.join(format!("{id}_sandbox:{sandbox}.state"));
        let mut again = true;
        let file: StateFile = loop {
            let Some(json) = files::optional(files::read(&path, STATE_LIMIT))? else {
                return Ok(None);
            };
            match serde_json::from_slice(&json) {
                Ok(file) => break file,
                // runsc writes it in place: it may have been halfway.
                Err(error) if error.is_eof() && std::mem::take(&mut again) => {}
                Err(source) => return Err(GvisorError::Json { path, source }),
            }
        };
        let in_sandbox = file.sandbox.as_ref().map_or(sandbox, |sandbox| &sandbox.id);
        if file.id != id || in_sandbox != sandbox {
            let sandbox = in_sandbox.to_string();
            return Err(GvisorError::OtherContainer {
                path,
                id: file.id,
                sandbox,
            });
        }
        Ok(Some(Self {
            id: file.id,
            status: file.status,
            sandbox: file.sandbox.map(|state| GvisorSandbox::new(state, root)),
        }))
    }

    /// The container's status, as far as it can be known without asking the sandbox: `None` where we do not see the
    /// sandbox's process, in another pid namespace than its.
    ///
    /// A container of several that has ended by itself still counts as running here: runsc writes that down when it is
    /// asked the next time. The sandbox itself knows
    /// ([`ControlConnection::runtime_state`](crate::shim::runsc::ControlConnection::runtime_state)).
    pub fn status(&self) -> Option<Status> {
        let running = match &self.sandbox {
            _ if self.status == Status::Stopped => return Some(Status::Stopped),
            None => Some(false),
            Some(sandbox) => sandbox.is_running(),
        };
        Some(if running? { self.status } else { Status::Stopped })
    }
}

impl GvisorSandbox {
    fn new(state: SandboxState, root: &Path) -> Self {
        Self {
            id: state.id,
            pid: Some(state.pid).filter(|pid| *pid != 0),
            cgroup: state.cgroup.cgroup(),
            host_network_stack: state
                .metric_metadata
                .is_some_and(|metadata| metadata.get("network").is_some_and(|network| network == "host")),
            socket: state.control_socket_path,
            root: root.to_path_buf(),
        }
    }

    /// Where the sandbox can be asked (see [`runsc`](crate::shim::runsc)). A socket anywhere but where gVisor puts its
    /// own is not taken.
    pub fn control_socket(&self) -> Result<Address, GvisorError> {
        let directory = self.socket.parent();
        let directory_is_gvisors = std::iter::once(self.root.as_path())
            .chain(OTHER_SOCKET_DIRS.map(Path::new))
            .any(|gvisors| directory == Some(gvisors));
        let name = format!("runsc-{}.sock", self.id);
        if directory_is_gvisors && self.socket.file_name().is_some_and(|file| *file == *name) {
            return Ok(Address::Path(self.socket.clone()));
        }
        Err(GvisorError::ControlSocket {
            sandbox: self.id.clone(),
            socket: self.socket.clone(),
            root: self.root.clone(),
        })
    }

    /// Whether the sandbox's process lives; `None` where we may not be able to see it. To read its arguments can wait
    /// for the kernel, where the process's memory is being changed.
    pub fn is_running(&self) -> Option<bool> {
        /// The first pid namespace sees every process. Its inode is fixed (`PROC_PID_INIT_INO` in the kernel's
        /// proc_ns.h).
        static SEES_ALL: LazyLock<bool> = LazyLock::new(|| {
            std::fs::read_link("/proc/self/ns/pid")
                .is_ok_and(|target| target == Path::new("pid:[4026531836]"))
        });
        self.is_running_in(Path::new("/proc"), *SEES_ALL)
    }

    fn is_running_in(&self, proc: &Path, sees_all: bool) -> Option<bool> {
        let Some(pid) = self.pid else {
            return Some(false);
        };
        // A zombie's are empty.
        let arguments = match files::read(&proc.join(pid.to_string()).join("cmdline"), ARGUMENTS_LIMIT) {
            Ok(arguments) => arguments,
            Err(error) if error.is_missing() => Vec::new(),
            Err(_) => return None,
        };
        if self.is_mine(&arguments) {
            return Some(true);
        }
        sees_all.then_some(false)
    }

    /// Whether a process with these arguments is the sandbox's: `runsc-sandbox … boot … <id>`, whatever its program is
    /// called (`createSandboxProcess` of runsc/sandbox/sandbox.go). Another process with the pid has not this id.
    fn is_mine(&self, arguments: &[u8]) -> bool {
        let mut arguments = arguments
            .strip_suffix(b"\0")
            .unwrap_or(arguments)
            .split(|byte| *byte == 0);
        arguments.next_back() == Some(self.id.as_bytes())
            && arguments.any(|argument| argument == b"runsc-sandbox")
    }
}

impl CgroupState {
    fn cgroup(self) -> Option<GvisorCgroup> {
        if let Some(v1) = self.cgroupv1 {
            let parent = v1.parents.and_then(|mut parents| parents.remove("cpuacct"));
            return below(&[&parent.unwrap_or_default(), &v1.name]).map(GvisorCgroup::V1);
        }
        let v2 = self.cgroupv2.or(self.cgroupsystemd)?;
        below(&[&v2.path]).map(GvisorCgroup::V2)
    }
}

/// The path below a mount point; `None` where it would leave that, or is the mount point itself.
fn below(parts: &[&str]) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for component in parts.iter().flat_map(|part| Path::new(part).components()) {
        match component {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    (path != Path::new("")).then_some(path)
}

impl GvisorCgroup {
    /// Processor time that the cgroup has used, in nanoseconds; `None` where it is not there.
    pub fn cpu_usage(&self) -> Result<Option<u64>, ReadError> {
        self.cpu_usage_in(CgroupMounts::host()?)
    }

    fn cpu_usage_in(&self, mounts: &CgroupMounts) -> Result<Option<u64>, ReadError> {
        let (controller, path, file) = match self {
            Self::V1(path) => ("cpuacct", path, "cpuacct.usage"),
            Self::V2(path) => ("", path, "cpu.stat"),
        };
        let Some(directory) = mounts.directory(controller, &format!("/{}", path.display())) else {
            return Ok(None);
        };
        let path = directory.join(file);
        let Some(text) = files::optional(files::read_text(&path, CPU_LIMIT))? else {
            return Ok(None);
        };
        let usage = match self {
            Self::V1(_) => text.trim().parse().ok(),
            Self::V2(_) => text
                .lines()
                .find_map(|line| line.strip_prefix("usage_usec "))
                .and_then(|micros| micros.trim().parse::<u64>().ok()?.checked_mul(1000)),
        };
        usage.map(Some).ok_or_else(|| ReadError {
            path,
            source: std::io::Error::new(std::io::ErrorKind::InvalidData, "no processor time in it"),
        })
    }
}

#[cfg(test)]
mod tests;
