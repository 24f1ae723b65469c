//! Pods as containerd's CRI makes them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::cri::Cri;
use crate::support::{for_each_cri, fresh_id};

const MIB: u64 = 1 << 20;

fn row<'a>(rows: &'a Value, id: &str) -> &'a Value {
    rows.as_array()
        .unwrap()
        .iter()
        .find(|row| row["id"] == id)
        .unwrap()
}

#[test]
fn a_pods_containers_are_named_and_their_runtime_is_its_sandboxs() {
    for_each_cri(|containerd| {
        let cri = Cri::of(containerd);
        let pod = cri.run_pod(&fresh_id("web"), "");
        let container = pod.run("nginx", &["sleep", "1000"], 64 * MIB);
        let rows = containerd.ask(&["list", "--format", "json"]).json();
        for (id, name) in [(&pod.id, None), (&container, Some("nginx"))] {
            let row = row(&rows, id);
            // containerd 2.x notes the shim in the sandbox's bundle alone.
            assert_eq!(
                (row["runtime"].as_str(), row["status"].as_str()),
                (Some("runc"), Some("running"))
            );
            assert_eq!(
                (row["container"].as_str(), row["pod_namespace"].as_str()),
                (name, Some("shop"))
            );
        }
        assert_eq!(row(&rows, &container)["sandbox"], pod.id.as_str());
        let event = containerd.ask(&["events", "--stats", &container]).json();
        assert_eq!(event["data"]["memory"]["usage"]["limit"], 64 * MIB);
    });
}

/// CRI deletes a container at once when it has ended, so the shim knows nothing of its end.
#[test]
fn an_oom_kill_and_the_exit_status_are_told_of_a_container_that_cri_has_deleted() {
    for_each_cri(|containerd| {
        let cri = Cri::of(containerd);
        let pod = cri.run_pod(&fresh_id("oom"), "");
        for (script, status, oom) in [
            ("sleep 2; exit 7", 7, false),
            // Fills memory until the kernel kills it.
            ("sleep 2; tail /dev/zero", 137, true),
        ] {
            let container = pod.run(&fresh_id("app"), &["sh", "-c", script], 16 * MIB);
            let mut stream = Command::new(env!("CARGO_BIN_EXE_kata-runtime"))
                .args([
                    "--state",
                    &containerd.state(),
                    "events",
                    "--interval",
                    "100ms",
                    "--format",
                    "json",
                    &container,
                ])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let lines: Vec<Value> = BufReader::new(stream.stdout.take().unwrap())
                .lines()
                .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
                .collect();
            stream.wait().unwrap();
            let of_type = |wanted: &str| {
                lines
                    .iter()
                    .filter(|line| line["type"] == wanted)
                    .collect::<Vec<_>>()
            };
            assert!(!of_type("stats").is_empty(), "{script}");
            let exits = of_type("exit");
            assert_eq!(exits.len(), 1, "{script}: {lines:?}");
            assert_eq!(exits[0]["data"]["exit_status"], status, "{script}: {exits:?}");
            assert!(exits[0]["data"]["exited_at"].is_string(), "{exits:?}");
            // `sh` is killed, or only its child.
            assert_eq!(!of_type("oom").is_empty(), oom, "{script}: {lines:?}");
        }
    });
}
