//! `metrics` before monitors that answer, lie, hang and are gone.
//!
//! The known paths of monitor sockets are root's (`/run/vc/sbs`, `/run/kata`): these tests make a directory with
//! a fresh id there, and take it away.

#![allow(clippy::restriction)] // A test may panic.

mod mock;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mock::{Node, Ran, Reply, healthy, http_chunked, http_ok, serve_http, stopped};
use test_needs::needs;

const GO: &[u8] = include_bytes!("../crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt");
const RUST: &[u8] = include_bytes!("../crates/promtext/tests/fixtures/kata-3.30-rs/metrics.txt");
const AT_ONCE: Duration = Duration::ZERO;

const SANDBOX: &[(&str, &str)] = &[("io.kubernetes.cri.container-type", "sandbox")];

/// A sandbox's directory below one of Kata's roots, with a fresh id.
struct KataDir {
    id: String,
    path: PathBuf,
}

impl KataDir {
    fn new(root: &str, name: &str) -> Self {
        let id = format!(
            "{name}-{}-{}",
            std::process::id(),
            std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()
        );
        let path = Path::new(root).join(&id);
        fs::create_dir_all(&path).expect("these tests need root: run tests/run.sh");
        Self { id, path }
    }

    fn socket(&self) -> PathBuf {
        self.path.join("shim-monitor.sock")
    }
}

impl Drop for KataDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A sandbox whose bundle names its monitor, as Kata's Go shim has it.
fn go_sandbox(node: &Node, id: &str, after: Duration, answer: Vec<u8>) -> mock::Calls {
    let (bundle, socket) = node.bundle("k8s.io", id, SANDBOX);
    let monitor = node.state_dir().join(format!("{id}-monitor.sock"));
    fs::write(
        bundle.join("monitor_address"),
        format!("unix://{}", monitor.display()),
    )
    .unwrap();
    serve_http(&monitor, after, answer);
    mock::serve(&socket, healthy)
}

fn answered(ran: &Ran, body: &[u8]) {
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(
        ran.stdout.as_bytes() == body,
        "stdout is not the body: {} bytes",
        ran.stdout.len()
    );
}

fn failed(ran: &Ran, error: &str) {
    assert_eq!(
        (ran.status, ran.stdout.as_str()),
        (Some(1), ""),
        "stderr: {}",
        ran.stderr
    );
    assert!(ran.stderr.contains(error), "{error:?} is not in: {}", ran.stderr);
}

#[test]
fn the_body_is_passed_on_as_it_came() {
    let node = Node::new();
    go_sandbox(&node, "chunked", AT_ONCE, http_chunked(GO));
    go_sandbox(&node, "plain", AT_ONCE, http_ok(RUST));
    let ran = node.run(&["metrics", "chunked"]);
    answered(&ran, GO);
    assert_eq!(ran.stderr, "");
    answered(&node.run(&["metrics", "pla"]), RUST);
}

#[test]
fn state_is_asked_first_and_stats_never() {
    let node = Node::new();
    let calls = go_sandbox(&node, "s1", AT_ONCE, http_ok(GO));
    answered(&node.run(&["metrics", "s1"]), GO);
    let methods: Vec<_> = calls.lock().unwrap().iter().map(|c| c.method.clone()).collect();
    assert_eq!(methods, ["State"]);
}

#[test]
fn a_container_leads_to_its_sandbox_whoever_manages_it() {
    for (role, container, sandbox_id) in [
        (
            "io.kubernetes.cri.container-type",
            "container",
            "io.kubernetes.cri.sandbox-id",
        ),
        (
            "io.kubernetes.cri-o.ContainerType",
            "container",
            "io.kubernetes.cri-o.SandboxID",
        ),
        (
            "io.kubernetes.docker.type",
            "container",
            "io.kubernetes.sandbox.id",
        ),
    ] {
        let node = Node::new();
        go_sandbox(&node, "pod1", AT_ONCE, http_ok(GO));
        node.bundle("k8s.io", "app1", &[(role, container), (sandbox_id, "pod1")]);
        let ran = node.run(&["metrics", "app1"]);
        answered(&ran, GO);
        assert_eq!(
            ran.stderr,
            "container app1 runs in sandbox pod1: these are the sandbox's metrics\n"
        );
    }
}

#[test]
fn a_container_may_not_name_a_path_as_its_sandbox() {
    let node = Node::new();
    let annotations = [
        ("io.kubernetes.cri.container-type", "container"),
        ("io.kubernetes.cri.sandbox-id", "../../etc"),
    ];
    node.bundle("k8s.io", "app1", &annotations);
    failed(
        &node.run(&["metrics", "app1"]),
        "name the sandbox \"../../etc\": invalid container/sandbox ID",
    );
}

#[test]
fn known_paths_are_found_without_a_bundle() {
    needs!("root");
    let node = Node::new();
    for (root, name) in [("/run/vc/sbs", "kr-go"), ("/run/kata", "kr-misplaced")] {
        let dir = KataDir::new(root, name);
        serve_http(&dir.socket(), AT_ONCE, http_ok(GO));
        answered(&node.run(&["metrics", &dir.id]), GO);
        answered(&node.run(&["metrics", &dir.id[..dir.id.len() - 3]]), GO);
    }
}

#[test]
fn abstract_sockets_of_kata_2_are_found() {
    use std::os::linux::net::SocketAddrExt;
    let serve = |name: &str| {
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                use std::io::{Read, Write};
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 1024]);
                let _ = stream.write_all(&http_ok(GO));
            }
        });
    };
    let node = Node::new();
    let id = format!("kr-abstract-{}", std::process::id());
    serve(&format!("/run/vc/{id}/shim-monitor"));
    answered(&node.run(&["metrics", &id]), GO);

    let oldest = format!("kr-oldest-{}", std::process::id());
    let (_, socket) = node.bundle("k8s.io", &oldest, SANDBOX);
    mock::serve(&socket, healthy);
    serve(&format!("/containerd-shim/k8s.io/{oldest}/shim-monitor.sock"));
    answered(&node.run(&["metrics", &oldest]), GO);

    // Kata 2.0 and 2.1 note it in the bundle, without a scheme.
    let (bundle, socket) = node.bundle("k8s.io", "noted", SANDBOX);
    mock::serve(&socket, healthy);
    let name = format!("/somewhere/{id}");
    fs::write(bundle.join("monitor_address"), &name).unwrap();
    serve(&name);
    answered(&node.run(&["metrics", "noted"]), GO);
}

#[test]
fn where_nothing_listens_the_error_is_the_one_that_people_know() {
    needs!("root");
    let node = Node::new();
    let gone = "kr-no-such-sandbox";
    failed(
        &node.run(&["metrics", gone]),
        &format!(
            "Get \"http://shim/metrics\": dial unix /run/vc/sbs/{gone}/shim-monitor.sock: connect: no such file or directory\n"
        ),
    );
    let dir = KataDir::new("/run/vc/sbs", "kr-dead");
    drop(UnixListener::bind(dir.socket()).unwrap());
    let refused = format!(
        "Get \"http://shim/metrics\": dial unix {}: connect: connection refused\n",
        dir.socket().display()
    );
    failed(&node.run(&["metrics", &dir.id]), &refused);
    // The same with a bundle whose shim was killed.
    let (_, socket) = node.bundle("k8s.io", &dir.id, SANDBOX);
    drop(UnixListener::bind(socket).unwrap());
    failed(&node.run(&["metrics", &dir.id]), &refused);
}

#[test]
fn a_plain_container_without_a_monitor_is_told_about() {
    let node = Node::new();
    node.task("runc1", healthy);
    let ran = node.run(&["metrics", "runc1"]);
    failed(
        &ran,
        "dial unix /run/vc/sbs/runc1/shim-monitor.sock: connect: no such file or directory",
    );
    assert!(
        ran.stderr.contains("container runc1 is in no sandbox"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_stopped_sandbox_is_not_running_even_where_its_shim_serves_on() {
    let node = Node::new();
    let (bundle, socket) = node.bundle("k8s.io", "stopped", SANDBOX);
    let monitor = node.state_dir().join("m.sock");
    fs::write(
        bundle.join("monitor_address"),
        format!("unix://{}", monitor.display()),
    )
    .unwrap();
    let requests = serve_http(&monitor, AT_ONCE, http_ok(RUST));
    mock::serve(&socket, |_| stopped(137));
    failed(
        &node.run(&["metrics", "stopped"]),
        "sandbox stopped is not running: its task has stopped (exit status 137)",
    );
    assert!(requests.lock().unwrap().is_empty());
}

#[test]
fn a_shim_that_hangs_is_given_up_in_time_and_its_monitor_not_asked() {
    let node = Node::new();
    let (bundle, socket) = node.bundle("k8s.io", "hung", SANDBOX);
    let monitor = node.state_dir().join("m.sock");
    fs::write(
        bundle.join("monitor_address"),
        format!("unix://{}", monitor.display()),
    )
    .unwrap();
    let requests = serve_http(&monitor, AT_ONCE, http_ok(GO));
    mock::serve(&socket, |_| Reply::Hang);
    let ran = node.run(&["--timeout", "500ms", "metrics", "hung"]);
    failed(
        &ran,
        &format!(
            "sandbox hung: the shim at {} has not answered State for 5",
            socket.display()
        ),
    );
    assert!(ran.took < Duration::from_millis(1500), "{:?}", ran.took);
    assert!(requests.lock().unwrap().is_empty());
}

#[test]
fn a_monitor_that_hangs_is_given_up_in_time() {
    let node = Node::new();
    go_sandbox(&node, "late", Duration::from_secs(10), http_ok(GO));
    let ran = node.run(&["--timeout", "500ms", "metrics", "late"]);
    failed(&ran, "late-monitor.sock has not answered GET /metrics for 5");
    assert!(ran.took < Duration::from_millis(1500), "{:?}", ran.took);
    // Half an answer does not count as one.
    let mut half = http_ok(GO);
    half.truncate(1000);
    go_sandbox(&node, "half", AT_ONCE, half);
    failed(&node.run(&["metrics", "half"]), "half-monitor.sock");
}

#[test]
fn an_answer_that_is_not_what_was_asked_for_is_an_error() {
    let node = Node::new();
    for (id, answer, error) in [
        (
            "err500",
            b"HTTP/1.1 500 X\r\nContent-Length: 4\r\n\r\noops".to_vec(),
            "with HTTP status 500",
        ),
        (
            "gzip",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\0".to_vec(),
            "encoded as \"gzip\"",
        ),
        (
            "junk",
            b"\x1b[31mnot http\r\n\r\n".to_vec(),
            "sent an answer that cannot be read",
        ),
        ("empty", Vec::new(), "closed the connection"),
        (
            "big",
            [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &vec![b'a'; (64 << 20) + 1]].concat(),
            "more than 67108864 bytes",
        ),
    ] {
        go_sandbox(&node, id, AT_ONCE, answer);
        let ran = node.run(&["--timeout", "20s", "metrics", id]);
        failed(&ran, error);
        assert!(!ran.stderr.contains('\x1b'));
    }
}

#[test]
fn an_answer_without_the_guest_is_passed_on_with_a_word() {
    let text = std::str::from_utf8(GO).unwrap();
    let hung: String = text
        .lines()
        .filter(|line| !line.contains("kata_agent_") && !line.contains("kata_guest_"))
        .map(|line| format!("{line}\n"))
        .collect();
    let node = Node::new();
    go_sandbox(&node, "s1", AT_ONCE, http_chunked(hung.as_bytes()));
    let ran = node.run(&["metrics", "s1"]);
    answered(&ran, hung.as_bytes());
    assert!(ran.stderr.contains("the guest may be hung"), "{}", ran.stderr);
}

#[test]
fn a_sandbox_that_would_die_of_it_is_asked_only_by_force() {
    needs!("root");
    let node = Node::new();
    for hypervisor in ["qemu", "firecracker"] {
        let dir = KataDir::new("/run/kata", "kr-deadly");
        fs::write(
            dir.path.join("state.json"),
            format!(r#"{{"hypervisor":{{"hypervisor_type":"{hypervisor}"}}}}"#),
        )
        .unwrap();
        let requests = serve_http(&dir.socket(), AT_ONCE, http_ok(RUST));
        let ran = node.run(&["metrics", &dir.id]);
        failed(
            &ran,
            &format!("it runs on {hypervisor} under Kata's Rust shim, which aborts"),
        );
        assert!(ran.stderr.contains("--force"), "{}", ran.stderr);
        assert!(requests.lock().unwrap().is_empty(), "nothing was asked");
        answered(&node.run(&["metrics", "--force", &dir.id]), RUST);
    }
    let dir = KataDir::new("/run/kata", "kr-clh");
    fs::write(
        dir.path.join("state.json"),
        include_str!("../crates/shimstat/tests/fixtures/kata-3.30-rs/state.json"),
    )
    .unwrap();
    serve_http(&dir.socket(), AT_ONCE, http_ok(RUST));
    answered(&node.run(&["metrics", &dir.id]), RUST);
}

#[test]
fn a_sandbox_that_cannot_be_judged_is_not_asked() {
    needs!("root");
    let node = Node::new();
    let dir = KataDir::new("/run/kata", "kr-unreadable");
    fs::write(dir.path.join("state.json"), "{").unwrap();
    // The program that listens must be a Kata shim by its name for this: a copy of a small server.
    let shim = dir.path.join("containerd-shim-kata-v2");
    fs::copy(fs::read_link("/proc/self/exe").unwrap(), &shim).unwrap();
    let mut child = std::process::Command::new(&shim)
        .args(["--exact", "serve_one_monitor"])
        .env("KR_MONITOR", dir.socket())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !dir.socket().exists() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let ran = node.run(&["metrics", &dir.id]);
    let forced = node.run(&["metrics", "--force", &dir.id]);
    child.kill().unwrap();
    child.wait().unwrap();
    failed(&ran, "it may run on QEMU or Firecracker");
    answered(&forced, RUST);
}

/// The other process of the test above; by itself it has nothing to do.
#[test]
fn serve_one_monitor() {
    let Some(socket) = std::env::var_os("KR_MONITOR") else {
        return;
    };
    serve_http(Path::new(&socket), AT_ONCE, http_ok(RUST));
    std::thread::sleep(Duration::from_secs(60));
}
