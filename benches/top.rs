//! What `top` itself costs: its own processor time and memory on a node of 200 containers, looked at every second, in a
//! real terminal (tmux).
//!
//! `cargo bench --bench top` as root. The shims are mocks in a process of their own, which answer with a recorded
//! reply at once; their tasks' network is read from a real network namespace. The terminal is 200 columns by 60 lines.

#[path = "../tests/mock/mod.rs"]
mod mock;
#[path = "../tests/support/tmux.rs"]
mod tmux;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mock::{Call, Node, Reply, V2, running, stats};
use tmux::Tmux;

/// Each with two containers, beside as many containers without a pod.
const PODS: usize = 50;
const CONTAINERS: usize = 4 * PODS;

const WARM_UP: Duration = Duration::from_secs(5);
const TIME: Duration = Duration::from_secs(30);

/// The most of a processor that it may take.
const MOST: f64 = 3.0;

fn main() {
    if std::env::var_os("KR_BENCH_SHIMS").is_some() {
        return serve();
    }
    // `cargo test --benches` wants to see that it runs; measuring is for `cargo bench`.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let mut shims = Shims::start();
    let state = shims.state.display();
    let program = env!("CARGO_BIN_EXE_kata-runtime");
    let tmux = Tmux::start((200, 60), &format!("{program} --state {state} top --interval 1s"));
    tmux.wait_for("the table", |screen| {
        screen.iter().any(|line| line.contains("c000"))
    });
    std::thread::sleep(WARM_UP);
    let (begin, before) = (Instant::now(), cpu(tmux.pid()));
    std::thread::sleep(TIME);
    let (took, used) = (begin.elapsed(), cpu(tmux.pid()) - before);
    let share = used / took.as_secs_f64() * 100.0;
    println!(
        "top, {CONTAINERS} containers, every second: {share:.2} % of a processor (at most {MOST}), {} peak",
        peak(tmux.pid())
    );
    shims.end();
    assert!(share < MOST, "top takes {share:.2} % of a processor");
}

/// Processor time of a process, in seconds.
fn cpu(pid: u32) -> f64 {
    kata_runtime::node::ProcessUsage::read(pid)
        .expect("it runs")
        .cpu
        .as_secs_f64()
}

fn peak(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap_or("?").trim().to_string()
}

/// The process with the mock shims, and one in a network namespace of its own.
struct Shims {
    process: Child,
    network: Child,
    state: PathBuf,
}

impl Shims {
    fn start() -> Self {
        let network = Command::new("unshare")
            .args(["--net", "sleep", "1000"])
            .spawn()
            .expect("root may do this");
        let mut process = Command::new(std::env::current_exe().expect("a name"))
            .env("KR_BENCH_SHIMS", network.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut state = String::new();
        let stdout = process.stdout.take().expect("a pipe");
        BufReader::new(stdout)
            .read_line(&mut state)
            .expect("it says where it is");
        Self {
            process,
            network,
            state: Path::new(state.trim()).to_path_buf(),
        }
    }

    fn end(&mut self) {
        for child in [&mut self.process, &mut self.network] {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.state);
    }
}

impl Drop for Shims {
    fn drop(&mut self) {
        self.end();
    }
}

/// Serves the shims until the process is killed.
fn serve() {
    let pid = std::env::var("KR_BENCH_SHIMS")
        .ok()
        .and_then(|pid| pid.parse().ok())
        .unwrap_or(0);
    let node = Node::new();
    for number in 0..PODS {
        let pod = format!("pod{number:03}");
        let annotations = |role, container: Option<&str>| -> Vec<(String, String)> {
            let mut annotations = vec![
                ("io.kubernetes.cri.container-type".to_string(), String::from(role)),
                ("io.kubernetes.cri.sandbox-id".to_string(), pod.clone()),
                (
                    "io.kubernetes.cri.sandbox-namespace".to_string(),
                    "shop".to_string(),
                ),
                (
                    "io.kubernetes.cri.sandbox-name".to_string(),
                    format!("web-{number:03}"),
                ),
            ];
            annotations.extend(
                container.map(|name| ("io.kubernetes.cri.container-name".to_string(), name.to_string())),
            );
            annotations
        };
        let bundle = |id: &str, annotations: Vec<(String, String)>| {
            let pairs: Vec<_> = annotations
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_str()))
                .collect();
            node.bundle("k8s.io", id, &pairs)
        };
        let (_, socket) = bundle(&pod, annotations("sandbox", None));
        for name in ["app", "proxy"] {
            let (path, _) = bundle(&format!("{pod}-{name}"), annotations("container", Some(name)));
            fs::write(path.join("address"), format!("unix://{}", socket.display())).expect("written");
        }
        mock::serve(&socket, shim(pid));
        node.task(&format!("c{number:03}"), shim(pid));
    }
    println!("{}", node.state_dir().display());
    std::io::stdout().flush().expect("it is heard");
    std::thread::park();
}

/// A shim whose tasks always do a little more, so that every number on the screen moves.
fn shim(pid: u32) -> impl Fn(&Call) -> Reply + Send + Sync + 'static {
    let replies: Vec<Reply> = (1..=20).map(reply).collect();
    let count = Arc::new(AtomicU64::new(0));
    move |call| match call.method.as_str() {
        "State" => running(pid),
        _ => {
            let number = count.fetch_add(1, Ordering::Relaxed) as usize;
            replies[number % replies.len()].clone()
        }
    }
}

/// A recorded reply of runc's shim, with a processor time of its own.
fn reply(number: u64) -> Reply {
    use protobuf::Message;
    let recorded = include_bytes!("../tests/fixtures/runc-cgroup-v2/stats-containerd-2.1.v2.bin");
    let mut metrics =
        containerd_shim_protos::cgroups_v2::metrics::Metrics::parse_from_bytes(recorded).expect("recorded");
    let cpu = metrics.cpu.mut_or_insert_default();
    cpu.usage_usec += number * 37_000;
    let memory = metrics.memory.mut_or_insert_default();
    memory.usage = memory.usage.saturating_add(number * 123_456);
    stats(V2, &metrics.write_to_bytes().expect("written"))
}
