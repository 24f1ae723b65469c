//! What runc and crun keep of a container that they run: the pid of its first process, where conmon has noted none.

use std::path::Path;

use serde::Deserialize;

use super::files;

/// A state repeats much of the container's spec, which is a few KB and can be hundreds.
const STATE_LIMIT: u64 = 16 << 20;

/// runc's `state.json`
/// ([libcontainer/container_linux.go](https://github.com/opencontainers/runc/blob/main/libcontainer/container_linux.go)).
#[derive(Deserialize)]
struct Runc {
    id: String,
    init_process_pid: u32,
}

/// crun's `status` ([src/libcrun/status.c](https://github.com/containers/crun/blob/main/src/libcrun/status.c)).
#[derive(Deserialize)]
struct Crun {
    pid: u32,
}

/// The pid of a container's first process when runc or crun started it. Both keep what root runs below `/run`, unless
/// they are told of another root.
pub(super) fn init_pid(id: &str) -> Option<u32> {
    init_pid_below(Path::new("/run"), id)
}

fn init_pid_below(run: &Path, id: &str) -> Option<u32> {
    let read = |path: &Path| files::read(path, STATE_LIMIT).ok();
    let runc = || {
        let state: Runc =
            serde_json::from_slice(&read(&run.join("runc").join(id).join("state.json"))?).ok()?;
        (state.id == id).then_some(state.init_process_pid)
    };
    let crun = || {
        let status: Crun = serde_json::from_slice(&read(&run.join("crun").join(id).join("status"))?).ok()?;
        Some(status.pid)
    };
    runc().or_else(crun).filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_pid_is_where_runc_or_crun_has_it() {
        let run = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = run.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        // As runc 1.1.5 and crun 1.8 begin them, shortened.
        write(
            "runc/c1/state.json",
            r#"{"id":"c1","init_process_pid":4321,"init_process_start":77,"config":{}}"#,
        );
        write(
            "crun/c2/status",
            r#"{"pid":4322,"process-start-time":78,"bundle":"/b"}"#,
        );
        write("runc/c3/state.json", r#"{"id":"another","init_process_pid":1}"#);
        write("runc/c4/state.json", r#"{"id":"c4","init_process_pid":0}"#);
        write("crun/c5/status", "{");
        let found = |id| init_pid_below(run.path(), id);
        assert_eq!((found("c1"), found("c2")), (Some(4321), Some(4322)));
        for id in ["c3", "c4", "c5", "c6"] {
            assert_eq!(found(id), None, "{id}");
        }
    }
}
