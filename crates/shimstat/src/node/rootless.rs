//! containerd as a user runs it, without root: in a mount namespace of its own, where `/run/containerd` is another directory
//! than here.

use std::fs;
use std::path::{Path, PathBuf};

use super::files::{self, ReadError};

/// A pid and a newline.
const PID_LIMIT: u64 = 64;

/// Where the `/run/containerd` of a user's containerd is outside of its mount namespace; `None` where `state_dir` is no
/// user's.
pub(super) fn run_dir(state_dir: &Path) -> Result<Option<PathBuf>, ReadError> {
    match manager(state_dir) {
        None => Ok(None),
        // The state directory is mounted there, sockets and all
        // (https://github.com/containerd/nerdctl/blob/main/extras/rootless/containerd-rootless.sh).
        Some(Manager::Containerd) => Ok(Some(state_dir.to_path_buf())),
        // It is nowhere else, and the way there is by the containerd that dockerd has started, whose pid is noted beside its
        // state (https://github.com/moby/moby/blob/master/daemon/internal/libcontainerd/supervisor/remote_daemon.go).
        Some(Manager::Docker) => {
            let note = state_dir.with_file_name("containerd.pid");
            let pid = files::read_text(&note, PID_LIMIT)?;
            // Digits alone make no other path.
            let pid = pid.trim().parse().unwrap_or(0_u32);
            let run = PathBuf::from(format!("/proc/{pid}/root/run/containerd"));
            match fs::metadata(&run) {
                Ok(_) => Ok(Some(run)),
                Err(source) => Err(ReadError { path: run, source }),
            }
        }
    }
}

/// Whose containerd it is.
#[derive(Debug, PartialEq, Eq)]
enum Manager {
    Containerd,
    Docker,
}

fn manager(state_dir: &Path) -> Option<Manager> {
    let below = state_dir.strip_prefix("/run/user").ok()?;
    let mut parts = below.iter().map(|part| part.to_str().unwrap_or_default());
    let is_uid = |uid: &str| !uid.is_empty() && uid.bytes().all(|b| b.is_ascii_digit());
    parts.next().filter(|uid| is_uid(uid))?;
    match parts.collect::<Vec<_>>().as_slice() {
        ["containerd"] => Some(Manager::Containerd),
        ["docker", "containerd", "daemon"] => Some(Manager::Docker),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rootless_containerd_is_known_by_its_directory() {
        for (path, expected) in [
            ("/run/user/1000/containerd", Some(Manager::Containerd)),
            ("/run/user/1000/containerd/", Some(Manager::Containerd)),
            ("/run/user/alice/containerd", None),
            ("/run/user/1000/containerd/x", None),
            ("/run/user/1000/docker/containerd/daemon", Some(Manager::Docker)),
            ("/run/docker/containerd/daemon", None),
            ("/run/containerd", None),
        ] {
            assert_eq!(manager(Path::new(path)), expected, "{path}");
        }
    }
}
