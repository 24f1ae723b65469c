//! How a container ended, as its manager keeps it after the container's shim and bundle are gone.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::bundle::{Bundle, Layout};
use super::files;

/// The notes have at most a few KB.
const NOTE_LIMIT: u64 = 256 << 10;

/// Where conmon leaves exit statuses, a file for each container: for CRI-O (`container_exits_dir` of crio.conf(5)), and
/// for podman, which removes them once it has read them.
const EXIT_DIRECTORIES: [&str; 2] = ["/run/crio/exits", "/run/libpod/exits"];

/// What a container's manager noted of its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ended {
    /// The exit status of its first process: 128 and the signal's number where a signal ended it. `None`: not noted.
    pub exit_status: Option<u32>,
    /// When that process ended, in seconds since 1970. `None`: not noted.
    pub exited_at: Option<i64>,
    /// Whether a process in it was killed because its memory was used up. `false` also where the manager was not told.
    pub oom_killed: bool,
}

/// Where a container's end will be noted. It is found while the container is there: its bundle leads there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndRecord {
    id: String,
    place: RecordPlace,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum RecordPlace {
    /// The status file of containerd's CRI.
    Cri(PathBuf),
    /// conmon's files, and the bundle, in which it leaves a mark.
    Conmon(PathBuf),
}

impl EndRecord {
    /// Where the end of the container of this bundle will be noted; `None` where nobody does: containerd alone, without
    /// CRI, tells its clients and forgets.
    pub fn of(bundle: &Bundle) -> Option<Self> {
        let place = match bundle.layout {
            Layout::Task => RecordPlace::Cri(cri_status(bundle)?),
            Layout::Storage => RecordPlace::Conmon(bundle.path.clone()),
            Layout::Sandbox => return None,
        };
        Some(Self {
            id: bundle.id.clone(),
            place,
        })
    }

    /// What is noted by now; `None` before the container's end, and after its manager has forgotten it.
    pub fn read(&self) -> Option<Ended> {
        match &self.place {
            RecordPlace::Cri(path) => cri(&files::read(path, NOTE_LIMIT).ok()?),
            RecordPlace::Conmon(bundle) => EXIT_DIRECTORIES
                .iter()
                .find_map(|directory| conmon(Path::new(directory), &self.id, bundle)),
        }
    }
}

/// `<root>/io.containerd.grpc.v1.cri/containers/<id>/status`. A bundle's `work` leads to containerd's root.
fn cri_status(bundle: &Bundle) -> Option<PathBuf> {
    let work = fs::read_link(bundle.path.join("work")).ok()?;
    // <root>/io.containerd.runtime.v2.task/<namespace>/<id>
    let root = work.ancestors().nth(3)?;
    let directory = root.join("io.containerd.grpc.v1.cri/containers").join(&bundle.id);
    directory.is_dir().then(|| directory.join("status"))
}

/// A container's status as containerd's CRI keeps it on disk
/// (<https://github.com/containerd/containerd/blob/main/internal/cri/store/container/status.go>).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CriStatus {
    version: String,
    /// Nanoseconds since 1970; 0 while it runs.
    finished_at: i64,
    exit_code: i32,
    #[serde(default)]
    reason: String,
}

pub(super) fn cri(json: &[u8]) -> Option<Ended> {
    let status: CriStatus = serde_json::from_slice(json).ok()?;
    if status.version != "v1" || status.finished_at == 0 {
        return None;
    }
    Some(Ended {
        exit_status: u32::try_from(status.exit_code).ok(),
        exited_at: Some(status.finished_at / 1_000_000_000).filter(|seconds| *seconds > 0),
        oom_killed: status.reason == "OOMKilled",
    })
}

/// conmon writes the exit status as a number, and makes a file `oom` in the bundle when the kernel has killed a process
/// (<https://github.com/containers/conmon/blob/main/src/oom.c>).
fn conmon(exits: &Path, id: &str, bundle: &Path) -> Option<Ended> {
    let path = exits.join(id);
    let status = files::read_text(&path, NOTE_LIMIT).ok()?;
    let written = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
    let since_1970 = written.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    Some(Ended {
        exit_status: status.trim().parse().ok(),
        exited_at: since_1970.and_then(|time| i64::try_from(time.as_secs()).ok()),
        oom_killed: bundle.join("oom").exists(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cris_status_tells_the_end() {
        // As containerd 2.1.9 wrote it.
        let running = br#"{"Version":"v1","Pid":4711,"CreatedAt":1764287000000000000,"StartedAt":1764287001000000000,"FinishedAt":0,"ExitCode":0,"Reason":"","Message":"","Resources":null}"#;
        assert_eq!(cri(running), None);
        let killed = br#"{"Version":"v1","Pid":0,"CreatedAt":1764287000000000000,"StartedAt":1764287001000000000,"FinishedAt":1764287002500000000,"ExitCode":137,"Reason":"OOMKilled","Message":"","Resources":{"linux":{}}}"#;
        let expected = Ended {
            exit_status: Some(137),
            exited_at: Some(1_764_287_002),
            oom_killed: true,
        };
        assert_eq!(cri(killed), Some(expected));
        for odd in [
            &b""[..],
            b"{}",
            b"[]",
            br#"{"Version":"v2","FinishedAt":1,"ExitCode":1}"#,
        ] {
            assert_eq!(cri(odd), None);
        }
    }

    #[test]
    fn a_bundle_leads_to_cris_status() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let bundle = Bundle::of_task("k8s.io", "c1", dir.path().join("c1"));
        fs::create_dir(&bundle.path).unwrap();
        assert_eq!(EndRecord::of(&bundle), None);
        std::os::unix::fs::symlink(
            root.join("io.containerd.runtime.v2.task/k8s.io/c1"),
            bundle.path.join("work"),
        )
        .unwrap();
        assert_eq!(EndRecord::of(&bundle), None, "it is not CRI's");
        let status = root.join("io.containerd.grpc.v1.cri/containers/c1");
        fs::create_dir_all(&status).unwrap();
        let record = EndRecord::of(&bundle).unwrap();
        assert_eq!(record.read(), None);
        fs::write(
            status.join("status"),
            r#"{"Version":"v1","FinishedAt":1500000000,"ExitCode":7,"Reason":"Error"}"#,
        )
        .unwrap();
        fs::remove_dir_all(&bundle.path).unwrap();
        let expected = Ended {
            exit_status: Some(7),
            exited_at: Some(1),
            oom_killed: false,
        };
        assert_eq!(record.read(), Some(expected));
    }

    #[test]
    fn conmons_files_tell_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("bundle");
        fs::create_dir(&bundle).unwrap();
        assert_eq!(conmon(dir.path(), "c1", &bundle), None);
        fs::write(dir.path().join("c1"), "137").unwrap();
        let ended = conmon(dir.path(), "c1", &bundle).unwrap();
        assert_eq!((ended.exit_status, ended.oom_killed), (Some(137), false));
        assert!(ended.exited_at.unwrap() > 1_700_000_000);
        fs::write(bundle.join("oom"), "").unwrap();
        assert!(conmon(dir.path(), "c1", &bundle).unwrap().oom_killed);
    }
}
