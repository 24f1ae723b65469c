//! `list` and names, on what really runs.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Containerd, Task, eventually, for_each_containerd, fresh_id};

const IDLE: [&str; 2] = ["sleep", "1000"];

/// A pod's sandbox and its only container.
fn pod<'a>(containerd: &'a Containerd, namespace: &str, name: &str, container: &str) -> (Task<'a>, Task<'a>) {
    let names = [
        format!("io.kubernetes.cri.sandbox-namespace={namespace}"),
        format!("io.kubernetes.cri.sandbox-name={name}"),
        format!("io.kubernetes.cri.container-name={container}"),
    ];
    let options: Vec<&str> = names.iter().flat_map(|name| ["--annotation", name]).collect();
    let sandbox = containerd.run_sandbox(&options[..4]);
    let child = containerd.run_child(&sandbox, &options, &IDLE);
    (sandbox, child)
}

fn list(containerd: &Containerd) -> Vec<Value> {
    let listed = containerd
        .ask(&["--timeout", "1s", "list", "--format", "json"])
        .json();
    listed.as_array().expect("an array").clone()
}

#[test]
fn everything_that_runs_is_listed_by_pod() {
    for_each_containerd(|containerd| {
        let plain = containerd.run_container(&[], &IDLE);
        let (sandbox, child) = pod(containerd, "shop", "web-0", "nginx");
        let gone = containerd.run_container(&[], &["sh", "-c", "sleep 2; exit 7"]);
        eventually("it has ended", || gone.status() == "STOPPED");
        let listed = list(containerd);
        let ids: Vec<_> = listed.iter().map(|row| row["id"].as_str().unwrap()).collect();
        let mut expected = vec![sandbox.id.as_str(), child.id.as_str()];
        let mut rest = [plain.id.as_str(), gone.id.as_str()];
        rest.sort_unstable();
        expected.extend(rest);
        assert_eq!(ids, expected);
        for task in [&sandbox, &child, &plain] {
            let row = listed.iter().find(|row| row["id"] == task.id.as_str()).unwrap();
            assert_eq!(
                (&row["status"], &row["pid"]),
                (&"running".into(), &task.pid().into())
            );
            assert!(row["age_seconds"].as_u64().unwrap() < 30, "{row}");
        }
        assert_eq!(listed[0]["runtime"], "test-sandbox");
        assert_eq!(listed[1]["container"], "nginx");
        let of_gone = listed.iter().find(|row| row["id"] == gone.id.as_str()).unwrap();
        assert_eq!(
            (&of_gone["status"], &of_gone["exit_status"]),
            (&"stopped".into(), &7.into())
        );
        assert_eq!(of_gone["runtime"], "runc");

        let table = containerd.ask(&["list"]);
        let lines: Vec<_> = table.answer().lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[2].starts_with(&format!("  {}", child.id)) && lines[2].contains("shop/web-0"));
        let quiet = containerd.ask(&["list", "-q", "--pod", "shop/web-0"]);
        let mut of_pod: Vec<_> = quiet.answer().lines().collect();
        of_pod.sort_unstable();
        let mut expected = [sandbox.id.as_str(), child.id.as_str()];
        expected.sort_unstable();
        assert_eq!(of_pod, expected);
    });
}

#[test]
fn a_hung_shim_shows_as_such_and_the_rest_is_there_in_time() {
    for_each_containerd(|containerd| {
        let hung = containerd.run_container(&[], &IDLE);
        let healthy = containerd.run_container(&[], &IDLE);
        hung.signal_shim(Signal::SIGSTOP);
        let ran = containerd.ask(&["--timeout", "1s", "list", "--format", "json"]);
        hung.signal_shim(Signal::SIGCONT);
        let took = ran.took;
        let listed = ran.json();
        let status = |task: &Task| {
            let rows = listed.as_array().unwrap();
            rows.iter().find(|row| row["id"] == task.id.as_str()).unwrap()["status"].clone()
        };
        assert_eq!(
            (status(&hung), status(&healthy)),
            ("not answering".into(), "running".into())
        );
        assert!(took < Duration::from_millis(1600), "{took:?}");
        // No harm was done, and nothing was needed of containerd.
        containerd.kill();
        assert!(list(containerd).iter().all(|row| row["status"] == "running"));
    });
}

#[test]
fn pods_are_named_wherever_an_id_is_taken() {
    for_each_containerd(|containerd| {
        let name = fresh_id("web");
        let (sandbox, child) = pod(containerd, "shop", &name, "nginx");
        let (other, _) = pod(containerd, "test", &name, "nginx");
        let id = |given: &str| containerd.ask(&["events", "--stats", given]).json()["id"].clone();
        assert_eq!(id(&format!("shop/{name}")), sandbox.id.as_str());
        assert_eq!(id(&format!("shop/{name}/nginx")), child.id.as_str());
        let ran = containerd.ask(&["events", "--stats", &name]);
        let complaint = ran.complaint();
        assert!(
            complaint.contains(&sandbox.id) && complaint.contains(&other.id),
            "{complaint}"
        );
        assert!(complaint.contains(&format!("test/{name}")), "{complaint}");

        let metrics = containerd.ask(&["metrics", &format!("shop/{name}/nginx")]);
        assert_eq!(metrics.code, Some(0));
        assert!(metrics.stdout.starts_with("# HELP ") && metrics.stderr.contains(&sandbox.id));

        // The other one stops, and its task is left behind: the name means the one that runs.
        other.stop();
        assert_eq!(id(&name), sandbox.id.as_str());
    });
}
