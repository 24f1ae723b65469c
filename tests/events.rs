//! `events` before shims that answer, lie, hang and die.

#![allow(clippy::restriction)] // A test may panic.

mod mock;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use mock::{Call, DOCUMENTED, Node, Reply, V1, V2, finish, healthy, running, stats, stopped};

const SECOND: Duration = Duration::from_secs(1);

/// The id of the documented example.
const ID: &str = "5779b2366f47cd1468ebb1ba7c52cbdde3c7d3a5f2af3eefadc8356700fc860b";
const EXPECTED: &str =
    include_str!("../crates/shimstat/tests/fixtures/documented-example/events.expected.json");

fn does_not_exist(id: &str) -> String {
    format!("Container ID ({id}) does not exist")
}

#[test]
fn prints_the_documented_example_to_the_byte() {
    let node = Node::new();
    let calls = node.task(ID, healthy);
    let ran = node.run(&["events", "--stats", &ID[..12]]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(ran.stdout.trim_end(), EXPECTED.trim_end());
    assert!(ran.stdout.ends_with("}\n"));
    let calls = calls.lock().unwrap();
    let methods: Vec<_> = calls
        .iter()
        .map(|c| format!("{}/{}", c.service, c.method))
        .collect();
    assert_eq!(
        methods,
        ["containerd.task.v2.Task/State", "containerd.task.v2.Task/Stats"]
    );
    assert!(
        calls.iter().all(|c| c.timeout_nano == 3_000_000_000),
        "the default --timeout is told to the shim"
    );
}

#[test]
fn the_json_format_is_the_same_object_on_one_line() {
    let node = Node::new();
    node.task(ID, healthy);
    let ran = node.run(&["events", "--stats", "--format", "json", ID]);
    assert_eq!(ran.stdout.lines().count(), 1);
    let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(value(&ran.stdout), value(EXPECTED));
}

#[test]
fn the_reply_decides_the_schema() {
    let reply =
        include_bytes!("../crates/shimstat/tests/fixtures/runc-cgroup-v2/stats-containerd-2.1.v2.bin");
    for url in [V2.to_string(), format!("type.googleapis.com/{V2}")] {
        let node = Node::new();
        node.task("c1", move |call| {
            if call.method == "State" {
                running(0)
            } else {
                stats(&url, reply)
            }
        });
        let ran = node.run(&["events", "--stats", "--format", "json", "c1"]);
        let event: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        // From the container's memory.max and cpu.max, read beside the reply.
        assert_eq!(event["data"]["memory"]["usage"]["limit"], 33554432);
        assert!(event["data"]["cpu"]["throttling"]["throttledPeriods"].as_u64() > Some(0));
    }
}

#[test]
fn every_way_of_not_running_says_that_it_does_not_exist() {
    let node = Node::new();
    node.task("stopped", |call| {
        if call.method == "State" {
            stopped(137)
        } else {
            healthy(call)
        }
    });
    node.bundle("default", "refused", &[]);
    let (_, dead) = node.bundle("default", "dead", &[]);
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    let (creating, _) = node.bundle("default", "creating", &[]);
    fs::remove_file(creating.join("address")).unwrap();
    // Kata's shims on a task that was killed and not deleted, and on one that they do not know.
    node.task("go-killed", |_| Reply::Error(3, "invalid container id".into()));
    node.task("go-unknown", |_| {
        Reply::Error(5, "container does not exist go-unknown: not found".into())
    });
    node.task("rs-unknown", |_| {
        Reply::Error(2, "get container\n\nStack backtrace:\n   0: anyhow".into())
    });

    for (id, found) in [
        ("unknown", "looked in "),
        (
            "stopped",
            "its task has stopped (exit status 137) and was not deleted",
        ),
        ("refused", "no such file or directory"),
        ("dead", "connection refused"),
        ("creating", "being created"),
        ("go-killed", "code 3: invalid container id"),
        (
            "go-unknown",
            "code 5: container does not exist go-unknown: not found",
        ),
        ("rs-unknown", "code 2: get container"),
    ] {
        for arguments in [
            &["events", "--stats", id][..],
            &["events", "--interval", "1s", id],
        ] {
            let ran = node.run(arguments);
            assert_eq!(
                (ran.status, ran.stdout.as_str()),
                (Some(1), ""),
                "{id}: {}",
                ran.stderr
            );
            let lines: Vec<_> = ran.stderr.lines().collect();
            assert_eq!(lines[0], does_not_exist(id));
            assert!(lines.len() == 3 && lines[1].contains(found), "{id}: {lines:?}");
        }
    }
}

#[test]
fn hostile_ids_never_become_paths() {
    let node = Node::new();
    for id in [
        "..",
        "../default/x",
        "a/../b",
        "A/b--c",
        "a/b/c/d",
        "/etc",
        "a b",
        "x\n",
        &"a".repeat(77),
    ] {
        for command in ["events", "metrics"] {
            let ran = node.run(&[command, id]);
            assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{id}");
            assert!(
                ran.stderr.starts_with("invalid container/sandbox ID ("),
                "{}",
                ran.stderr
            );
        }
    }
    for arguments in [&["events"][..], &["events", ""], &["metrics"], &["metrics", ""]] {
        let ran = node.run(arguments);
        assert_eq!(
            (ran.status, ran.stderr.as_str()),
            (
                Some(2),
                "container id cannot be empty\nkata-runtime list shows ids and names\n"
            )
        );
    }
    let ran = node.run(&["--namespace", "../x", "events", "c1"]);
    assert_eq!(ran.status, Some(2));
    assert!(ran.stderr.starts_with("--namespace "), "{}", ran.stderr);
}

#[test]
fn an_id_that_fits_several_names_them() {
    let node = Node::new();
    for (namespace, id) in [
        ("default", "web1"),
        ("k8s.io", "web2"),
        ("moby", "same"),
        ("default", "same"),
    ] {
        let (_, socket) = node.bundle(namespace, id, &[]);
        mock::serve(&socket, healthy);
    }
    let ran = node.run(&["events", "--stats", "web"]);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.stderr.starts_with("multiple containers found (web)\n"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("web1 in namespace default") && ran.stderr.contains("web2 in namespace k8s.io")
    );
    let ran = node.run(&["events", "--stats", "same"]);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.stderr.contains("same in namespace default") && ran.stderr.contains("same in namespace moby")
    );
    assert_eq!(
        node.run(&["-n", "moby", "events", "--stats", "same"]).status,
        Some(0)
    );
    let mut command = node.command(&["events", "--stats", "same"]);
    command.env("CONTAINERD_NAMESPACE", "moby");
    assert_eq!(finish(command).status, Some(0));
}

#[test]
fn finds_the_generation_of_the_service_that_the_shim_serves() {
    /// A server of one generation, which says of the other what its kind of server says.
    fn only(generation: &'static str, code: i32, text: &'static str) -> impl Fn(&Call) -> Reply {
        move |call| match call.service.contains(generation) {
            true => healthy(call),
            false => Reply::Error(
                code,
                text.replace("SVC", &call.service).replace("METHOD", &call.method),
            ),
        }
    }
    let node = Node::new();
    for (id, version, shim) in [
        ("go3", 2, only(".v3.", 12, "service SVC")),
        ("go2", 3, only(".v2.", 12, "service SVC")),
        ("rust2", 3, only(".v2.", 3, "/SVC/METHOD does not exist")),
        ("gvisor2", 3, only(".v2.", 5, "service SVC")),
        ("same3", 3, only(".v3.", 12, "service SVC")),
    ] {
        let (bundle, socket) = node.bundle("default", id, &[]);
        let bootstrap = format!(
            r#"{{"version":{version},"address":"unix://{}","protocol":"ttrpc"}}"#,
            socket.display()
        );
        // An upgrade in place: the old address is a dead one, and bootstrap.json decides.
        fs::write(bundle.join("address"), "unix:///no/such/socket").unwrap();
        fs::write(bundle.join("bootstrap.json"), bootstrap).unwrap();
        let calls = mock::serve(&socket, shim);
        let ran = node.run(&["events", "--stats", id]);
        assert_eq!(ran.status, Some(0), "{id}: {}", ran.stderr);
        let expected = if id == "same3" { 2 } else { 3 };
        assert_eq!(
            calls.lock().unwrap().len(),
            expected,
            "{id}: the other generation is tried once, and remembered"
        );
    }
    node.task("neither", |call| {
        Reply::Error(12, format!("service {}", call.service))
    });
    let ran = node.run(&["events", "--stats", "neither"]);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.stderr
            .contains("serves neither containerd.task.v2.Task nor containerd.task.v3.Task"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_hung_shim_is_given_up_in_time_and_never_asked_for_stats() {
    let node = Node::new();
    let calls = node.task("hung", |_| Reply::Hang);
    let ran = node.run(&["--timeout", "700ms", "events", "--stats", "hung"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""));
    assert!(
        ran.took >= Duration::from_millis(700) && ran.took < Duration::from_millis(1700),
        "{:?}",
        ran.took
    );
    let socket = node.state_dir().join("default-hung.sock");
    let expected = format!(
        "container hung: the shim at {} has not answered State for 70",
        socket.display()
    );
    assert!(ran.stderr.starts_with(&expected), "{}", ran.stderr);
    assert_eq!(calls.lock().unwrap().len(), 1);
}

#[test]
fn a_shim_whose_guest_hangs_is_given_up_at_stats() {
    let node = Node::new();
    let calls = node.task("guest", |call| {
        if call.method == "State" {
            running(0)
        } else {
            Reply::Hang
        }
    });
    let ran = node.run(&["--timeout", "500ms", "events", "--stats", "guest"]);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.stderr.contains("has not answered Stats for 50"),
        "{}",
        ran.stderr
    );
    assert!(ran.took < Duration::from_millis(1500), "{:?}", ran.took);
    assert_eq!(calls.lock().unwrap().len(), 2);
    // Kata's Rust shim minds the time that it is given, and answers so.
    node.task("rust", |call| match call.method.as_str() {
        "State" => running(0),
        _ => Reply::Error(4, "timeout".into()),
    });
    let ran = node.run(&["events", "--stats", "rust"]);
    assert!(
        ran.stderr.contains("has not answered Stats for"),
        "{}",
        ran.stderr
    );
}

#[test]
fn lying_and_truncating_shims_are_errors_and_never_numbers() {
    let mut for_another = containerd_shim_protos::api::StateResponse::new();
    for_another.id = "somebody-else".into();
    let for_another = protobuf::Message::write_to_bytes(&for_another).unwrap();
    let node = Node::new();
    let at_state = |reply: Reply| move |_: &Call| reply.clone();
    let at_stats = |reply: Reply| {
        move |call: &Call| {
            if call.method == "State" {
                running(0)
            } else {
                reply.clone()
            }
        }
    };
    for (id, calls, error) in [
        (
            "closes",
            node.task("closes", at_state(Reply::Close)),
            "closed the connection",
        ),
        (
            "short",
            node.task(
                "short",
                at_state(Reply::Raw(mock::frame(1, 2, b"abc")[..12].to_vec())),
            ),
            "closed the connection",
        ),
        (
            "header",
            node.task("header", at_state(Reply::Raw(vec![0, 0]))),
            "closed the connection",
        ),
        (
            "huge",
            node.task(
                "huge",
                at_state(Reply::Raw(vec![0xff, 0, 0, 0, 0, 0, 0, 1, 2, 0])),
            ),
            "longer than 4194304 bytes",
        ),
        (
            "data",
            node.task("data", at_state(Reply::Raw(mock::frame(1, 3, b"abc")))),
            "frame type 3",
        ),
        (
            "garbage",
            node.task("garbage", at_state(Reply::Raw(mock::frame(1, 2, &[0xff; 9])))),
            "no ttrpc response",
        ),
        (
            "message",
            node.task("message", at_state(Reply::Payload(vec![0xff; 9]))),
            "cannot be read",
        ),
        (
            "liar",
            node.task("liar", at_state(Reply::Payload(for_another))),
            "it answered for \"somebody-else\"",
        ),
        (
            "late-close",
            node.task("late-close", at_stats(Reply::Close)),
            "closed the connection",
        ),
        (
            "empty",
            node.task("empty", at_stats(Reply::Payload(vec![]))),
            "no statistics in it",
        ),
        (
            "cut",
            node.task("cut", at_stats(stats(V1, &DOCUMENTED[..100]))),
            "not a valid io.containerd.cgroups.v1.Metrics",
        ),
        (
            "type",
            node.task("type", at_stats(stats("x.\x1b[31mY", b""))),
            "unknown type \"x.\\u{1b}[31mY\"",
        ),
        (
            "error",
            node.task("error", at_stats(Reply::Error(13, "oops \x1b[2J\nmore".into()))),
            "code 13: oops \\u{1b}[2J",
        ),
    ] {
        let ran = node.run(&["--timeout", "2s", "events", "--stats", id]);
        assert_eq!(
            (ran.status, ran.stdout.as_str()),
            (Some(1), ""),
            "{id}: {}",
            ran.stderr
        );
        assert!(ran.stderr.contains(error), "{id}: {}", ran.stderr);
        assert!(
            !ran.stderr.contains('\x1b') && !ran.stderr.contains("more"),
            "{id}: {:?}",
            ran.stderr
        );
        assert!(ran.took < SECOND * 2, "{id}");
        assert!(!calls.lock().unwrap().is_empty());
    }
}

#[test]
fn answers_for_other_streams_are_skipped() {
    let node = Node::new();
    node.task("noisy", |call| Reply::Noise(Box::new(healthy(call))));
    assert_eq!(node.run(&["events", "--stats", "noisy"]).status, Some(0));
}

#[test]
fn a_task_that_stops_between_state_and_stats_has_stopped() {
    let node = Node::new();
    let states = std::sync::atomic::AtomicU32::new(0);
    node.task("raced", move |call| match call.method.as_str() {
        "State" if states.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 => running(0),
        "State" => stopped(0),
        _ => Reply::Error(2, "cgroup deleted".into()),
    });
    let ran = node.run(&["events", "--stats", "raced"]);
    assert_eq!(ran.status, Some(1));
    assert!(ran.stderr.starts_with(&does_not_exist("raced")), "{}", ran.stderr);
}

#[test]
fn the_stream_ticks_without_drift_until_the_task_stops() {
    let node = Node::new();
    let states = std::sync::atomic::AtomicU32::new(0);
    let calls = node.task("ticks", move |call| match call.method.as_str() {
        "State" if states.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 5 => running(0),
        "State" => stopped(3),
        // Each answer takes two thirds of the interval: a timer that starts after it would drift.
        _ => Reply::After(Duration::from_millis(200), Box::new(healthy(call))),
    });
    let ran = node.run(&["events", "--interval", "300ms", "--format", "json", "ticks"]);
    assert_eq!(ran.status, Some(0));
    let events: Vec<serde_json::Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let types: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["stats", "stats", "stats", "stats", "stats", "exit"]);
    assert_eq!(
        ran.stderr,
        "container ticks is no longer running: its task has stopped (exit status 3) and was not deleted\n"
    );
    let calls = calls.lock().unwrap();
    let states: Vec<_> = calls
        .iter()
        .filter(|c| c.method == "State")
        .map(|c| c.came)
        .collect();
    assert_eq!(states.len(), 6);
    let span = states[5] - states[0];
    assert!(
        span >= Duration::from_millis(1480) && span < Duration::from_millis(1800),
        "{span:?}"
    );
}

#[test]
fn slow_answers_skip_ticks_and_are_never_two_at_a_time() {
    let node = Node::new();
    let calls = node.task("slow", |call| match call.method.as_str() {
        "State" => running(0),
        _ => Reply::After(Duration::from_millis(500), Box::new(healthy(call))),
    });
    let mut child = node
        .command(&["events", "--interval", "200ms", "--format", "json", "slow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        assert!(lines.next().unwrap().unwrap().starts_with("{\"data\":{"));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let calls = calls.lock().unwrap();
    for pair in calls.windows(2) {
        assert!(pair[0].answered.is_some_and(|at| at <= pair[1].came), "{pair:?}");
    }
    let states: Vec<_> = calls
        .iter()
        .filter(|c| c.method == "State")
        .map(|c| c.came)
        .collect();
    for pair in states.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(
            gap >= Duration::from_millis(570),
            "500 ms of answer cost the ticks at 200 and 400 ms: {gap:?}"
        );
    }
}

#[test]
fn a_stream_leaves_a_hung_call_waiting_and_reports_at_each_tick() {
    let node = Node::new();
    let stats_calls = std::sync::atomic::AtomicU32::new(0);
    let calls = node.task("stuck", move |call| match call.method.as_str() {
        "State" => running(0),
        // The second Stats takes 2 s, past the time of 400 ms.
        _ if stats_calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1 => {
            Reply::After(SECOND * 2, Box::new(healthy(call)))
        }
        _ => healthy(call),
    });
    let mut child = node
        .command(&[
            "--timeout",
            "400ms",
            "events",
            "--interval",
            "300ms",
            "--format",
            "json",
            "stuck",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    events.next().unwrap().unwrap();
    let started = Instant::now();
    events.next().unwrap().unwrap();
    let gap = started.elapsed();
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    // The call ends after 2 s, and the shim is left alone for another 2 s.
    assert!(
        gap >= Duration::from_millis(3900) && gap < Duration::from_secs(7),
        "{gap:?}\n{stderr}"
    );
    let waiting: Vec<_> = stderr
        .lines()
        .filter(|l| l.contains("has not answered Stats for"))
        .collect();
    assert!(waiting.len() >= 4, "each tick reports:\n{stderr}");
    assert!(
        waiting.last().unwrap().contains("for 1."),
        "with the time waited so far:\n{stderr}"
    );
    assert!(
        stderr.contains("took 2s for its last Stats: it is asked again in"),
        "{stderr}"
    );
    let calls = calls.lock().unwrap();
    for pair in calls.windows(2) {
        assert!(
            pair[0].answered.is_some_and(|at| at <= pair[1].came),
            "nothing new while a call waits: {pair:?}"
        );
    }
}

#[test]
fn a_stream_goes_on_after_a_failed_sample() {
    let node = Node::new();
    let stats_calls = std::sync::atomic::AtomicU32::new(0);
    node.task("flaky", move |call| match call.method.as_str() {
        "State" => running(0),
        _ if stats_calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 1 => Reply::Close,
        _ => healthy(call),
    });
    let mut child = node
        .command(&["events", "--interval", "100ms", "--format", "json", "flaky"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        events.next().unwrap().unwrap();
    }
    child.kill().unwrap();
    let stderr = String::from_utf8(child.wait_with_output().unwrap().stderr).unwrap();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.starts_with("container flaky: ") && stderr.contains("closed the connection"),
        "{stderr}"
    );
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    let node = Node::new();
    node.task("piped", healthy);
    let mut child = node
        .command(&["events", "--interval", "100ms", "piped"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut String::new()).unwrap();
    drop(reader);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}

#[test]
fn an_interval_has_a_floor() {
    let node = Node::new();
    for interval in ["0", "0s", "-3s"] {
        let ran = node.run(&["events", "--interval", interval, "c1"]);
        assert_eq!(ran.status, Some(2));
        assert!(
            ran.stderr.contains("duration interval must be greater than 0"),
            "{}",
            ran.stderr
        );
    }
    // A short one would be hundreds of calls a second to a shim, and to a guest.
    let calls = node.task("c1", healthy);
    for arguments in [
        &["events", "--interval", "1ns", "c1"][..],
        &["events", "--interval", "99ms", "c1"],
        &["top", "--interval", "5ms"],
        &["metrics", "--summary", "--interval", "5ms", "c1"],
    ] {
        let ran = node.run(arguments);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ran.stderr.contains("at least 100ms"), "{}", ran.stderr);
    }
    assert!(calls.lock().unwrap().is_empty());
    let ran = node.run(&["events", "--interval", "3", "c1"]);
    assert_eq!(ran.status, Some(2));
    assert!(ran.stderr.contains("missing unit in duration"), "{}", ran.stderr);
}

#[test]
fn nothing_is_found_where_the_directory_may_not_be_read() {
    // Root may read everything, so the directory is one that is none: the error names the path all the same.
    let node = Node::new();
    fs::write(node.state_dir().join("io.containerd.runtime.v2.task"), "").unwrap();
    let ran = node.run(&["events", "--stats", "c1"]);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.stderr.contains(&format!("{}", node.state_dir().display())),
        "{}",
        ran.stderr
    );
}
