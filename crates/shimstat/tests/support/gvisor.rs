//! Stands in for gVisor: sandboxes with runsc's state files and control socket, whose containers are processes of this
//! machine. What it answers has the form of the recorded replies and the numbers of those processes.

#![allow(dead_code)] // Each test and bench uses a part.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

const SANDBOX_STATE: &str = include_str!(
    "../fixtures/gvisor-2026-08/799c4f122b55eaf1ba58c36f1a7757be0d0d976a7933fa4c8669b5663274a9bf_sandbox:799c4f122b55eaf1ba58c36f1a7757be0d0d976a7933fa4c8669b5663274a9bf.state"
);
const CONTAINER_STATE: &str = include_str!(
    "../fixtures/gvisor-2026-08/f9823c73086ceae8430f3cf99a65221f2d03675bb19fc9cee465ee4ab54813e7_sandbox:799c4f122b55eaf1ba58c36f1a7757be0d0d976a7933fa4c8669b5663274a9bf.state"
);
const EVENT: &str = include_str!("../fixtures/gvisor-2026-08/urpc-event-container.json");
const RECORDED_ROOT: &str = "/run/containerd/runsc/k8s.io";
const RECORDED_SANDBOX: &str = "799c4f122b55eaf1ba58c36f1a7757be0d0d976a7933fa4c8669b5663274a9bf";
const RECORDED_CONTAINER: &str = "f9823c73086ceae8430f3cf99a65221f2d03675bb19fc9cee465ee4ab54813e7";
const RECORDED_PID: &str = "18841";

/// A container that waits, as most do.
pub const IDLE: &str = "read line";
/// One that works.
pub const BUSY: &str = "while :; do :; done";

/// A sandbox that runs until it is dropped.
pub struct Sandbox {
    pub root: PathBuf,
    pub id: String,
    processes: BTreeMap<String, Child>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Sandbox {
    /// Starts a sandbox below gVisor's root `root`, with a container of its own and one for each of these ids and shell
    /// scripts.
    pub fn start(root: &Path, id: &str, containers: &[(&str, &str)]) -> Self {
        let own = Command::new("sh")
            .arg0("runsc-sandbox")
            .args(["-c", IDLE, "boot", id])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let sandbox_pid = own.id();
        let mut processes = BTreeMap::from([(id.to_string(), own)]);
        for (id, script) in containers {
            let process = Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            processes.insert(id.to_string(), process);
        }
        for container in processes.keys() {
            let state = match container == id {
                true => SANDBOX_STATE,
                false => CONTAINER_STATE,
            };
            let state = state
                .replace(RECORDED_ROOT, root.to_str().unwrap())
                .replace(RECORDED_SANDBOX, id)
                .replace(RECORDED_CONTAINER, container)
                .replace(RECORDED_PID, &sandbox_pid.to_string());
            fs::write(root.join(format!("{container}_sandbox:{id}.state")), state).unwrap();
        }
        let asked = Arc::new(Mutex::new(Vec::new()));
        let server = Arc::new(Server {
            pids: processes
                .iter()
                .map(|(id, process)| (id.clone(), process.id()))
                .collect(),
            sandbox: id.to_string(),
            reply: serde_json::from_str(EVENT).unwrap(),
            asked: asked.clone(),
        });
        let listener = UnixListener::bind(root.join(format!("runsc-{id}.sock"))).unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(connection.unwrap()));
            }
        });
        Self {
            root: root.to_path_buf(),
            id: id.to_string(),
            processes,
            asked,
        }
    }

    /// The ids of its containers, its own first.
    pub fn containers(&self) -> Vec<&str> {
        let others = self.processes.keys().filter(|id| **id != self.id);
        std::iter::once(&self.id)
            .chain(others)
            .map(String::as_str)
            .collect()
    }

    pub fn pid(&self, container: &str) -> u32 {
        self.processes[container].id()
    }

    /// The methods that it was asked for so far, in order.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Ends a container's process.
    pub fn kill(&mut self, container: &str) {
        let process = self.processes.get_mut(container).unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for process in self.processes.values_mut() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

struct Server {
    pids: BTreeMap<String, u32>,
    sandbox: String,
    /// The recorded reply to Event.
    reply: Value,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// One call after another, as pkg/urpc has it.
    fn serve(&self, mut connection: UnixStream) {
        let mut question = Vec::new();
        let mut piece = [0; 4 << 10];
        while let Ok(read @ 1..) = connection.read(&mut piece) {
            question.extend_from_slice(&piece[..read]);
            let Ok(call) = serde_json::from_slice::<Value>(&question) else {
                continue;
            };
            question.clear();
            if connection
                .write_all(self.answer(&call).to_string().as_bytes())
                .is_err()
            {
                return;
            }
        }
    }

    fn answer(&self, call: &Value) -> Value {
        let method = call["method"].as_str().unwrap_or_default();
        self.asked.lock().unwrap().push(method.to_string());
        let id = call["arg"].as_str().unwrap_or_default();
        let usage = |id: &str| self.pids.get(id).and_then(|pid| Usage::of(*pid));
        match (method, usage(id)) {
            ("containerManager.ContainerRuntimeState", usage) => {
                json!({"success": true, "err": "", "result": if usage.is_some() { 2 } else { 3 }})
            }
            ("containerManager.Event", None) => {
                json!({"success": false, "err": format!("container {id:?} not found"), "result": null})
            }
            ("containerManager.Event", Some(own)) => {
                let all: BTreeMap<&str, u64> = self
                    .pids
                    .keys()
                    .filter_map(|id| Some((id.as_str(), usage(id)?.cpu)))
                    .collect();
                let mut reply = self.reply.clone();
                let result = &mut reply["result"];
                result["containerUsage"] = json!(all);
                let event = &mut result["event"];
                event["id"] = json!(id);
                event["data"]["pids"]["current"] = json!(own.threads);
                // Of its own container a sandbox of several says no memory.
                event["data"]["memory"]["usage"] = match id == self.sandbox {
                    true => json!({"limit": 0, "failcnt": 0}),
                    false => json!({"limit": 0, "usage": own.memory, "failcnt": 0}),
                };
                event["data"]["network_interfaces"] = json!(own.network);
                reply
            }
            _ => json!({"success": false, "err": "unknown method", "result": null}),
        }
    }
}

/// What a process uses.
struct Usage {
    /// In nanoseconds, with that of the children that it waited for.
    cpu: u64,
    threads: u64,
    memory: u64,
    network: Vec<Value>,
}

impl Usage {
    /// `None` for a process that is gone.
    fn of(pid: u32) -> Option<Self> {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
        let stat = read("stat")?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| fields[field - 3].parse::<u64>().unwrap();
        let status = read("status")?;
        // A zombie has no memory.
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kilobytes: u64 = rss.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(Self {
            cpu: (14..=17).map(number).sum::<u64>() * 10_000_000,
            threads: number(20),
            memory: kilobytes << 10,
            network: read("net/dev")?.lines().skip(2).filter_map(interface).collect(),
        })
    }
}

/// A line of `/proc/<pid>/net/dev`, as `networkStats` of runsc/boot/loader.go picks from it.
fn interface(line: &str) -> Option<Value> {
    let (name, counters) = line.split_once(':')?;
    let counters: Vec<u64> = counters
        .split_whitespace()
        .map(|counter| counter.parse().unwrap())
        .collect();
    Some(json!({
        "Name": name.trim(),
        "RxBytes": counters[0], "RxPackets": counters[1], "RxErrors": counters[2], "RxDropped": counters[3],
        "TxBytes": counters[8], "TxPackets": counters[9], "TxErrors": counters[10], "TxDropped": counters[11],
    }))
}
