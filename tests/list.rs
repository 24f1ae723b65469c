//! `list` before shims that answer, hang and are gone.

#![allow(clippy::restriction)] // A test may panic.

mod mock;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use mock::{Calls, Node, Reply, finish, healthy, running, stopped};
use serde_json::Value;
use test_needs::needs;

/// A node with two pods and a plain container.
fn node() -> (Node, Vec<Calls>) {
    let node = Node::new();
    let calls = vec![
        node.pod("5b", "test/db", |_| running(4711)),
        node.pod("5a", "shop/web", |_| running(0)),
        node.task("plain", |_| stopped(137)),
    ];
    node.in_pod("5a", "6b", "shop/web/proxy");
    node.in_pod("5a", "6a", "shop/web/nginx");
    let tasks = node.state_dir().join("io.containerd.runtime.v2.task");
    for (bundle, shim) in [
        ("k8s.io/5a", "kata-v2"),
        ("k8s.io/6a", "kata-v2"),
        ("default/plain", "runc-v2"),
    ] {
        let path = tasks.join(bundle).join("shim-binary-path");
        fs::write(path, format!("/usr/bin/containerd-shim-{shim}")).unwrap();
    }
    (node, calls)
}

fn list(node: &Node, arguments: &[&str]) -> String {
    let ran = node.run(&[&["--timeout", "2s", "list"], arguments].concat());
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    ran.stdout
}

fn json(node: &Node, arguments: &[&str]) -> Vec<Value> {
    serde_json::from_str(&list(node, &[&["--format", "json"], arguments].concat())).unwrap()
}

/// The words of each line, and whether it is indented.
fn rows(table: &str) -> Vec<(bool, Vec<&str>)> {
    table
        .lines()
        .map(|line| {
            (
                line.starts_with("  "),
                line.split("  ")
                    .map(str::trim)
                    .filter(|w| !w.is_empty())
                    .collect(),
            )
        })
        .collect()
}

#[test]
fn sandboxes_come_with_their_containers_under_them_and_plain_ones_after() {
    let (node, _) = node();
    let table = list(&node, &[]);
    let age = |row: &Vec<&str>| row[6].ends_with('s') && row[6].trim_end_matches('s').parse::<u32>().is_ok();
    let rows = rows(&table);
    assert!(rows[1..].iter().all(|(_, row)| age(row)), "{table}");
    let without_age: Vec<_> = rows
        .iter()
        .map(|(under, row)| (*under, row[..6].join(" ")))
        .collect();
    let expected = [
        (false, "ID POD CONTAINER RUNTIME STATUS PID"),
        (false, "5a shop/web - kata running -"),
        (true, "6a shop/web nginx kata running -"),
        // What is not noted of its shim is in its sandbox's bundle.
        (true, "6b shop/web proxy kata running -"),
        (false, "5b test/db - - running 4711"),
        (false, "plain - - runc stopped (137) -"),
    ];
    assert_eq!(without_age, expected.map(|(under, row)| (under, row.to_string())));
}

#[test]
fn the_wide_table_and_json_say_more() {
    let (node, _) = node();
    let wide = list(&node, &["--format", "wide"]);
    let socket = format!("{}/k8s.io-5a.sock", node.state_dir().display());
    let row = wide.lines().find(|line| line.starts_with("  6a")).unwrap();
    assert!(row.contains("k8s.io") && row.ends_with(&socket), "{wide}");

    let containers = json(&node, &[]);
    let ids: Vec<_> = containers.iter().map(|c| c["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["5a", "6a", "6b", "5b", "plain"]);
    let mut child = containers[1].clone();
    let created = child["created_at"].as_str().unwrap().to_string();
    assert!(created.len() == 20 && created.ends_with('Z'), "{created}");
    assert!(child["age_seconds"].as_u64().unwrap() < 60);
    for varying in ["created_at", "age_seconds", "bundle", "shim"] {
        child.as_object_mut().unwrap().remove(varying).unwrap();
    }
    let expected = serde_json::json!({
        "id": "6a", "namespace": "k8s.io", "role": "container", "sandbox": "5a", "pod_namespace": "shop",
        "pod": "web", "container": "nginx", "runtime": "kata", "status": "running",
    });
    assert_eq!(child, expected);
    assert_eq!(containers[3]["pid"], 4711);
    assert_eq!(
        (&containers[4]["status"], &containers[4]["exit_status"]),
        (&"stopped".into(), &137.into())
    );
    assert!(containers[4].get("pid").is_none() && containers[4].get("sandbox").is_none());
}

#[test]
fn filters_choose_by_namespace_pod_and_runtime() {
    let (node, _) = node();
    for (arguments, expected) in [
        (&["--pod-namespace", "shop"][..], "5a\n6a\n6b\n"),
        (&["--pod", "db"], "5b\n"),
        (&["--pod", "shop/web"], "5a\n6a\n6b\n"),
        (&["--pod", "test/web"], ""),
        (&["--pod", "nobody"], ""),
        (&["--runtime", "kata"], "5a\n6a\n6b\n"),
        (&["--runtime", "runc"], "plain\n"),
        (&["--runtime", "runc", "--pod", "web"], ""),
    ] {
        assert_eq!(
            list(&node, &[&["-q"], arguments].concat()),
            expected,
            "{arguments:?}"
        );
        let ids: Vec<_> = json(&node, arguments)
            .iter()
            .map(|c| format!("{}\n", c["id"].as_str().unwrap()))
            .collect();
        assert_eq!(ids.concat(), expected, "{arguments:?}");
    }
    let ran = node.run(&["-n", "default", "list", "-q"]);
    assert_eq!(ran.stdout, "plain\n");
}

#[test]
fn ids_alone_ask_no_shim() {
    let (node, calls) = node();
    let long = "5779b2366f47cd1468ebb1ba7c52cbdde3c7d3a5f2af3eefadc8356700fc860b";
    let hung = node.task(long, |_| Reply::Hang);
    let (creating, _) = node.bundle("default", "creating", &[]);
    fs::remove_file(creating.join("address")).unwrap();
    assert_eq!(list(&node, &["-q"]), format!("{long}\nplain\n5a\n5b\n6a\n6b\n"));
    for calls in calls.iter().chain([&hung]) {
        assert!(calls.lock().unwrap().is_empty());
    }
}

#[test]
fn containers_whose_sandbox_has_no_bundle_are_listed_under_it_all_the_same() {
    let node = Node::new();
    node.pod("5a", "shop/web", healthy);
    node.in_pod("5a", "6a", "shop/web/nginx");
    node.in_pod("5a", "6b", "shop/web/proxy");
    node.pod("5b", "test/db", healthy);
    fs::remove_dir_all(node.state_dir().join("io.containerd.runtime.v2.task/k8s.io/5a")).unwrap();
    let table = list(&node, &[]);
    let shown: Vec<_> = table.lines().map(|line| &line[..line.len().min(45)]).collect();
    let expected = [
        "ID    POD       CONTAINER  RUNTIME  STATUS   ",
        "5a    shop/web  -          -        not found",
        "  6a  shop/web  nginx      -        running  ",
        "  6b  shop/web  proxy      -        running  ",
        "5b    test/db   -          -        running  ",
    ];
    assert_eq!(shown, expected, "{table}");
    // It is no container, so that lists for programs do not have it.
    assert_eq!(list(&node, &["-q"]), "5b\n6a\n6b\n");
    assert_eq!(json(&node, &[]).len(), 3);
}

#[test]
fn a_sandbox_that_a_filter_leaves_out_is_not_said_to_be_missing() {
    let (node, _) = node();
    let tasks = node.state_dir().join("io.containerd.runtime.v2.task/k8s.io");
    fs::write(
        tasks.join("6b/shim-binary-path"),
        "/usr/bin/containerd-shim-runc-v2",
    )
    .unwrap();
    let table = list(&node, &["--runtime", "runc", "--pod", "web"]);
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(
        table.contains("\n5a    shop/web") && !table.contains("not found"),
        "{table}"
    );
}

#[test]
fn equal_ids_in_two_of_containerds_namespaces_are_told_apart() {
    let node = Node::new();
    for namespace in ["moby", "default"] {
        let (_, socket) = node.bundle(namespace, "twin", &[]);
        mock::serve(&socket, healthy);
    }
    let table = list(&node, &[]);
    let ends: Vec<_> = table
        .lines()
        .map(|line| line.split_whitespace().last().unwrap())
        .collect();
    assert_eq!(ends, ["NAMESPACE", "default", "moby"], "{table}");
    let one = list(&node, &["-n", "moby"]);
    assert!(!one.contains("NAMESPACE"), "{one}");
}

#[test]
fn ids_made_up_at_random_are_shown_short() {
    let long = "5779b2366f47cd1468ebb1ba7c52cbdde3c7d3a5f2af3eefadc8356700fc860b";
    let node = Node::new();
    node.task(long, healthy);
    assert!(list(&node, &[]).contains("\n5779b2366f47  -"));
    assert!(list(&node, &["--no-trunc"]).contains(&format!("\n{long}  -")));
}

#[test]
fn shims_that_do_not_answer_cost_one_deadline_and_the_rest_is_there() {
    let node = Node::new();
    node.pod("5a", "shop/web", |_| running(7));
    let hung: Vec<_> = (0..6)
        .map(|n| node.pod(&format!("h{n}"), &format!("hung/pod{n}"), |_| Reply::Hang))
        .collect();
    for n in 0..5 {
        node.in_pod("h0", &format!("c{n}"), &format!("hung/pod0/c{n}"));
    }
    // A pod whose shim takes 300 ms for each of its containers: all of them are more than the time there is.
    node.pod("5s", "slow/pod", |_| {
        Reply::After(Duration::from_millis(300), Box::new(running(8)))
    });
    for n in 0..5 {
        node.in_pod("5s", &format!("s{n}"), &format!("slow/pod/s{n}"));
    }
    let (_, dead) = node.bundle("default", "dead", &[]);
    drop(std::os::unix::net::UnixListener::bind(&dead).unwrap());
    node.task("unknown", |_| Reply::Error(5, "not found".into()));
    node.task("lies", |_| Reply::Payload(vec![0xff; 9]));

    let ran = node.run(&["--timeout", "700ms", "list", "--format", "json"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    assert!(
        ran.took < Duration::from_millis(1100),
        "one deadline: {:?}",
        ran.took
    );
    let containers: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
    let status = |id: &str| {
        let of = containers.iter().find(|c| c["id"] == id).unwrap();
        of["status"].as_str().unwrap().to_string()
    };
    assert_eq!(status("5a"), "running");
    for id in ["h0", "h5", "c0", "c4"] {
        assert_eq!(status(id), "not answering", "{id}");
    }
    let slow: Vec<_> = ["5s", "s0", "s1", "s2", "s3", "s4"].map(status).into();
    let answered = slow.iter().filter(|status| *status == "running").count();
    assert!(answered == 1 || answered == 2, "{slow:?}");
    assert!(
        slow.iter()
            .all(|status| status == "running" || status == "not answering")
    );
    assert_eq!(
        (
            status("dead").as_str(),
            status("unknown").as_str(),
            status("lies").as_str()
        ),
        ("shim gone", "unknown", "error")
    );
    let error = containers.iter().find(|c| c["id"] == "h0").unwrap()["error"]
        .as_str()
        .unwrap();
    assert!(
        error.contains("k8s.io-h0.sock has not answered State for 7"),
        "{error}"
    );
    for calls in hung {
        assert_eq!(calls.lock().unwrap().len(), 1, "one call at a time");
    }
    let ran = node.run(&["-v", "--timeout", "300ms", "list"]);
    assert!(ran.stderr.contains("container h0: the shim at"), "{}", ran.stderr);
}

#[test]
fn what_pods_are_called_cannot_act_on_a_terminal() {
    let node = Node::new();
    node.pod("5a", "sh\x1b]0;owned\x07op/we\u{9b}2Jb\n", healthy);
    node.in_pod("5a", "6a", "sh\x1b]0;owned\x07op/we\u{9b}2Jb\n/c\r\u{202e}");
    let kata = node
        .state_dir()
        .join("io.containerd.runtime.v2.task/k8s.io/5a/shim-binary-path");
    fs::write(kata, "/bin/containerd-shim-\x1b[31mx-v2").unwrap();
    for format in ["table", "wide", "json"] {
        let shown = list(&node, &["--format", format]);
        assert!(
            !shown
                .chars()
                .any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'),
            "{shown:?}"
        );
        assert_eq!(shown.lines().count(), if format == "json" { 1 } else { 3 });
    }
    let containers = json(&node, &[]);
    assert_eq!(
        containers[1]["container"], "c\r\u{202e}",
        "JSON says what it is all the same"
    );
}

#[test]
fn a_kata_sandbox_shows_its_hypervisor() {
    needs!("root");
    let id = format!(
        "kr-list-{}-{}",
        std::process::id(),
        std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos()
    );
    let dir = Path::new("/run/kata").join(&id);
    fs::create_dir_all(&dir).expect("these tests need root: run tests/run.sh");
    fs::write(
        dir.join("state.json"),
        include_str!("../crates/shimstat/tests/fixtures/kata-3.30-rs/state.json"),
    )
    .unwrap();
    let node = Node::new();
    let (bundle, socket) = node.bundle("default", &id, &[("io.kubernetes.cri.container-type", "sandbox")]);
    fs::write(
        bundle.join("shim-binary-path"),
        "/usr/local/bin/containerd-shim-kata-v2",
    )
    .unwrap();
    mock::serve(&socket, healthy);
    let (table, containers) = (list(&node, &[]), json(&node, &["--runtime", "clh"]));
    let others = list(&node, &["-q", "--runtime", "qemu"]);
    fs::remove_dir_all(&dir).unwrap();
    assert!(table.contains("  kata (clh, rust)  "), "{table}");
    assert_eq!(
        (&containers[0]["runtime"], &containers[0]["hypervisor"]),
        (&"kata".into(), &"clh".into())
    );
    assert_eq!(others, "");
}

#[test]
fn columns_their_order_and_the_headings_are_the_users_choice() {
    let (node, _) = node();
    let table = list(
        &node,
        &["--columns", "status,id", "--no-headers", "--sort", "-id"],
    );
    let expected =
        "stopped (137)  plain\nrunning        6b\nrunning        6a\nrunning        5b\nrunning        5a\n";
    assert_eq!(table, expected);
    let csv = list(&node, &["-o", "csv", "--columns", "id,pid,pod", "--sort", "pid"]);
    assert_eq!(
        csv.lines().take(2).collect::<Vec<_>>(),
        ["id,pid,pod", "5b,4711,test/db"],
        "what has no pid is last"
    );
    assert_eq!(csv.lines().count(), 6);
    let lines = list(&node, &["-o", "jsonl"]);
    let objects: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(Value::from(objects), Value::from(json(&node, &[])));
    let ran = node.run(&["list", "--columns", "id,cpu"]);
    assert_eq!(ran.status, Some(2));
    assert!(
        ran.stderr.contains("there is no column \"cpu\""),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_note_of_the_shim_that_cannot_be_read_is_said() {
    let node = Node::new();
    node.task("c1", healthy);
    let (bundle, _) = node.bundle("default", "c1", &[]);
    let note = bundle.join("shim-binary-path");
    fs::create_dir(&note).unwrap();
    let ran = node.run(&["list", "-q"]);
    assert_eq!(ran.stderr, "", "nothing is said of runtimes");
    for command in [&["list"][..], &[]] {
        let ran = node.run(command);
        let said = format!("container c1: read {}: ", note.display());
        assert!(ran.stderr.starts_with(&said), "{}", ran.stderr);
        assert!(ran.stderr.contains("told by other signs"), "{}", ran.stderr);
        assert_eq!(ran.status, Some(0));
    }
}

#[test]
fn what_another_program_needs_to_attach_is_in_the_json() {
    let node = Node::new();
    let (bundle, socket) = node.bundle("k8s.io", "5a", &[("io.kubernetes.cri.container-type", "sandbox")]);
    let spec = r#"{"annotations":{"io.kubernetes.cri.container-type":"sandbox"},
        "linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/var/run/netns/cni-1"}]}}"#;
    fs::write(bundle.join("config.json"), spec).unwrap();
    fs::write(bundle.join("monitor_address"), "unix:///run/vc/sbs/5a/m.sock").unwrap();
    mock::serve(&socket, healthy);
    let rows = json(&node, &[]);
    assert_eq!(rows[0]["network_namespace"], "/var/run/netns/cni-1");
    assert_eq!(rows[0]["monitor"], "/run/vc/sbs/5a/m.sock");
    assert_eq!(rows[0]["shim"], socket.display().to_string());
}

#[test]
fn watched_it_prints_what_is_new_and_what_is_gone() {
    let (node, _) = node();
    let mut command = node.command(&[
        "list",
        "--watch",
        "--interval",
        "100ms",
        "--columns",
        "id,status",
        "--no-headers",
    ]);
    struct Watching(Child);
    impl Drop for Watching {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
    let mut watching = Watching(command.stdout(Stdio::piped()).spawn().unwrap());
    let child = &mut watching.0;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || {
        let line = lines.next().unwrap().unwrap();
        line.split_whitespace()
            .map(str::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let first: Vec<_> = (0..5).map(|_| next()).collect();
    assert_eq!(
        first,
        [
            "5a running",
            "6a running",
            "6b running",
            "5b running",
            "plain stopped (137)"
        ]
    );
    node.task("late", |_| running(1));
    assert_eq!(next(), "late running");
    fs::remove_dir_all(
        node.state_dir()
            .join("io.containerd.runtime.v2.task/default/plain"),
    )
    .unwrap();
    assert_eq!(next(), "plain removed (137)");
}

#[test]
fn without_arguments_it_says_what_is_here_and_what_to_try() {
    let (node, _) = node();
    let ran = node.run(&[]);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    let words = |line: &str| line.split_whitespace().map(str::to_string).collect::<Vec<_>>();
    let table: Vec<_> = ran.stdout.lines().map(words).collect();
    assert!(
        table.contains(&words("RUNTIME SANDBOXES CONTAINERS")),
        "{}",
        ran.stdout
    );
    assert!(table.contains(&words("kata 1 2")), "{}", ran.stdout);
    assert!(table.contains(&words("runc 0 1")), "{}", ran.stdout);
    for command in [
        "kata-runtime list",
        "kata-runtime top",
        "kata-runtime events --stats",
    ] {
        assert!(ran.stdout.contains(command), "{}", ran.stdout);
    }
    assert!(ran.stdout.contains(&node.state_dir().display().to_string()));
}

#[test]
fn no_containers_are_an_answer_and_no_node_is_none() {
    let node = Node::new();
    fs::create_dir(node.state_dir().join("io.containerd.runtime.v2.task")).unwrap();
    let ran = node.run(&["list"]);
    assert_eq!(
        (ran.status, ran.stdout.trim_end()),
        (Some(0), "ID  POD  CONTAINER  RUNTIME  STATUS  PID  AGE")
    );
    assert!(
        ran.stderr.starts_with("no containers: looked in "),
        "{}",
        ran.stderr
    );
    assert_eq!(node.run(&["list", "--format", "json"]).stdout, "[]\n");
    let mut command = node.command(&["list"]);
    command = {
        let mut other = std::process::Command::new(command.get_program());
        other.args(["--state", "/no/such/state", "list"]);
        other
    };
    let ran = finish(command);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.contains("/no/such/state"), "{}", ran.stderr);
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let (node, _) = node();
    let mut command = std::process::Command::new("sh");
    let program = env!("CARGO_BIN_EXE_kata-runtime");
    command.args([
        "-c",
        &format!("'{program}' --state '{}' list | true", node.state_dir().display()),
    ]);
    let ran = finish(command);
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
}
