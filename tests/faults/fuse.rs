//! A state directory on a mount that is dead: a FUSE filesystem whose server never answers.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::mock::finish;

/// A mount on which everything waits, until this is dropped.
struct DeadMount {
    path: PathBuf,
    server: Option<File>,
}

impl DeadMount {
    /// `None` where this machine has no FUSE, or does not let us mount.
    fn at(path: &Path) -> Option<Self> {
        let server = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let target = CString::new(path.as_os_str().as_bytes()).unwrap();
        let options = CString::new(options).unwrap();
        // SAFETY: all texts end with a zero.
        let result = unsafe {
            libc::mount(
                c"dead".as_ptr(),
                target.as_ptr(),
                c"fuse".as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV,
                options.as_ptr().cast(),
            )
        };
        (result == 0).then(|| Self {
            path: path.into(),
            server: Some(server),
        })
    }
}

impl Drop for DeadMount {
    fn drop(&mut self) {
        // Who waits gets an error then.
        self.server = None;
        let target = CString::new(self.path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the text ends with a zero.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

fn on_a_dead_mount(arguments: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let Some(_mount) = DeadMount::at(directory.path()) else {
        eprintln!("skipped: this machine has no /dev/fuse, or this user may not mount");
        return;
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_kata-runtime"));
    command
        .arg("--state")
        .arg(directory.path())
        .args(["--timeout", "500ms"])
        .args(arguments);
    let ran = finish(command);
    assert!(ran.took < Duration::from_secs(5), "{ran:?}");
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    let path = directory.path().display().to_string();
    assert!(
        ran.stderr.contains(&path) && ran.stderr.contains("has not answered"),
        "{ran:?}"
    );
}

macro_rules! cells {
    ($($name:ident: $arguments:expr;)*) => {
        $(#[test]
        fn $name() {
            on_a_dead_mount(&$arguments);
        })*
    };
}

cells! {
    events_stats: ["events", "--stats", "sick"];
    stream: ["events", "sick"];
    all: ["events", "--all"];
    list: ["list"];
    metrics: ["metrics", "sick"];
}
