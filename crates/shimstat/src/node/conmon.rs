//! conmon, which watches a container of CRI-O or podman that has no shim. What its arguments say is in no file that can be
//! read without their daemons or databases.

use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::files;

/// Its command line has about 1 KB.
const ARGUMENTS_LIMIT: u64 = 64 << 10;

/// What conmon was started with
/// (<https://github.com/containers/conmon/blob/main/docs/conmon.8.md>).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Conmon {
    /// The OCI runtime that started the container.
    pub runtime: Option<PathBuf>,
    /// The directory with the container's spec.
    pub bundle: Option<PathBuf>,
    /// The container's name: podman's own, or the one that CRI-O makes up.
    pub name: Option<String>,
}

impl Conmon {
    /// Reads the arguments of a process; `None` where it is not the conmon of the container `id`.
    pub(super) fn read(pid: u32, id: &str) -> Option<Self> {
        let arguments = files::read(Path::new(&format!("/proc/{pid}/cmdline")), ARGUMENTS_LIMIT).ok()?;
        Self::parse(&arguments, id)
    }

    fn parse(arguments: &[u8], id: &str) -> Option<Self> {
        let mut arguments = arguments.split(|byte| *byte == 0).skip(1);
        let (mut conmon, mut is_its) = (Self::default(), false);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let path = |bytes: &[u8]| PathBuf::from(std::ffi::OsString::from_vec(bytes.to_vec()));
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().filter(|value| !value.is_empty());
            match argument {
                b"-c" | b"--cid" => is_its = value() == Some(id.as_bytes()),
                b"-r" | b"--runtime" => conmon.runtime = value().map(path),
                b"-b" | b"--bundle" => conmon.bundle = value().map(path),
                b"-n" | b"--name" => conmon.name = value().map(text),
                // What is after this is for podman.
                b"--exit-command" => break,
                _ => {}
            }
        }
        is_its.then_some(conmon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn podmans_conmon_tells_runtime_bundle_and_name() {
        let line = "conmon|--api-version|1|-c|4ac1|-u|4ac1|-r|/usr/bin/crun|-b|/var/lib/containers/storage/overlay-containers/4ac1/userdata|-p|/run/containers/storage/overlay-containers/4ac1/userdata/pidfile|-n|web|--exit-dir|/run/libpod/exits|--exit-command|/usr/bin/podman|--exit-command-arg|-n|";
        let line = line.replace('|', "\0");
        let expected = Conmon {
            runtime: Some("/usr/bin/crun".into()),
            bundle: Some("/var/lib/containers/storage/overlay-containers/4ac1/userdata".into()),
            name: Some("web".into()),
        };
        assert_eq!(Conmon::parse(line.as_bytes(), "4ac1"), Some(expected));
        assert_eq!(Conmon::parse(line.as_bytes(), "4ac2"), None, "another's");
        for odd in ["", "\0", "conmon\0-c", "conmon\0-c\0"] {
            assert_eq!(Conmon::parse(odd.as_bytes(), "4ac1"), None, "{odd:?}");
        }
    }
}
