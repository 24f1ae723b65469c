//! containerd as a user runs it, without root.

use std::path::Path;

/// Where the `/run/containerd` of a user's containerd is outside of its mount namespace; `None` where `state_dir` is no
/// user's. The state directory is mounted there, sockets and all
/// (<https://github.com/containerd/nerdctl/blob/main/extras/rootless/containerd-rootless.sh>).
pub(super) fn run_dir(state_dir: &Path) -> Option<&Path> {
    let uid = state_dir.strip_prefix("/run/user").ok()?;
    let mut parts = uid
        .components()
        .map(|part| part.as_os_str().to_str().unwrap_or_default());
    let is_users = matches!((parts.next(), parts.next(), parts.next()), (Some(uid), Some("containerd"), None)
        if !uid.is_empty() && uid.bytes().all(|b| b.is_ascii_digit()));
    is_users.then_some(state_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rootless_containerd_is_known_by_its_directory() {
        for (path, is_rootless) in [
            ("/run/user/1000/containerd", true),
            ("/run/user/1000/containerd/", true),
            ("/run/user/alice/containerd", false),
            ("/run/user/1000/containerd/x", false),
            ("/run/user/1000/docker/containerd/daemon", false),
            ("/run/containerd", false),
        ] {
            assert_eq!(run_dir(Path::new(path)).is_some(), is_rootless, "{path}");
        }
    }
}
