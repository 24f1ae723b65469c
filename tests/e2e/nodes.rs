//! Nodes without containerd: CRI-O's layout, around runc's shim as CRI-O starts it and around runc alone.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use containerd_shim_protos::api::{CreateTaskRequest, DeleteRequest, KillRequest, StartRequest};
use protobuf::Message;
use serde_json::{Value, json};
use ttrpc::proto::{MessageHeader, Request, Response};

use crate::conformance::{self, CGROUP_V1, CGROUP_V2, Lack};
use crate::exporter::Monitor;
use crate::support::{eventually, fresh_id, is_cgroup_v2, kata_runtime};

/// What a container has no numbers for that has a limit of memory alone, and no link.
const PLAIN: [Lack; 3] = [
    ("container_cpu_cfs_", "no quota was set"),
    ("container_network_", "it has no link of its own"),
    ("container_spec_cpu_quota", "no quota was set"),
];

/// A run root of containers/storage. What was started ends with it.
struct Crio {
    dir: tempfile::TempDir,
    started: Vec<Started>,
}

struct Started {
    id: String,
    root: PathBuf,
}

impl Crio {
    fn new() -> Option<Self> {
        if !test_needs::can_run(&["root", "containerd", "runc", "busybox"]) {
            return None;
        }
        Some(Self {
            dir: tempfile::Builder::new().prefix("kr").tempdir().unwrap(),
            started: Vec::new(),
        })
    }

    /// A bundle whose container runs busybox, with CRI-O's annotations.
    fn bundle(&self, id: &str, command: &[&str]) -> PathBuf {
        let bundle = self
            .dir
            .path()
            .join("overlay-containers")
            .join(id)
            .join("userdata");
        let rootfs = bundle.join("rootfs/bin");
        fs::create_dir_all(&rootfs).unwrap();
        fs::copy("/bin/busybox", rootfs.join("busybox")).unwrap();
        let spec = Command::new("runc")
            .arg("spec")
            .current_dir(&bundle)
            .status()
            .unwrap();
        assert!(spec.success());
        let path = bundle.join("config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let words: Vec<_> = ["/bin/busybox"].iter().chain(command).collect();
        spec["process"]["args"] = json!(words);
        spec["process"]["terminal"] = json!(false);
        spec["linux"]["cgroupsPath"] = json!(format!("/kr-crio/crio-{id}"));
        spec["linux"]["resources"]["memory"] = json!({"limit": 33_554_432});
        spec["annotations"] = json!({
            "io.kubernetes.cri-o.ContainerType": "container",
            "io.kubernetes.cri-o.SandboxID": "5a5a",
            "io.kubernetes.cri-o.SandboxName": "k8s_web_shop_uid-web_0",
            "io.kubernetes.cri-o.Name": "k8s_app_web_shop_uid-web_0",
        });
        fs::write(&path, spec.to_string()).unwrap();
        bundle
    }

    /// Runs a container with runc alone, and notes its pid as conmon does.
    fn run_without_shim(&mut self, command: &[&str]) -> (String, u32) {
        let id = fresh_id("crio");
        let bundle = self.bundle(&id, command);
        let root = self.dir.path().join("runc");
        self.started.push(Started {
            id: id.clone(),
            root: root.clone(),
        });
        let ran = run(Command::new("runc")
            .arg("--root")
            .arg(root)
            .args(["run", "--detach", "--pid-file"])
            .arg(bundle.join("pidfile"))
            .arg("--bundle")
            .arg(&bundle)
            .arg(&id)
            .stdout(Stdio::null())
            .stderr(Stdio::null()));
        assert!(ran.status.success());
        let pid = fs::read_to_string(bundle.join("pidfile")).unwrap();
        (id, pid.trim().parse().unwrap())
    }

    fn ask(&self, arguments: &[&str]) -> crate::support::Ran {
        let root = self.dir.path().to_str().unwrap();
        kata_runtime(&[&["--state", root], arguments].concat())
    }
}

impl Drop for Crio {
    fn drop(&mut self) {
        for Started { id, root } in &self.started {
            let _ = run(Command::new("runc")
                .arg("--root")
                .arg(root)
                .args(["delete", "--force", id]));
        }
    }
}

fn run(command: &mut Command) -> Output {
    command.env("PATH", path()).stdin(Stdio::null()).output().unwrap()
}

fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

#[test]
fn a_container_without_a_shim_is_asked_of_its_cgroup() {
    let Some(mut node) = Crio::new() else { return };
    let (id, pid) = node.run_without_shim(&["sh", "-c", "while true; do :; done"]);
    let rows = node.ask(&["list", "--format", "json"]).json();
    let row = &rows[0];
    let shown =
        ["id", "pod", "container", "status", "source"].map(|key| row[key].as_str().unwrap().to_string());
    assert_eq!(shown, [id.as_str(), "web", "app", "running", "cgroup"]);
    assert_eq!((&row["pid"], row.get("shim")), (&pid.into(), None));

    let usage = || {
        let event = node.ask(&["events", "--stats", "shop/web/app"]).json();
        assert_eq!(event["data"]["memory"]["usage"]["limit"], 33_554_432);
        event["data"]["cpu"]["usage"]["total"].as_u64().unwrap()
    };
    let mut exporter = Command::new(env!("CARGO_BIN_EXE_kata-runtime"));
    exporter
        .arg("--state")
        .arg(node.dir.path())
        .args(["monitor", "--listen-address", "127.0.0.1:0"]);
    let page = Monitor::start(exporter).scrape();
    let of_version: &[Lack] = if is_cgroup_v2() { &CGROUP_V2 } else { &CGROUP_V1 };
    conformance::check(&page, &id, &[of_version, &PLAIN].concat(), true);

    let before = usage();
    eventually("it uses the processor", || usage() > before + 50_000_000);
    // As runc counts it.
    let root = node.dir.path().join("runc");
    let events = run(Command::new("runc")
        .arg("--root")
        .arg(root)
        .args(["events", "--stats", &id]));
    let events: Value = serde_json::from_slice(&events.stdout).unwrap();
    let runcs = events["data"]["cpu"]["usage"]["total"].as_u64().unwrap();
    assert!(usage() >= runcs && before < runcs);

    let root = node.dir.path().join("runc");
    let paused = run(Command::new("runc").arg("--root").arg(&root).args(["pause", &id]));
    if paused.status.success() {
        let rows = node.ask(&["list", "--format", "json"]).json();
        assert_eq!(rows[0]["status"], "paused");
        run(Command::new("runc")
            .arg("--root")
            .arg(&root)
            .args(["resume", &id]));
    }
    run(Command::new("runc")
        .arg("--root")
        .arg(&root)
        .args(["kill", &id, "KILL"]));
    eventually("it has ended", || {
        let rows = node.ask(&["list", "--format", "json"]).json();
        rows[0]["status"] == "stopped"
    });
}

/// CRI-O starts a shim with its own arguments, and has its address from what it prints.
#[test]
fn runcs_shim_is_asked_where_crio_has_started_it() {
    let Some(node) = Crio::new() else { return };
    let id = fresh_id("crio");
    let bundle = node.bundle(&id, &["sleep", "1000"]);
    let shim = which("containerd-shim-runc-v2");
    let _ended = EndShim(&shim, &id);
    // It tells of its events there, and ends where it cannot.
    let events = node.dir.path().join("events.sock");
    let _events = UnixListener::bind(&events).unwrap();
    // Its log, which CRI-O reads.
    let log = bundle.join("log");
    assert!(Command::new("mkfifo").arg(&log).status().unwrap().success());
    let _log = fs::File::options().read(true).write(true).open(&log).unwrap();
    let started = run(Command::new(&shim)
        .args(["-namespace", "default", "-id", &id, "-address", "", "start"])
        .env("TTRPC_ADDRESS", &events)
        .current_dir(&bundle));
    let printed = String::from_utf8_lossy(&started.stdout).trim().to_string();
    assert!(
        started.status.success(),
        "{}",
        String::from_utf8_lossy(&started.stderr)
    );
    // Since 2.0 it prints JSON; CRI-O's shims are of the old kind and note their address themselves.
    let address = match serde_json::from_str::<Value>(&printed) {
        Ok(bootstrap) => bootstrap["address"].as_str().unwrap().to_string(),
        Err(_) => printed,
    };
    fs::write(bundle.join("address"), &address).unwrap();
    let socket = PathBuf::from(address.trim_start_matches("unix://"));
    let mut shim_task = ShimTask::connect(&socket);
    let mut create = CreateTaskRequest::new();
    create.id = id.clone();
    create.bundle = bundle.display().to_string();
    shim_task.call("Create", &create);
    let mut start = StartRequest::new();
    start.id = id.clone();
    shim_task.call("Start", &start);

    let rows = node.ask(&["list", "--format", "json"]).json();
    let row = &rows[0];
    let shim_listens = format!("unix://{}", row["shim"].as_str().unwrap());
    assert_eq!((shim_listens, row["status"].as_str()), (address, Some("running")));
    let names = ["pod", "container", "runtime"].map(|key| row[key].as_str());
    assert_eq!(names, [Some("web"), Some("app"), Some("runc")]);
    let event = node.ask(&["events", "--stats", "shop/web/app"]).json();
    assert_eq!(event["data"]["memory"]["usage"]["limit"], 33_554_432);

    let mut kill = KillRequest::new();
    kill.id = id.clone();
    kill.signal = 9;
    shim_task.call("Kill", &kill);
    eventually("it has ended", || {
        let rows = node.ask(&["list", "--format", "json"]).json();
        (rows[0]["status"].as_str(), rows[0]["exit_status"].as_u64()) == (Some("stopped"), Some(137))
    });
    let mut delete = DeleteRequest::new();
    delete.id = id.clone();
    shim_task.call("Delete", &delete);
    let _ = fs::remove_file(socket);
}

/// A connection to a shim's task service, of whichever generation it serves.
struct ShimTask {
    stream: UnixStream,
    next: u32,
}

impl ShimTask {
    fn connect(path: &Path) -> Self {
        Self {
            stream: UnixStream::connect(path).unwrap(),
            next: 1,
        }
    }

    #[track_caller]
    fn call(&mut self, method: &str, message: &impl Message) {
        let said: Vec<_> = ["v2", "v3"]
            .iter()
            .map_while(|version| self.call_version(version, method, message).err())
            .collect();
        assert!(said.len() < 2, "{method}: {said:?}");
    }

    fn call_version(&mut self, version: &str, method: &str, message: &impl Message) -> Result<(), String> {
        let mut request = Request::new();
        request.service = format!("containerd.task.{version}.Task");
        request.method = method.to_string();
        request.timeout_nano = 20_000_000_000;
        request.payload = message.write_to_bytes().unwrap();
        let body = request.write_to_bytes().unwrap();
        let mut frame = Vec::from(MessageHeader::new_request(self.next, body.len() as u32));
        self.next += 2;
        frame.extend(body);
        self.stream.write_all(&frame).unwrap();
        let mut header = [0; 10];
        self.stream.read_exact(&mut header).unwrap();
        let length = u32::from_be_bytes(header[..4].try_into().unwrap());
        let mut body = vec![0; length as usize];
        self.stream.read_exact(&mut body).unwrap();
        let response = Response::parse_from_bytes(&body).unwrap();
        match response.status.as_ref() {
            Some(status) if status.code.value() != 0 => Err(status.message.clone()),
            _ => Ok(()),
        }
    }
}

fn which(program: &str) -> PathBuf {
    std::env::split_paths(&path())
        .map(|directory| directory.join(program))
        .find(|path| path.exists())
        .unwrap()
}

/// Ends the shim that was started for an id, and no other process.
struct EndShim<'a>(&'a Path, &'a str);

impl Drop for EndShim<'_> {
    fn drop(&mut self) {
        let Self(shim, id) = *self;
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let mut words = arguments.split(|byte| *byte == 0);
            let is_shim = words
                .next()
                .is_some_and(|word| word.ends_with(shim.file_name().unwrap().as_encoded_bytes()));
            if is_shim && words.any(|word| word == id.as_bytes()) {
                let pid = entry.file_name().into_string().unwrap();
                let _ = Command::new("kill").args(["-KILL", &pid]).status();
            }
        }
        // What it ran, if the test failed before its end.
        for root in ["/run/containerd/runc/default", "/run/containerd/runc/k8s.io"] {
            let _ = run(Command::new("runc").args(["--root", root, "delete", "--force", id]));
        }
    }
}
