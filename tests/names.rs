//! Containers by the names of their pods, and what happens where a text could mean several.

#![allow(clippy::restriction)] // A test may panic.

mod mock;

use std::fs;
use std::time::Duration;

use mock::{Node, Ran, Reply, healthy, http_ok, running, serve_http, stopped};

fn id_of(ran: &Ran) -> String {
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    let event: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    event["id"].as_str().unwrap().to_string()
}

fn events(node: &Node, name: &str) -> Ran {
    node.run(&["--timeout", "1s", "events", "--stats", name])
}

fn ambiguous(ran: &Ran, given: &str, candidates: &[&str]) {
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
    let first = format!("multiple containers found ({given})\n");
    assert!(ran.stderr.starts_with(&first), "{}", ran.stderr);
    for candidate in candidates {
        assert!(ran.stderr.contains(candidate), "{candidate}: {}", ran.stderr);
    }
    assert_eq!(ran.stderr.lines().count(), candidates.len() + 2, "{}", ran.stderr);
}

#[test]
fn a_pod_and_a_container_in_it_are_found_by_name() {
    let node = Node::new();
    node.pod("5a", "shop/web-0", healthy);
    node.in_pod("5a", "6a", "shop/web-0/nginx");
    node.in_pod("5a", "6b", "shop/web-0/proxy");
    node.pod("5b", "test/web-1", healthy);
    for (name, id) in [
        ("shop/web-0", "5a"),
        ("shop/web-0/proxy", "6b"),
        ("web-0", "5a"),
        ("web-1", "5b"),
        ("6a", "6a"),
    ] {
        assert_eq!(id_of(&events(&node, name)), id, "{name}");
    }
    for nobody in [
        "shop/web-1",
        "shop/web-0/nobody",
        "web",
        "shop/web",
        "x/y/z",
        "nginx",
    ] {
        let ran = events(&node, nobody);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""));
        let expected = format!(
            "Container ID ({nobody}) does not exist\nlooked in {}/io.containerd.runtime.v2.task\n\
             kata-runtime list shows what is there\n",
            node.state_dir().display()
        );
        assert_eq!(ran.stderr, expected);
    }
}

#[test]
fn a_name_that_two_pods_have_lists_them_and_asks_neither() {
    let node = Node::new();
    let calls = [
        node.pod("5a", "shop/web", healthy),
        node.pod("5b", "te\x1b[2Jst/web", healthy),
    ];
    let ran = events(&node, "web");
    ambiguous(&ran, "web", &["  5a in namespace k8s.io (", "): shop/web\n"]);
    assert!(
        ran.stderr.contains("): te\\u{1b}[2Jst/web\n") && !ran.stderr.contains('\x1b'),
        "{}",
        ran.stderr
    );
    for calls in calls {
        assert!(
            calls.lock().unwrap().iter().all(|call| call.method == "State"),
            "whether they run is all"
        );
    }
    assert_eq!(id_of(&events(&node, "shop/web")), "5a");
}

#[test]
fn a_pods_old_self_does_not_stand_in_its_way() {
    let node = Node::new();
    node.pod("5a", "shop/web", |_| stopped(0));
    node.bundle(
        "k8s.io",
        "5b",
        &[
            ("io.kubernetes.cri.container-type", "sandbox"),
            ("io.kubernetes.cri.sandbox-namespace", "shop"),
            ("io.kubernetes.cri.sandbox-name", "web"),
        ],
    );
    node.pod("5c", "shop/web", healthy);
    assert_eq!(id_of(&events(&node, "shop/web")), "5c");
    assert_eq!(id_of(&events(&node, "web")), "5c");
    // One that hangs may run: it is not passed over.
    node.pod("5d", "shop/web", |_| Reply::Hang);
    ambiguous(&events(&node, "web"), "web", &["  5c in", "  5d in"]);
}

#[test]
fn where_no_generation_of_a_pod_runs_the_newest_is_what_was_found() {
    let node = Node::new();
    node.pod("5f", "shop/web", |_| stopped(1));
    std::thread::sleep(Duration::from_millis(20));
    node.pod("5a", "shop/web", |_| stopped(2));
    let ran = events(&node, "shop/web");
    assert_eq!(ran.status, Some(1));
    let expected = "Container ID (shop/web) does not exist\nits task has stopped (exit status 2) and was not deleted\nits manager has to delete it";
    assert!(ran.stderr.starts_with(expected), "{}", ran.stderr);
}

#[test]
fn an_id_is_meant_before_a_name_unless_only_a_beginning_fits() {
    let node = Node::new();
    let ids = ["web", "db1", "cafe0123456789ab", "my-app-1"];
    for id in ids {
        node.task(id, healthy);
    }
    node.pod("5a", "shop/web", healthy);
    node.pod("5b", "shop/db", healthy);
    node.pod("5c", "shop/cafe0123", healthy);
    node.pod("my-app-pod", "shop/my-app-pod", healthy);
    // The whole of an id.
    assert_eq!(id_of(&events(&node, "web")), "web");
    // The beginning of one and the name of a pod: both are named, and neither is asked.
    ambiguous(
        &events(&node, "db"),
        "db",
        &["  5b in namespace k8s.io", "  db1 in namespace default"],
    );
    // So many digits are an id's.
    assert_eq!(id_of(&events(&node, "cafe0123")), "cafe0123456789ab");
    assert_eq!(id_of(&events(&node, "shop/cafe0123")), "5c");
    // The beginning of the very id that has the name.
    assert_eq!(id_of(&events(&node, "my-app-p")), "my-app-pod");
    assert_eq!(id_of(&events(&node, "my-app-pod")), "my-app-pod");
}

#[test]
fn metrics_take_names_too() {
    let node = Node::new();
    let monitor = node.state_dir().join("m.sock");
    node.pod("5a", "shop/web", healthy);
    node.in_pod("5a", "6a", "shop/web/nginx");
    let bundle = node.state_dir().join("io.containerd.runtime.v2.task/k8s.io/5a");
    fs::write(
        bundle.join("monitor_address"),
        format!("unix://{}", monitor.display()),
    )
    .unwrap();
    let body = b"kata_guest_load 1\n";
    serve_http(&monitor, Duration::ZERO, http_ok(body));
    for name in ["shop/web", "web", "shop/web/nginx"] {
        let ran = node.run(&["metrics", name]);
        assert_eq!(
            (ran.status, ran.stdout.as_bytes()),
            (Some(0), &body[..]),
            "{}",
            ran.stderr
        );
        let redirected = ran.stderr.contains("container 6a runs in sandbox 5a");
        assert_eq!(redirected, name == "shop/web/nginx", "{}", ran.stderr);
    }
    let ran = node.run(&["metrics", "shop/nobody"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""));
    assert!(
        ran.stderr
            .starts_with("Sandbox (shop/nobody) does not exist\nlooked in "),
        "{}",
        ran.stderr
    );
}

#[test]
fn names_are_looked_for_in_the_namespace_of_containerd_that_is_given() {
    let node = Node::new();
    node.pod("5a", "shop/web", |call| {
        if call.method == "State" {
            running(0)
        } else {
            healthy(call)
        }
    });
    assert_eq!(
        node.run(&["-n", "default", "events", "--stats", "shop/web"])
            .status,
        Some(1)
    );
    assert_eq!(
        node.run(&["-n", "k8s.io", "events", "--stats", "shop/web"])
            .status,
        Some(0)
    );
}
