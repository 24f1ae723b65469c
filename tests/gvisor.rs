//! gVisor: its sandboxes are asked on their control sockets, and its shim, which starts two processes for a sample, only
//! where that cannot be. The sandbox is a stand-in that has real processes and the recorded answers' form.

#![allow(clippy::restriction)] // A test may panic.

#[path = "support/conformance.rs"]
mod conformance;
#[path = "support/exporter.rs"]
mod exporter;
mod mock;
#[path = "../crates/shimstat/tests/support/gvisor.rs"]
mod stand_in;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use conformance::{GVISOR, OUT_OF_SIGHT};
use exporter::Monitor;
use mock::{Call, Node, Ran, Reply, healthy};
use serde_json::Value;
use stand_in::{IDLE, Sandbox};

/// A pod of gVisor's, with a sandbox `pod` and a container `app`.
struct Pod {
    node: Node,
    sandbox: Sandbox,
    /// How many processes its shim has started to answer.
    forks: Arc<AtomicUsize>,
}

const NAMES: [(&str, &str); 2] = [
    ("io.kubernetes.cri.sandbox-namespace", "shop"),
    ("io.kubernetes.cri.sandbox-name", "web"),
];

impl Pod {
    fn new() -> Self {
        let node = Node::new();
        let root = node.state_dir().join("runsc");
        fs::create_dir_all(root.join("k8s.io")).unwrap();
        let sandbox = Sandbox::start(&root.join("k8s.io"), "pod", &[("app", IDLE)]);
        let forks = Arc::new(AtomicUsize::new(0));
        let own = [("io.kubernetes.cri.container-type", "sandbox")];
        let others = [
            ("io.kubernetes.cri.container-type", "container"),
            ("io.kubernetes.cri.sandbox-id", "pod"),
            ("io.kubernetes.cri.container-name", "app"),
        ];
        for (id, annotations) in [("pod", &own[..]), ("app", &others[..])] {
            let (bundle, socket) = node.bundle("k8s.io", id, &[annotations, &NAMES[..]].concat());
            fs::write(
                bundle.join("shim-binary-path"),
                "/usr/local/bin/containerd-shim-runsc-v1",
            )
            .unwrap();
            let options = serde_json::json!({"options": {"root": root}});
            fs::write(bundle.join("state.json"), options.to_string()).unwrap();
            let count = forks.clone();
            mock::serve(&socket, move |call| forking(call, &count));
        }
        Self { node, sandbox, forks }
    }

    fn forks(&self) -> usize {
        self.forks.load(Ordering::SeqCst)
    }

    /// How often the sandbox was asked for this.
    fn asked(&self, method: &str) -> usize {
        let asked = self.sandbox.asked();
        asked.iter().filter(|asked| asked.ends_with(method)).count()
    }

    fn without_socket(&self) {
        fs::remove_file(self.sandbox.root.join("runsc-pod.sock")).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.node.run(arguments)
    }

    fn monitor(&self, arguments: &[&str]) -> Monitor {
        let all = [&["monitor", "--listen-address", "127.0.0.1:0"], arguments].concat();
        Monitor::start(self.node.command(&all))
    }
}

/// gVisor's shim: `runsc state` for each State, `runsc events --stats` for each Stats.
fn forking(call: &Call, count: &AtomicUsize) -> Reply {
    count.fetch_add(1, Ordering::SeqCst);
    assert!(Command::new("true").status().unwrap().success());
    healthy(call)
}

fn json(ran: &Ran) -> Value {
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn no_command_makes_a_shim_start_a_process() {
    let pod = Pod::new();
    let rows = json(&pod.run(&["list", "--format", "json"]));
    for (row, id) in rows.as_array().unwrap().iter().zip(["pod", "app"]) {
        let shown = ["id", "runtime", "status"].map(|key| row[key].as_str().unwrap());
        assert_eq!(shown, [id, "gvisor", "running"]);
        assert_eq!(row["pid"], pod.sandbox.pid("pod"), "the sandbox's process");
    }
    // Its state file and its process are enough, where processes can be seen.
    assert_eq!(pod.sandbox.asked(), Vec::<String>::new());

    let ran = pod.run(&["-v", "events", "--stats", "--format", "json", "shop/web/app"]);
    let event = json(&ran);
    let memory = event["data"]["memory"]["usage"]["usage"].as_u64().unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", pod.sandbox.pid("app"))).unwrap();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let resident: u64 = resident.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    assert_eq!(memory, resident << 10);
    assert_eq!(event["data"]["pids"]["current"], 1);
    let interfaces = event["data"]["interfaces"].as_array().unwrap();
    assert!(
        interfaces.iter().any(|interface| interface["name"] == "lo"),
        "{event}"
    );
    assert!(
        ran.stderr.contains("from its sandbox's control socket ("),
        "{}",
        ran.stderr
    );
    assert_eq!((pod.asked("Event"), pod.asked("ContainerRuntimeState")), (1, 0));

    let all = pod.run(&["events", "--stats", "--all", "--format", "json"]);
    assert_eq!(
        (all.status, all.stdout.lines().count()),
        (Some(0), 2),
        "{}",
        all.stderr
    );
    let table = pod.run(&["events", "--stats", "--format", "table", "pod"]);
    assert_eq!(table.status, Some(0), "{}", table.stderr);
    let monitor = pod.monitor(&[]);
    let page = monitor.get("/metrics").text().to_string();
    let samples = |family: &str| {
        let is_sample = |line: &&str| line.starts_with(&format!("{family}{{"));
        page.lines().filter(is_sample).count()
    };
    assert_eq!(
        samples("container_memory_usage_bytes"),
        1,
        "the sandbox says none of its own container"
    );
    assert_eq!(samples("container_cpu_usage_seconds_total"), 2, "{page}");
    // Every container's answer has the pod's network.
    let network = page
        .lines()
        .filter(|line| line.starts_with("container_network_receive_bytes_total{"));
    assert!(
        network.clone().count() > 0 && network.clone().all(|line| line.contains("id=\"pod\"")),
        "{page}"
    );
    let up = page
        .lines()
        .filter(|line| line.starts_with("kata_monitor_container_up{") && line.ends_with(" 1"));
    assert_eq!(up.count(), 2, "{page}");
    let told_with_the_sandbox = [("container_network_", "it is the sandbox's, and told once")];
    let lacks = [&OUT_OF_SIGHT[..], &GVISOR, &told_with_the_sandbox].concat();
    conformance::check(&monitor.scrape(), "app", &lacks, false);
    assert_eq!(pod.forks(), 0);
}

#[test]
fn a_stream_asks_a_sandbox_at_its_own_interval_and_ends_with_it() {
    let mut pod = Pod::new();
    let mut stream = pod
        .node
        .command(&["events", "--interval", "100ms", "--format", "json", "app"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(stream.stdout.take().unwrap()).lines();
    for _ in 0..4 {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(event["type"], "stats");
    }
    pod.sandbox.kill("app");
    let last = lines.last().unwrap().unwrap();
    let event: Value = serde_json::from_str(&last).unwrap();
    assert_eq!(event["type"], "exit");
    assert_eq!(
        event["data"].get("exit_status"),
        None,
        "nobody asked knows it: {event}"
    );
    stream.wait().unwrap();
    assert_eq!(pod.forks(), 0);
    let ran = pod.run(&["events", "--stats", "app"]);
    assert!(ran.stderr.contains("its task has stopped"), "{}", ran.stderr);
    assert_eq!(pod.forks(), 0);
}

#[test]
fn a_sandbox_that_is_gone_is_listed_as_stopped() {
    let mut pod = Pod::new();
    pod.sandbox.kill("pod");
    if fs::read_link("/proc/self/ns/pid").unwrap().as_os_str() != "pid:[4026531836]" {
        eprintln!("not tested: not all processes are seen from here");
        return;
    }
    let rows = json(&pod.run(&["list", "--format", "json"]));
    assert_eq!([&rows[0]["status"], &rows[1]["status"]], ["stopped", "stopped"]);
    assert_eq!(pod.forks(), 0);
}

#[test]
fn the_shim_is_asked_seldom_where_the_sandbox_cannot_be() {
    let pod = Pod::new();
    pod.without_socket();
    // A state file is enough to list.
    json(&pod.run(&["list", "--format", "json"]));
    assert_eq!(pod.forks(), 0);

    let stream = |arguments: &[&str]| {
        let all = [
            &["-v", "events", "--interval", "100ms", "--format", "json"],
            arguments,
        ]
        .concat();
        let mut stream = pod.node.command(&all);
        let stream = stream.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut stream = stream.spawn().unwrap();
        let lines = BufReader::new(stream.stdout.take().unwrap()).lines();
        (stream, lines)
    };
    let (mut child, mut lines) = stream(&["app"]);
    lines.next().unwrap().unwrap();
    std::thread::sleep(Duration::from_millis(700));
    child.kill().unwrap();
    let rest = lines.count();
    let said = child.wait_with_output().unwrap().stderr;
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.contains("starts two processes to answer") && said.contains("no such file"),
        "{said}"
    );
    // State and Stats, once in ten seconds.
    assert_eq!((rest, pod.forks()), (0, 2));

    let (mut child, lines) = stream(&["--pace", "0s", "app"]);
    let started = Instant::now();
    assert_eq!(lines.take(3).filter(Result::is_ok).count(), 3);
    assert!(started.elapsed() < Duration::from_secs(5));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(pod.forks() >= 2 + 6);

    // The answers are shared among scrapes.
    let before = pod.forks();
    let monitor = pod.monitor(&[]);
    let cpu = |page: String| {
        let lines = page
            .lines()
            .filter(|line| line.starts_with("container_cpu_usage_seconds_total{"));
        lines.map(str::to_string).collect::<Vec<_>>()
    };
    let first = cpu(monitor.get("/metrics").text().to_string());
    let second = cpu(monitor.get("/metrics").text().to_string());
    assert_eq!((first.len(), pod.forks() - before), (2, 4));
    assert_eq!(first, second);
}

/// `--network=host`: the sandbox reports the namespace that it is in, here the machine's.
#[test]
fn the_hosts_network_is_not_shown_as_a_containers() {
    let pod = Pod::new();
    for container in ["pod", "app"] {
        let path = pod.sandbox.root.join(format!("{container}_sandbox:pod.state"));
        let text = fs::read_to_string(&path).unwrap();
        let changed = text.replace("\"network\":\"sandbox\"", "\"network\":\"host\"");
        assert_ne!(text, changed);
        fs::write(path, changed).unwrap();
    }
    let event = json(&pod.run(&["events", "--stats", "--format", "json", "app"]));
    assert_eq!(event["data"]["pids"]["current"], 1);
    assert!(
        event["data"]["interfaces"].as_array().is_none_or(Vec::is_empty),
        "{event}"
    );
    let monitor = pod.monitor(&[]);
    assert!(!monitor.get("/metrics").text().contains("\ncontainer_network_"));
}
