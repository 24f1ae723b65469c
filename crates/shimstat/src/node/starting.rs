//! Sandboxes whose virtual machine is being started.
//!
//! Kata's Go shim does not answer `State` before the machine is up, and its Rust shim does not answer for a sandbox that
//! it manages itself (seen on 4.1.0). Both write down their sandbox once its machine runs.

use std::path::Path;
use std::time::{Duration, SystemTime};

use super::bundle::Bundle;
use super::container::Container;
use super::id::Id;
use super::monitor::{self, GO_ROOT, RUST_ROOT};

/// How long a machine may take to start. Kata's own limit is a minute by default, and three where images are pulled in
/// the guest.
const LONGEST: Duration = Duration::from_secs(300);

/// Whether a container is the sandbox of a virtual machine that is being started, as far as files tell.
pub fn is_starting(container: &Container) -> bool {
    let is_young = |created: SystemTime| {
        SystemTime::now()
            .duration_since(created)
            .is_ok_and(|age| age < LONGEST)
    };
    container.is_sandbox()
        && container.bundle.created().is_ok_and(is_young)
        && container.runtime().is_some_and(|runtime| runtime.is_kata())
        && lacks_traces(Path::new(GO_ROOT), Path::new(RUST_ROOT), &container.bundle)
}

/// Whether none of the files is there that a shim writes when its machine is up. The Go shim then listens for its
/// monitor; the Rust shim has listened before.
fn lacks_traces(go_root: &Path, rust_root: &Path, bundle: &Bundle) -> bool {
    let Ok(id) = Id::parse(&bundle.id) else {
        return false;
    };
    let rust = rust_root.join(id.as_str());
    if rust.is_dir() {
        return !rust.join("state.json").exists();
    }
    let go = go_root.join(id.as_str());
    !go.join(monitor::SOCKET).exists() && matches!(bundle.monitor_address(), Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_machine_that_is_up_has_left_traces() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        let add = |path: &str| {
            fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            fs::write(at(path), "x").unwrap();
        };
        let lacks = |id: &str| {
            let path = at("tasks").join(id);
            fs::create_dir_all(&path).unwrap();
            let bundle = Bundle::of_task("k8s.io", id, path);
            lacks_traces(&at("sbs"), &at("kata"), &bundle)
        };
        assert!(lacks("go"));
        add("sbs/go/shim-monitor.sock");
        assert!(!lacks("go"));
        assert!(lacks("elsewhere"));
        fs::write(at("tasks/elsewhere/monitor_address"), "unix:///run/x").unwrap();
        assert!(!lacks("elsewhere"));
        // As recorded of 4.1.0 while it starts: the monitor's socket is there, and no state.
        add("kata/rust/shim-monitor.sock");
        assert!(lacks("rust"));
        add("kata/rust/state.json");
        assert!(!lacks("rust"));
    }
}
