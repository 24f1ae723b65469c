//! Pods as containerd's CRI makes them.

use std::io::{BufRead, BufReader};
use std::path::Path;
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

/// `sandboxer = "shim"`: the sandbox is no task, and has no spec.
#[test]
fn a_sandbox_that_its_shim_manages_is_listed_asked_and_named_like_any_other() {
    for_each_cri(|containerd| {
        // It came with containerd 2.
        if !containerd.version.contains("/v2 ") {
            return;
        }
        let cri = Cri::of(containerd);
        let id = fresh_id("managed");
        let pod = cri.manage_sandbox(&id, "io.containerd.test-sandbox.v2");
        let state = Path::new(&containerd.state()).join("io.containerd.sandbox.controller.v1.shim/k8s.io");
        assert!(state.join(&id).join("bootstrap.json").exists());
        assert!(!state.join(&id).join("config.json").exists());
        let container = fresh_id("app");
        let annotations = [
            ("container-type", "container"),
            ("sandbox-id", &id),
            ("sandbox-namespace", "shop"),
            ("sandbox-name", "web"),
            ("container-name", "app"),
        ]
        .map(|(key, value)| format!("--annotation=io.kubernetes.cri.{key}={value}"));
        let limit = ["--memory-limit".to_string(), (64 * MIB).to_string()];
        let sandbox_option = ["--sandbox".to_string(), id.clone()];
        let runtime = ["--runtime", "io.containerd.test-sandbox.v2"].map(str::to_string);
        let options = [&annotations[..], &limit, &sandbox_option, &runtime].concat();
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let _task = containerd.run_as("k8s.io", &container, &options, &["sleep", "1000"]);

        let rows = containerd.ask(&["list", "--format", "json"]).json();
        let ids = rows
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["id"].as_str().unwrap());
        assert_eq!(ids.collect::<Vec<_>>(), [id.as_str(), container.as_str()]);
        let sandbox = row(&rows, &id);
        let shown =
            ["role", "pod_namespace", "pod", "runtime", "status"].map(|key| sandbox[key].as_str().unwrap());
        assert_eq!(shown, ["sandbox", "shop", "web", "test-sandbox", "running"]);
        let pid = sandbox["pid"].as_u64().unwrap();
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(
            command.starts_with(b"sleep\0"),
            "the process that stands for its machine"
        );
        assert_eq!(row(&rows, &container)["status"], "running");

        let event = containerd.ask(&["events", "--stats", "shop/web/app"]).json();
        assert_eq!(event["data"]["memory"]["usage"]["limit"], 64 * MIB);
        let ran = containerd.ask(&["events", "--stats", "shop/web"]);
        assert!(
            ran.complaint().contains("no statistics of the sandbox itself"),
            "{}",
            ran.stderr
        );
        let all = containerd.ask(&["events", "--stats", "--all", "--format", "json"]);
        assert_eq!(all.answer().lines().count(), 1);
        // Its monitor is where Kata's Rust shim has it.
        let metrics = containerd.ask(&["metrics", "shop/web"]);
        assert!(metrics.stdout.contains("\nkata_guest_"), "{}", metrics.stderr);
        let summary = containerd.ask(&["metrics", "--summary", "shop/web", "--format", "json"]);
        assert_eq!(summary.code, Some(0), "{}", summary.stderr);

        pod.stop();
        let rows = containerd.ask(&["list", "--format", "json"]).json();
        assert_eq!(row(&rows, &id)["status"], "stopped");
    });
}
