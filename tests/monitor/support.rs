//! A node of stand-ins, the exporter on it, and clients for that.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::mock::{self, Call, Calls, Reply};

pub const GO: &[u8] = include_bytes!("../fixtures/kata-3.30-go/metrics.txt");
pub const RUST: &[u8] = include_bytes!("../fixtures/kata-3.30-rs/metrics.txt");
const CHILD_STATS: &[u8] = include_bytes!("../fixtures/kata-3.30-go/stats-child.v1.bin");

/// No wait in a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(30);

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
        if !own.contains(&"--listen-address") {
            arguments.extend(["--listen-address", "127.0.0.1:0"]);
        }
        arguments.extend(own);
        Monitor::start(self.node.command(&arguments))
    }
}

fn annotations<'a>(id: &'a str, kind: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
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

/// The exporter, running. It is ended when dropped.
pub struct Monitor {
    child: Child,
    /// Where it listens, as it said: `http://127.0.0.1:8090/metrics`, or a unix socket.
    pub place: String,
    stderr: Option<JoinHandle<String>>,
    said: Arc<Mutex<String>>,
}

impl Monitor {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        let place = line.trim().strip_prefix("listening on ").map(str::to_string);
        let said = Arc::new(Mutex::new(line.clone()));
        let all = said.clone();
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            while stderr.read_line(&mut line).is_ok_and(|n| n > 0) {
                all.lock().unwrap().push_str(&line);
                line.clear();
            }
            all.lock().unwrap().clone()
        });
        let Some(place) = place else {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("monitor does not listen: {}", reader.join().unwrap());
        };
        Self {
            child,
            place,
            stderr: Some(reader),
            said,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        let rest = self.place.split_once("://").unwrap().1;
        rest.strip_suffix("/metrics").unwrap()
    }

    /// What it has said on stderr so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[])
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        exchange(self.connect(), method, path, headers).unwrap()
    }

    /// The page of all metrics.
    pub fn scrape(&self) -> Page {
        let response = self.get("/metrics");
        assert_eq!(response.status, 200, "{}", response.text());
        Page::read(response.text())
    }

    pub fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for its end: the exit status and all that it said.
    pub fn ended(&mut self) -> (Option<i32>, String) {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status.code(), self.stderr.take().unwrap().join().unwrap());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("monitor does not end");
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    pub took: Duration,
}

impl Response {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ str| {
            let (key, _) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(())
        };
        let found = self.head.lines().find(|text| line(text).is_some())?;
        Some(found.split_once(':')?.1.trim())
    }
}

/// One request on a stream, which is closed after it.
pub fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<Response> {
    let started = Instant::now();
    let headers: String = headers
        .iter()
        .map(|(key, value)| format!("{key}: {value}\r\n"))
        .collect();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(parse(&bytes, started.elapsed()))
}

/// Reads a whole answer.
pub fn parse(bytes: &[u8], took: Duration) -> Response {
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("an answer with a head");
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    let mut response = Response {
        status,
        head,
        body: bytes[end + 4..].to_vec(),
        took,
    };
    if response.header("transfer-encoding") == Some("chunked") {
        response.body = dechunk(&response.body);
    }
    response
}

fn dechunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = rest
            .windows(2)
            .position(|two| two == b"\r\n")
            .expect("a chunk's length");
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        rest = &rest[end + 2..];
        if length == 0 {
            return body;
        }
        body.extend_from_slice(&rest[..length]);
        rest = &rest[length + 2..];
    }
}

/// A page of metrics, read simply.
#[derive(Debug)]
pub struct Page {
    pub text: String,
}

impl Page {
    pub fn read(text: &str) -> Self {
        Self {
            text: text.to_string(),
        }
    }

    /// The samples of that name that have all of these labels.
    pub fn samples(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&str> {
        self.text
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
                    && labels.iter().all(|(key, value)| has_label(line, key, value))
            })
            .collect()
    }

    /// The one value of that name and these labels, as it is written.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> &str {
        match self.samples(name, labels)[..] {
            [line] => line.rsplit_once(' ').unwrap().1,
            ref lines => panic!("{} samples of {name} {labels:?}: {lines:#?}", lines.len()),
        }
    }

    /// The rows of one sandbox: whether it is up, and why not.
    #[track_caller]
    pub fn sandbox(&self, id: &str) -> (&str, Option<&str>) {
        let labels = [("sandbox_id", id)];
        let up = self.value("kata_monitor_sandbox_up", &labels);
        let failure = self.samples("kata_monitor_sandbox_failure", &labels);
        assert!(failure.len() <= 1, "{failure:?}");
        (up, failure.first().map(|line| label(line, "reason").unwrap()))
    }

    /// Panics where promtool finds a fault; its advice on names is another matter.
    #[track_caller]
    pub fn check(&self) {
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is there: tests/run.sh installs it");
        let mut stdin = promtool.stdin.take().unwrap();
        let text = self.text.clone();
        let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
        let output = promtool.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        let advice = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
        // 3 is for advice, 1 for a page that cannot be read.
        assert!(matches!(output.status.code(), Some(0 | 3)), "{advice}");
        for line in advice.lines() {
            let harmless = [
                "should have",
                "should not have",
                "should not include",
                "use base unit",
                "no help text",
            ];
            assert!(harmless.iter().any(|text| line.contains(text)), "{line}");
        }
    }
}

fn has_label(line: &str, key: &str, value: &str) -> bool {
    label(line, key) == Some(value)
}

/// A label's value, as it is written.
pub fn label<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let labels = line.split_once('{')?.1.rsplit_once('}')?.0;
    let start = labels
        .match_indices(&format!("{key}=\""))
        .find(|(at, _)| *at == 0 || labels.as_bytes()[at - 1] == b',')?
        .0;
    let rest = &labels[start + key.len() + 2..];
    let mut escaped = false;
    let end = rest.find(|character| {
        let ends = character == '"' && !escaped;
        escaped = character == '\\' && !escaped;
        ends
    })?;
    Some(&rest[..end])
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
