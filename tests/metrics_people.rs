//! `metrics` for people: tables, JSON, filters and the summary, before monitors with the recorded answers.
//!
//! Kata's notes of a virtual machine are root's (`/run/vc/sbs`): these tests make a directory with a fresh id there,
//! and take it away.

#![allow(clippy::restriction)] // A test may panic.

mod mock;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use mock::{Node, Ran, Reply, healthy, http_chunked, http_ok, serve_http, stopped};
use serde_json::Value;
use test_needs::needs;

const GO: &[u8] = include_bytes!("../crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt");
const AT_ONCE: Duration = Duration::ZERO;
const SANDBOX: &[(&str, &str)] = &[
    ("io.kubernetes.cri.container-type", "sandbox"),
    ("io.kubernetes.cri.sandbox-namespace", "shop"),
    ("io.kubernetes.cri.sandbox-name", "web"),
];

/// A sandbox whose bundle names its monitor, with what Kata's Go shim notes of its virtual machine.
struct Sandbox {
    id: String,
    noted: PathBuf,
}

impl Sandbox {
    fn new(node: &Node, name: &str, answer: Vec<u8>, shim: fn(&mock::Call) -> Reply) -> Self {
        let id = format!("{name}-{}", std::process::id());
        let (bundle, socket) = node.bundle("k8s.io", &id, SANDBOX);
        let monitor = node.state_dir().join(format!("{name}.sock"));
        let address = format!("unix://{}", monitor.display());
        fs::write(bundle.join("monitor_address"), address).unwrap();
        serve_http(&monitor, AT_ONCE, answer);
        mock::serve(&socket, shim);
        let noted = PathBuf::from("/run/vc/sbs").join(&id);
        fs::create_dir_all(&noted).expect("these tests need root: run tests/run.sh");
        // No process of that pid is a hypervisor: the figures are those of the recorded families.
        fs::write(
            noted.join("persist.json"),
            r#"{"HypervisorState":{"Type":"clh","Pid":1}}"#,
        )
        .unwrap();
        Self { id, noted }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.noted);
    }
}

fn answered(ran: &Ran) -> &str {
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    &ran.stdout
}

#[test]
fn a_table_has_a_line_for_every_sample() {
    needs!("root");
    let node = Node::new();
    let sandbox = Sandbox::new(&node, "table", http_chunked(GO), healthy);
    let ran = node.run(&["metrics", "--format", "table", &sandbox.id]);
    let recorded = std::str::from_utf8(GO).unwrap();
    let samples = recorded.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(answered(&ran).lines().count(), 1 + samples);
    let line = ran
        .stdout
        .lines()
        .find(|line| line.contains("item=vmrss") && line.contains("hypervisor"))
        .unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(
        words,
        ["kata_hypervisor_proc_status", "gauge", "item=vmrss", "332455936"]
    );
}

#[test]
fn json_has_every_sample_with_its_labels() {
    needs!("root");
    let node = Node::new();
    let sandbox = Sandbox::new(&node, "json", http_ok(GO), healthy);
    let ran = node.run(&["metrics", "--format", "json", &sandbox.id]);
    let answer: Value = serde_json::from_str(answered(&ran)).unwrap();
    assert_eq!(answer["sandbox"], sandbox.id);
    let families = answer["families"].as_array().unwrap();
    assert_eq!(families.len(), 72);
    let load = families
        .iter()
        .find(|family| family["name"] == "kata_guest_load")
        .unwrap();
    assert_eq!(load["samples"][0]["labels"]["item"], "load1");
    assert_eq!(load["samples"][0]["value"].to_string(), "0.09000000357627869");
}

#[test]
fn a_filter_leaves_whole_families_in_every_format() {
    needs!("root");
    let node = Node::new();
    let sandbox = Sandbox::new(&node, "filter", http_ok(GO), healthy);
    let filter = "kata_shim_fds,kata_guest_load";
    let raw = node.run(&["metrics", "--filter", filter, &sandbox.id]);
    assert_eq!(
        answered(&raw),
        "# HELP kata_guest_load Guest system load.\n# TYPE kata_guest_load gauge\n\
         kata_guest_load{item=\"load1\"} 0.09000000357627869\nkata_guest_load{item=\"load15\"} 0.009999999776482582\n\
         kata_guest_load{item=\"load5\"} 0.03999999910593033\n\
         # HELP kata_shim_fds Kata containerd shim v2 open FDs.\n# TYPE kata_shim_fds gauge\nkata_shim_fds 37\n"
    );
    let table = node.run(&["metrics", "--format", "table", "--filter", filter, &sandbox.id]);
    assert_eq!(answered(&table).lines().count(), 5);
    let none = node.run(&["metrics", "--filter", "no_such", &sandbox.id]);
    assert_eq!((none.status, none.stdout.as_str()), (Some(1), ""));
    assert!(
        none.stderr.contains("no family whose name starts with no_such"),
        "{}",
        none.stderr
    );
}

#[test]
fn a_part_never_passes_for_the_whole() {
    needs!("root");
    let node = Node::new();
    let page = b"# TYPE a gauge\na 1\n# TYPE b gauge\nb{path=\"/x,y\"} 2\n";
    let sandbox = Sandbox::new(&node, "lossy", http_ok(page), healthy);
    let ran = node.run(&["metrics", "--format", "table", &sandbox.id]);
    assert_eq!((ran.status, ran.stdout.lines().count()), (Some(1), 2));
    let what = "1 sample cannot be read exactly and is left out; it is: b{path=\"/x,y\"} 2";
    assert!(ran.stderr.contains(what), "{}", ran.stderr);
    let ran = node.run(&["metrics", "--format", "json", &sandbox.id]);
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    let family = serde_json::json!({"name": "a", "type": "gauge", "samples": [{"name": "a", "labels": {}, "value": 1}]});
    assert_eq!(
        (ran.status, &answer["families"]),
        (Some(1), &Value::from(vec![family]))
    );
    // What is not asked for is not missed.
    let rest = node.run(&["metrics", "--format", "table", "--filter", "a", &sandbox.id]);
    assert_eq!(answered(&rest).lines().count(), 2);
}

#[test]
fn invalid_lines_are_left_out_and_named() {
    let node = Node::new();
    let page = "{\"kata.dots\"} 1\nkata_guest_load 1\n";
    let sandbox = Sandbox::new(&node, "dots", http_ok(page.as_bytes()), healthy);
    for format in ["table", "json", "raw"] {
        let ran = node.run(&["metrics", "--format", format, "--filter", "kata_", &sandbox.id]);
        assert_eq!(ran.status, Some(1), "{format}");
        assert!(ran.stdout.contains("kata_guest_load"), "{format}: {}", ran.stdout);
        let what = "1 line is not a valid sample and is left out; it is line 1, quoted name, which Prometheus before \
                    version 3 does not read: {\"kata.dots\"} 1";
        assert!(ran.stderr.contains(what), "{format}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("every line is in the raw text"),
            "{}",
            ran.stderr
        );
    }
    assert_eq!(answered(&node.run(&["metrics", &sandbox.id])), page);
}

#[test]
fn the_summary_names_what_each_part_uses_and_where_that_is_from() {
    needs!("root");
    let node = Node::new();
    let sandbox = Sandbox::new(&node, "summary", http_chunked(GO), healthy);
    let ran = node.run(&["metrics", "--summary", "shop/web"]);
    let text = answered(&ran);
    let line = |part: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(part))
            .unwrap_or_default();
        line.split_whitespace().map(str::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        text.lines().next(),
        Some(format!("sandbox {} (shop/web), on clh, Kata's Go shim", sandbox.id).as_str())
    );
    assert_eq!(
        line("VMM")[..4],
        ["VMM", "5.53s", "317MiB", "kata_hypervisor_proc_stat,"]
    );
    assert_eq!(
        line("shim")[..4],
        ["shim", "7.23s", "44.6MiB", "process_cpu_seconds_total,"]
    );
    assert_eq!(line("guest")[..4], ["guest", "7.06s", "52.6MiB", "464MiB"]);
    assert_eq!(line("container")[1], "sandbox");

    let json = node.run(&["metrics", "--summary", "--format", "json", &sandbox.id]);
    let answer: Value = serde_json::from_str(answered(&json)).unwrap();
    // 332455936 and 46768128 bytes less the MEMORY of the documented example.
    assert_eq!(answer["overhead"]["memory_bytes"], 379_224_064_u64 - MEMORY);
    assert_eq!(answer["missing"].as_array().unwrap().len(), 0, "{answer}");
}

/// `memory.usage.usage` of the documented example.
const MEMORY: u64 = 1_204_224;

#[test]
fn rates_are_those_between_two_looks() {
    needs!("root");
    let node = Node::new();
    let sandbox = Sandbox::new(&node, "rates", http_ok(GO), healthy);
    let ran = node.run(&[
        "metrics",
        "--summary",
        "--interval",
        "200ms",
        "--format",
        "json",
        &sandbox.id,
    ]);
    let answer: Value = serde_json::from_str(answered(&ran)).unwrap();
    // The same recording twice.
    assert_eq!(answer["host"][0]["cpu_percent"], 0.0);
    assert!(ran.took >= Duration::from_millis(200));
}

#[test]
fn a_sandbox_that_may_die_of_being_asked_is_summed_up_without() {
    needs!("root");
    let node = Node::new();
    let id = format!("summary-deadly-{}", std::process::id());
    let (_, socket) = node.bundle("k8s.io", &id, SANDBOX);
    mock::serve(&socket, healthy);
    let dir = PathBuf::from("/run/kata").join(&id);
    fs::create_dir_all(&dir).unwrap();
    fs::write(
        dir.join("state.json"),
        r#"{"hypervisor":{"hypervisor_type":"qemu"}}"#,
    )
    .unwrap();
    let requests = serve_http(&dir.join("shim-monitor.sock"), AT_ONCE, http_ok(GO));
    let ran = node.run(&["metrics", "--summary", &id]);
    let _ = fs::remove_dir_all(&dir);
    assert!(
        answered(&ran).contains("not known: guest: it runs on qemu"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("container sandbox"));
    assert!(requests.lock().unwrap().is_empty(), "nothing was asked");
}

#[test]
fn a_sandbox_that_does_not_run_or_is_none_has_no_summary() {
    needs!("root");
    let node = Node::new();
    let gone = Sandbox::new(&node, "ended", http_ok(GO), |_| stopped(137));
    let ran = node.run(&["metrics", "--summary", &gone.id]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.contains("is not running"), "{}", ran.stderr);
    node.task("plain", healthy);
    let ran = node.run(&["metrics", "--summary", "plain"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""));
    assert!(
        ran.stderr.contains("container plain is in no sandbox"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_hung_shim_leaves_what_the_host_knows() {
    needs!("root");
    let node = Node::new();
    let sandbox = Sandbox::new(&node, "hung", http_ok(GO), |_| Reply::Hang);
    let ran = node.run(&["--timeout", "300ms", "metrics", "--summary", &sandbox.id]);
    let text = answered(&ran);
    assert!(
        text.contains("not known: container sandbox: the shim at"),
        "{text}"
    );
    assert!(text.contains("its monitor was not asked"), "{text}");
    assert!(ran.took < Duration::from_secs(2), "{:?}", ran.took);
}

/// A guest that hangs answers no Stats, while its shim still tells its task's pid.
#[test]
fn a_hung_guest_leaves_the_vmm_and_costs_one_timeout() {
    needs!("root");
    let node = Node::new();
    let hung = |call: &mock::Call| match call.method.as_str() {
        // This process stands for the hypervisor.
        "State" => mock::running(std::process::id()),
        _ => Reply::Hang,
    };
    let sandbox = Sandbox::new(&node, "hung-guest", http_ok(GO), hung);
    node.in_pod(&sandbox.id, "hung-app", "shop/web/app");
    let ran = node.run(&["--timeout", "800ms", "metrics", "--summary", &sandbox.id]);
    let text = answered(&ran);
    let pid = std::process::id();
    let vmm = text
        .lines()
        .find(|line| line.starts_with("VMM "))
        .unwrap_or_default();
    assert!(
        vmm.ends_with(&format!("/proc/{pid}/stat, /proc/{pid}/status")),
        "{text}"
    );
    for container in ["sandbox", "app"] {
        assert!(
            text.contains(&format!("not known: container {container}: the shim at")),
            "{text}"
        );
    }
    assert!(ran.took < Duration::from_millis(1500), "{:?}", ran.took);
}

#[test]
fn containers_are_listed_by_name_after_the_sandboxs_own() {
    needs!("root");
    let node = Node::new();
    let sandbox = Sandbox::new(&node, "order", http_ok(GO), healthy);
    for (id, name) in [("o1", "zebra"), ("o2", "ant"), ("o3", "moth")] {
        node.in_pod(&sandbox.id, id, &format!("shop/web/{name}"));
    }
    let ran = node.run(&["metrics", "--summary", &sandbox.id]);
    let names: Vec<_> = answered(&ran)
        .lines()
        .filter_map(|line| line.strip_prefix("container ")?.split_whitespace().next())
        .collect();
    assert_eq!(names, ["sandbox", "ant", "moth", "zebra"]);
}

#[test]
fn options_that_do_not_go_together_are_wrong_usage() {
    let node = Node::new();
    for arguments in [
        &["metrics", "--summary", "--format", "raw", "x"][..],
        &["metrics", "--summary", "--filter", "x", "x"],
        &["metrics", "--interval", "1s", "x"],
        &["metrics", "--format", "xml", "x"],
    ] {
        let ran = node.run(arguments);
        assert_eq!(
            (ran.status, ran.stdout.as_str()),
            (Some(2), ""),
            "{arguments:?}: {}",
            ran.stderr
        );
    }
}
