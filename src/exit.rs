//! How a command ends without an answer: what it says, what to do about it, and its exit status.

use std::path::Path;
use std::process::ExitCode;
use std::{fs, io};

use shimstat::node::cgroup::CgroupError;
use shimstat::node::{BundleError, FindError, ReadError};
use shimstat::shim::ShimError;
use shimstat::survey::{AskError, Hidden, MonitorError, NotRunning};

use crate::show::columns::UnknownColumn;

/// What is missing where containers' processes cannot be seen, and what to do about it.
pub fn hidden(why: Hidden) -> &'static str {
    match why {
        Hidden::Pids => {
            "the processes of containers cannot be seen from here, and so neither can their network: this is another pid \
             namespace than the shims' (set hostPID: true, or run with --pid=host)"
        }
        Hidden::Forbidden => {
            "this program may not look at the processes of containers, so that their network, their disks' use and what \
             virtual machines read and write are missing: it lacks the capability CAP_SYS_PTRACE"
        }
    }
}

/// The answer could not be given.
const NO_ANSWER: u8 = 1;

/// The command line is wrong; clap uses the same status.
const WRONG_USAGE: u8 = 2;

/// Lines for stderr and an exit status.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    lines: Vec<String>,
    status: u8,
}

impl Failure {
    /// The answer could not be given, for this reason.
    pub fn new(line: impl Into<String>) -> Self {
        Self {
            lines: vec![line.into()],
            status: NO_ANSWER,
        }
    }

    /// The answer could not be given because of an error about `subject` (`container x`). What to do about it is added.
    pub fn of(subject: &str, error: &(impl Remedy + ?Sized)) -> Self {
        Self::new(format!("{subject}: {error}")).and(error.remedy())
    }

    /// The command line is wrong.
    pub fn usage(line: impl Into<String>) -> Self {
        Self {
            lines: vec![line.into()],
            status: WRONG_USAGE,
        }
    }

    /// The reader has gone away, and nothing went wrong.
    pub fn quiet() -> Self {
        Self {
            lines: Vec::new(),
            status: 0,
        }
    }

    /// The answer could not be given, or not all of it, and the reasons have been reported.
    pub fn reported() -> Self {
        Self {
            lines: Vec::new(),
            status: NO_ANSWER,
        }
    }

    /// Adds a line: what was found, or what to do.
    pub fn and(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// What to write to stderr. Untrusted text.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    pub fn status(&self) -> ExitCode {
        ExitCode::from(self.status)
    }
}

/// The exporter cannot be started, or cannot go on.
impl From<exporter_web::Error> for Failure {
    fn from(error: exporter_web::Error) -> Self {
        Self::new(error.to_string()).and(error.remedy())
    }
}

/// A directory on the node could not be read.
impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::new(error.to_string()).and(error.remedy())
    }
}

/// The command line names a column that is not there.
impl From<UnknownColumn> for Failure {
    fn from(error: UnknownColumn) -> Self {
        Self::usage(error.to_string())
    }
}

/// The next command to try, or what else to do about an error.
pub trait Remedy: std::error::Error {
    fn remedy(&self) -> &'static str;
}

pub const LIST: &str = "kata-runtime list shows what is there";
pub const PLACES: &str =
    "kata-runtime list --places shows where containers are looked for; --state names another directory";
pub const RETRY: &str = "try again in a moment";
/// What there is to do about a shim that does not keep to its protocol.
const SHIMS_LOG: &str =
    "the shim's log in the node's journal may say why; kata-runtime list -o wide shows which shim it is";
const SHIM_DIED: &str = "the node's journal may say why its shim died; its manager has to delete what is left of it (kubectl delete \
                         pod, ctr task rm)";
const OTHER_STATISTICS: &str = "ask what manages it instead: crictl stats, ctr task metrics";
const NO_HOST_CGROUPS: &str = "run this with the host's process ids and with the host's /sys/fs/cgroup";

/// Reading this path, or connecting to that socket, failed.
fn of_io(error: &io::Error, path: &Path) -> Option<&'static str> {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
            Some(of_denial(&status, path))
        }
        io::ErrorKind::NotFound => Some(RETRY),
        _ => None,
    }
}

/// What this process lacks to be allowed that, by its `/proc/self/status`.
fn of_denial(status: &str, path: &Path) -> &'static str {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    // Of the four the second is the effective one.
    let user = field("Uid:").and_then(|ids| ids.split_whitespace().nth(1));
    let capabilities = field("CapEff:").and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    let (Some("0"), Some(capabilities)) = (user, capabilities) else {
        return "only root may read containerd's state and connect to shims: run this as root";
    };
    // The numbers of linux/capability.h.
    let has = |number: u32| capabilities & (1 << number) != 0;
    let (overrides, searches, traces) = (has(1), has(2), has(19));
    if path.starts_with("/proc") && !traces {
        "root lacks CAP_SYS_PTRACE here, which looking at other processes needs: add it to the service or container"
    } else if !overrides && !searches {
        "root lacks CAP_DAC_READ_SEARCH here, which reaching containerd's sockets needs: add it to the service or container"
    } else if !overrides {
        "root lacks CAP_DAC_OVERRIDE here, which another user's containers need: add it to the service or container"
    } else {
        "root has the right to this, so a security module forbids it: look for denials of SELinux or AppArmor in the node's journal"
    }
}

impl Remedy for ReadError {
    fn remedy(&self) -> &'static str {
        of_io(&self.source, &self.path)
            .unwrap_or("look for errors of that filesystem in the kernel's log (dmesg)")
    }
}

impl Remedy for FindError {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Read(error) => error.remedy(),
            Self::Creating(_) => RETRY,
            Self::Missing => LIST,
            Self::Ambiguous { .. } => MORE_OF_IT,
        }
    }
}

impl Remedy for BundleError {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Read(error) => error.remedy(),
            Self::MountNamespace(_) => {
                "run this as root with the host's process ids; if that Docker has ended, its containers have too"
            }
            Self::Address { .. } => OTHER_STATISTICS,
            Self::Spec { .. } => {
                "it may be half written: try again in a moment; if it stays, its manager wrote it so"
            }
        }
    }
}

impl Remedy for ShimError {
    fn remedy(&self) -> &'static str {
        match self {
            error if error.is_gone() => SHIM_DIED,
            Self::Connect { source, address } => {
                of_io(source, Path::new(&address.to_string())).unwrap_or(SHIMS_LOG)
            }
            Self::NoTaskService { .. } => OTHER_STATISTICS,
            _ => SHIMS_LOG,
        }
    }
}

impl Remedy for NotRunning {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Gone(_) => SHIM_DIED,
            Self::Unknown(_) => {
                "it is being deleted, or was killed without being deleted: kata-runtime list shows what is left"
            }
            Self::Stopped(_) => {
                "its manager has to delete it (kubectl delete pod, ctr task rm); kata-runtime list shows what runs"
            }
        }
    }
}

impl Remedy for AskError {
    fn remedy(&self) -> &'static str {
        match self {
            Self::NotRunning(why) => why.remedy(),
            Self::Unanswered { .. } => {
                "the shim may be stopped, or its guest hung; --timeout waits longer (Kata gives up on a hung guest after 10 \
                 to 60s)"
            }
            Self::Starting { .. } => RETRY,
            Self::Resting { .. } => "nothing has to be done: it is asked again by itself",
            Self::GuestHung { .. } => {
                "--via shim asks the shim anyway, which can delay ending the sandbox by a minute"
            }
            Self::NoGuest { .. } => "leave out --via: what the shim knows is shown then",
            Self::Shim(error) => error.remedy(),
            Self::NoAddress(error) => error.remedy(),
            Self::NoStatistics(_) => "ask about its containers: kata-runtime list shows them below it",
            Self::Cgroup(CgroupError::Read(error)) => error.remedy(),
            Self::Cgroup(_) => NO_HOST_CGROUPS,
            Self::TooSoon { error, .. } => error.remedy(),
            Self::Decode { .. } => SHIMS_LOG,
        }
    }
}

impl Remedy for MonitorError {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Ask(AskError::GuestHung { .. }) => {
                "--force asks the shim all the same, which waits for its guest"
            }
            Self::Ask(error) => error.remedy(),
            Self::Shim(error) => error.remedy(),
            Self::Risk(_) => "--force asks anyway, at the risk of killing the sandbox and everything in it",
            Self::NoAddress => {
                "only Kata's sandboxes have a monitor; for others: kata-runtime events --stats"
            }
        }
    }
}

impl Remedy for exporter_web::Error {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Listen { source, .. } => match source.kind() {
                io::ErrorKind::AddrInUse => {
                    "another program listens there (ss -ltnp shows which); choose another address with --listen-address"
                }
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 need CAP_NET_BIND_SERVICE; choose another with --listen-address"
                }
                _ => {
                    "--listen-address takes an address of this machine, or a unix socket in a directory that exists"
                }
            },
            Self::Systemd(_) => "systemctl status kata-runtime-monitor.socket shows what systemd listens on",
            Self::NoAddress => "name one with --listen-address",
            Self::WebConfig(_) => {
                "its format is that of Prometheus' exporters (web-configuration.md of exporter-toolkit)"
            }
            _ => RESOURCES,
        }
    }
}

pub const MORE_OF_IT: &str = "give more of the id or name, or choose with --namespace or --state";
pub const RESOURCES: &str = "a limit of processes, threads, descriptors or memory may be reached: see ulimit -a, and pids.max and memory.max of its cgroup";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_names_what_is_missing() {
        let status = |user: u32, capabilities: u64| {
            format!("Name:\tx\nUid:\t1000\t{user}\t0\t0\nCapEff:\t{capabilities:016x}\n")
        };
        let socket = "unix:///run/containerd/s/1f";
        for (user, capabilities, path, missing) in [
            (1000, 0x1ff_ffff_ffff, socket, "run this as root"),
            (0, 0, socket, "CAP_DAC_READ_SEARCH"),
            (0, 0, "/proc/1/ns/net", "CAP_SYS_PTRACE"),
            (0, 1 << 2, socket, "CAP_DAC_OVERRIDE"),
            (0, 1 << 2 | 1 << 19, "/proc/1/root", "CAP_DAC_OVERRIDE"),
            (0, 1 << 1, socket, "security module"),
            (0, 0x1ff_ffff_ffff, "/proc/1/ns/net", "security module"),
        ] {
            let remedy = of_denial(&status(user, capabilities), Path::new(path));
            assert!(
                remedy.contains(missing),
                "{user} {capabilities:x} {path}: {remedy}"
            );
        }
        assert!(of_denial("", Path::new("/")).contains("run this as root"));
    }
}
