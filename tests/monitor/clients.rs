//! Clients that are slow, hostile or in a hurry, and the end of the exporter.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::mock::{http_chunked, http_ok};
use crate::support::{Answer, GO, Monitor, Node, Page, eventually, exchange, parse, recorded};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn compressed_where_that_is_taken() {
    let node = Node::new();
    node.pod("pod1");
    let monitor = node.monitor();
    let plain = monitor.get("/metrics");
    assert_eq!(plain.header("content-encoding"), None);
    assert_eq!(plain.header("vary"), Some("Accept-Encoding"));
    assert_eq!(
        plain.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let gzip = monitor.request("GET", "/metrics", &[("Accept-Encoding", "br, gzip;q=0.8")]);
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    assert!(gzip.body.len() * 5 < plain.body.len());
    let mut text = String::new();
    flate2::read::GzDecoder::new(&gzip.body[..])
        .read_to_string(&mut text)
        .unwrap();
    let page = Page::read(&text);
    page.check();
    assert_eq!(page.sandbox("pod1"), ("1", None));
    let refused = monitor.request("GET", "/metrics", &[("Accept-Encoding", "gzip;q=0")]);
    assert_eq!(refused.header("content-encoding"), None);
}

#[test]
fn only_get_and_head_are_answered() {
    let node = Node::new();
    let pod = node.pod("pod1");
    let monitor = node.monitor();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let response = monitor.request(method, "/metrics", &[]);
        assert_eq!(
            (response.status, response.header("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
    let head = monitor.request("HEAD", "/metrics", &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(
        head.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert_eq!(pod.questions(), 0, "nobody is asked for what is not sent");
    let head = monitor.request("HEAD", "/healthz", &[]);
    assert_eq!(
        (head.status, head.body.len(), head.header("content-length")),
        (200, 0, Some("3"))
    );
}

#[test]
fn requests_have_bounds() {
    let node = Node::new();
    let monitor = node.monitor();
    let long = "x".repeat(20 << 10);
    assert_eq!(
        monitor.request("GET", "/healthz", &[("X-Long", &long)]).status,
        431
    );
    let many: Vec<_> = (0..200).map(|number| (format!("X-{number}"), "1")).collect();
    let many: Vec<_> = many.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    assert_eq!(monitor.request("GET", "/healthz", &many).status, 431);
    let mut stream = monitor.connect();
    stream.write_all(b"this is not http\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400 "));
    // A body that was announced is not waited for.
    let mut stream = monitor.connect();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_connection_is_kept_for_the_next_scrape() {
    let node = Node::new();
    node.pod("pod1");
    let monitor = node.monitor();
    let mut stream = monitor.connect();
    for _ in 0..3 {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let mut answer = [0; 1024];
        let n = stream.read(&mut answer).unwrap();
        assert_eq!(parse(&answer[..n], SECOND).text(), "ok\n");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Two requests in one go get two answers.
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("ok\n").count(), 2, "{answers}");
}

/// Opens connections that are up to no good, and keeps them.
fn besiege(monitor: &Monitor, count: usize, says: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = monitor.connect();
        // It may have been closed again already.
        let _ = stream.write_all(says);
        stream
    };
    (0..count).map(open).collect()
}

#[test]
fn silent_and_slow_clients_do_not_keep_others_out() {
    let node = Node::new();
    node.pod("pod1");
    let monitor = node.monitor();
    let _silent = besiege(&monitor, 400, b"");
    let _slow = besiege(&monitor, 400, b"GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: ");
    let _idle = besiege(&monitor, 400, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    for _ in 0..3 {
        let response = monitor.get("/metrics");
        assert_eq!(response.status, 200);
        assert!(response.took < 5 * SECOND, "{:?}", response.took);
        assert_eq!(Page::read(response.text()).sandbox("pod1"), ("1", None));
    }
    let open = fs::read_dir(format!("/proc/{}/fd", monitor.pid()))
        .unwrap()
        .count();
    assert!(open < 320, "{open} descriptors");
}

#[test]
fn clients_that_do_not_take_their_answers_do_not_keep_others_out() {
    let node = Node::new();
    // A page that does not fit into socket buffers: 6 MB and more.
    let mut body = GO.to_vec();
    for number in 0..120_000 {
        body.extend_from_slice(format!("kata_x{{number=\"{number}\"}} 1\n").as_bytes());
    }
    node.pod_with("big", recorded, Answer::Bytes(http_ok(&body)));
    let monitor = node.monitor();
    let stalled = besiege(&monitor, 30, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    for _ in 0..3 {
        let response = monitor.get("/metrics");
        assert_eq!(response.status, 200);
        assert!(response.took < 9 * SECOND, "{:?}", response.took);
        assert_eq!(Page::read(response.text()).sandbox("big"), ("1", None));
    }
    // A page and its index at most eight times, and not thirty: see MOST_PAGES.
    let status = fs::read_to_string(format!("/proc/{}/status", monitor.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 200_000, "{kilobytes} kB");
    drop(stalled);
}

#[test]
fn told_to_end_it_finishes_what_it_has_begun() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let node = Node::new();
        let answer = Answer::After(Duration::from_millis(800), http_chunked(GO));
        let pod = node.pod_with("pod1", recorded, answer);
        let mut monitor = node.monitor();
        let idle = monitor.connect();
        let started = Instant::now();
        let stream = monitor.connect();
        let scrape = std::thread::spawn(move || exchange(stream, "GET", "/metrics", &[]).unwrap());
        eventually("the sandbox is being asked", || pod.questions() == 1);
        let address = monitor.address().to_string();
        monitor.signal(signal);
        eventually("nobody is let in any more", || {
            TcpStream::connect(&address).is_err()
        });
        let page = scrape.join().unwrap();
        assert_eq!(Page::read(page.text()).sandbox("pod1"), ("1", None));
        let (status, said) = monitor.ended();
        assert_eq!(status, Some(0), "{said}");
        assert!(
            started.elapsed() < 5 * SECOND,
            "an idle connection is not waited for"
        );
        drop(idle);
    }
}

#[test]
fn it_ends_although_a_client_does_not_take_its_answer() {
    let node = Node::new();
    let mut body = GO.to_vec();
    body.resize(7 << 20, b'\n');
    let big = format!("{}kata_x 1\n", "# padding\n".repeat(600_000));
    node.pod_with("big", recorded, Answer::Bytes(http_ok(big.as_bytes())));
    let mut monitor = node.monitor();
    let mut stream = monitor.connect();
    stream
        .write_all(b"GET /metrics?sandbox=big HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut some = [0; 1024];
    stream.read_exact(&mut some).unwrap();
    let started = Instant::now();
    monitor.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(100));
    // A second signal does not wait.
    monitor.signal(Signal::SIGTERM);
    let (status, said) = monitor.ended();
    assert_eq!(status, Some(0), "{said}");
    assert!(started.elapsed() < 5 * SECOND, "{:?}", started.elapsed());
}

#[test]
fn it_listens_on_a_unix_socket() {
    let node = Node::new();
    node.pod("pod1");
    let path = node.node.state_dir().join("monitor.sock");
    let address = format!("unix://{}", path.display());
    let mut monitor = node.monitor_with(&[], &["--listen-address", &address]);
    assert_eq!(monitor.place, address);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let stream = UnixStream::connect(&path).unwrap();
    let response = exchange(stream, "GET", "/metrics", &[]).unwrap();
    assert_eq!(Page::read(response.text()).sandbox("pod1"), ("1", None));
    // Another cannot take its place.
    let second = node.node.run(&["monitor", "--listen-address", &address]);
    assert_eq!(second.status, Some(1));
    assert!(
        second.stderr.contains("address in use") || second.stderr.contains("Address"),
        "{}",
        second.stderr
    );
    monitor.signal(Signal::SIGTERM);
    assert_eq!(monitor.ended().0, Some(0));
    assert!(!path.exists());
    // What a killed one leaves behind is in nobody's way.
    let monitor = node.monitor_with(&[], &["--listen-address", &address]);
    monitor.signal(Signal::SIGKILL);
    eventually("it is dead", || UnixStream::connect(&path).is_err());
    assert!(path.exists());
    node.monitor_with(&[], &["--listen-address", &address]);
}

#[test]
fn listening_to_the_world_without_protection_is_warned_of() {
    let node = Node::new();
    let public = node.monitor_with(&[], &["--listen-address", "0.0.0.0:0"]);
    eventually("it warns", || {
        public.said().contains("warning: other machines can connect")
    });
    let private = node.monitor();
    assert_eq!(private.get("/healthz").status, 200);
    assert!(!private.said().contains("warning"));
}

#[test]
fn it_listens_on_several_addresses() {
    let node = Node::new();
    let path = node.node.state_dir().join("monitor.sock");
    let socket = format!("unix://{}", path.display());
    let mut monitor = node.monitor_with(
        &[],
        &["--web.listen-address", "127.0.0.1:0", "--listen-address", &socket],
    );
    eventually("it says both", || {
        monitor.said().matches("listening on ").count() == 2
    });
    assert_eq!(monitor.get("/healthz").text(), "ok\n");
    let stream = UnixStream::connect(&path).unwrap();
    assert_eq!(exchange(stream, "GET", "/healthz", &[]).unwrap().text(), "ok\n");
    monitor.signal(Signal::SIGTERM);
    assert_eq!(monitor.ended().0, Some(0));
}

/// The arguments in Kata's helm chart and DaemonSet (tools/packaging/kata-deploy), except the port.
#[test]
fn it_starts_with_the_arguments_of_kata_monitor() {
    let node = Node::new();
    node.pod("pod1");
    let own = [
        "-listen-address=127.0.0.1:0",
        "-log-level=debug",
        "-runtime-endpoint=unix:///run/containerd/containerd.sock",
    ];
    let monitor = node.monitor_with(&[], &own);
    assert_eq!(monitor.scrape().sandbox("pod1"), ("1", None));
    let said = monitor.said();
    assert!(
        said.contains("--runtime-endpoint=unix:///run/containerd/containerd.sock is not needed"),
        "{said}"
    );
    assert!(!said.contains("--log-level"), "{said}");
    let monitor = node.monitor_with(&[], &["--listen-address", "127.0.0.1:0", "-log-level", "warn"]);
    eventually("it says so", || {
        monitor.said().contains("--log-level=warn makes no difference")
    });
    for (arguments, text) in [
        (&["monitor", "-tls-cert-file=x"][..], "--tls-key-file <FILE>"),
        (
            &[
                "monitor",
                "-tls-cert-file=x",
                "-tls-key-file=y",
                "--tls-min-version=1.1",
            ],
            "VersionTLS12, VersionTLS13",
        ),
        (
            &[
                "monitor",
                "-tls-cert-file=x",
                "-tls-key-file=y",
                "--web.config.file=z",
            ],
            "cannot be used with",
        ),
        (
            &[
                "monitor",
                "-tls-cert-file=x",
                "-tls-key-file=y",
                "-tls-min-version=VersionTLS13",
                "-tls-cipher-suites=a",
            ],
            "--tls-cipher-suites is for TLS 1.2",
        ),
    ] {
        let ran = node.node.run(arguments);
        assert_eq!(ran.status, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains(text), "{text:?} is not in: {}", ran.stderr);
    }
}

/// The exporter with a socket as its fourth descriptor, as systemd starts it.
fn activated(node: &Node, socket: impl Into<OwnedFd>) -> Monitor {
    let exporter = node.node.command(&["monitor", "--web.systemd-socket"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec 3<&0; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"", "sh"]);
    shell.arg(exporter.get_program()).args(exporter.get_args());
    shell.stdin(Stdio::from(socket.into()));
    Monitor::start_with(shell)
}

#[test]
fn systemd_may_listen_for_it() {
    let node = Node::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let monitor = activated(&node, listener);
    assert_eq!(monitor.address(), address);
    assert_eq!(monitor.get("/healthz").text(), "ok\n");

    let path = node.node.state_dir().join("systemd.sock");
    let mut monitor = activated(&node, UnixListener::bind(&path).unwrap());
    assert_eq!(monitor.place, format!("unix://{}", path.display()));
    let stream = UnixStream::connect(&path).unwrap();
    assert_eq!(exchange(stream, "GET", "/healthz", &[]).unwrap().text(), "ok\n");
    monitor.signal(Signal::SIGTERM);
    assert_eq!(monitor.ended().0, Some(0));
    assert!(path.exists(), "the socket is systemd's");

    let ran = node.node.run(&["monitor", "--web.systemd-socket"]);
    assert_eq!(ran.status, Some(1));
    assert!(ran.stderr.contains("systemd passed no sockets"), "{}", ran.stderr);
}

#[test]
fn wrong_usage_is_said_at_once() {
    let node = Node::new();
    for (arguments, status, text) in [
        (
            &["monitor", "--listen-address", "nonsense"][..],
            2,
            "neither HOST:PORT nor :PORT nor unix:///PATH",
        ),
        (&["monitor", "--max-concurrent", "0"], 2, "0 is not in 1.."),
        (
            &[
                "monitor",
                "--listen-address",
                "127.0.0.1:1",
                "--web.config.file",
                "/no/such/file",
            ],
            1,
            "No such file",
        ),
        (
            &["monitor", "--listen-address", "192.0.2.1:1"],
            1,
            "listen on 192.0.2.1:1",
        ),
    ] {
        let ran = node.node.run(arguments);
        assert_eq!(ran.status, Some(status), "{}", ran.stderr);
        assert!(ran.stderr.contains(text), "{text:?} is not in: {}", ran.stderr);
    }
    let taken = node.monitor();
    let ran = node.node.run(&["monitor", "--listen-address", taken.address()]);
    assert_eq!(ran.status, Some(1));
    assert!(ran.stderr.contains("ddress"), "{}", ran.stderr);
}

#[test]
fn an_idle_monitor_costs_nothing() {
    let node = Node::new();
    node.pod("pod1");
    let monitor = node.monitor();
    let descriptors = || {
        let open = fs::read_dir(format!("/proc/{}/fd", monitor.pid())).unwrap();
        open.count()
    };
    let at_the_start = descriptors();
    monitor.scrape();
    std::thread::sleep(Duration::from_millis(200));
    let stat = || fs::read_to_string(format!("/proc/{}/schedstat", monitor.pid())).unwrap();
    let before = stat();
    std::thread::sleep(2 * SECOND);
    assert_eq!(stat(), before, "it has run meanwhile");
    assert_eq!(descriptors(), at_the_start, "nothing is kept open to shims");
    let status = fs::read_to_string(format!("/proc/{}/status", monitor.pid())).unwrap();
    // One of them waits for reads that may block.
    assert!(status.contains("Threads:\t2\n"), "{status}");
}
