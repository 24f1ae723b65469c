//! Stands in for shims that cannot be had on demand: hung, lying, truncating, dying ones, and those of Kata,
//! gVisor and containerd releases that are not installed. It serves recorded replies and faults over real
//! sockets, out of bundles like those that containerd writes.

#![allow(dead_code)] // Each test file uses its part of it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{StateResponse, StatsResponse};
use protobuf::well_known_types::any::Any;
use protobuf::{EnumOrUnknown, Message, MessageField};
use ttrpc::proto::{Request, Response, Status};

pub const V1: &str = "io.containerd.cgroups.v1.Metrics";
pub const V2: &str = "io.containerd.cgroups.v2.Metrics";
pub const DOCUMENTED: &[u8] =
    include_bytes!("../../crates/shimstat/tests/fixtures/documented-example/stats.v1.bin");

/// What a mock shim does with a call.
#[derive(Clone)]
pub enum Reply {
    /// Answers with this message.
    Payload(Vec<u8>),
    /// Answers with an error.
    Error(i32, String),
    /// Answers only after a time.
    After(Duration, Box<Reply>),
    /// Never answers.
    Hang,
    /// Closes the connection.
    Close,
    /// Writes these bytes instead of a frame, then closes.
    Raw(Vec<u8>),
    /// Answers for other streams first, then as said.
    Noise(Box<Reply>),
}

/// A call that a mock shim got, with when it came and when its answer went out.
#[derive(Debug, Clone)]
pub struct Call {
    pub service: String,
    pub method: String,
    pub timeout_nano: i64,
    pub came: Instant,
    pub answered: Option<Instant>,
}

pub type Calls = Arc<Mutex<Vec<Call>>>;

/// The State reply of a running task, for the id that was asked about.
pub fn running(pid: u32) -> Reply {
    state(2, pid, 0)
}

/// The State reply of a running task, for this id whatever was asked about.
pub fn running_as(id: &str) -> Reply {
    let mut reply = StateResponse::new();
    reply.id = id.to_string();
    reply.status = EnumOrUnknown::from_i32(2);
    Reply::Payload(reply.write_to_bytes().unwrap())
}

pub fn stopped(exit_status: u32) -> Reply {
    state(3, 0, exit_status)
}

/// The State reply of a task that stopped, with the time in seconds since 1970.
pub fn stopped_at(exit_status: u32, seconds: i64) -> Reply {
    let mut reply = StateResponse::new();
    reply.status = EnumOrUnknown::from_i32(3);
    reply.exit_status = exit_status;
    let mut at = protobuf::well_known_types::timestamp::Timestamp::new();
    at.seconds = seconds;
    reply.exited_at = MessageField::some(at);
    Reply::Payload(reply.write_to_bytes().unwrap())
}

fn state(status: i32, pid: u32, exit_status: u32) -> Reply {
    let mut reply = StateResponse::new();
    reply.status = EnumOrUnknown::from_i32(status);
    reply.pid = pid;
    reply.exit_status = exit_status;
    Reply::Payload(reply.write_to_bytes().unwrap())
}

/// A Stats reply with these bytes in its Any.
pub fn stats(type_url: &str, value: &[u8]) -> Reply {
    let mut any = Any::new();
    any.type_url = type_url.to_string();
    any.value = value.to_vec();
    let mut reply = StatsResponse::new();
    reply.stats = MessageField::some(any);
    Reply::Payload(reply.write_to_bytes().unwrap())
}

/// A shim that runs one task and gives the documented example's statistics.
pub fn healthy(call: &Call) -> Reply {
    match call.method.as_str() {
        "State" => running(0),
        _ => stats(V1, DOCUMENTED),
    }
}

/// A node: a containerd state directory with bundles, whose shims are threads of this process.
pub struct Node {
    pub dir: tempfile::TempDir,
}

impl Node {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn state_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a bundle as containerd 1.x does, and says where its socket is to be.
    pub fn bundle(&self, namespace: &str, id: &str, annotations: &[(&str, &str)]) -> (PathBuf, PathBuf) {
        let bundle = self
            .dir
            .path()
            .join("io.containerd.runtime.v2.task")
            .join(namespace)
            .join(id);
        fs::create_dir_all(&bundle).unwrap();
        let annotations: serde_json::Map<_, _> = annotations
            .iter()
            .map(|(k, v)| (k.to_string(), (*v).into()))
            .collect();
        fs::write(
            bundle.join("config.json"),
            serde_json::json!({ "annotations": annotations }).to_string(),
        )
        .unwrap();
        let socket = self.dir.path().join(format!("{namespace}-{id}.sock"));
        fs::write(bundle.join("address"), format!("unix://{}", socket.display())).unwrap();
        (bundle, socket)
    }

    /// A task in namespace `default` with a shim that does as it is told.
    pub fn task(&self, id: &str, shim: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Calls {
        let (_, socket) = self.bundle("default", id, &[]);
        serve(&socket, shim)
    }

    /// A sandbox of a pod in namespace `k8s.io`, with a shim that does as it is told.
    pub fn pod(&self, id: &str, name: &str, shim: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Calls {
        let (_, socket) = self.bundle("k8s.io", id, &sandbox(name));
        serve(&socket, shim)
    }

    /// A container in that sandbox, on its shim; `name` is `namespace/pod/container`.
    pub fn in_pod(&self, sandbox_id: &str, id: &str, name: &str) {
        let (pod, container) = name.rsplit_once('/').unwrap();
        let mut annotations = sandbox(pod);
        annotations[0].1 = "container";
        annotations.extend([
            ("io.kubernetes.cri.sandbox-id", sandbox_id),
            ("io.kubernetes.cri.container-name", container),
        ]);
        let (bundle, _) = self.bundle("k8s.io", id, &annotations);
        let socket = self.dir.path().join(format!("k8s.io-{sandbox_id}.sock"));
        fs::write(bundle.join("address"), format!("unix://{}", socket.display())).unwrap();
    }

    /// Runs the program on this node. Ends it after half a minute: nothing here takes so long.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        finish(self.command(arguments))
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kata-runtime"));
        command
            .arg("--state")
            .arg(self.state_dir())
            .args(arguments)
            .env_remove("CONTAINERD_NAMESPACE");
        command
    }
}

/// The annotations of a sandbox that is called `namespace/pod`.
fn sandbox(name: &str) -> Vec<(&str, &str)> {
    let (namespace, pod) = name.split_once('/').unwrap();
    vec![
        ("io.kubernetes.cri.container-type", "sandbox"),
        ("io.kubernetes.cri.sandbox-namespace", namespace),
        ("io.kubernetes.cri.sandbox-name", pod),
    ]
}

/// How the program ended.
#[derive(Debug)]
pub struct Ran {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// The same command with 256 descriptors.
pub fn with_few_descriptors(command: &Command) -> Command {
    let mut limited = Command::new("prlimit");
    limited
        .arg("--nofile=256:256")
        .arg(command.get_program())
        .args(command.get_args());
    limited
}

pub fn finish(mut command: Command) -> Ran {
    let started = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if wait.recv_timeout(Duration::from_secs(30)).is_err() {
            let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
        }
    });
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let _ = done.send(());
    watchdog.join().unwrap();
    Ran {
        status: status.code(),
        // A page is passed on as it came.
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8(stderr).unwrap(),
        took: started.elapsed(),
    }
}

/// Serves ttrpc on a socket, a thread a connection, until the process ends.
pub fn serve(socket: &Path, shim: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Calls {
    let listener = UnixListener::bind(socket).unwrap();
    let calls = Calls::default();
    let (log, shim) = (calls.clone(), Arc::new(shim));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (log, shim) = (log.clone(), shim.clone());
            std::thread::spawn(move || connection(stream.unwrap(), &*shim, &log));
        }
    });
    calls
}

fn connection(mut stream: UnixStream, shim: &(impl Fn(&Call) -> Reply + ?Sized), log: &Calls) {
    let mut header = [0; 10];
    while stream.read_exact(&mut header).is_ok() {
        let length = u32::from_be_bytes(header[..4].try_into().unwrap()) as usize;
        let stream_id = u32::from_be_bytes(header[4..8].try_into().unwrap());
        assert_eq!(header[8], 1, "a client sends requests");
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        let request = Request::parse_from_bytes(&body).unwrap();
        let call = Call {
            service: request.service.clone(),
            method: request.method.clone(),
            timeout_nano: request.timeout_nano,
            came: Instant::now(),
            answered: None,
        };
        let index = {
            let mut log = log.lock().unwrap();
            log.push(call.clone());
            log.len() - 1
        };
        let mut reply = shim(&call);
        loop {
            match reply {
                Reply::After(time, then) => {
                    std::thread::sleep(time);
                    reply = *then;
                }
                Reply::Noise(then) => {
                    let _ = stream.write_all(&frame(stream_id + 100, 2, b"junk"));
                    let _ = stream.write_all(&frame(0, 3, b""));
                    reply = *then;
                }
                Reply::Hang => {
                    std::thread::sleep(Duration::from_secs(60));
                    return;
                }
                Reply::Close => return,
                Reply::Raw(bytes) => {
                    let _ = stream.write_all(&bytes);
                    return;
                }
                Reply::Payload(_) | Reply::Error(..) => break,
            }
        }
        let mut response = Response::new();
        match reply {
            Reply::Payload(payload) => response.payload = payload,
            Reply::Error(code, message) => {
                let mut status = Status::new();
                status.code = EnumOrUnknown::from_i32(code);
                status.message = message;
                response.status = MessageField::some(status);
            }
            _ => unreachable!(),
        }
        log.lock().unwrap()[index].answered = Some(Instant::now());
        if stream
            .write_all(&frame(stream_id, 2, &response.write_to_bytes().unwrap()))
            .is_err()
        {
            return;
        }
    }
}

/// A ttrpc frame of a type: 2 is a response, 3 data.
pub fn frame(stream_id: u32, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
    bytes.extend(stream_id.to_be_bytes());
    bytes.extend([kind, 0]);
    bytes.extend(body);
    bytes
}

/// Serves HTTP on a socket: every connection gets these bytes, `after` a time, and is closed; but see [`NO_AGENT`].
pub fn serve_http(socket: &Path, after: Duration, bytes: Vec<u8>) -> Arc<Mutex<Vec<String>>> {
    let listener = UnixListener::bind(socket).unwrap();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = requests.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 2048];
            let n = stream.read(&mut request).unwrap_or(0);
            if n == 0 {
                continue; // Connected, and asked nothing.
            }
            if is_agent_url(&request) {
                let _ = stream.write_all(NO_AGENT);
                continue;
            }
            log.lock()
                .unwrap()
                .push(String::from_utf8_lossy(&request[..n]).into_owned());
            std::thread::sleep(after);
            let _ = stream.write_all(&bytes);
        }
    });
    requests
}

/// What a stand-in for a monitor answers when it is asked where the agent listens, whatever it does with other questions:
/// a question that is harmless, and that is not noted.
pub const NO_AGENT: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\nremote:///agent\n";

pub fn is_agent_url(request: &[u8]) -> bool {
    request.starts_with(b"GET /agent-url ")
}

/// An HTTP answer with a Content-Length.
pub fn http_ok(body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend(body);
    bytes
}

/// The same, chunked, as Kata's Go shim sends it.
pub fn http_chunked(body: &[u8]) -> Vec<u8> {
    let mut bytes =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_vec();
    for chunk in body.chunks(4096) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}
