//! `events` of many containers, and the OOM kills and exits in a stream.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::{Running, Task, for_each_containerd};

const IDLE: [&str; 2] = ["sleep", "1000"];

fn stream(state: &str, arguments: &[&str]) -> Running {
    let options = [
        "--state",
        state,
        "events",
        "--interval",
        "200ms",
        "--format",
        "json",
    ];
    Running::start(&[&options, arguments].concat())
}

/// The next event that is no statistics. Events come every 200 ms, so that this ends.
fn other(stream: &mut Running) -> Value {
    for _ in 0..300 {
        let event = stream.event();
        if event["type"] != "stats" {
            return event;
        }
    }
    panic!("nothing but statistics");
}

fn wait_for(stream: &mut Running, task: &Task) {
    assert!(
        (0..100).any(|_| stream.event()["id"] == task.id.as_str()),
        "{} is followed",
        task.id
    );
}

#[test]
fn all_that_runs_is_in_one_stream_and_what_comes_and_goes_too() {
    for_each_containerd(|containerd| {
        let plain = containerd.run_container(&[], &IDLE);
        let sandbox = containerd.run_sandbox(&[]);
        let child = containerd.run_child(&sandbox, &[], &IDLE);
        let once = containerd.ask(&["events", "--all", "--stats", "--format", "json"]);
        let mut ids: Vec<String> = Vec::new();
        for line in once.answer().lines() {
            let event: Value = serde_json::from_str(line).unwrap();
            ids.push(event["id"].as_str().unwrap().to_string());
        }
        ids.sort();
        let mut expected = [&plain, &sandbox, &child].map(|task| task.id.clone());
        expected.sort();
        assert_eq!(ids, expected);

        let mut stream = stream(&containerd.state(), &["--all"]);
        for task in [&plain, &sandbox, &child] {
            wait_for(&mut stream, task);
        }
        let late = containerd.run_container(&[], &IDLE);
        wait_for(&mut stream, &late);
        plain.stop();
        let exit = other(&mut stream);
        assert_eq!(
            (&exit["type"], &exit["id"]),
            (&"exit".into(), &plain.id.as_str().into())
        );
        assert_eq!(exit["data"]["exit_status"], 137, "SIGKILL is 9, and 128 more");
        wait_for(&mut stream, &late);
        stream.interrupt();
        while stream.line().is_some() {}
        let (status, stderr) = stream.finish();
        assert_eq!((status.code(), stderr.lines().count()), (Some(0), 1), "{stderr}");
    });
}

#[test]
fn a_container_that_ends_by_itself_tells_its_status_and_when() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&[], &["sh", "-c", "sleep 2; exit 42"]);
        let mut stream = stream(&containerd.state(), &[&task.id]);
        let exit = other(&mut stream);
        let now = SystemTime::now();
        assert_eq!(exit["data"]["exit_status"], 42);
        assert_eq!(exit["data"]["reason"], "stopped");
        // `date` reads what was written, as any other program would.
        let at = exit["data"]["exited_at"].as_str().expect("a time");
        let output = std::process::Command::new("date")
            .args(["-d", at, "+%s"])
            .output()
            .unwrap();
        let at: u64 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(at) <= 3, "{at} and {now}");
        assert_eq!(stream.line(), None);
        assert_eq!(stream.finish().0.code(), Some(0));
    });
}

#[test]
fn a_process_that_is_killed_for_want_of_memory_is_an_event() {
    for_each_containerd(|containerd| {
        // tail keeps the last lines, and zeros have no line end: it grows until it is killed, and the shell goes on.
        let script = "sleep 2; tail /dev/zero; sleep 1000";
        let task = containerd.run_container(&["--memory-limit", "33554432"], &["sh", "-c", script]);
        let mut stream = stream(&containerd.state(), &[&task.id]);
        assert_eq!(
            other(&mut stream),
            json!({"type": "oom", "id": task.id, "namespace": "default"})
        );
        assert_eq!(task.oom_kills(), 1);
        assert_eq!(stream.event()["type"], "stats", "it runs on");
        // Not again for the same kill.
        for _ in 0..5 {
            assert_eq!(stream.event()["type"], "stats");
        }
    });
}

#[test]
fn a_container_that_is_killed_for_want_of_memory_says_why_it_ended() {
    for_each_containerd(|containerd| {
        let script = "sleep 2; exec tail /dev/zero";
        let task = containerd.run_container(&["--memory-limit", "33554432"], &["sh", "-c", script]);
        let mut stream = stream(&containerd.state(), &[&task.id]);
        assert_eq!(
            other(&mut stream),
            json!({"type": "oom", "id": task.id, "namespace": "default"})
        );
        let exit = other(&mut stream);
        assert_eq!(
            (&exit["type"], &exit["data"]["exit_status"]),
            (&"exit".into(), &137.into())
        );
        assert_eq!(stream.line(), None);
    });
}

#[test]
fn a_hung_shim_costs_the_others_no_tick() {
    for_each_containerd(|containerd| {
        let hung = containerd.run_container(&[], &IDLE);
        let healthy = containerd.run_container(&[], &IDLE);
        hung.signal_shim(nix::sys::signal::Signal::SIGSTOP);
        let mut stream = stream(&containerd.state(), &[&hung.id, &healthy.id]);
        stream.event();
        let begin = std::time::Instant::now();
        for _ in 0..10 {
            assert_eq!(stream.event()["id"], healthy.id.as_str());
        }
        hung.signal_shim(nix::sys::signal::Signal::SIGCONT);
        let took = begin.elapsed();
        assert!(
            (Duration::from_millis(1900)..Duration::from_millis(2600)).contains(&took),
            "{took:?}"
        );
    });
}
