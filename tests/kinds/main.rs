//! Every command on every kind of node (docs/explanation/nodes.md), all of which are on one machine: each container is
//! found where its manager keeps it, and what cannot be known is said in a line.

#![allow(clippy::restriction)] // A test may panic.

#[path = "../support/exporter.rs"]
mod exporter;
mod kinds;
mod machine;
#[path = "../mock/mod.rs"]
mod mock;
#[path = "../../crates/shimstat/tests/support/gvisor.rs"]
mod stand_in;
#[cfg(feature = "top")]
#[path = "../support/tmux.rs"]
mod tmux;

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Instant;

use exporter::Monitor;
use kinds::{Kind, Memory};
use machine::Machine;
use mock::Ran;
use serde_json::Value;
use test_needs::needs;

fn memory_of(event: &Value) -> Option<u64> {
    event["data"]["memory"]["usage"]["usage"].as_u64()
}

/// Checks a number of bytes.
#[track_caller]
fn check(kind: &Kind, bytes: Option<u64>) {
    match kind.memory {
        Memory::Mebibytes(mebibytes) => assert_eq!(bytes, Some(mebibytes << 20), "{}", kind.given),
        Memory::Some => assert!(bytes.is_some(), "{}", kind.given),
        Memory::None(_) => assert_eq!(bytes, None, "{}", kind.given),
    }
}

/// Checks that there is no answer, and that a line says why. Others say what was found, and what to do.
#[track_caller]
fn check_refused(kind: &Kind, ran: &Ran, why: &str) {
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{}", kind.given);
    let (lines, first) = (ran.stderr.lines().count(), ran.stderr.lines().next());
    assert!(lines <= 3, "{}: {}", kind.given, ran.stderr);
    assert!(ran.stderr.contains(why), "{}: {first:?}", kind.given);
}

#[test]
fn list_and_completion_know_every_kind() {
    needs!("root", "unshare");
    let machine = Machine::new();
    let kinds = kinds::all(&machine);
    let ran = machine.run(&[
        "list",
        "--format",
        "csv",
        "--columns",
        "pod,container,runtime,status",
    ]);
    let rows: Vec<_> = ran.stdout.lines().skip(1).collect();
    let offered = machine.run(&["__complete", "--", "events", ""]).stdout;
    for kind in &kinds {
        let (pod, container) = match kind.given.matches('/').count() {
            0 => ("", kind.given.as_str()),
            1 => (kind.given.as_str(), ""),
            _ => kind.given.rsplit_once('/').unwrap(),
        };
        let runtime = match kind.runtime.contains(',') {
            true => format!("\"{}\"", kind.runtime),
            false => kind.runtime.to_string(),
        };
        let row = format!("{pod},{container},{runtime},{}", kind.status);
        assert!(rows.contains(&row.as_str()), "{row}: {}", ran.stdout);
        let given = format!("{}\t", kind.given);
        assert!(
            offered.lines().any(|line| line.starts_with(&given)),
            "{given}: {offered}"
        );
    }
    // A word that does not say what is wrong is explained.
    let unexplained = kinds.iter().filter(|kind| kind.status == "error");
    assert_eq!(
        ran.stderr.lines().count(),
        unexplained.clone().count(),
        "{}",
        ran.stderr
    );
    for kind in unexplained {
        let Memory::None(why) = kind.memory else {
            panic!("{}", kind.given)
        };
        assert!(ran.stderr.contains(why), "{}", ran.stderr);
    }
    assert_eq!(ran.status, Some(0));

    let places: Value =
        serde_json::from_str(&machine.run(&["list", "--places", "--format", "json"]).stdout).unwrap();
    let missing = places
        .as_array()
        .unwrap()
        .iter()
        .filter(|place| place["exists"] == false);
    let missing: Vec<_> = missing.map(|place| place["kept_by"].as_str().unwrap()).collect();
    // Of three users, one has each.
    assert!(
        missing.iter().all(|keeper| keeper.starts_with("rootless")),
        "{missing:?}"
    );
}

#[test]
fn events_answer_or_say_why_not() {
    needs!("root", "unshare");
    let machine = Machine::new();
    let kinds = kinds::all(&machine);
    for kind in &kinds {
        let ran = machine.run(&["events", "--stats", &kind.given]);
        match kind.memory {
            Memory::None(why) => check_refused(kind, &ran, why),
            _ => {
                assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", kind.given);
                check(kind, memory_of(&serde_json::from_str(&ran.stdout).unwrap()));
            }
        }
    }
    // A pod whose sandbox is not on disk is listed, and so is no name to deny.
    for (pod, containers) in [
        ("shop/kuasar", "shop/kuasar/c-kuasar"),
        ("shop/grpc", "shop/grpc/c-grpc"),
    ] {
        let ran = machine.run(&["events", "--stats", pod]);
        let why = format!("its sandbox is not on disk, its containers are: {containers}");
        assert!(ran.stderr.contains(&why), "{}", ran.stderr);
    }
}

#[test]
fn a_stream_has_every_kind() {
    needs!("root", "unshare");
    let machine = Machine::new();
    let kinds = kinds::all(&machine);
    let mut command = machine.command(&["events", "--all", "--interval", "200ms", "--format", "json"]);
    let stderr = machine.at("/stderr");
    let file = fs::File::create(&stderr).unwrap();
    let mut stream = command.stdout(Stdio::piped()).stderr(file).spawn().unwrap();
    let mut events: HashMap<String, Vec<u64>> = HashMap::new();
    let begun = Instant::now();
    for line in BufReader::new(stream.stdout.take().unwrap()).lines() {
        assert!(begun.elapsed() < exporter::PATIENCE, "{events:?}");
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let id = event["id"].as_str().unwrap().to_string();
        events.entry(id).or_default().extend(memory_of(&event));
        let said = fs::read_to_string(&stderr).unwrap();
        let is_there = |kind: &Kind| match kind.memory {
            Memory::None(why) => said.contains(why),
            _ => events.get(&kind.id()).is_some_and(|seen| seen.len() > 1),
        };
        if kinds.iter().all(is_there) {
            break;
        }
    }
    stream.kill().unwrap();
    stream.wait().unwrap();
    for kind in &kinds {
        check(kind, events.get(&kind.id()).and_then(|seen| seen.last().copied()));
    }
}

#[test]
fn metrics_answer_or_say_why_not() {
    needs!("root", "unshare");
    let machine = Machine::new();
    for kind in kinds::all(&machine) {
        let ran = machine.run(&["metrics", &kind.given]);
        match kind.no_metrics {
            None => {
                assert_eq!(ran.status, Some(0), "{}: {}", kind.given, ran.stderr);
                assert!(ran.stdout.contains("\nkata_guest_load{"), "{}", kind.given);
            }
            Some(why) => {
                assert_eq!(ran.status, Some(1), "{}: {}", kind.given, ran.stderr);
                assert!(ran.stderr.contains(why), "{}: {}", kind.given, ran.stderr);
                assert!(!ran.stdout.contains("kata_guest_"), "{}", kind.given);
            }
        }
        let ran = machine.run(&["metrics", "--summary", &kind.given]);
        match kind.summary {
            Ok(parts) => {
                assert_eq!(ran.status, Some(0), "{}: {}", kind.given, ran.stderr);
                for part in parts {
                    assert!(
                        ran.stdout.contains(part),
                        "{}: {part:?}: {}",
                        kind.given,
                        ran.stdout
                    );
                }
                if kind.runtime.contains("peer-pod") {
                    for part in ["\nVMM ", "\noverhead "] {
                        assert!(!ran.stdout.contains(part), "{}", ran.stdout);
                    }
                }
            }
            Err(why) => check_refused(&kind, &ran, why),
        }
    }
}

#[test]
fn the_exporter_has_every_kind() {
    needs!("root", "unshare");
    let machine = Machine::new();
    let kinds = kinds::all(&machine);
    let monitor = Monitor::start(machine.command(&["monitor", "--listen-address", "127.0.0.1:0"]));
    let page = monitor.get("/metrics").text().to_string();
    let sample = |family: &str, kind: &Kind| {
        let is_its = |line: &&str| {
            let name = kind.name();
            let labels = match kind.given.matches('/').count() {
                0 => vec![format!("name=\"{name}\"")],
                1 => vec![format!("pod=\"{name}\""), format!("id=\"{name}-sandbox\"")],
                _ => vec![format!("container=\"{name}\"")],
            };
            line.starts_with(&format!("{family}{{")) && labels.iter().all(|label| line.contains(label))
        };
        page.lines().find(is_its)
    };
    let value = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
    for kind in &kinds {
        let given = &kind.given;
        let memory = sample("container_memory_usage_bytes", kind).map(value);
        check(kind, memory.map(|bytes| bytes as u64));
        let up = sample("kata_monitor_container_up", kind).map(value);
        assert_eq!(
            up,
            Some(if kind.failure.is_none() { 1.0 } else { 0.0 }),
            "{given}"
        );
        let failure = sample("kata_monitor_container_failure", kind);
        assert_eq!(failure.is_some(), kind.failure.is_some(), "{given}: {failure:?}");
        if let (Some(line), Some(reason)) = (failure, kind.failure) {
            assert!(line.contains(&format!("reason=\"{reason}\"")), "{line}");
        }
        let runtime = kind.runtime.split(" (").next().unwrap();
        let info = sample("kata_monitor_container_info", kind);
        let told = info.map(|info| info.contains(&format!("runtime=\"{runtime}\"")));
        // Nothing is told of a runtime that is not known.
        assert_eq!(told, (!runtime.is_empty()).then_some(true), "{given}: {info:?}");
    }
    // What is not on this host, or hidden from it, is in no family about it.
    let of_machine = |pod: &str| {
        let label = format!("sandbox_id=\"{pod}-sandbox\"");
        let lines = page
            .lines()
            .filter(|line| line.starts_with("kata_sandbox_") && line.contains(&label));
        lines
            .map(|line| line.split('{').next().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(of_machine("peer"), Vec::<&str>::new());
    let hidden = of_machine("tdx");
    assert!(
        hidden.contains(&"kata_sandbox_process_memory_bytes"),
        "{hidden:?}"
    );
    for family in ["kata_sandbox_overhead_memory_bytes", "kata_sandbox_vcpus"] {
        assert!(!hidden.contains(&family), "{hidden:?}");
    }
}

#[cfg(feature = "top")]
#[test]
fn top_shows_every_kind() {
    needs!("root", "unshare", "tmux");
    let machine = Machine::new();
    let kinds = kinds::all(&machine);
    let tmux = tmux::Tmux::start((160, 80), &machine.shell_command("top --interval 500ms"));
    let screen = tmux.wait_for("every kind", |screen| {
        kinds.iter().all(|kind| {
            let name = if kind.name().starts_with("c-") {
                kind.name()
            } else {
                &kind.given
            };
            let cells = tmux::cells(screen, name);
            let memory = cells.get(1).map(String::as_str);
            match kind.memory {
                Memory::Mebibytes(mebibytes) => memory == Some(&format!("{mebibytes}M")),
                Memory::Some => memory.is_some_and(|memory| memory.ends_with(['B', 'K', 'M'])),
                Memory::None(_) => cells
                    .first()
                    .is_some_and(|cell| cell == "(starting)" || cell == "error:"),
            }
        })
    });
    // Nobody has measured these.
    let pids = |name| tmux::cells(&screen, name).get(5).cloned();
    assert_eq!(
        (pids("c-peer"), pids("c-crio")),
        (Some("-".to_string()), Some("1".to_string()))
    );
    for (pod, what) in [
        ("shop/peer", "the virtual machine is not on this host"),
        ("shop/tdx", "the guest's memory is hidden from this host"),
        ("shop/managed", "running, without statistics of its own"),
    ] {
        tmux.keys(&["Escape", "/", pod, "Enter"]);
        let screen = tmux.wait_for(what, |screen| screen.iter().any(|line| line.contains(what)));
        let overhead = screen.iter().any(|line| line.starts_with("overhead"));
        assert_eq!(overhead, pod == "shop/tdx", "{screen:#?}");
    }
}

/// Each has a shim, a monitor and a guest, so that asking all at once takes far more descriptors than there are.
#[test]
fn hundreds_of_guests_are_asked_with_few_descriptors() {
    needs!("root", "unshare");
    const SANDBOXES: usize = 400;
    let machine = Machine::new();
    kinds::many_of_kata(&machine, SANDBOXES);
    let limited = |arguments: &[&str]| mock::with_few_descriptors(&machine.command(arguments));
    let ran = mock::finish(limited(&["events", "--all", "--stats", "--format", "json"]));
    let events = ran
        .stdout
        .lines()
        .filter(|line| line.contains("\"type\":\"stats\""))
        .count();
    assert_eq!(
        (ran.status, events, ran.stderr.as_str()),
        (Some(0), SANDBOXES, "")
    );
    let monitor = Monitor::start(limited(&["monitor", "--listen-address", "127.0.0.1:0"]));
    for _ in 0..2 {
        let patient = [("X-Prometheus-Scrape-Timeout-Seconds", "28")];
        let page = exporter::Page::read(monitor.request("GET", "/metrics", &patient).text());
        for family in ["kata_monitor_sandbox_up", "kata_monitor_container_up"] {
            let up = page.samples(family, &[]);
            let down: Vec<_> = up.iter().filter(|line| !line.ends_with(" 1")).collect();
            assert_eq!((up.len(), down), (SANDBOXES, vec![]), "{family}");
        }
        assert!(page.samples("kata_monitor_sandbox_failure", &[]).is_empty());
    }
}
