//! The queries of kubernetes-mixin and of Kata's own dashboard, on a real Prometheus with the configuration in
//! `docs/dashboards.md`.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Instant;

use containerd_shim_protos::cgroups::metrics::{BlkIOEntry, Metrics, NetworkStat};
use protobuf::Message;
use test_needs::needs;

use crate::mock::{self, Call, Reply};
use crate::support::{Monitor, Node, annotations};
use crate::tsdb::Prometheus;

const MIXIN: &str = include_str!("public_dashboards/kubernetes-mixin.txt");
const KATA: &str = include_str!("public_dashboards/kata.txt");
const DOCUMENTED: &str = include_str!("../../docs/dashboards.md");

/// What kubernetes-mixin asks disks for (`diskDeviceSelector` of its `config.libsonnet`).
const DISK: &str = r#"device=~"(/dev.+)|mmcblk.p.+|nvme.+|rbd.+|sd.+|vd.+|xvd.+|dm-.+|dasd.+""#;

/// The families that a placeholder of the queries stands for.
const PLACEHOLDERS: [(&str, &[&str]); 7] = [
    (
        "<bytes>",
        &[
            "container_network_receive_bytes_total",
            "container_network_transmit_bytes_total",
        ],
    ),
    (
        "<packets>",
        &[
            "container_network_receive_packets_total",
            "container_network_receive_packets_dropped_total",
            "container_network_transmit_packets_total",
            "container_network_transmit_packets_dropped_total",
        ],
    ),
    (
        "<memory>",
        &[
            "container_memory_rss",
            "container_memory_cache",
            "container_memory_swap",
        ],
    ),
    (
        "<io>",
        &[
            "container_fs_reads_total",
            "container_fs_writes_total",
            "container_fs_reads_bytes_total",
            "container_fs_writes_bytes_total",
        ],
    ),
    ("<unit>", &["", "_bytes"]),
    ("<of>", &["requests", "limits"]),
    ("<disk>", &[DISK]),
];

/// What kube-state-metrics and the rules over it have of the pod.
const KUBE_STATE: &str = r#"kube_pod_info{namespace="shop",pod="web",node="n1",host_network="false"} 1
namespace_workload_pod:kube_pod_owner:relabel{namespace="shop",pod="web",workload="web",workload_type="deployment"} 1
kube_node_status_allocatable{node="n1",resource="cpu"} 4
kube_node_status_allocatable{node="n1",resource="memory"} 8e9
kube_pod_container_resource_requests{namespace="shop",pod="web",container="app",resource="cpu"} 0.5
kube_pod_container_resource_requests{namespace="shop",pod="web",container="app",resource="memory"} 1e8
kube_pod_container_resource_limits{namespace="shop",pod="web",container="app",resource="cpu"} 0.5
kube_pod_container_resource_limits{namespace="shop",pod="web",container="app",resource="memory"} 1e8
namespace_cpu:kube_pod_container_resource_requests:sum{namespace="shop"} 0.5
namespace_cpu:kube_pod_container_resource_limits:sum{namespace="shop"} 0.5
namespace_memory:kube_pod_container_resource_requests:sum{namespace="shop"} 1e8
namespace_memory:kube_pod_container_resource_limits:sum{namespace="shop"} 1e8
cluster:namespace:pod_cpu:active:kube_pod_container_resource_requests{namespace="shop",pod="web",container="app"} 0.5
cluster:namespace:pod_cpu:active:kube_pod_container_resource_limits{namespace="shop",pod="web",container="app"} 0.5
cluster:namespace:pod_memory:active:kube_pod_container_resource_requests{namespace="shop",pod="web",container="app"} 1e8
cluster:namespace:pod_memory:active:kube_pod_container_resource_limits{namespace="shop",pod="web",container="app"} 1e8
"#;

/// A query, and what it is recorded as, if it is a rule.
struct Query {
    record: Option<String>,
    expression: String,
}

/// The queries of a file, with each placeholder in all its meanings.
fn queries(text: &str) -> Vec<Query> {
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(['#', '-']));
    lines
        .flat_map(|line| expand(line.to_string()))
        .map(|line| query(&line))
        .collect()
}

fn expand(line: String) -> Vec<String> {
    let placeholder = PLACEHOLDERS
        .iter()
        .find(|(placeholder, _)| line.contains(placeholder));
    match placeholder {
        None => vec![line],
        Some((placeholder, meanings)) => {
            let one = |meaning: &&str| expand(line.replace(placeholder, meaning));
            meanings.iter().flat_map(one).collect()
        }
    }
}

fn query(line: &str) -> Query {
    let (record, expression) = match line.split_once(" = ") {
        Some((name, expression)) if !name.contains([' ', '{', '(']) => (Some(name.to_string()), expression),
        _ => (None, line),
    };
    Query {
        record,
        expression: expression.to_string(),
    }
}

/// The first example of the documentation, with this exporter and this pace.
fn config(monitor: &Monitor, kube_state: &str) -> String {
    let example = DOCUMENTED
        .split("```yaml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    let example = example.expect("an example");
    // The parts that need a cluster.
    let discovery = example.find("    kubernetes_sd_configs").expect("discovery");
    let relabelling = example.find("    metric_relabel_configs").expect("relabelling");
    format!(
        "global:\n  scrape_interval: 1100ms\n  evaluation_interval: 1s\nrule_files: [rules.yml]\n\
         {}    static_configs:\n      - targets: ['{}']\n{}\
         \x20 - job_name: kube-state-metrics\n    honor_labels: true\n    static_configs:\n      - targets: ['{kube_state}']\n",
        &example[..discovery],
        monitor.address(),
        &example[relabelling..],
    )
}

/// Recording rules, with a few lines of YAML each.
fn rules(queries: &[Query]) -> String {
    let mut text = "groups:\n  - name: mixin\n    rules:\n".to_string();
    for query in queries {
        if let Some(record) = &query.record {
            text += &format!("      - record: {record}\n        expr: '{}'\n", query.expression);
        }
    }
    text
}

/// Serves this page to whoever asks.
fn serve_page(page: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(format!("{head}{page}").as_bytes());
        }
    });
    address
}

/// A container that uses a quarter of a CPU, is throttled in half of its periods, reads 1 MB and 100 times a second from
/// /dev/sda and writes half of that; its pod receives 2 MB and 2,000 packets a second and sends half of that.
fn known_behaviour() -> impl Fn(&Call) -> Reply + Send + Sync + 'static {
    let documented = Metrics::parse_from_bytes(mock::DOCUMENTED).unwrap();
    let started = Instant::now();
    move |call| {
        if call.method == "State" {
            return mock::running(0);
        }
        let seconds = started.elapsed().as_secs_f64();
        let grown = |rate: f64| (rate * seconds) as u64;
        let mut metrics = documented.clone();
        let cpu = metrics.cpu.mut_or_insert_default();
        cpu.usage.mut_or_insert_default().total = 1_000_000_000 + grown(0.25e9);
        let throttling = cpu.throttling.mut_or_insert_default();
        (throttling.periods, throttling.throttled_periods) = (100 + grown(1000.0), 50 + grown(500.0));
        metrics.network = vec![NetworkStat {
            name: "eth0".into(),
            rx_bytes: grown(2e6),
            rx_packets: grown(2e3),
            rx_dropped: grown(20.0),
            tx_bytes: grown(1e6),
            tx_packets: grown(1e3),
            tx_dropped: grown(10.0),
            ..Default::default()
        }];
        let entry = |op: &str, rate: f64| BlkIOEntry {
            major: 8,
            op: op.into(),
            value: grown(rate),
            ..Default::default()
        };
        let devices = metrics.blkio.mut_or_insert_default();
        devices.io_service_bytes_recursive = vec![entry("Read", 1e6), entry("Write", 5e5)];
        devices.io_serviced_recursive = vec![entry("Read", 100.0), entry("Write", 50.0)];
        mock::stats(mock::V1, &metrics.write_to_bytes().unwrap())
    }
}

/// A node with the pod `shop/web`: a sandbox, and a container in it.
fn node() -> Node {
    let node = Node::new();
    for (id, kind, image) in [
        ("s1", "sandbox", "io.kubernetes.cri.podsandbox.image-name"),
        ("c1", "container", "io.kubernetes.cri.image-name"),
    ] {
        let mut of_pod = annotations("s1", kind, &[]);
        of_pod.retain(|(key, _)| *key != "io.kubernetes.cri.sandbox-name");
        of_pod.push(("io.kubernetes.cri.sandbox-name", "web"));
        of_pod.push((image, "registry.example/image:1"));
        if kind == "container" {
            of_pod.push(("io.kubernetes.cri.container-name", "app"));
        }
        let (_, socket) = node.node.bundle("k8s.io", id, &of_pod);
        mock::serve(&socket, known_behaviour());
    }
    node
}

#[test]
fn the_queries_of_kubernetes_mixin_answer() {
    needs!("prometheus", "promtool");
    let node = node();
    let monitor = node.monitor();
    let queries = queries(MIXIN);
    assert!(queries.len() > 100, "{}", queries.len());
    let prometheus = Prometheus::start(&config(&monitor, &serve_page(KUBE_STATE)), &rules(&queries));
    prometheus.eventually("count_over_time(container_last_seen{id='c1'}[4s]) >= 3", 1);
    for query in &queries {
        let query = query.record.as_ref().unwrap_or(&query.expression);
        prometheus.eventually_so(query, |found| !found.is_empty());
    }
    // Beside what the container does.
    let by_container = "sum by (namespace, pod, container)";
    for (query, expected, tolerance) in [
        (
            "sum(node_namespace_pod_container:container_cpu_usage_seconds_total:sum_rate5m)",
            0.25,
            0.01,
        ),
        (
            "sum by (pod) (8 * rate(container_network_receive_bytes_total{job='cadvisor',pod='web'}[4s]))",
            16e6,
            0.01,
        ),
        (
            "sum by (pod) (8 * rate(container_network_transmit_bytes_total{job='cadvisor',pod='web'}[4s]))",
            8e6,
            0.01,
        ),
        (
            &format!(
                "sum by (pod) (rate(container_fs_reads_bytes_total{{job='cadvisor',{DISK},container!=''}}[4s]))"
            ),
            1e6,
            0.01,
        ),
        (
            &format!(
                "sum by (pod) (rate(container_fs_writes_total{{job='cadvisor',{DISK},container!=''}}[4s]))"
            ),
            50.0,
            0.01,
        ),
        (
            "sum by (container) (increase(container_cpu_cfs_throttled_periods_total{job='cadvisor',container!=''}[4s])) / \
             sum by (container) (increase(container_cpu_cfs_periods_total{job='cadvisor',container!=''}[4s]))",
            0.5,
            0.01,
        ),
        // The documented example: usage 1204224, and 839680 of it inactive file pages.
        (
            &format!("{by_container} (node_namespace_pod_container:container_memory_working_set_bytes)"),
            364_544.0,
            0.0,
        ),
        (
            &format!("{by_container} (container_memory_working_set_bytes{{container!='',image!=''}})"),
            364_544.0,
            0.0,
        ),
    ] {
        let near = |value: f64| (value - expected).abs() <= expected * tolerance;
        prometheus.eventually_so(query, |found| matches!(found, [(_, value)] if near(*value)));
    }
}

#[test]
fn the_queries_of_katas_dashboard_answer() {
    needs!("prometheus", "promtool");
    let node = Node::new();
    node.pod("pod1");
    let monitor = node.monitor();
    let prometheus = Prometheus::start(&config(&monitor, &serve_page(KUBE_STATE)), "");
    prometheus.eventually("count_over_time(kata_monitor_scrape_count[4s]) >= 3", 1);
    for query in queries(KATA) {
        prometheus.eventually_so(&query.expression, |found| !found.is_empty());
    }
    for line in KATA.lines().filter_map(|line| line.strip_prefix("- ")) {
        assert!(
            prometheus.query(line).is_empty(),
            "{line} answers: take it off the list"
        );
    }
}
