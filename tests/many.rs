//! `events` of many containers, and what a stream carries besides statistics.

#![allow(clippy::restriction)] // A test may panic.

mod mock;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use containerd_shim_protos::cgroups::metrics::{self as v1, MemoryOomControl, MemoryStat};
use containerd_shim_protos::cgroups_v2::metrics as v2;
use mock::{Node, Reply, V1, V2, healthy, running, stats, stopped, stopped_at};
use protobuf::{Message, MessageField};
use serde_json::{Value, json};

/// A stream that is read line by line, and ended when dropped.
struct Stream {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Stream {
    fn start(node: &Node, arguments: &[&str]) -> Self {
        let mut child = node
            .command(&[&["--timeout", "500ms", "events"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn json(node: &Node, arguments: &[&str]) -> Self {
        Self::start(
            node,
            &[&["--interval", "100ms", "--format", "json"], arguments].concat(),
        )
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("one more line").unwrap()
    }

    fn event(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    /// The next event that is no statistics.
    fn other(&mut self) -> Value {
        loop {
            let event = self.event();
            if event["type"] != "stats" {
                return event;
            }
        }
    }

    /// What is left of the stream, its status and what it said on stderr.
    fn rest(mut self) -> (Vec<Value>, Option<i32>, String) {
        let events = self
            .lines
            .by_ref()
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect();
        let mut stderr = String::new();
        std::io::Read::read_to_string(&mut self.child.stderr.take().unwrap(), &mut stderr).unwrap();
        (events, self.child.wait().unwrap().code(), stderr)
    }

    fn interrupt(&self) {
        let pid = self.child.id().to_string();
        assert!(
            std::process::Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A number that rises with each call.
fn counter() -> Arc<AtomicU32> {
    Arc::default()
}

fn next(counter: &AtomicU32) -> u32 {
    counter.fetch_add(1, Ordering::SeqCst)
}

fn ids(output: &str) -> Vec<String> {
    let id = |line: &str| {
        serde_json::from_str::<Value>(line).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_string()
    };
    let mut ids: Vec<_> = output.lines().map(id).collect();
    ids.sort();
    ids
}

/// A cgroup v1 reply with so many OOM kills.
fn killed_v1(kills: u32) -> Reply {
    let mut control = MemoryOomControl::new();
    control.oom_kill = u64::from(kills);
    let mut metrics = v1::Metrics::new();
    metrics.memory = MessageField::some(MemoryStat::new());
    metrics.memory_oom_control = MessageField::some(control);
    stats(V1, &metrics.write_to_bytes().unwrap())
}

/// The same of cgroup v2.
fn killed_v2(kills: u32) -> Reply {
    let mut events = v2::MemoryEvents::new();
    events.oom_kill = u64::from(kills);
    let mut metrics = v2::Metrics::new();
    metrics.memory_events = MessageField::some(events);
    stats(V2, &metrics.write_to_bytes().unwrap())
}

#[test]
fn several_are_answered_once_each_however_they_are_named() {
    let node = Node::new();
    node.pod("5a", "shop/web", healthy);
    node.in_pod("5a", "6a", "shop/web/nginx");
    node.task("plain", healthy);
    let ran = node.run(&[
        "events",
        "--stats",
        "--format",
        "json",
        "plain",
        "shop/web/nginx",
        "6a",
        "pla",
        "web",
    ]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(ids(&ran.stdout), ["5a", "6a", "plain"]);
    // The default form is that of one, one after the other.
    let ran = node.run(&["events", "--stats", "plain", "6a"]);
    let events: Vec<Value> = serde_json::Deserializer::from_str(&ran.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(events.len(), 2);
    assert!(ran.stdout.starts_with("{\n    \"data\": {"));
}

#[test]
fn those_that_cannot_be_answered_are_told_and_the_others_answered() {
    let node = Node::new();
    node.task("good", healthy);
    node.task("hung", |_| Reply::Hang);
    node.task("gone", |_| stopped(3));
    let ran = node.run(&[
        "--timeout",
        "500ms",
        "events",
        "--stats",
        "--format",
        "json",
        "nobody",
        "hung",
        "good",
        "gone",
        "shop/nobody",
    ]);
    assert_eq!(
        (ran.status, ids(&ran.stdout)),
        (Some(1), vec!["good".to_string()])
    );
    for said in [
        "Container ID (nobody) does not exist\n",
        "Container ID (shop/nobody) does not exist\n",
        "Container ID (gone) does not exist\nits task has stopped (exit status 3)",
        "default-hung.sock has not answered State for 50",
    ] {
        assert!(ran.stderr.contains(said), "{said}: {}", ran.stderr);
    }
    assert!(ran.took < Duration::from_millis(1200), "{:?}", ran.took);
    // What cannot be a name is wrong usage, and nothing is asked.
    let ran = node.run(&["events", "--stats", "good", "../x"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""));
    for arguments in [
        &["events", "--all", "good"][..],
        &["events", "--all", "--stats", "good"],
    ] {
        let ran = node.run(arguments);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(2), ""), "{arguments:?}");
    }
}

#[test]
fn all_are_those_that_run() {
    let node = Node::new();
    node.pod("5a", "shop/web", healthy);
    node.in_pod("5a", "6a", "shop/web/nginx");
    node.task("plain", healthy);
    node.task("stopped", |_| stopped(1));
    node.bundle("default", "dead", &[]);
    let (creating, _) = node.bundle("default", "creating", &[]);
    fs::remove_file(creating.join("address")).unwrap();
    for format in ["json", "table"] {
        let ran = node.run(&["events", "--all", "--stats", "--format", format]);
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        assert!(
            ran.stderr
                .starts_with("container dead is not running: its shim is gone: "),
            "{}",
            ran.stderr
        );
        assert_eq!(ran.stderr.lines().count(), 1);
        if format == "json" {
            assert_eq!(ids(&ran.stdout), ["5a", "6a", "plain"]);
        } else {
            assert_eq!(ran.stdout.lines().count(), 4);
        }
    }
    let ran = node.run(&["-n", "default", "events", "--all", "--stats", "--format", "json"]);
    assert_eq!(ids(&ran.stdout), ["plain"]);
    node.task("hung", |_| Reply::Hang);
    let ran = node.run(&[
        "--timeout",
        "500ms",
        "events",
        "--all",
        "--stats",
        "--format",
        "json",
    ]);
    assert_eq!(
        (ran.status, ids(&ran.stdout).len()),
        (Some(1), 3),
        "{}",
        ran.stderr
    );
    assert!(ran.took < Duration::from_millis(1200), "{:?}", ran.took);
}

#[test]
fn each_container_has_its_own_ticks() {
    let node = Node::new();
    node.task("quick", healthy);
    node.task("slow", |call| match call.method.as_str() {
        "State" => running(0),
        _ => Reply::After(Duration::from_millis(350), Box::new(healthy(call))),
    });
    let hung = node.task("hung", |_| Reply::Hang);
    let mut stream = Stream::json(&node, &["quick", "slow", "hung"]);
    let started = Instant::now();
    let (mut quick, mut slow) = (0, 0);
    while started.elapsed() < Duration::from_millis(2000) {
        match stream.event()["id"].as_str().unwrap() {
            "quick" => quick += 1,
            _ => slow += 1,
        }
    }
    assert!((16..=22).contains(&quick), "every 100 ms: {quick}");
    assert!((4..=6).contains(&slow), "every 400 ms: {slow}");
    assert_eq!(hung.lock().unwrap().len(), 1, "a hung shim is asked once");
    stream.interrupt();
    let (_, status, stderr) = stream.rest();
    assert_eq!(status, Some(0), "interrupted");
    let reports = stderr
        .lines()
        .filter(|line| line.starts_with("container hung: "))
        .count();
    assert!((10..=20).contains(&reports), "each tick reports: {stderr}");
}

#[test]
fn a_pods_containers_are_asked_one_after_the_other() {
    let node = Node::new();
    let calls = node.pod("5a", "shop/web", |call| {
        Reply::After(Duration::from_millis(20), Box::new(healthy(call)))
    });
    for n in 0..4 {
        node.in_pod("5a", &format!("c{n}"), &format!("shop/web/c{n}"));
    }
    let ran = node.run(&["events", "--all", "--stats", "--format", "json"]);
    assert_eq!(
        (ran.status, ids(&ran.stdout).len()),
        (Some(0), 5),
        "{}",
        ran.stderr
    );
    let calls = calls.lock().unwrap();
    assert_eq!(calls.len(), 10);
    for pair in calls.windows(2) {
        assert!(pair[0].answered.is_some_and(|at| at <= pair[1].came), "{pair:?}");
    }
}

#[test]
fn what_comes_is_followed_and_what_stops_ends() {
    let node = Node::new();
    let states = counter();
    let count = states.clone();
    node.task("first", move |call| match call.method.as_str() {
        "State" if next(&count) >= 3 => stopped_at(137, 1_234_567_890),
        _ => healthy(call),
    });
    let mut stream = Stream::json(&node, &["--all"]);
    assert_eq!(stream.event()["id"], "first");
    let exit = json!({"type": "exit", "id": "first", "namespace": "default", "data":
        {"exit_status": 137, "exited_at": "2009-02-13T23:31:30Z", "reason": "stopped"}});
    assert_eq!(stream.other(), exit);
    // Stopped, and not deleted: it is not followed again. Nobody runs, and the stream goes on.
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(states.load(Ordering::SeqCst), 4);
    node.task("second", healthy);
    assert_eq!(stream.event()["id"], "second");
    // Deleted and made anew, it is another container.
    let bundle = node
        .state_dir()
        .join("io.containerd.runtime.v2.task/default/first");
    fs::remove_dir_all(bundle).unwrap();
    fs::remove_file(node.state_dir().join("default-first.sock")).unwrap();
    node.task("first", healthy);
    let deadline = Instant::now() + Duration::from_secs(5);
    while stream.event()["id"] != "first" {
        assert!(Instant::now() < deadline, "the new one is followed");
    }
    stream.interrupt();
    let (_, status, stderr) = stream.rest();
    assert_eq!(status, Some(0));
    let expected =
        "container first is no longer running: its task has stopped (exit status 137) and was not deleted\n";
    assert_eq!(stderr, expected);
}

#[test]
fn a_stream_of_several_ends_when_all_have_stopped() {
    let node = Node::new();
    for (id, rounds, end) in [
        ("a", 2, stopped(0)),
        ("b", 6, Reply::Error(5, "not found".into())),
    ] {
        let count = counter();
        node.task(id, move |call| match call.method.as_str() {
            "State" if next(&count) >= rounds => end.clone(),
            _ => healthy(call),
        });
    }
    let (events, status, stderr) = Stream::json(&node, &["a", "b"]).rest();
    assert_eq!(status, Some(0));
    let of = |id: &str| {
        events
            .iter()
            .filter(|e| e["id"] == id)
            .cloned()
            .collect::<Vec<_>>()
    };
    let (a, b) = (of("a"), of("b"));
    assert_eq!((a.len(), b.len()), (3, 7));
    assert_eq!(
        a[2],
        json!({"type": "exit", "id": "a", "namespace": "default", "data": {"exit_status": 0, "reason": "stopped"}})
    );
    assert_eq!(
        b[6],
        json!({"type": "exit", "id": "b", "namespace": "default", "data": {"reason": "deleted"}})
    );
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    // One that never ran costs the status, and not the stream of the other.
    let count = counter();
    node.task("c", move |call| match call.method.as_str() {
        "State" if next(&count) >= 3 => stopped(0),
        _ => healthy(call),
    });
    let (events, status, stderr) = Stream::json(&node, &["nobody", "c"]).rest();
    assert_eq!((events.len(), status), (4, Some(1)));
    assert!(stderr.starts_with("Container ID (nobody) does not exist\n"));
}

#[test]
fn a_shim_that_goes_is_an_exit_of_unknown_status() {
    let node = Node::new();
    let (_, socket) = node.bundle("default", "c1", &[]);
    let path = socket.clone();
    let count = counter();
    mock::serve(&socket, move |call| {
        if next(&count) >= 4 {
            let _ = fs::remove_file(&path);
            return Reply::Close;
        }
        healthy(call)
    });
    let (events, status, stderr) = Stream::json(&node, &["c1"]).rest();
    assert_eq!((events.len(), status), (3, Some(0)));
    assert_eq!(
        events[2],
        json!({"type": "exit", "id": "c1", "namespace": "default", "data": {"reason": "shim gone"}})
    );
    assert!(
        stderr.starts_with("container c1 is no longer running: its shim is gone: connect to "),
        "{stderr}"
    );
}

#[test]
fn a_rise_of_the_oom_kill_counter_is_an_event_of_its_own() {
    for killed in [killed_v1, killed_v2] {
        let node = Node::new();
        let (states, samples) = (counter(), counter());
        node.task("c1", move |call| match call.method.as_str() {
            "State" if next(&states) >= 6 => stopped(0),
            "State" => running(0),
            // Two before it was looked at, one, two more, none.
            _ => killed([2, 3, 3, 5, 5, 5][next(&samples) as usize]),
        });
        let (events, _, _) = Stream::json(&node, &["c1"]).rest();
        let types: Vec<_> = events.iter().map(|e| e["type"].as_str().unwrap()).collect();
        let expected = [
            "stats", "oom", "stats", "stats", "oom", "stats", "stats", "stats", "exit",
        ];
        assert_eq!(types, expected);
        assert_eq!(
            events[1],
            json!({"type": "oom", "id": "c1", "namespace": "default"})
        );
    }
    // A runtime that does not count them has none.
    let node = Node::new();
    let states = counter();
    node.task("c2", move |call| match call.method.as_str() {
        "State" if next(&states) >= 4 => stopped(0),
        _ => healthy(call),
    });
    let (events, _, _) = Stream::json(&node, &["c2"]).rest();
    assert!(events.iter().all(|e| e["type"] != "oom"));
    // One event is statistics and nothing else.
    let node = Node::new();
    let samples = counter();
    node.task("c3", move |call| {
        if call.method == "State" {
            running(0)
        } else {
            killed_v1(next(&samples))
        }
    });
    let ran = node.run(&["events", "--stats", "--format", "json", "c3"]);
    assert_eq!(ran.stdout.matches("\"type\"").count(), 1);
}

#[test]
fn one_that_is_killed_for_want_of_memory_says_so_in_the_end() {
    let run = |shim: &str| {
        let node = Node::new();
        let states = counter();
        let calls = node.task("c1", move |call| match call.method.as_str() {
            "State" if next(&states) >= 2 => stopped(137),
            "State" => running(0),
            _ => killed_v1(u32::from(states.load(Ordering::SeqCst) > 2)),
        });
        let bundle = node.state_dir().join("io.containerd.runtime.v2.task/default/c1");
        fs::write(bundle.join("shim-binary-path"), format!("/usr/bin/{shim}")).unwrap();
        let (events, _, _) = Stream::json(&node, &["c1"]).rest();
        let types: Vec<_> = events
            .iter()
            .map(|e| e["type"].as_str().unwrap().to_string())
            .collect();
        let methods: Vec<_> = calls
            .lock()
            .unwrap()
            .iter()
            .map(|call| call.method.clone())
            .collect();
        (types, methods)
    };
    let (types, methods) = run("containerd-shim-runc-v2");
    assert_eq!(types, ["stats", "stats", "oom", "exit"]);
    assert_eq!(methods[4..], ["State", "State", "Stats"]);
    // Kata's would look for the guest, which may be gone.
    let (types, methods) = run("containerd-shim-kata-v2");
    assert_eq!(types, ["stats", "stats", "exit"]);
    assert_eq!(methods[4..], ["State"]);
}

#[test]
fn the_default_form_of_one_carries_them_too() {
    let node = Node::new();
    let states = counter();
    node.task("c1", move |call| match call.method.as_str() {
        "State" if next(&states) >= 2 => stopped(0),
        "State" => running(0),
        _ => killed_v1(states.load(Ordering::SeqCst)),
    });
    let ran = node.run(&["events", "--interval", "100ms", "c1"]);
    assert_eq!(ran.status, Some(0));
    let tail = "}\n{\n    \"data\": {\n        \"exit_status\": 0,\n        \"reason\": \"stopped\"\n    },\n    \"id\": \"c1\",\n    \"namespace\": \"default\",\n    \"type\": \"exit\"\n}\n";
    assert!(ran.stdout.ends_with(tail), "{}", ran.stdout);
    assert!(
        ran.stdout.contains(
            "}\n{\n    \"id\": \"c1\",\n    \"namespace\": \"default\",\n    \"type\": \"oom\"\n}\n{\n"
        ),
        "{}",
        ran.stdout
    );
}

#[test]
fn the_table_is_for_people() {
    let node = Node::new();
    let started = Instant::now();
    node.pod("5a", "shop/we\x1b[2Jb", move |call| {
        if call.method == "State" {
            return running(0);
        }
        let mut memory = MemoryStat::new();
        let mut usage = v1::MemoryEntry::new();
        (usage.usage, usage.limit) = (96 << 20, 128 << 20);
        memory.usage = MessageField::some(usage);
        memory.total_inactive_file = 32 << 20;
        let mut pids = v1::PidsStat::new();
        pids.current = 7;
        let mut cpu = v1::CPUUsage::new();
        // One processor, kept busy all the time.
        cpu.total = 5_000_000_000 + u64::try_from(started.elapsed().as_nanos()).unwrap();
        let mut cpu_stat = v1::CPUStat::new();
        cpu_stat.usage = MessageField::some(cpu);
        let mut metrics = v1::Metrics::new();
        metrics.memory = MessageField::some(memory);
        metrics.pids = MessageField::some(pids);
        metrics.cpu = MessageField::some(cpu_stat);
        stats(V1, &metrics.write_to_bytes().unwrap())
    });
    node.task("plain", healthy);
    let mut stream = Stream::start(
        &node,
        &["--interval", "100ms", "--format", "table", "5a", "plain"],
    );
    let header = stream.line();
    let titles: Vec<_> = header
        .split("  ")
        .map(str::trim)
        .filter(|title| !title.is_empty())
        .collect();
    let expected = [
        "CONTAINER",
        "CPU",
        "MEMORY / LIMIT",
        "PIDS",
        "NET IN",
        "NET OUT",
        "DISK READ",
        "DISK WRITE",
    ];
    assert_eq!(titles, expected);
    let mut rows: Vec<Vec<String>> = Vec::new();
    while rows.len() < 20 {
        let line = stream.line();
        assert_eq!(line.chars().count(), header.chars().count(), "{header}\n{line}");
        rows.push(
            line.split("  ")
                .map(|cell| cell.trim().to_string())
                .filter(|cell| !cell.is_empty())
                .collect(),
        );
    }
    let of = |name: &str| rows.iter().filter(|row| row[0] == name).collect::<Vec<_>>();
    let web = of("shop/we\\u{1b}[2Jb");
    assert_eq!(
        web[0][1..],
        ["-", "64MiB / 128MiB", "7", "-", "-", "-", "-"],
        "one sample has no rates"
    );
    for row in &web[1..] {
        let cpu: f64 = row[1].trim_end_matches('%').parse().unwrap();
        assert!((60.0..150.0).contains(&cpu), "one processor: {row:?}");
    }
    // The documented example has no memory limit.
    assert!(of("plain")[1][2].ends_with(" / -"), "{rows:?}");
}

#[test]
fn once_the_table_has_rates_too() {
    let node = Node::new();
    let calls = node.task("c1", healthy);
    let ran = node.run(&["events", "--stats", "--format", "table", "c1"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let row = ran.stdout.lines().nth(1).unwrap();
    assert!(row.starts_with("c1 ") && row.contains(" 0.0% "), "{}", ran.stdout);
    assert_eq!(ran.stdout.lines().count(), 2);
    assert_eq!(calls.lock().unwrap().len(), 4, "two samples");
    assert!(
        ran.took >= Duration::from_secs(1) && ran.took < Duration::from_secs(2),
        "{:?}",
        ran.took
    );
}

#[test]
fn equal_ids_in_two_of_containerds_namespaces_are_told_apart() {
    let node = Node::new();
    let id = "5779b2366f47cd1468ebb1ba7c52cbdde3c7d3a5f2af3eefadc8356700fc860b";
    for namespace in ["moby", "default"] {
        let states = counter();
        let (_, socket) = node.bundle(namespace, id, &[]);
        mock::serve(&socket, move |call| match call.method.as_str() {
            "State" if next(&states) >= 2 => stopped(0),
            _ => healthy(call),
        });
    }
    node.task("other", |_| stopped(0));
    let table = node
        .run(&["events", "--all", "--stats", "--format", "table"])
        .stdout;
    let mut names: Vec<_> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["default:5779b2366f47", "moby:5779b2366f47"]);

    let node = Node::new();
    for namespace in ["moby", "default"] {
        let (states, samples) = (counter(), counter());
        let (_, socket) = node.bundle(namespace, "twin", &[]);
        mock::serve(&socket, move |call| match call.method.as_str() {
            "State" if next(&states) >= 2 => stopped(0),
            "State" => running(0),
            _ => killed_v1(next(&samples)),
        });
    }
    let mut stream = Stream::json(&node, &["--all"]);
    let mut seen: Vec<_> = (0..4)
        .map(|_| {
            let event = stream.other();
            format!("{} {}", event["namespace"].as_str().unwrap(), event["type"])
        })
        .collect();
    seen.sort_unstable();
    let expected = [
        "default \"exit\"",
        "default \"oom\"",
        "moby \"exit\"",
        "moby \"oom\"",
    ];
    assert_eq!(seen, expected);
}
