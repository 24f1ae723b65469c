//! A real Prometheus scrapes the exporter, one node's and three nodes'.

use std::process::Command;

use test_needs::needs;

use crate::support::{Monitor, Node};
use crate::tsdb::Prometheus;

#[test]
fn prometheus_scrapes_it() {
    needs!("prometheus", "promtool");
    let node = Node::new();
    node.pod("pod1");
    node.pod("pod2");
    let monitor = node.monitor();
    let prometheus = Prometheus::start(
        &format!(
            "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n\
             scrape_configs:\n  - job_name: node\n    static_configs:\n      - targets: ['{}']\n",
            monitor.address()
        ),
        "",
    );
    assert_eq!(prometheus.eventually("up{job='node'} == 1", 1)[0].1, 1.0);
    for pod in ["pod1", "pod2"] {
        let load = prometheus.eventually(&format!("kata_guest_load{{cri_name='{pod}',item='load1'}}"), 1);
        assert_eq!(load[0].0["sandbox_id"], pod);
        assert_eq!(load[0].0["cri_namespace"], "shop");
        let query = format!("container_memory_usage_bytes{{namespace='shop',pod='{pod}',container='app'}}");
        let memory = prometheus.eventually(&query, 1);
        assert_eq!(
            (memory[0].1, &memory[0].0["id"]),
            (1_777_664.0, &format!("{pod}-app").into())
        );
    }
    // As Kubernetes' own dashboards ask for it.
    let by_pod = "sum by (namespace, pod) (container_memory_working_set_bytes{container!='', image!='', \
                  namespace='shop'})";
    assert_eq!(prometheus.eventually(by_pod, 2)[0].1, 1_777_664.0);
    assert_eq!(
        prometheus
            .eventually("scrape_samples_scraped{job='node'} > 1000", 1)
            .len(),
        1
    );
    drop(monitor);
    assert_eq!(prometheus.eventually("up{job='node'} == 0", 1)[0].1, 0.0);
}

#[cfg(feature = "web-config")]
#[test]
fn prometheus_scrapes_it_by_tls_with_a_password() {
    needs!("prometheus", "promtool", "openssl");
    use crate::protection::Files;
    let (node, files) = (Node::new(), Files::new());
    node.pod("pod1");
    let monitor = files.monitor(
        &node,
        "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n\
         basic_auth_users:\n  bob: $2y$04$LBYa0lJ0GtfEWl8LNN/IEuGRioK7L4Ys9Eg5j9wNC6qtJstaPg53e\n",
    );
    let job = |name: &str, password: &str| {
        format!(
            "  - job_name: {name}\n    scheme: https\n    basic_auth:\n      username: bob\n      password: {password}\n    \
             tls_config:\n      ca_file: {}\n    static_configs:\n      - targets: ['{}']\n",
            files.path("ca.crt").display(),
            monitor.address()
        )
    };
    let config = format!(
        "global:\n  scrape_interval: 1s\nscrape_configs:\n{}{}",
        job("right", "builder"),
        job("wrong", "guess")
    );
    let prometheus = Prometheus::start(&config, "");
    prometheus.eventually("up{job='right'} == 1", 1);
    prometheus.eventually("kata_guest_load{job='right',cri_name='pod1',item='load1'}", 1);
    prometheus.eventually("up{job='wrong'} == 0", 1);
}

/// A network namespace with an address that this machine's own namespace reaches.
struct Machine {
    name: String,
    address: String,
}

impl Machine {
    fn new(number: u8) -> Self {
        let name = format!("krmon{}n{number}", std::process::id());
        // A net of documentation addresses for each test process, so that several can run on one machine.
        let net = format!("198.18.{}.{}", std::process::id() % 250, u32::from(number) * 4);
        let (base, last) = net.rsplit_once('.').unwrap();
        let host = |offset: u32| format!("{base}.{}", last.parse::<u32>().unwrap() + offset);
        let machine = Self {
            address: host(2),
            name,
        };
        let name = &machine.name;
        let (outside, inside) = (
            format!("kro{number}x{}", std::process::id()),
            format!("kri{number}x{}", std::process::id()),
        );
        ip(&["netns", "add", name]);
        ip(&["link", "add", &outside, "type", "veth", "peer", "name", &inside]);
        ip(&["link", "set", &inside, "netns", name]);
        ip(&["addr", "add", &format!("{}/30", host(1)), "dev", &outside]);
        ip(&["link", "set", &outside, "up"]);
        ip(&[
            "-n",
            name,
            "addr",
            "add",
            &format!("{}/30", machine.address),
            "dev",
            &inside,
        ]);
        ip(&["-n", name, "link", "set", &inside, "up"]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        machine
    }

    fn monitor(&self, node: &Node) -> Monitor {
        let inner = node
            .node
            .command(&["monitor", "--listen-address", &format!("{}:8090", self.address)]);
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name])
            .arg(inner.get_program())
            .args(inner.get_args())
            .env_remove("CONTAINERD_NAMESPACE");
        Monitor::start(command)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The pair of interfaces goes with it.
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("ip is there: tests/run.sh installs it");
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn one_prometheus_over_three_nodes_adds_them_up() {
    needs!("root", "ip", "prometheus", "promtool");
    let machines = [1, 2, 3].map(Machine::new);
    let nodes = [1, 2, 3].map(|pods| {
        let node = Node::new();
        for pod in 0..pods {
            node.pod(&format!("n{pods}p{pod}"));
        }
        node
    });
    let monitors: Vec<_> = machines
        .iter()
        .zip(&nodes)
        .map(|(machine, node)| machine.monitor(node))
        .collect();
    let targets: Vec<_> = monitors
        .iter()
        .map(|monitor| format!("'{}'", monitor.address()))
        .collect();
    let prometheus = Prometheus::start(
        &format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [rules.yml]\n\
             scrape_configs:\n  - job_name: kata\n    static_configs:\n      - targets: [{}]\n",
            targets.join(", ")
        ),
        "groups:\n  - name: nodes\n    rules:\n      - record: namespace:container_memory_usage_bytes:sum\n        \
         expr: sum by (namespace) (container_memory_usage_bytes{container!=\"\"})\n      \
         - record: kata:sandboxes:sum\n        expr: sum(kata_monitor_sandbox_up{cri_namespace=\"shop\"})\n",
    );
    prometheus.eventually("up{job='kata'} == 1", 3);
    // One, two and three pods: each has a container that uses what was recorded.
    prometheus.eventually("kata:sandboxes:sum == 6", 1);
    let sum = "namespace:container_memory_usage_bytes:sum{namespace='shop'}";
    let found = prometheus.eventually(&format!("{sum} == {}", 6 * 1_777_664), 1);
    assert_eq!(found[0].0["namespace"], "shop");
    for (monitor, pods) in monitors.iter().zip([1.0, 2.0, 3.0]) {
        let query = format!(
            "sum(kata_monitor_sandbox_up{{instance='{}',cri_namespace='shop'}})",
            monitor.address()
        );
        assert_eq!(prometheus.query(&query)[0].1, pods);
    }
}

#[test]
fn the_rules_pass_their_own_tests() {
    needs!("promtool");
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/prometheus");
    let mut tests: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().ends_with("_test.yaml"))
        .collect();
    tests.sort();
    assert!(tests.len() >= 2, "{tests:?}");
    let output = Command::new("promtool")
        .args(["test", "rules"])
        .args(tests)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
