//! Asking gVisor's sandboxes for what their containers use: no process is started for it.

#![allow(clippy::restriction)] // A test may panic.

#[path = "support/gvisor.rs"]
mod stand_in;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use shimstat::node::gvisor::{GvisorState, Status};
use shimstat::shim::runsc::{ControlConnection, RuntimeState};
use shimstat::shim::{Connect, Connection, ShimSockets};
use shimstat::stats::Stats;
use stand_in::{BUSY, IDLE, Sandbox};

/// Marks the test that runs in a pid namespace of its own.
const INSIDE: &str = "SHIMSTAT_TEST_IN_OWN_PID_NAMESPACE";

async fn connect(sandbox: &Sandbox) -> ControlConnection<Connection> {
    let state = GvisorState::read(&sandbox.root, &sandbox.id, &sandbox.id)
        .unwrap()
        .unwrap();
    let address = state.sandbox.unwrap().control_socket().unwrap();
    let stream = ShimSockets.connect(&address).await.unwrap();
    ControlConnection::new(stream, address)
}

/// Everything that a command needs of a container.
async fn sample(
    sandbox: &Sandbox,
    id: &str,
    connection: &mut ControlConnection<Connection>,
) -> (Status, Stats) {
    let state = GvisorState::read(&sandbox.root, id, &sandbox.id)
        .unwrap()
        .unwrap();
    let status = state.status().unwrap();
    assert_eq!(connection.runtime_state(id).await.unwrap(), RuntimeState::Running);
    let cgroup = state.sandbox.unwrap().cgroup;
    let cpu = cgroup.and_then(|cgroup| cgroup.cpu_usage().unwrap());
    let stats = connection.event(id).await.unwrap().stats(None, cpu);
    (status, stats)
}

fn pods(root: &Path) -> Vec<Sandbox> {
    (0..10)
        .map(|pod| Sandbox::start(root, &format!("pod{pod}"), &[(&format!("app{pod}"), IDLE)]))
        .collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn a_sandbox_says_what_its_containers_use() {
    let root = tempfile::tempdir().unwrap();
    let mut sandbox = Sandbox::start(root.path(), "pod", &[("busy", BUSY), ("idle", IDLE)]);
    block_on(async {
        let mut connection = connect(&sandbox).await;
        let mut answers = 0;
        let deadline = Instant::now() + Duration::from_secs(60);
        let busy = loop {
            answers += 1;
            let (status, stats) = sample(&sandbox, "busy", &mut connection).await;
            assert_eq!(status, Status::Running);
            match stats.cpu.usage.total {
                Some(nanos) if nanos >= 100_000_000 => break stats,
                _ => assert!(Instant::now() < deadline, "{stats:?}"),
            }
        };
        // The kernel's own figure is not less than what was said of it before.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", sandbox.pid("busy"))).unwrap();
        let ticks: Vec<u64> = stat
            .split_whitespace()
            .skip(13)
            .take(2)
            .map(|n| n.parse().unwrap())
            .collect();
        let (said, used) = (busy.cpu.usage.total.unwrap(), (ticks[0] + ticks[1]) * 10_000_000);
        assert!((100_000_000..=used).contains(&said), "{said} {used}");
        assert!(busy.memory.usage.usage.unwrap() > 100 << 10);
        assert!(
            busy.network
                .unwrap()
                .iter()
                .any(|interface| interface.name == "lo")
        );

        let (_, idle) = sample(&sandbox, "idle", &mut connection).await;
        assert!(idle.cpu.usage.total.unwrap_or(0) < 100_000_000);
        let (_, own) = sample(&sandbox, "pod", &mut connection).await;
        assert_eq!((own.pids.current, own.memory.usage.usage), (Some(1), None));

        sandbox.kill("idle");
        assert_eq!(
            connection.runtime_state("idle").await.unwrap(),
            RuntimeState::Stopped
        );
        let error = connection.event("idle").await.unwrap_err().to_string();
        assert!(error.ends_with("container \"idle\" not found"), "{error}");
        // The connection has outlived the error.
        assert_eq!(
            connection.runtime_state("busy").await.unwrap(),
            RuntimeState::Running
        );

        let mut asked = sandbox.asked();
        asked.sort();
        let state = "containerManager.ContainerRuntimeState";
        let event = "containerManager.Event";
        assert_eq!(
            asked,
            [vec![state; answers + 4], vec![event; answers + 3]].concat()
        );
    });
}

#[test]
fn a_sandbox_that_is_gone_is_known_without_asking() {
    let root = tempfile::tempdir().unwrap();
    let mut sandbox = Sandbox::start(root.path(), "pod", &[("app", IDLE)]);
    let status = || {
        GvisorState::read(root.path(), "app", "pod")
            .unwrap()
            .unwrap()
            .status()
    };
    assert_eq!(status(), Some(Status::Running));
    sandbox.kill("pod");
    // From within a container nothing can be said of a process that is not seen.
    let sees_all = std::fs::read_link("/proc/self/ns/pid").unwrap() == Path::new("pid:[4026531836]");
    assert_eq!(status(), sees_all.then_some(Status::Stopped));
    assert_eq!(sandbox.asked(), Vec::<String>::new());
    assert_eq!(GvisorState::read(root.path(), "other", "pod").unwrap(), None);
}

/// In a pid namespace without others, pids are given out one after another, so that two processes' tell how many were
/// started in between, threads too.
#[test]
fn twenty_containers_are_asked_without_a_fork() {
    if std::env::var_os(INSIDE).is_none() {
        let own_namespace = || {
            let mut unshare = Command::new("unshare");
            unshare.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
            unshare
        };
        if !own_namespace()
            .arg("true")
            .status()
            .is_ok_and(|status| status.success())
        {
            eprintln!("not tested: a pid namespace needs root");
            return;
        }
        let inside = own_namespace()
            .arg(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "twenty_containers_are_asked_without_a_fork",
                "--nocapture",
            ])
            .env(INSIDE, "1")
            .status()
            .unwrap();
        assert!(inside.success());
        return;
    }
    let next_pid = || {
        let mut process = Command::new("true").spawn().unwrap();
        process.wait().unwrap();
        process.id()
    };
    let root = tempfile::tempdir().unwrap();
    let pods = pods(root.path());
    block_on(async {
        let mut connections = Vec::new();
        for pod in &pods {
            let mut connection = connect(pod).await;
            // After an answer, the thread of the stand-in that serves the connection is there.
            connection.runtime_state(&pod.id).await.unwrap();
            connections.push(connection);
        }
        // The count itself: what gVisor's shim starts for one sample.
        let before = next_pid();
        for _ in ["runsc state", "runsc events --stats"] {
            Command::new("true").status().unwrap();
        }
        assert_eq!(next_pid() - before - 1, 2);

        let before = next_pid();
        let mut samples = 0;
        for _ in 0..5 {
            for (pod, connection) in pods.iter().zip(&mut connections) {
                for id in pod.containers() {
                    let (status, stats) = sample(pod, id, connection).await;
                    assert_eq!((status, stats.pids.current), (Status::Running, Some(1)));
                    samples += 1;
                }
            }
        }
        assert_eq!((samples, next_pid() - before - 1), (100, 0));
    });
}
