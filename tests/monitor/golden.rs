//! The whole page of a node whose answers were recorded.
//!
//! What the sandbox's monitor sent is compared with the recording itself; all else with `golden/page.txt`, which says
//! where its numbers are from. Values that differ from run to run are `~` there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::mock::{self, Call, Reply, http_chunked};
use crate::support::{Answer, GO, Node, Page, serve_monitor};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/shimstat/tests/fixtures");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/monitor/golden/page.txt");

/// The sandbox's id in the recording of Kata 3.30. Here it is `kata`.
const RECORDED_ID: &str = "65e7a235858e772e3fab8d15f82f38bec74b7b8ebbba6033d79f0bc59753d99a";

/// The labels that the sandbox's own samples get, from the annotations of its recorded spec.
const SANDBOX_LABELS: &str = "sandbox_id=\"kata\",cri_uid=\"11111111-2222-3333-4444-555555555555\",cri_name=\"kata-pod\",\
                              cri_namespace=\"default\"";

/// Families whose values differ from run to run.
const VOLATILE: [&str; 13] = [
    "container_last_seen",
    "container_start_time_seconds",
    "kata_monitor_build_info",
    "kata_monitor_go_goroutines",
    "kata_monitor_go_threads",
    "kata_monitor_process_cpu_seconds_total",
    "kata_monitor_process_max_fds",
    "kata_monitor_process_open_fds",
    "kata_monitor_process_resident_memory_bytes",
    "kata_monitor_process_start_time_seconds",
    "kata_monitor_process_virtual_memory_bytes",
    "kata_monitor_process_virtual_memory_max_bytes",
    "kata_monitor_sandbox_scrape_duration_seconds",
];

#[test]
fn the_page_of_a_recorded_node_is_the_golden_one() {
    let node = node();
    // All of it is in this namespace. Without one, sandboxes of other tests would be in the page.
    let page = node.monitor_with(&["--namespace", "k8s.io"], &[]).scrape();
    page.check();

    let recorded = with_labels(std::str::from_utf8(GO).unwrap());
    let families: BTreeSet<_> = recorded.iter().map(|line| family(line)).collect();
    let (of_sandbox, own): (Vec<_>, Vec<_>) = lines(&page).partition(|line| families.contains(family(line)));
    let of_sandbox: BTreeSet<_> = of_sandbox.into_iter().map(str::to_string).collect();
    assert_eq!(of_sandbox, recorded.into_iter().collect());

    let own: String = own.into_iter().map(|line| masked(line) + "\n").collect();
    let golden = fs::read_to_string(GOLDEN).unwrap_or_default();
    let golden: String = golden
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("##"))
        .collect();
    if own != golden {
        let seen = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page.txt");
        fs::write(&seen, &own).unwrap();
        let (own, golden): (BTreeSet<_>, BTreeSet<_>) = (own.lines().collect(), golden.lines().collect());
        panic!(
            "not in {GOLDEN}: {:#?}\nonly there: {:#?}\nThe page is in {}. If it is right by another source than the \
             program, put it below the comments of the golden one.",
            own.difference(&golden).collect::<Vec<_>>(),
            golden.difference(&own).collect::<Vec<_>>(),
            seen.display()
        );
    }
}

fn node() -> Node {
    let node = Node::new();
    // A pod of Kata 3.30's Go shim.
    let (sandbox, socket) = bundle(&node, "kata", "kata-3.30-go/bundle-sandbox/config.json");
    let (child, _) = bundle(&node, "kata-app", "kata-3.30-go/bundle-child/config.json");
    fs::copy(sandbox.join("address"), child.join("address")).unwrap();
    mock::serve(
        &socket,
        shim(mock::V1, &fixture("kata-3.30-go/stats-child.v1.bin")),
    );
    serve_monitor(&monitor(&node, "kata", &sandbox), Answer::Bytes(http_chunked(GO)));

    // A pod of the same kind whose shim was killed: its sockets are there, and nobody listens.
    let (sandbox, socket) = bundle(&node, "dead", "kata-3.30-go/bundle-sandbox/config.json");
    for socket in [&socket, &monitor(&node, "dead", &sandbox)] {
        drop(UnixListener::bind(socket).unwrap());
    }

    // Plain containers: one of runc on cgroup v2, and one with the numbers of the documented example, on v1.
    let recorded = fixture("runc-cgroup-v2/stats-containerd-2.1.v2.bin");
    let (_, socket) = node.node.bundle("k8s.io", "limited", &[]);
    mock::serve(&socket, shim(mock::V2, &recorded));
    let (_, socket) = node.node.bundle("k8s.io", "documented", &[]);
    mock::serve(&socket, shim(mock::V1, mock::DOCUMENTED));
    node
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(Path::new(FIXTURES).join(name)).unwrap()
}

/// A bundle with a recorded spec: the sandbox's id is `kata` (or another) there, the pod's name `kata-pod`.
fn bundle(node: &Node, id: &str, spec: &str) -> (PathBuf, PathBuf) {
    let (bundle, socket) = node.node.bundle("k8s.io", id, &[]);
    let sandbox = id.trim_end_matches("-app");
    let spec = String::from_utf8(fixture(spec)).unwrap();
    let spec = spec
        .replace(RECORDED_ID, sandbox)
        .replace("kpod", &format!("{sandbox}-pod"));
    fs::write(bundle.join("config.json"), spec).unwrap();
    (bundle, socket)
}

/// Where the monitor of a sandbox listens, as its bundle says.
fn monitor(node: &Node, id: &str, bundle: &Path) -> PathBuf {
    let socket = node.node.state_dir().join(format!("{id}.m"));
    fs::write(
        bundle.join("monitor_address"),
        format!("unix://{}", socket.display()),
    )
    .unwrap();
    socket
}

/// A shim that runs what it is asked about, and gives these statistics of it.
fn shim(type_url: &'static str, stats: &[u8]) -> impl Fn(&Call) -> Reply + Send + Sync + 'static {
    let stats = stats.to_vec();
    move |call| match call.method.as_str() {
        "State" => mock::running(0),
        _ => mock::stats(type_url, &stats),
    }
}

fn lines(page: &Page) -> impl Iterator<Item = &str> {
    page.text.lines()
}

/// The lines of a recorded page as they are served: with the sandbox's labels, and what Go's client library calls
/// `go_*` and `process_*` under a name of the shim's.
fn with_labels(recorded: &str) -> Vec<String> {
    let renamed = |line: &str| {
        let is_gos = line.starts_with("go_") || line.starts_with("process_");
        format!("{}{line}", if is_gos { "kata_shim_" } else { "" })
    };
    let served = recorded.lines().map(|line| match line.split_once(['{', ' ']) {
        Some(("#", comment)) => match comment.split_once(' ') {
            Some((kind, of)) => format!("# {kind} {}", renamed(of)),
            None => line.to_string(),
        },
        _ => match line.rsplit_once("} ") {
            Some((labels, value)) => renamed(&format!("{labels},{SANDBOX_LABELS}}} {value}")),
            None => {
                let (name, value) = line.split_once(' ').unwrap();
                renamed(&format!("{name}{{{SANDBOX_LABELS}}} {value}"))
            }
        },
    });
    served.collect()
}

/// The name that a line is about.
fn family(line: &str) -> &str {
    let name = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
    name.split(['{', ' ']).next().unwrap_or_default()
}

/// A line with `~` for a value that differs from run to run.
fn masked(line: &str) -> String {
    if line.starts_with('#') || !VOLATILE.contains(&family(line)) {
        return line.to_string();
    }
    match line.split_once('{') {
        Some((name, _)) if name == "kata_monitor_build_info" => format!("{name}{{~}} 1"),
        _ => format!("{} ~", line.rsplit_once(' ').unwrap().0),
    }
}
