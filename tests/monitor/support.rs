//! A node of stand-ins, and the exporter on it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub use crate::exporter::{Monitor, PATIENCE, Page, exchange, parse};
use crate::mock::{self, Call, Calls, Reply};

pub const GO: &[u8] = include_bytes!("../../crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt");
pub const RUST: &[u8] = include_bytes!("../../crates/promtext/tests/fixtures/kata-3.30-rs/metrics.txt");
const CHILD_STATS: &[u8] =
    include_bytes!("../../crates/shimstat/tests/fixtures/kata-3.30-go/stats-child.v1.bin");

/// A node with bundles and shims, as the other tests have it, and monitors.
pub struct Node {
    pub node: mock::Node,
}

/// A question that a stand-in for a monitor got: when it came, and when its answer was out.
#[derive(Debug, Clone)]
pub struct Asked {
    pub came: Instant,
    pub answered: Option<Instant>,
}

pub type Log = Arc<Mutex<Vec<Asked>>>;

/// How a stand-in for a monitor answers.
#[derive(Clone)]
pub enum Answer {
    /// These bytes.
    Bytes(Vec<u8>),
    /// After a time.
    After(Duration, Vec<u8>),
    /// Never.
    Hang,
}

/// A sandbox of the node: what its shim and its monitor were asked.
pub struct Pod {
    pub calls: Calls,
    pub asked: Log,
}

impl Pod {
    /// The methods that its shim was called with.
    pub fn methods(&self) -> Vec<String> {
        self.calls
            .lock()
            .unwrap()
            .iter()
            .map(|call| call.method.clone())
            .collect()
    }

    pub fn questions(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

/// A shim that runs what it is asked for, and gives recorded statistics.
pub fn recorded(call: &Call) -> Reply {
    match call.method.as_str() {
        "State" => mock::running(0),
        _ => mock::stats(mock::V1, CHILD_STATS),
    }
}

impl Node {
    pub fn new() -> Self {
        Self {
            node: mock::Node::new(),
        }
    }

    /// A Kata pod that answers, with the recorded page.
    pub fn pod(&self, id: &str) -> Pod {
        self.pod_with(id, recorded, Answer::Bytes(mock::http_chunked(GO)))
    }

    /// A Kata pod in namespace `shop`, called `web-<id>`, with a container `app` in it, whose shim and monitor do as
    /// they are told.
    pub fn pod_with(
        &self,
        id: &str,
        shim: impl Fn(&Call) -> Reply + Send + Sync + 'static,
        answer: Answer,
    ) -> Pod {
        let (bundle, socket) = self.node.bundle("k8s.io", id, &annotations(id, "sandbox", &[]));
        let monitor = self.node.state_dir().join(format!("{id}.m"));
        fs::write(
            bundle.join("monitor_address"),
            format!("unix://{}", monitor.display()),
        )
        .unwrap();
        let more = [
            ("io.kubernetes.cri.container-name", "app"),
            ("io.kubernetes.cri.image-name", "registry.example/app:1"),
        ];
        let (child, _) = self.node.bundle(
            "k8s.io",
            &format!("{id}-app"),
            &annotations(id, "container", &more),
        );
        // A container of a pod has the address of its sandbox's shim.
        fs::copy(bundle.join("address"), child.join("address")).unwrap();
        Pod {
            calls: mock::serve(&socket, shim),
            asked: serve_monitor(&monitor, answer),
        }
    }

    /// Takes a pod's bundles away, as containerd does.
    pub fn remove(&self, id: &str) {
        let tasks = self.node.state_dir().join("io.containerd.runtime.v2.task/k8s.io");
        for id in [id.to_string(), format!("{id}-app")] {
            fs::remove_dir_all(tasks.join(id)).unwrap();
        }
    }

    /// The exporter on this node.
    pub fn monitor(&self) -> Monitor {
        self.monitor_with(&[], &[])
    }

    /// The exporter with options of every command, and its own.
    pub fn monitor_with(&self, global: &[&str], own: &[&str]) -> Monitor {
        let mut arguments = global.to_vec();
        arguments.push("monitor");
        if !own.iter().any(|own| own.contains("listen-address")) {
            arguments.extend(["--listen-address", "127.0.0.1:0"]);
        }
        arguments.extend(own);
        Monitor::start(self.node.command(&arguments))
    }
}

/// The annotations of a sandbox with this id, or of a container in it.
pub fn annotations<'a>(id: &'a str, kind: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = vec![
        ("io.kubernetes.cri.container-type", kind),
        ("io.kubernetes.cri.sandbox-id", id),
        ("io.kubernetes.cri.sandbox-namespace", "shop"),
        ("io.kubernetes.cri.sandbox-name", id),
        (
            "io.kubernetes.cri.sandbox-uid",
            "7c312b48-3d0f-4f4e-9c3a-000000000001",
        ),
    ];
    all.extend_from_slice(more);
    all
}

/// Serves a monitor's HTTP, a thread a connection, until the process ends.
pub fn serve_monitor(socket: &Path, answer: Answer) -> Log {
    let listener = UnixListener::bind(socket).unwrap();
    let log = Log::default();
    let asked = log.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (asked, answer) = (asked.clone(), answer.clone());
            std::thread::spawn(move || monitor_connection(stream.unwrap(), &answer, &asked));
        }
    });
    log
}

fn monitor_connection(mut stream: UnixStream, answer: &Answer, log: &Log) {
    let mut request = [0; 2048];
    let n = stream.read(&mut request).unwrap_or(0);
    if n == 0 {
        return; // Connected, and asked nothing.
    }
    if mock::is_agent_url(&request) {
        let _ = stream.write_all(mock::NO_AGENT);
        return;
    }
    let place = {
        let mut log = log.lock().unwrap();
        log.push(Asked {
            came: Instant::now(),
            answered: None,
        });
        log.len() - 1
    };
    let bytes = match answer {
        Answer::Bytes(bytes) => bytes,
        Answer::After(time, bytes) => {
            std::thread::sleep(*time);
            bytes
        }
        Answer::Hang => {
            std::thread::sleep(PATIENCE * 4);
            return;
        }
    };
    log.lock().unwrap()[place].answered = Some(Instant::now());
    let _ = stream.write_all(bytes);
}

/// A directory of a sandbox below one of Kata's roots, with a fresh id.
pub struct KataDir {
    pub id: String,
    pub path: PathBuf,
}

impl KataDir {
    pub fn new(root: &str, name: &str) -> Self {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        let id = format!("{name}-{}-{now}", std::process::id());
        let path = Path::new(root).join(&id);
        fs::create_dir_all(&path).expect("these tests need root: run tests/run.sh");
        Self { id, path }
    }

    pub fn socket(&self) -> PathBuf {
        self.path.join("shim-monitor.sock")
    }
}

impl Drop for KataDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Waits until it is so.
#[track_caller]
pub fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "not so in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
