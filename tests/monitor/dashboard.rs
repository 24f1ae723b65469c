//! The dashboard and the rules that are shipped (packaging/helm), on a real Prometheus that scrapes the exporter: each query
//! returns data, and what is wrong on the node is alerted on.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use test_needs::needs;

use crate::mock::{self, http_chunked};
use crate::support::{Answer, GO, KataDir, Monitor, Node, eventually, recorded};
use crate::tsdb::Prometheus;
use crate::vm::{Process, pod_that_uses, qemu, stand_in};

const CHART: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/packaging/helm/kata-runtime-monitor/files"
);

/// A container with limits, under cgroup v2.
const LIMITED: &[u8] =
    include_bytes!("../../crates/shimstat/tests/fixtures/runc-cgroup-v2/stats-containerd-2.1.v2.bin");

/// Its statistics after so many seconds of a limit on its CPU that it reaches in every second period. The last of a field
/// counts where a message has it twice: `cpu` (2), with `usage_usec` (1) to `system_usec` (3), `nr_periods` (4) and
/// `nr_throttled` (5) of <https://github.com/containerd/cgroups/blob/main/cgroup2/stats/metrics.proto>.
fn throttled(seconds: u64) -> Vec<u8> {
    let mut cpu = Vec::new();
    for (field, value) in [(1, 3_000), (2, 2_000), (3, 1_000), (4, 10), (5, 5)] {
        cpu.push(field << 3);
        varint(&mut cpu, value * (seconds + 1));
    }
    // PSI (7): what some of its threads waited (1), in total (4).
    cpu.extend([7 << 3 | 2, 4, 1 << 3 | 2, 2, 4 << 3, 1]);
    let mut stats = LIMITED.to_vec();
    stats.push(2 << 3 | 2);
    varint(&mut stats, cpu.len() as u64);
    stats.extend(cpu);
    stats
}

fn varint(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

/// A query as Grafana sends it when all is chosen.
fn filled_in(query: &str) -> String {
    let mut query = query.to_string();
    for (variable, value) in [
        ("$job", "kata-runtime-monitor"),
        ("$instance", ".*"),
        ("$namespace", ".*"),
        ("$pod", ".*"),
        ("$__rate_interval", "15s"),
    ] {
        query = query.replace(variable, value);
    }
    query
}

/// All queries of the dashboard, with what they are for.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_string();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut queries = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        for target in panel["targets"].as_array().unwrap() {
            queries.push((text(&panel["title"]), filled_in(&text(&target["expr"]))));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        let Some(definition) = variable["definition"].as_str() else {
            continue;
        };
        let inner = definition.strip_prefix("label_values(").unwrap();
        let (series, label) = inner.strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
        let query = format!("group by ({label}) ({})", filled_in(series));
        queries.push((text(&variable["name"]), query));
    }
    queries
}

/// Asks until all queries have data; those that have none in time.
fn without_data(prometheus: &Prometheus, mut queries: Vec<(String, String)>) -> Vec<(String, String)> {
    let started = Instant::now();
    while !queries.is_empty() && started.elapsed() < Duration::from_secs(45) {
        queries.retain(|(_, query)| !prometheus.query(query).iter().any(|(_, value)| value.is_finite()));
        std::thread::sleep(Duration::from_millis(200));
    }
    queries
}

/// A node whose exporter a Prometheus scrapes, with the rules: pods with a real machine each, one whose sandbox does not answer,
/// and one whose sandbox is gone.
struct Shop {
    prometheus: Prometheus,
    pods: Vec<(KataDir, Process)>,
    _others: (Node, Process, Monitor),
}

impl Shop {
    fn open(pods: usize) -> Self {
        let node = Node::new();
        let shim = stand_in(&node, "containerd-shim-kata-v2");
        let pods: Vec<_> = (0..pods).map(|_| vm(&node, &shim)).collect();
        node.pod_with("slow", recorded, Answer::Hang);
        node.pod_with("dead", recorded, Answer::Bytes(http_chunked(GO)));
        fs::remove_file(node.node.state_dir().join("dead.m")).unwrap();

        let monitor = node.monitor_with(&["--namespace", "k8s.io", "--timeout", "500ms"], &[]);
        let config = format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [rules.yml]\n\
             scrape_configs:\n  - job_name: kata-runtime-monitor\n    static_configs:\n      - targets: ['{}']\n",
            monitor.address()
        );
        let rules = fs::read_to_string(format!("{CHART}/rules.yaml")).unwrap();
        Self {
            prometheus: Prometheus::start(&config, &rules),
            pods,
            _others: (node, shim, monitor),
        }
    }

    fn ids(&self) -> Vec<String> {
        self.pods.iter().map(|(notes, _)| notes.id.clone()).collect()
    }
}

/// A pod with a machine, whose containers are at their CPU limit.
fn vm(node: &Node, shim: &Process) -> (KataDir, Process) {
    let machine = qemu("memory-backend-memfd,share=on");
    let link = Command::new("nsenter")
        .args(["-t", &machine.pid().to_string(), "-n"])
        .args([
            "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other",
        ])
        .status();
    assert!(link.unwrap().success());
    let notes = KataDir::new("/run/vc/sbs", "web");
    let asked = AtomicU64::new(0);
    let stats = move || mock::stats(mock::V2, &throttled(asked.fetch_add(1, Ordering::Relaxed)));
    let page = Answer::Bytes(http_chunked(GO));
    pod_that_uses(node, &notes, &machine, shim, page, stats);
    (notes, machine)
}

/// Not a test: draws docs/dashboard.png's page (see docs/how-to-alert.md).
#[test]
#[ignore = "draws the dashboard, after two minutes of scrapes: cargo test --test monitor draw -- --ignored"]
fn draw_the_dashboard() {
    let shop = Shop::open(3);
    std::thread::sleep(Duration::from_secs(120));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/grafana/preview.py");
    let page = Command::new("python3")
        .args([script, &shop.prometheus.url(), "2"])
        .output()
        .unwrap();
    assert!(page.status.success(), "{}", String::from_utf8_lossy(&page.stderr));
    let to = concat!(env!("CARGO_TARGET_TMPDIR"), "/dashboard.html");
    fs::write(to, page.stdout).unwrap();
    println!("{to}");
}

#[test]
fn each_query_of_the_dashboard_has_data_and_what_is_wrong_is_alerted_on() {
    needs!(
        "root",
        "prometheus",
        "promtool",
        "qemu-system-x86_64",
        "unshare",
        "ip",
        "nsenter"
    );
    let dashboard = fs::read_to_string(format!("{CHART}/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let shop = Shop::open(1);
    let (prometheus, id) = (&shop.prometheus, shop.ids()[0].clone());

    let mut expected = queries(&dashboard);
    assert!(expected.len() > 40, "{}", expected.len());
    let groups = prometheus.api("/api/v1/rules")["data"]["groups"].clone();
    let all_rules: Vec<_> = groups
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect();
    for rule in all_rules.iter().filter(|rule| rule["type"] == "recording") {
        let name = rule["name"].as_str().unwrap().to_string();
        expected.push((name.clone(), name));
    }
    let missing = without_data(prometheus, expected);
    assert!(missing.is_empty(), "no data: {missing:#?}");

    // What Grafana draws is right: the pod's row of the table, and its throttling.
    let value = |query: &str| prometheus.query(query)[0].1;
    let pod = format!("pod='{}'", id);
    assert_eq!(
        value(&format!(
            "namespace_pod:kata_sandbox_overhead_memory_bytes:sum{{namespace='shop',{pod}}}"
        )),
        value(&format!(
            "kata_sandbox_overhead_memory_bytes{{cri_name='{}'}}",
            id
        ))
    );

    let alerts = |name: &str| -> BTreeSet<String> {
        let alerts = prometheus.api("/api/v1/alerts")["data"]["alerts"].clone();
        let of_name = |alert: &&Value| alert["labels"]["alertname"] == name;
        let pod = |alert: &Value| {
            let label = |key: &str| alert["labels"][key].as_str().map(str::to_string);
            label("cri_name").or_else(|| label("pod")).unwrap_or_default()
        };
        alerts
            .as_array()
            .unwrap()
            .iter()
            .filter(of_name)
            .map(pod)
            .collect()
    };
    for (name, pod) in [
        ("KataSandboxDown", "dead"),
        ("KataSandboxUnanswered", "slow"),
        ("ContainerCPUThrottled", id.as_str()),
    ] {
        // Rules are evaluated once a second, each group at its own time.
        let expected = BTreeSet::from([pod.to_string()]);
        eventually(name, || alerts(name) == expected);
    }
    for name in [
        "KataGuestHung",
        "KataMonitorDown",
        "ContainerOOMKilled",
        "ContainerMemoryNearLimit",
    ] {
        assert!(alerts(name).is_empty(), "{name}: {:?}", alerts(name));
    }
    let unhealthy: Vec<_> = prometheus.api("/api/v1/rules")["data"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .filter(|rule| rule["health"] != "ok")
        .collect();
    assert!(unhealthy.is_empty(), "{unhealthy:#?}");
}
