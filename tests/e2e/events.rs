//! `events --stats`: the numbers are the kernel's, and what does not run is said not to.

use std::{cell::RefCell, fs, process::Command};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Containerd, Task, eventually, for_each_containerd, is_cgroup_v2, kata_runtime};

/// Nothing in such a container moves by itself, so that its numbers can be compared one by one.
const IDLE: [&str; 2] = ["sleep", "1000"];
const BUSY: [&str; 3] = ["sh", "-c", "while :; do :; done"];

/// What the kernel counts for the container at this moment.
fn counted(task: &Task) -> Vec<String> {
    let usages: &[_] = if is_cgroup_v2() {
        &["memory.current", "memory.swap.current"]
    } else {
        &[
            "memory.usage_in_bytes",
            "memory.memsw.usage_in_bytes",
            "memory.kmem.usage_in_bytes",
        ]
    };
    let files = usages.iter().chain(&["memory.stat"]);
    files
        .map(|file| task.cgroup_text("memory", file))
        .chain([task.cpu_time().to_string()])
        .collect()
}

/// Asks while nothing moves in the container: the kernel's own housekeeping still changes its numbers now and then,
/// and then it is asked again.
#[track_caller]
fn at_rest<T>(task: &Task, ask: impl Fn() -> T) -> T {
    let answer = RefCell::new(None);
    eventually("the container comes to rest", || {
        let before = counted(task);
        *answer.borrow_mut() = Some(ask());
        before == counted(task)
    });
    answer.take().expect("asked at least once")
}

fn number(event: &Value, pointer: &str) -> u64 {
    let found = event
        .pointer(pointer)
        .unwrap_or_else(|| panic!("{pointer} in {event}"));
    found
        .as_u64()
        .unwrap_or_else(|| panic!("{pointer} is no number: {found}"))
}

#[test]
fn an_idle_container_is_as_its_cgroup_says() {
    if is_cgroup_v2() {
        return; // cgroup_v2 compares all numbers.
    }
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&["--memory-limit", "67108864"], &IDLE);
        let fields = [
            ("/data/cpu/usage/total", "cpuacct", "cpuacct.usage"),
            ("/data/memory/usage/limit", "memory", "memory.limit_in_bytes"),
            ("/data/memory/usage/usage", "memory", "memory.usage_in_bytes"),
            ("/data/memory/usage/max", "memory", "memory.max_usage_in_bytes"),
            ("/data/memory/usage/failcnt", "memory", "memory.failcnt"),
            ("/data/memory/swap/limit", "memory", "memory.memsw.limit_in_bytes"),
            ("/data/pids/current", "pids", "pids.current"),
        ];
        let (event, numbers, per_cpu, stat) = at_rest(&task, || {
            let ask = ["events", "--stats", "--format", "json", &task.id];
            (
                containerd.ask(&ask).json(),
                fields.map(|(_, controller, file)| task.cgroup(controller, file)),
                task.cgroup_text("cpuacct", "cpuacct.usage_percpu"),
                task.cgroup_text("memory", "memory.stat"),
            )
        });

        assert_eq!(event["type"], "stats");
        assert_eq!(event["id"], task.id.as_str());
        for ((pointer, ..), expected) in fields.iter().zip(numbers) {
            assert_eq!(number(&event, pointer), expected, "{pointer}");
        }
        assert_eq!(number(&event, "/data/memory/usage/limit"), 64 << 20);
        assert_eq!(number(&event, "/data/pids/current"), 1);

        let per_cpu: Vec<u64> = per_cpu.split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!(event["data"]["cpu"]["usage"]["percpu"], Value::from(per_cpu));

        let raw = event["data"]["memory"]["raw"]
            .as_object()
            .expect("runc's reply has all of memory.stat");
        for (key, value) in stat.lines().filter_map(|line| line.split_once(' ')) {
            if let Some(reported) = raw.get(key) {
                assert_eq!(reported.to_string(), value, "raw {key}");
            }
        }
        for key in [
            "cache",
            "rss",
            "pgfault",
            "hierarchical_memory_limit",
            "total_inactive_file",
        ] {
            assert!(raw.contains_key(key), "{key} in {raw:?}");
        }
    });
}

#[test]
fn a_busy_container_used_what_its_cgroup_counted_meanwhile() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&["--cpus", "0.2"], &BUSY);
        let usage = || task.cpu_time();
        eventually("it is held back", || {
            task.cgroup_text("cpu", "cpu.stat").contains("nr_throttled 2")
        });
        let mut last = 0;
        for _ in 0..3 {
            // Held back, it may not run at all for a while.
            eventually("it goes on", || usage() > last);
            let before = usage();
            let event = containerd.ask(&["events", "--stats", &task.id]).json();
            let after = usage();
            let total = number(&event, "/data/cpu/usage/total");
            assert!(
                (before..=after).contains(&total),
                "{before} <= {total} <= {after}"
            );
            last = total;
            // Longer than a period: whatever of it the container is held back, it gets its share.
            std::thread::sleep(std::time::Duration::from_millis(250));
            let (periods, throttled) = (
                "/data/cpu/throttling/periods",
                "/data/cpu/throttling/throttledPeriods",
            );
            assert!(number(&event, throttled) >= 2);
            assert!(number(&event, periods) >= number(&event, throttled));
        }
    });
}

/// ctr and runc ask on other ways: through containerd, and at the cgroup itself.
#[test]
fn it_agrees_with_ctr_and_runc() {
    if is_cgroup_v2() {
        return; // cgroup_v2 compares all numbers.
    }
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&["--memory-limit", "33554432"], &IDLE);
        let root = format!("/run/containerd/runc/{}", task.namespace);
        let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let by_runc = || {
            let args = ["--root", &root, "events", "--stats", &task.id];
            Command::new("runc")
                .args(args)
                .env("PATH", &path)
                .output()
                .expect("runc starts")
                .stdout
        };
        let (ours, ctr, runc) = at_rest(&task, || {
            let ours = containerd
                .ask(&["events", "--stats", "--format", "json", &task.id])
                .json();
            (
                ours,
                containerd.ctr(&["task", "metrics", "--format", "json", &task.id]),
                by_runc(),
            )
        });
        let ctr: Value = serde_json::from_str(&ctr).expect("ctr answers");
        let runc: Value = serde_json::from_slice(&runc).expect("runc answers");

        for (pointer, theirs) in [
            ("/data/cpu/usage/total", "/cpu/usage/total"),
            ("/data/memory/usage/usage", "/memory/usage/usage"),
            ("/data/memory/usage/limit", "/memory/usage/limit"),
            ("/data/memory/raw/total_rss", "/memory/total_rss"),
            ("/data/memory/raw/pgfault", "/memory/pg_fault"),
            ("/data/pids/current", "/pids/current"),
        ] {
            assert_eq!(number(&ours, pointer), number(&ctr, theirs), "{pointer}");
        }

        assert_eq!(runc["id"], ours["id"]);
        for pointer in ["/data/cpu/usage", "/data/memory", "/data/pids"] {
            assert_subset(&ours.pointer(pointer), &runc.pointer(pointer), pointer);
        }
    });
}

/// Everything that we report is there in runc's answer as well, and the same.
fn assert_subset(ours: &Option<&Value>, theirs: &Option<&Value>, at: &str) {
    match (ours, theirs) {
        (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
            for (key, value) in ours {
                assert_subset(&Some(value), &theirs.get(key), &format!("{at}/{key}"));
            }
        }
        _ => assert_eq!(ours, theirs, "{at}"),
    }
}

#[test]
fn the_documented_form_and_the_json_line_say_the_same() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&[], &IDLE);
        let (pretty, line) = at_rest(&task, || {
            let args = ["events", "--stats", &task.id];
            (
                containerd.ask(&args),
                containerd.ask(&[&args[..], &["--format", "json"]].concat()),
            )
        });
        assert_eq!(pretty.json(), line.json());
        assert!(
            pretty.answer().starts_with("{\n    \""),
            "4 spaces: {}",
            pretty.answer()
        );
        assert_eq!(line.answer().matches('\n').count(), 1, "one line");
        assert!(line.answer().ends_with("}\n"));
    });
}

#[test]
fn a_container_in_a_pod_is_asked_through_its_sandboxs_shim() {
    for_each_containerd(|containerd| {
        let sandbox = containerd.run_sandbox(&["--memory-limit", "33554432"]);
        let child = containerd.run_child(&sandbox, &["--memory-limit", "50331648"], &IDLE);
        assert!(!child.has_shim(), "the pod has one shim");
        for (task, limit) in [(&sandbox, 32 << 20), (&child, 48 << 20)] {
            let (event, used) = at_rest(task, || {
                let event = containerd.ask(&["events", "--stats", &task.id]).json();
                (event, task.cpu_time())
            });
            assert_eq!(event["id"], task.id.as_str());
            assert_eq!(number(&event, "/data/memory/usage/limit"), limit);
            assert_eq!(number(&event, "/data/cpu/usage/total"), used);
        }
    });
}

fn assert_does_not_exist(containerd: &Containerd, id: &str) -> String {
    let ran = containerd.ask(&["events", "--stats", id]);
    let complaint = ran.complaint().to_owned();
    assert_eq!(
        complaint.lines().next(),
        Some(format!("Container ID ({id}) does not exist").as_str())
    );
    complaint
}

#[test]
fn what_does_not_run_does_not_exist() {
    for_each_containerd(|containerd| {
        assert_does_not_exist(containerd, "nobody");

        let task = containerd.run_container(&[], &IDLE);
        containerd.ask(&["events", "--stats", &task.id]).answer();
        task.stop();
        let complaint = assert_does_not_exist(containerd, &task.id);
        assert!(complaint.contains("stopped"), "what was found: {complaint}");
        // The same for a stream: it does not begin.
        containerd.ask(&["events", &task.id]).complaint();

        let child_of = containerd.run_sandbox(&[]);
        let child = containerd.run_child(&child_of, &[], &IDLE);
        child.stop();
        assert_does_not_exist(containerd, &child.id);
        containerd.ask(&["events", "--stats", &child_of.id]).answer();
    });
}

/// containerd is ended first: it would clear away what the dead shim leaves behind.
#[test]
fn a_container_whose_shim_was_killed_does_not_exist() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&[], &IDLE);
        let shim = task.shim();
        containerd.kill();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim.cast_signed()), Signal::SIGKILL).unwrap();
        eventually("the shim is gone", || !task.has_shim());
        let complaint = assert_does_not_exist(containerd, &task.id);
        assert!(
            complaint.contains("/run/containerd/s/"),
            "the dead socket is named: {complaint}"
        );
    });
}

#[test]
fn containerd_itself_is_not_needed() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&[], &IDLE);
        let sandbox = containerd.run_sandbox(&[]);
        containerd.kill();
        for id in [&task.id, &sandbox.id] {
            assert_eq!(
                containerd.ask(&["events", "--stats", id]).json()["id"],
                id.as_str()
            );
        }
        assert!(
            containerd
                .ask(&["metrics", &sandbox.id])
                .answer()
                .starts_with("# HELP ")
        );
    });
}

#[test]
fn a_hung_shim_costs_the_timeout_and_not_more() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&[], &IDLE);
        let socket = task.socket();
        task.signal_shim(Signal::SIGSTOP);
        let ran = containerd.ask(&["--timeout", "1s", "events", "--stats", &task.id]);
        task.signal_shim(Signal::SIGCONT);
        let complaint = ran.complaint();
        for part in [task.id.as_str(), &socket, "1s"] {
            assert!(complaint.contains(part), "{part} in {complaint}");
        }
        assert!((1000..1800).contains(&ran.took.as_millis()), "{:?}", ran.took);
        // No harm was done.
        containerd.ask(&["events", "--stats", &task.id]).answer();
    });
}

/// A bundle that lived through an upgrade in place has both files, and `bootstrap.json` decides.
#[test]
fn a_bundle_from_before_an_upgrade_is_read_by_its_bootstrap_file() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&[], &IDLE);
        let bootstrap = task.bundle().join("bootstrap.json");
        if !bootstrap.exists() {
            let text = format!(
                r#"{{"version":2,"address":"unix://{}","protocol":"ttrpc"}}"#,
                task.socket()
            );
            fs::write(&bootstrap, text).unwrap();
        }
        fs::write(
            task.bundle().join("address"),
            "unix:///run/containerd/s/nobody-listens-here",
        )
        .unwrap();
        assert_eq!(
            containerd.ask(&["events", "--stats", &task.id]).json()["id"],
            task.id.as_str()
        );
    });
}

#[test]
fn state_directories_can_be_many() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&[], &IDLE);
        let empty = tempfile::tempdir().unwrap();
        let empty = empty.path().to_str().unwrap();
        let state = containerd.state();
        let ran = kata_runtime(&["--state", empty, "--state", &state, "events", "--stats", &task.id]);
        assert_eq!(ran.json()["id"], task.id.as_str());
        kata_runtime(&["--state", empty, "events", "--stats", &task.id]).complaint();
    });
}
