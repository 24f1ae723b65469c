//! What Kubernetes' dashboards and sums rely on: nothing is counted twice, and a sandbox's own container stays out of them.

use std::fs;
use std::process::{Child, Command, Stdio};

use containerd_shim_protos::cgroups::metrics::{Metrics, NetworkStat};
use protobuf::Message;
use test_needs::needs;

use crate::exporter::{Page, label};
use crate::mock::{self, Call, Reply};
use crate::support::{Monitor, Node, annotations, eventually};

/// A network entry of a reply, with this many bytes.
fn link(name: &str, rx_bytes: u64, tx_bytes: u64) -> NetworkStat {
    NetworkStat {
        name: name.into(),
        rx_bytes,
        tx_bytes,
        ..Default::default()
    }
}

/// A shim whose task has this pid, and whose reply has these network entries.
fn shim(pid: u32, network: Vec<NetworkStat>) -> impl Fn(&Call) -> Reply + Send + Sync + 'static {
    let metrics = Metrics {
        network,
        ..Default::default()
    };
    let stats = metrics.write_to_bytes().unwrap();
    move |call| match call.method.as_str() {
        "State" => mock::running(pid),
        _ => mock::stats(mock::V1, &stats),
    }
}

/// What `sum(NAME)` is over a pod.
fn sum(page: &Page, name: &str, pod: &str) -> u64 {
    let samples = page.samples(name, &[("pod", pod)]);
    let values = samples.iter().map(|line| line.rsplit_once(' ').unwrap().1);
    values.map(|value| value.parse::<u64>().unwrap()).sum()
}

#[test]
fn a_pods_traffic_is_that_of_its_own_links() {
    let node = Node::new();
    let (_, socket) = node
        .node
        .bundle("k8s.io", "pod1", &annotations("pod1", "sandbox", &[]));
    mock::serve(
        &socket,
        shim(
            0,
            vec![
                link("lo", 7_000, 7_000),
                link("eth0", 1_000_000, 50_000),
                link("tap0_kata", 50_000, 1_000_000),
                link("docker0", 300, 400),
                link("veth12ab", 500, 600),
                link("br-0123456789ab", 700, 800),
                link("nerdctl0", 900, 1_000),
            ],
        ),
    );
    let page = node.monitor().scrape();
    assert_eq!(
        sum(&page, "container_network_receive_bytes_total", "pod1"),
        1_000_000
    );
    assert_eq!(
        sum(&page, "container_network_transmit_bytes_total", "pod1"),
        50_000
    );
}

/// A process in a network namespace of its own, with an `eth0`.
struct InNetwork(Child);

impl InNetwork {
    fn new() -> Self {
        // Whom the datagram is for is asked for on the link, and nobody answers.
        let script = "ip link add eth0 type veth peer name veth0ab && ip addr add 198.51.100.1/24 dev eth0 && \
                      ip link set eth0 up && ip link set veth0ab up && echo x >/dev/udp/198.51.100.2/9; echo up; \
                      exec sleep 1000";
        let mut child = Command::new("unshare")
            .args(["--net", "bash", "-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        assert_eq!(line, "up\n");
        Self(child)
    }

    /// Bytes that its eth0 has sent, by the kernel.
    fn sent(&self) -> u64 {
        let dev = fs::read_to_string(format!("/proc/{}/net/dev", self.0.id())).unwrap();
        let line = dev.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
        line.unwrap().split_whitespace().nth(8).unwrap().parse().unwrap()
    }
}

impl Drop for InNetwork {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// gVisor's containers have a shim each, and are in one network.
#[test]
fn a_pods_network_is_told_once_whatever_shims_there_are() {
    needs!("root", "ip", "unshare", "bash");
    let node = Node::new();
    let network = InNetwork::new();
    let pid = network.0.id();
    for (id, kind) in [("s", "sandbox"), ("a", "container"), ("b", "container")] {
        let mut of_pod = annotations("s", kind, &[]);
        if kind == "container" {
            of_pod.push(("io.kubernetes.cri.container-name", id));
        }
        let (_, socket) = node.node.bundle("k8s.io", id, &of_pod);
        mock::serve(&socket, shim(pid, vec![]));
    }
    let name = "container_network_transmit_bytes_total";
    eventually("it has asked for its neighbour", || network.sent() > 0);
    let before = network.sent();
    let page = node.monitor().scrape();
    let counted = sum(&page, name, "s");
    assert_eq!(page.samples(name, &[("pod", "s")]).len(), 1, "{}", page.text);
    // The link's own discovery goes on meanwhile.
    assert!((before..=network.sent()).contains(&counted), "{before} {counted}");
    // The sandbox's own container does not answer: the next one tells it.
    let node = Node::new();
    let (_, socket) = node.node.bundle("k8s.io", "s", &annotations("s", "sandbox", &[]));
    mock::serve(&socket, |_| mock::stopped(0));
    let (_, socket) = node
        .node
        .bundle("k8s.io", "a", &annotations("s", "container", &[]));
    mock::serve(&socket, shim(pid, vec![]));
    let page = node.monitor().scrape();
    assert_eq!(page.samples(name, &[("interface", "eth0"), ("id", "a")]).len(), 1);
}

/// Docker's `--network container:`, and pods of CRI-O with a network in common.
#[test]
fn a_network_that_two_pods_are_in_is_told_of_the_older() {
    needs!("root", "ip", "unshare", "bash");
    let node = Node::new();
    let network = InNetwork::new();
    let name = "container_network_transmit_bytes_total";
    let hour_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3600);
    for (id, changed) in [("a", None), ("b", Some(hour_ago)), ("c", None)] {
        let (bundle, socket) = node.node.bundle("k8s.io", id, &annotations(id, "sandbox", &[]));
        let spec = fs::File::open(bundle.join("config.json")).unwrap();
        changed
            .into_iter()
            .for_each(|time| spec.set_modified(time).unwrap());
        mock::serve(&socket, shim(network.0.id(), vec![]));
    }
    let monitor = node.monitor();
    for scrape in 0..2 {
        let page = monitor.scrape();
        let rows = page.samples(name, &[("interface", "eth0")]);
        let ids: Vec<_> = rows.iter().map(|row| label(row, "id").unwrap()).collect();
        assert_eq!(ids, ["b"], "scrape {scrape}: {}", page.text);
        for id in ["a", "b", "c"] {
            assert_eq!(page.value("kata_monitor_container_up", &[("id", id)]), "1");
            assert_eq!(
                page.samples("container_last_seen", &[("id", id)]).len(),
                1,
                "{id}"
            );
        }
    }
    // The one that told it has gone.
    fs::remove_dir_all(
        node.node
            .state_dir()
            .join("io.containerd.runtime.v2.task/k8s.io/b"),
    )
    .unwrap();
    assert_eq!(monitor.scrape().samples(name, &[("interface", "eth0")]).len(), 1);
}

#[test]
fn without_the_right_to_look_at_processes_the_network_is_not_known() {
    needs!("root", "ip", "unshare", "bash", "setpriv");
    let node = Node::new();
    let network = InNetwork::new();
    node.node.task("c1", shim(network.0.id(), vec![]));
    let without = |inner: &Command| {
        let mut command = Command::new("setpriv");
        command
            .args(["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"])
            .arg(inner.get_program())
            .args(inner.get_args())
            .env_remove("CONTAINERD_NAMESPACE");
        command
    };
    let ran = mock::finish(without(&node.node.command(&["events", "--stats", "c1"])));
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let event: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    for key in ["interfaces", "tcp", "udp6"] {
        assert_eq!(event["data"].get(key), None, "{key}");
    }
    assert_eq!(ran.stderr.matches("CAP_SYS_PTRACE").count(), 1, "{}", ran.stderr);
    let arguments = ["monitor", "--listen-address", "127.0.0.1:0"];
    let page = Monitor::start(without(&node.node.command(&arguments))).scrape();
    assert_eq!(page.value("kata_monitor_host_processes_readable", &[]), "0");
    assert_eq!(page.value("kata_monitor_host_pids_visible", &[]), "1");
    assert!(
        page.samples("container_network_transmit_bytes_total", &[])
            .is_empty()
    );
    let page = node.monitor().scrape();
    assert_eq!(page.value("kata_monitor_host_processes_readable", &[]), "1");
}

/// The program in a pid namespace of its own, as in a pod without `hostPID`.
fn in_a_pid_namespace(inner: &Command) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env_remove("CONTAINERD_NAMESPACE");
    command
}

#[test]
fn without_the_hosts_pids_the_network_is_not_known() {
    needs!("root", "ip", "unshare", "bash");
    let node = Node::new();
    let network = InNetwork::new();
    node.node.task("c1", shim(network.0.id(), vec![]));
    let events = ["-v", "events", "--stats", "--format", "json", "c1"];
    let inside = mock::finish(in_a_pid_namespace(&node.node.command(&events)));
    assert_eq!(inside.status, Some(0), "{}", inside.stderr);
    let event: serde_json::Value = serde_json::from_str(&inside.stdout).unwrap();
    for key in ["interfaces", "tcp", "udp6"] {
        assert_eq!(event["data"].get(key), None, "{key}");
    }
    assert_eq!(
        inside.stderr.matches("pid namespace").count(),
        1,
        "{}",
        inside.stderr
    );
    let outside = mock::finish(node.node.command(&events));
    let event: serde_json::Value = serde_json::from_str(&outside.stdout).unwrap();
    let names = event["data"]["interfaces"].as_array().unwrap().iter();
    assert!(names.clone().any(|interface| interface["name"] == "eth0"));
    assert!(!outside.stderr.contains("pid namespace"), "{}", outside.stderr);

    let arguments = ["monitor", "--listen-address", "127.0.0.1:0"];
    let monitor = Monitor::start(in_a_pid_namespace(&node.node.command(&arguments)));
    let page = monitor.scrape();
    assert_eq!(page.value("kata_monitor_host_pids_visible", &[]), "0");
    assert!(
        page.samples("container_network_transmit_bytes_total", &[])
            .is_empty()
    );
    assert_eq!(page.samples("container_last_seen", &[("id", "c1")]).len(), 1);
    let page = node.monitor().scrape();
    assert_eq!(page.value("kata_monitor_host_pids_visible", &[]), "1");
    assert!(
        !page
            .samples("container_network_transmit_bytes_total", &[])
            .is_empty()
    );
}

#[test]
fn a_sandboxs_own_container_is_in_no_sum_of_the_dashboards() {
    let node = Node::new();
    let image = [(
        "io.kubernetes.cri.podsandbox.image-name",
        "registry.k8s.io/pause:3.9",
    )];
    let (_, socket) = node
        .node
        .bundle("k8s.io", "pod1", &annotations("pod1", "sandbox", &image));
    mock::serve(&socket, mock::healthy);
    let app = [
        ("io.kubernetes.cri.container-name", "app"),
        ("io.kubernetes.cri.image-name", "registry.example/app:1"),
    ];
    let (_, socket) = node
        .node
        .bundle("k8s.io", "app", &annotations("pod1", "container", &app));
    mock::serve(&socket, mock::healthy);
    let page = node.monitor().scrape();
    let rows = page.samples("container_memory_working_set_bytes", &[("pod", "pod1")]);
    assert_eq!(rows.len(), 2, "{rows:#?}");
    // `container!=""`, `image!=""`, and both.
    for key in ["container", "image"] {
        let passes: Vec<_> = rows.iter().filter(|row| label(row, key).is_some()).collect();
        assert_eq!(passes.len(), 1, "{key}: {passes:#?}");
        assert_eq!(label(passes[0], "id"), Some("app"));
    }
}

#[test]
fn a_container_has_the_name_that_people_gave_it() {
    let node = Node::new();
    for (id, own) in [("c1", Some(("nerdctl/name", "web"))), ("c2", None)] {
        let (_, socket) = node.node.bundle("default", id, own.as_slice());
        mock::serve(&socket, mock::healthy);
    }
    let page = node.monitor().scrape();
    for (id, name) in [("c1", "web"), ("c2", "c2")] {
        let labels = [("id", id), ("name", name)];
        assert_eq!(
            page.samples("container_memory_usage_bytes", &labels).len(),
            1,
            "{id}"
        );
    }
}
