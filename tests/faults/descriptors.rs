//! A thousand sandboxes, and 256 descriptors to ask them with.

use std::fs;

use serde_json::Value;

use crate::exporter::{Monitor, Page};
use crate::mock::{self, Node, finish, with_few_descriptors};

const SANDBOXES: usize = 1000;

/// One shim under a thousand addresses.
fn node() -> Node {
    let node = Node::new();
    let socket = node.state_dir().join("shim.sock");
    mock::serve(&socket, mock::healthy);
    for number in 0..SANDBOXES {
        let annotations = [("io.kubernetes.cri.container-type", "sandbox")];
        let (bundle, address) = node.bundle("k8s.io", &format!("s{number}"), &annotations);
        fs::write(
            bundle.join("shim-binary-path"),
            "/usr/bin/containerd-shim-runc-v2",
        )
        .unwrap();
        fs::hard_link(&socket, &address).unwrap();
    }
    node
}

#[test]
fn all_are_answered_once() {
    let node = node();
    let ran = finish(with_few_descriptors(
        &node.command(&["events", "--all", "--stats", "--format", "json"]),
    ));
    let events: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((ran.status, events.len()), (Some(0), SANDBOXES), "{}", ran.stderr);
    let ran = finish(with_few_descriptors(&node.command(&["list", "--format", "json"])));
    let rows: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
    let running = rows.iter().filter(|row| row["status"] == "running").count();
    assert_eq!((ran.status, running), (Some(0), SANDBOXES), "{}", ran.stderr);
}

#[test]
fn all_are_in_each_scrape() {
    let node = node();
    let monitor = Monitor::start(with_few_descriptors(&node.command(&[
        "monitor",
        "--listen-address",
        "127.0.0.1:0",
    ])));
    for _ in 0..2 {
        // On a busy machine this takes longer than a scraper usually waits.
        let patient = [("X-Prometheus-Scrape-Timeout-Seconds", "28")];
        let page = Page::read(monitor.request("GET", "/metrics", &patient).text());
        let up = page.samples("kata_monitor_container_up", &[]);
        assert_eq!(up.len(), SANDBOXES);
        assert!(up.iter().all(|line| line.ends_with(" 1")), "{up:?}");
    }
}
