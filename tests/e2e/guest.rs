//! Sandboxes whose guest has an agent: the test shim's, which serves it as Kata's hypervisors do.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use crate::monitor::monitor;
use crate::support::{Containerd, Running, Task, for_each_containerd};

const IDLE: [&str; 2] = ["sleep", "1000"];
const GO: [&str; 2] = ["--annotation", "io.kata-runtime.test.agent=yes"];
const RUST_QEMU: [&str; 6] = [
    GO[0],
    GO[1],
    "--annotation",
    "io.kata-runtime.test.flavour=rust",
    "--annotation",
    "io.kata-runtime.test.hypervisor=qemu",
];

/// All that may be sent to a guest.
const CALLS: [&str; 7] = [
    "guest grpc.Health/Check",
    "guest grpc.Health/Version",
    "guest grpc.AgentService/StatsContainer",
    "guest grpc.AgentService/GetMetrics",
    "guest grpc.AgentService/GetGuestDetails",
    "guest grpc.AgentService/ListInterfaces",
    "guest grpc.AgentService/GetVolumeStats",
];

/// What is beside the agent's socket: the stand-in's mode, and what was called.
struct Agent(PathBuf);

impl Agent {
    fn of(sandbox: &Task) -> Self {
        let roots = ["/run/vc/sbs", "/run/kata"].map(|root| PathBuf::from(root).join(&sandbox.id));
        let found = roots
            .into_iter()
            .find(|directory| directory.join("agent.sock").exists());
        Self(found.expect("the sandbox has an agent"))
    }

    fn becomes(&self, mode: &str) {
        fs::write(self.0.join("agent"), mode).unwrap();
    }

    /// The calls since the last look. No other than the known ones may ever be sent to a guest.
    #[track_caller]
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.0.join("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.0.join("calls"));
        let calls: Vec<_> = calls.lines().map(str::to_owned).collect();
        for call in calls.iter().filter(|call| call.starts_with("guest ")) {
            assert!(CALLS.contains(&call.as_str()), "{call} was sent to a guest");
        }
        calls
    }
}

fn has(calls: &[String], call: &str) -> bool {
    calls.iter().any(|called| called == call)
}

#[test]
fn the_guest_completes_what_the_shim_tells() {
    for_each_containerd(|containerd| {
        let sandbox = containerd.run_sandbox(&GO);
        let app = containerd.run_child(&sandbox, &[], &IDLE);
        let agent = Agent::of(&sandbox);
        agent.calls();
        let ran = containerd.ask(&["-v", "events", "--stats", &app.id]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(
            ran.stderr.contains(&format!(
                "container {}: from its shim, but from its guest (hvsock://{}/agent.sock:1024): ",
                app.id,
                agent.0.display()
            )),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains(", memory.raw, "), "{}", ran.stderr);
        let event: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let raw: BTreeMap<String, u64> =
            serde_json::from_value(event["data"]["memory"]["raw"].clone()).unwrap();
        let kernel = app.cgroup_text("memory", "memory.stat");
        let keys: BTreeSet<_> = kernel.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(raw.keys().map(String::as_str).collect::<BTreeSet<_>>(), keys);
        let calls = agent.calls();
        assert!(
            has(&calls, "shim stats") && has(&calls, CALLS[0]) && has(&calls, CALLS[2]),
            "{calls:?}"
        );

        // The guest alone: the same, and the shim takes no lock.
        let guest = containerd
            .ask(&["events", "--stats", "--via", "guest", &app.id])
            .json();
        assert_eq!(
            guest["data"]["memory"]["raw"].as_object().unwrap().len(),
            raw.len()
        );
        let calls = agent.calls();
        assert!(
            has(&calls, "shim state") && !has(&calls, "shim stats"),
            "{calls:?}"
        );
        containerd
            .ask(&["events", "--stats", "--via", "shim", &app.id])
            .json();
        assert!(!agent.calls().iter().any(|call| call.starts_with("guest")));

        // A policy that forbids it, and numbers that no machine has.
        for mode in ["refuse", "lie"] {
            agent.becomes(mode);
            let ran = containerd.ask(&["events", "--stats", &app.id]);
            assert!(!ran.answer().contains('\u{1b}'), "{}", ran.stdout);
        }
        let refused = containerd.ask(&["events", "--stats", "--via", "guest", &app.id]);
        assert_eq!(refused.code, Some(0), "it lies, but answers: {}", refused.stderr);
        agent.becomes("refuse");
        let refused = containerd.ask(&["events", "--stats", "--via", "guest", &app.id]);
        assert!(refused.complaint().contains("policy"), "{}", refused.stderr);
        agent.calls();
    });
}

/// How long `ctr task kill` takes for each of a few containers.
fn kills(containerd: &Containerd, containers: &[Task]) -> Vec<Duration> {
    let kill = |task: &Task| {
        let begin = Instant::now();
        let kill = [
            "--namespace",
            &task.namespace,
            "task",
            "kill",
            "--signal",
            "KILL",
            &task.id,
        ];
        containerd.ctr(&kill);
        begin.elapsed()
    };
    containers.iter().map(kill).collect()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn nobody_waits_for_a_hung_guest_because_of_us() {
    for_each_containerd(|containerd| {
        let sandbox = containerd.run_sandbox(&GO);
        let children = |count| -> Vec<_> {
            (0..count)
                .map(|_| containerd.run_child(&sandbox, &[], &IDLE))
                .collect()
        };
        let (alone, watched, harmed) = (children(5), children(5), children(2));
        let agent = Agent::of(&sandbox);
        agent.becomes("hang");
        let alone = kills(containerd, &alone);

        agent.calls();
        let state = containerd.state();
        let mut arguments = vec!["--state", &state, "events", "--interval", "200ms", &sandbox.id];
        arguments.extend(watched.iter().chain(&harmed).map(|task| task.id.as_str()));
        let mut stream = Running::start(&arguments);
        // Until it has asked for a while.
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut calls = Vec::new();
        while calls.iter().filter(|call| *call == CALLS[0]).count() < 2 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(100));
            calls.extend(agent.calls());
        }
        let watched = kills(containerd, &watched);
        let ran = containerd.ask(&["events", "--stats", &harmed[0].id]);
        assert!(ran.complaint().contains("the guest hangs"), "{}", ran.stderr);
        assert!(ran.took < Duration::from_millis(2500), "{:?}", ran.took);
        let metrics = containerd.ask(&["metrics", &sandbox.id]);
        assert_eq!(metrics.code, Some(1));
        assert!(metrics.stderr.contains("the guest hangs"), "{}", metrics.stderr);
        assert!(
            metrics.stdout.contains("\nkata_shim_threads "),
            "{}",
            metrics.stdout
        );
        stream.interrupt();
        stream.finish();
        calls.extend(agent.calls());
        assert!(has(&calls, "shim state") && has(&calls, CALLS[0]), "{calls:?}");
        assert!(
            !has(&calls, "shim stats") && !has(&calls, "monitor /metrics"),
            "{calls:?}"
        );
        eprintln!("ctr task kill on a hung guest: {alone:?}; with events each 200 ms: {watched:?}");
        let (alone, watched) = (median(alone), median(watched));
        eprintln!("medians: {alone:?}; {watched:?}");
        // The machine may be busy with other tests. Of the shim's lock it would be six seconds.
        assert!(watched < alone + Duration::from_secs(1), "{alone:?} {watched:?}");

        // It was right to be careful: one Stats, and the shim holds its lock for 6 seconds.
        let id = harmed[1].id.clone();
        let mut shim = Running::start(&["--state", &state, "events", "--stats", "--via", "shim", &id]);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !has(&agent.calls(), "shim stats") && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        let harmed = kills(containerd, &harmed[..1]);
        assert!(harmed[0] > Duration::from_secs(4), "{harmed:?}");
        eprintln!("after one Stats: {harmed:?}");
        shim.finish();
        agent.becomes("");
    });
}

#[test]
fn the_metrics_of_a_sandbox_that_would_die_of_the_question_come_from_its_guest_and_proc() {
    for_each_containerd(|containerd| {
        let sandbox = containerd.run_sandbox(&RUST_QEMU);
        let agent = Agent::of(&sandbox);
        let ran = containerd.ask(&["metrics", &sandbox.id]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(
            ran.stderr.contains("qemu") && ran.stderr.contains("/agent.sock"),
            "{}",
            ran.stderr
        );
        for family in [
            "kata_guest_meminfo gauge",
            "kata_agent_threads gauge",
            "kata_shim_proc_stat gauge",
        ] {
            assert!(ran.stdout.contains(&format!("# TYPE {family}\n")), "{family}");
        }
        assert_eq!(sandbox.status(), "RUNNING");

        let summary = containerd.ask(&["metrics", "--summary", &sandbox.id]);
        assert!(
            summary
                .answer()
                .contains("\nguest: agent 4.1.0\nin the guest: shm "),
            "{}",
            summary.stdout
        );

        agent.becomes("lie");
        let page = containerd.ask(&["metrics", &sandbox.id]).stdout;
        assert!(page.contains("kata_guest_load{item=\"load1\"} 0.5\n"), "{page}");
        assert!(
            !page.contains("kata_hypervisor_threads 999\n") && !page.contains("container_last_seen"),
            "{page}"
        );

        // Its processes are seen without anybody's help.
        agent.becomes("refuse");
        let ran = containerd.ask(&["metrics", &sandbox.id]);
        assert_eq!(ran.code, Some(1));
        assert!(
            ran.stdout.contains("# TYPE kata_shim_proc_stat gauge\n"),
            "{}",
            ran.stdout
        );
        assert!(
            ran.stderr.contains("policy") && ran.stderr.contains("--force"),
            "{}",
            ran.stderr
        );
        assert!(!has(&agent.calls(), "monitor /metrics"));
        assert!(sandbox.has_shim());
    });
}

/// The row of a task in `list --format json`.
fn row(rows: &serde_json::Value, task: &Task) -> serde_json::Value {
    let mut rows = rows.as_array().unwrap().iter();
    rows.find(|row| row["id"] == *task.id).unwrap().clone()
}

#[test]
fn a_list_tells_of_guests_and_which_of_them_hang() {
    for_each_containerd(|containerd| {
        let sandbox = containerd.run_sandbox(&GO);
        let app = containerd.run_child(&sandbox, &[], &IDLE);
        let agent = Agent::of(&sandbox);
        agent.calls();
        containerd.ask(&["list"]).answer();
        let calls = agent.calls();
        let asked = calls.iter().filter(|call| call.starts_with("guest"));
        assert_eq!(
            asked.collect::<Vec<_>>(),
            [CALLS[0]],
            "no more than whether it lives"
        );

        let rows = containerd.ask(&["list", "--format", "json"]).json();
        let guest = row(&rows, &sandbox)["guest"].clone();
        assert_eq!(
            (&guest["version"], &guest["interfaces"][0]["name"]),
            (&"4.1.0".into(), &"lo".into())
        );
        // The stand-in's guest is this machine.
        let kernel = fs::read_to_string("/proc/meminfo").unwrap();
        let total = kernel
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .unwrap();
        let kilobytes: u64 = total.trim().trim_end_matches(" kB").parse().unwrap();
        assert_eq!(guest["memory"]["total_bytes"], kilobytes * 1024);
        assert!(guest["memory"]["used_bytes"].as_u64().unwrap() < kilobytes * 1024);
        assert_eq!(guest["filesystems"][0]["volume"], "shm");
        assert!(row(&rows, &app).get("guest").is_none());
        let wide = containerd.ask(&["list", "--format", "wide"]);
        let heading: Vec<_> = wide
            .answer()
            .lines()
            .next()
            .unwrap()
            .split("  ")
            .map(str::trim)
            .collect();
        for column in ["AGENT", "GUEST MEMORY", "GUEST NETWORK", "FULLEST IN GUEST"] {
            assert!(heading.contains(&column), "{}", wide.stdout);
        }
        assert!(!has(&agent.calls(), "shim stats"));

        for mode in ["refuse", "lie"] {
            agent.becomes(mode);
            let rows = containerd.ask(&["list", "--format", "json"]).json();
            assert_eq!(row(&rows, &sandbox)["guest"]["version"], "4.1.0", "{mode}");
        }

        agent.becomes("hang");
        for (format, limit) in [("table", 1), ("wide", 1), ("json", 1)] {
            let list = containerd.ask(&["list", "--format", format]);
            assert_eq!(list.answer().matches("guest hung").count(), 2, "{}", list.stdout);
            assert!(
                list.took < Duration::from_millis(500 + limit * 1500),
                "{:?}",
                list.took
            );
        }
        let rows = containerd.ask(&["list", "--format", "json"]).json();
        assert_eq!(row(&rows, &sandbox)["pid"], sandbox.pid());
        agent.becomes("drip");
        let list = containerd.ask(&["list", "--format", "json"]);
        assert!(list.took < Duration::from_secs(7), "{:?}", list.took);
        agent.becomes("");
        let calls = agent.calls();
        assert!(
            !has(&calls, "shim stats") && !has(&calls, "monitor /metrics"),
            "{calls:?}"
        );
    });
}

#[test]
fn a_scrape_says_at_once_which_guests_hang_and_has_the_page_of_a_sandbox_that_must_not_be_asked() {
    for_each_containerd(|containerd| {
        let hung = containerd.run_sandbox(&GO);
        let member = containerd.run_child(&hung, &[], &IDLE);
        let composed = containerd.run_sandbox(&RUST_QEMU);
        let (agent, other) = (Agent::of(&hung), Agent::of(&composed));
        agent.becomes("hang");
        agent.calls();
        let monitor = monitor(containerd);
        let response = monitor.get("/metrics");
        assert!(response.took < Duration::from_secs(2), "{:?}", response.took);
        let page = monitor.scrape();
        page.check();
        assert_eq!(page.sandbox(&hung.id), ("0", Some("guest_hung")));
        for task in [&hung, &member] {
            let labels = [("id", task.id.as_str())];
            assert_eq!(page.value("kata_monitor_container_up", &labels), "0");
            let reason = [("id", task.id.as_str()), ("reason", "guest_hung")];
            assert_eq!(page.value("kata_monitor_container_failure", &reason), "1");
        }
        // What the host knows is there all the same.
        let own = |id| [("sandbox_id", id)];
        assert_eq!(page.samples("kata_shim_threads", &own(hung.id.as_str())).len(), 1);
        assert!(page.samples("kata_guest_load", &own(hung.id.as_str())).is_empty());
        let calls = agent.calls();
        assert!(has(&calls, "shim state") && has(&calls, CALLS[0]), "{calls:?}");
        assert!(
            !has(&calls, "shim stats") && !has(&calls, "monitor /metrics"),
            "{calls:?}"
        );

        assert_eq!(page.sandbox(&composed.id), ("1", None));
        for family in ["kata_guest_meminfo", "kata_agent_threads", "kata_shim_proc_stat"] {
            assert!(
                !page.samples(family, &own(composed.id.as_str())).is_empty(),
                "{family}"
            );
        }
        let calls = other.calls();
        assert!(
            has(&calls, CALLS[3]) && !has(&calls, "monitor /metrics"),
            "{calls:?}"
        );
        assert!(composed.has_shim());
        // One of them alone: the composed page, or why there is none.
        let alone = monitor.get(&format!("/metrics?sandbox={}", composed.id));
        assert!(alone.text().contains("\nkata_guest_meminfo{"), "{}", alone.text());
        let alone = monitor.get(&format!("/metrics?sandbox={}", hung.id));
        assert!(
            alone.status >= 500 && alone.text().contains("the guest hangs"),
            "{}",
            alone.text()
        );

        // It comes back by itself.
        agent.becomes("");
        thread::sleep(Duration::from_millis(1100));
        assert_eq!(monitor.scrape().sandbox(&hung.id), ("1", None));
    });
}

#[test]
fn verbose_says_why_a_guest_cannot_be_asked() {
    for_each_containerd(|containerd| {
        // Without an agent, its monitor tells an address at which nobody listens.
        let sandbox = containerd.run_sandbox(&[]);
        let ran = containerd.ask(&["-v", "metrics", &sandbox.id]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let why = format!(
            "sandbox {}: its shim was asked without asking its guest first: ",
            sandbox.id
        );
        assert_eq!(ran.stderr.matches(&why).count(), 1, "{}", ran.stderr);
        assert!(!containerd.ask(&["metrics", &sandbox.id]).stderr.contains(&why));
    });
}
