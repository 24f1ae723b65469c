//! A state directory on a mount that is dead: a FUSE filesystem whose server never answers.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use test_needs::needs;

use crate::exporter::Monitor;
use crate::mock::{self, Node, finish};
use crate::tmux::{Tmux, cells};

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

/// A container whose shim's socket is elsewhere, as it is in real life: it goes on answering.
fn node() -> (Node, TempDir) {
    let (node, sockets) = (Node::new(), tempfile::tempdir().unwrap());
    let (bundle, _) = node.bundle("default", "sick", &[]);
    let socket = sockets.path().join("shim.sock");
    fs::write(bundle.join("address"), format!("unix://{}", socket.display())).unwrap();
    // Which shim it is, so that nothing more has to be read.
    fs::write(
        bundle.join("shim-binary-path"),
        "/usr/bin/containerd-shim-runc-v2",
    )
    .unwrap();
    mock::serve(&socket, mock::healthy);
    (node, sockets)
}

#[test]
fn monitor_goes_on_when_its_state_directory_dies_and_after_that() {
    let (node, _sockets) = node();
    let mut monitor =
        Monitor::start(node.command(&["--timeout", "500ms", "monitor", "--listen-address", "127.0.0.1:0"]));
    assert_eq!(monitor.get("/metrics").status, 200);
    let Some(mount) = DeadMount::at(node.state_dir()) else {
        eprintln!("skipped: this machine has no /dev/fuse, or this user may not mount");
        return;
    };
    for path in ["/metrics", "/sandboxes", "/metrics"] {
        let answer = monitor.get(path);
        assert_eq!(answer.status, 500);
        assert!(
            answer.text().contains("has not answered for 500ms"),
            "{}",
            answer.text()
        );
    }
    assert_eq!(monitor.get("/healthz").status, 200);
    drop(mount);
    assert_eq!(monitor.get("/metrics").status, 200);
    let _mount = DeadMount::at(node.state_dir()).unwrap();
    assert_eq!(monitor.get("/metrics").status, 500);
    monitor.signal(Signal::SIGTERM);
    assert_eq!(monitor.ended().0, Some(0));
}

#[test]
fn top_goes_on_when_its_state_directory_dies() {
    needs!("tmux");
    let (node, _sockets) = node();
    let program = env!("CARGO_BIN_EXE_kata-runtime");
    let state = node.state_dir().display();
    let tmux = Tmux::start(
        (120, 24),
        &format!("{program} --state {state} --timeout 500ms top --interval 300ms"),
    );
    tmux.wait_for("numbers", |screen| {
        cells(screen, "sick")
            .get(1)
            .is_some_and(|memory| memory.starts_with(|c: char| c.is_ascii_digit()))
    });
    let Some(_mount) = DeadMount::at(node.state_dir()) else {
        return;
    };
    tmux.wait_for("what is the matter", |screen| {
        screen.iter().any(|line| line.contains("has not answered"))
    });
    tmux.keys(&["q"]);
    tmux.wait_for("the end", |screen| screen.iter().any(|line| line == "status=0"));
}

/// A command that goes on until it is dropped.
struct Running {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Running {
    fn start(node: &Node, arguments: &[&str]) -> Self {
        let mut command = node.command(&["--timeout", "300ms"]);
        command.args(arguments);
        let (stdout, stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        command
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap());
        let child = command.spawn().unwrap();
        Self {
            child,
            stdout,
            stderr,
        }
    }

    /// Waits until there is more of this than so many bytes, and says how many.
    fn wait_for_more(&mut self, what: &str, file: fn(&Self) -> &File, than: u64) -> u64 {
        let patience = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            let length = file(self).metadata().unwrap().len();
            if length > than {
                return length;
            }
            assert_eq!(self.child.try_wait().unwrap(), None, "it has ended: {what}");
            assert!(std::time::Instant::now() < patience, "waited in vain: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

#[test]
fn a_stream_goes_on_when_its_state_directory_dies() {
    let (node, _sockets) = node();
    let stream = ["events", "--all", "--interval", "100ms", "--format", "json"];
    let mut stream = Running::start(&node, &stream);
    stream.wait_for_more("an event", |it| &it.stdout, 0);
    let Some(_mount) = DeadMount::at(node.state_dir()) else {
        return;
    };
    stream.wait_for_more("what is the matter", |it| &it.stderr, 0);
    let before = stream.stdout.metadata().unwrap().len();
    stream.wait_for_more("more events", |it| &it.stdout, before);
}

#[test]
fn a_watched_list_goes_on_after_its_state_directory_has_died() {
    let (node, _sockets) = node();
    let mut list = Running::start(&node, &["list", "--watch", "--interval", "100ms"]);
    let before = list.wait_for_more("the list", |it| &it.stdout, 0);
    let Some(mount) = DeadMount::at(node.state_dir()) else {
        return;
    };
    list.wait_for_more("what is the matter", |it| &it.stderr, 0);
    drop(mount);
    node.task("new", mock::healthy);
    list.wait_for_more("what is new", |it| &it.stdout, before);
}
