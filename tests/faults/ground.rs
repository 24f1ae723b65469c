//! A node with a healthy pod and one with a fault, and the ways in which faults are made.

use std::cell::RefCell;
use std::ffi::CString;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use protobuf::{Message, MessageField};

use crate::mock::{self, Call, Node, Reply};

/// A page as Kata's Go shim sends it.
pub const PAGE: &[u8] = include_bytes!("../../crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt");

/// The healthy pod `well`, and `sick`, which has a bundle and nobody who answers for it yet. Each is a sandbox alone.
pub struct Ground {
    pub node: Node,
    bundle: PathBuf,
    socket: PathBuf,
    held: RefCell<Vec<UnixStream>>,
}

impl Ground {
    pub fn new() -> Self {
        let node = Node::new();
        let (well, socket) = node.bundle("k8s.io", "well", &names("well"));
        let monitor = node.state_dir().join("well.m");
        fs::write(
            well.join("monitor_address"),
            format!("unix://{}", monitor.display()),
        )
        .unwrap();
        mock::serve(&socket, mock::healthy);
        mock::serve_http(&monitor, Duration::ZERO, mock::http_chunked(PAGE));
        let (bundle, socket) = node.bundle("k8s.io", "sick", &names("sick"));
        let monitor = node.state_dir().join("sick.m");
        fs::write(
            bundle.join("monitor_address"),
            format!("unix://{}", monitor.display()),
        )
        .unwrap();
        Self {
            node,
            bundle,
            socket,
            held: RefCell::default(),
        }
    }

    pub fn socket(&self) -> &PathBuf {
        &self.socket
    }

    pub fn monitor_socket(&self) -> PathBuf {
        self.node.state_dir().join("sick.m")
    }

    /// A listener that takes no connection, with as many waiting as there is room for.
    pub fn fill_backlog(&self) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let first = UnixStream::connect(&self.socket).unwrap();
        self.held.borrow_mut().push(first);
        std::mem::forget(listener);
    }

    pub fn fifo(&self, name: &str) {
        self.remove(name);
        let path = CString::new(self.bundle.join(name).into_os_string().into_vec()).unwrap();
        // SAFETY: the text ends with a zero.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o700) }, 0);
    }

    pub fn directory(&self, name: &str) {
        self.remove(name);
        fs::create_dir(self.bundle.join(name)).unwrap();
    }

    pub fn gigantic(&self, name: &str) {
        let file = fs::File::create(self.bundle.join(name)).unwrap();
        file.set_len(100 << 20).unwrap();
    }

    pub fn file_for_bundle(&self) {
        fs::remove_dir_all(&self.bundle).unwrap();
        fs::write(&self.bundle, "").unwrap();
    }

    pub fn rename_bundle(&self) {
        fs::rename(&self.bundle, self.bundle.with_file_name(".sick")).unwrap();
    }

    pub fn empty_bundle(&self) {
        fs::remove_dir_all(&self.bundle).unwrap();
        fs::create_dir(&self.bundle).unwrap();
    }

    /// The bundle is made and deleted again and again, as containerd does it. In the end it is not there.
    pub fn come_and_go(&self) {
        fs::remove_dir_all(&self.bundle).unwrap();
        let (bundle, hidden) = (
            self.bundle.with_file_name("sicker"),
            self.bundle.with_file_name(".sicker"),
        );
        let address = format!("unix://{}", self.socket.display());
        std::thread::spawn(move || {
            // It ends with the process, or with the directory.
            while fs::create_dir(&bundle).is_ok() {
                let _ = fs::write(bundle.join("config.json"), "{}");
                let _ = fs::write(bundle.join("address"), &address);
                let _ = fs::rename(&bundle, &hidden);
                let _ = fs::remove_dir_all(&hidden);
            }
        });
    }

    /// A monitor that sends an answer byte by byte, for longer than anybody waits.
    pub fn drip(&self, answer: &[u8]) {
        let answer = answer.to_vec();
        self.serve_monitor(move |stream| {
            for byte in &answer {
                std::thread::sleep(Duration::from_millis(20));
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
            }
        });
    }

    /// A monitor that begins an answer and does not stop.
    pub fn flood(&self, head: &[u8]) {
        let head = head.to_vec();
        self.serve_monitor(move |stream| {
            let _ = stream.write_all(&head);
            while stream.write_all(&[b'a'; 64 << 10]).is_ok() {}
        });
    }

    fn serve_monitor(&self, answer: impl Fn(&mut UnixStream) + Clone + Send + 'static) {
        let listener = UnixListener::bind(self.monitor_socket()).unwrap();
        shim(self, mock::healthy);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, answer) = (stream.unwrap(), answer.clone());
                std::thread::spawn(move || {
                    let mut request = [0; 2048];
                    let read = stream.read(&mut request).unwrap_or(0);
                    match mock::is_agent_url(&request[..read]) {
                        true => drop(stream.write_all(mock::NO_AGENT)),
                        false => answer(&mut stream),
                    }
                });
            }
        });
    }

    fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.bundle.join(name));
    }
}

fn names(pod: &str) -> Vec<(&'static str, &str)> {
    vec![
        ("io.kubernetes.cri.container-type", "sandbox"),
        ("io.kubernetes.cri.sandbox-namespace", "shop"),
        ("io.kubernetes.cri.sandbox-name", pod),
    ]
}

/// A shim that does as it is told, and a monitor that is well unless there is another.
pub fn shim(ground: &Ground, shim: impl Fn(&Call) -> Reply + Send + Sync + 'static) {
    mock::serve(&ground.socket, shim);
    if !ground.monitor_socket().exists() {
        mock::serve_http(&ground.monitor_socket(), Duration::ZERO, mock::http_chunked(PAGE));
    }
}

/// A healthy shim, and a monitor that answers with these bytes, at once or too late.
pub fn monitor(ground: &Ground, answer: &[u8], is_late: bool) {
    let after = Duration::from_secs(if is_late { 60 } else { 0 });
    mock::serve_http(&ground.monitor_socket(), after, answer.to_vec());
    shim(ground, mock::healthy);
}

/// Another content of a file of the bundle.
pub fn file(ground: &Ground, name: &str, content: &[u8]) {
    fs::write(ground.bundle.join(name), content).unwrap();
}

pub fn link(ground: &Ground, name: &str, target: &str) {
    ground.remove(name);
    symlink(target, ground.bundle.join(name)).unwrap();
}

/// Statistics of a cgroup version, with one number everywhere.
pub fn stats_of(version: u8, number: u64) -> Vec<u8> {
    if version == 1 {
        let usage = v1::CPUUsage {
            total: number,
            kernel: number,
            user: number,
            per_cpu: vec![number; 2],
            ..v1::CPUUsage::new()
        };
        let entry = || {
            MessageField::some(v1::MemoryEntry {
                limit: number,
                usage: number,
                max: number,
                failcnt: number,
                ..v1::MemoryEntry::new()
            })
        };
        let memory = v1::MemoryStat {
            cache: number,
            rss: number,
            total_inactive_file: number,
            hierarchical_memory_limit: number,
            usage: entry(),
            swap: entry(),
            kernel: entry(),
            kernel_tcp: entry(),
            ..v1::MemoryStat::new()
        };
        let metrics = v1::Metrics {
            cpu: MessageField::some(v1::CPUStat {
                usage: MessageField::some(usage),
                ..v1::CPUStat::new()
            }),
            memory: MessageField::some(memory),
            pids: MessageField::some(v1::PidsStat {
                current: number,
                limit: number,
                ..v1::PidsStat::new()
            }),
            ..v1::Metrics::new()
        };
        return metrics.write_to_bytes().unwrap();
    }
    let metrics = v2::Metrics {
        cpu: MessageField::some(v2::CPUStat {
            usage_usec: number,
            user_usec: number,
            system_usec: number,
            nr_periods: number,
            throttled_usec: number,
            ..v2::CPUStat::new()
        }),
        memory: MessageField::some(v2::MemoryStat {
            anon: number,
            file: number,
            inactive_file: number,
            usage: number,
            usage_limit: number,
            swap_usage: number,
            swap_limit: number,
            ..v2::MemoryStat::new()
        }),
        pids: MessageField::some(v2::PidsStat {
            current: number,
            limit: number,
            ..v2::PidsStat::new()
        }),
        ..v2::Metrics::new()
    };
    metrics.write_to_bytes().unwrap()
}
