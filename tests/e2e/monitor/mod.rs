//! `monitor` on containers of real containerds, scraped by a real Prometheus.

mod contract;
mod usage;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::exporter::{Monitor, Page};
use crate::support::{Containerd, Task, for_each_containerd};
use crate::tsdb::Prometheus;
use crate::wire::wire;

const IDLE: [&str; 2] = ["sleep", "1000"];

/// How old an answer may be that a scrape shares with one before it.
pub const SHARED: Duration = Duration::from_millis(1100);

/// The annotations of a pod `shop/web`, as containerd's CRI writes them: three of the pod, two of a container in it.
const POD: [&str; 10] = [
    "--annotation",
    "io.kubernetes.cri.sandbox-namespace=shop",
    "--annotation",
    "io.kubernetes.cri.sandbox-name=web",
    "--annotation",
    "io.kubernetes.cri.sandbox-uid=11111111-2222-3333-4444-555555555555",
    "--annotation",
    "io.kubernetes.cri.image-name=localhost/busybox:1",
    "--annotation",
    "io.kubernetes.cri.container-name=app",
];

fn run_pod<'a>(containerd: &'a Containerd, options: &[&str], command: &[&str]) -> (Task<'a>, Task<'a>) {
    let sandbox = containerd.run_sandbox(&POD[..6]);
    // As in a pod of Kubernetes, all are in the sandbox's network.
    let network = format!("network:/proc/{}/ns/net", sandbox.pid());
    let options = [&POD, &["--with-ns", &network][..], options].concat();
    let child = containerd.run_child(&sandbox, &options, command);
    (sandbox, child)
}

fn delete(containerd: &Containerd, task: &Task) {
    task.stop();
    containerd.ctr(&["task", "rm", &task.id]);
    containerd.ctr(&["container", "rm", &task.id]);
}

pub fn monitor(containerd: &Containerd) -> Monitor {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kata-runtime"));
    command.args(["--state", &containerd.state()]);
    command.args(["monitor", "--listen-address", "127.0.0.1:0"]);
    command.env_remove("CONTAINERD_NAMESPACE");
    Monitor::start(command)
}

fn prometheus(monitor: &Monitor) -> Prometheus {
    let config = format!(
        "global:\n  scrape_interval: 1s\n  scrape_timeout: 1s\n\
         scrape_configs:\n  - job_name: node\n    static_configs:\n      - targets: ['{}']\n",
        monitor.address()
    );
    Prometheus::start(&config, "")
}

/// The one value that a query gives.
#[track_caller]
fn value(prometheus: &Prometheus, query: &str) -> f64 {
    match prometheus.query(query)[..] {
        [(_, value)] => value,
        ref found => panic!("{query} gives {found:?}"),
    }
}

/// Connects from the network namespace of another process, and reads to the end.
fn download_in(pid: u32, from: &str) -> usize {
    let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("the process is there");
    let from = from.to_owned();
    // A thread of its own, because only that goes over into the namespace.
    let reading = thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may enter it");
        let mut all = Vec::new();
        let mut stream = TcpStream::connect((from.as_str(), 9000)).expect("the server listens");
        stream.read_to_end(&mut all).expect("it sends");
        all.len()
    });
    reading.join().expect("a download")
}

#[test]
fn a_pods_traffic_is_counted_once() {
    const SENT: usize = 4 << 20;
    const RECEIVED: &str = "container_network_receive_bytes_total";
    for_each_containerd(|containerd| {
        // An address of this process's own, as other tests may run beside it.
        let net = format!("169.254.{}", std::process::id() % 250 + 1);
        let (host, guest) = (format!("{net}.5"), format!("{net}.6"));
        let (sandbox, child) = run_pod(containerd, &[], &IDLE);
        let on_host = containerd.run_container(&["--net-host"], &IDLE);
        wire(&sandbox, &host, &guest);
        let monitor = monitor(containerd);
        let received = |page: &Page| -> u64 {
            let labels = [("id", &*sandbox.id), ("interface", "eth0"), ("pod", "web")];
            page.value(RECEIVED, &labels).parse().expect("a number")
        };
        let before = received(&monitor.scrape());
        let server = TcpListener::bind((host.as_str(), 9000)).expect("the address is ours");
        let sender = thread::spawn(move || {
            let (mut client, _) = server.accept().expect("a client");
            client.write_all(&vec![b'x'; SENT]).expect("it takes it");
        });
        // From the child's side: it is one network.
        assert_eq!(download_in(child.pid(), &host), SENT);
        sender.join().unwrap();
        thread::sleep(SHARED);
        let page = monitor.scrape();
        let counted = (received(&page) - before) as f64;
        // With headers, and what was sent again.
        assert!(
            (1.0..1.25).contains(&(counted / SENT as f64)),
            "{counted} of {SENT}"
        );
        let sent = page.value(
            "container_network_transmit_packets_total",
            &[("id", &sandbox.id), ("interface", "eth0")],
        );
        assert!(
            sent.parse::<u64>().expect("a number") > 2,
            "{sent}: at least its acknowledgements"
        );
        // The child tells nothing of it a second time, and the machine's traffic is nobody's.
        for id in [&child.id, &on_host.id] {
            assert!(page.samples(RECEIVED, &[("id", id)]).is_empty(), "{id}");
            page.value("container_cpu_usage_seconds_total", &[("id", id)]);
        }
        assert_eq!(page.samples(RECEIVED, &[("pod", "web")]).len(), 1, "and no lo");
        page.check();
    });
}

#[test]
fn what_comes_and_goes_does_so_in_the_next_scrape() {
    for_each_containerd(|containerd| {
        let monitor = monitor(containerd);
        let up = |page: &Page, id: &str| -> Option<bool> {
            let rows = page.samples("kata_monitor_container_up", &[("id", id)]);
            let cpu = page.samples("container_cpu_usage_seconds_total", &[("id", id)]);
            let up = rows.first()?.ends_with(" 1");
            assert_eq!((rows.len(), cpu.len()), (1, usize::from(up)), "{rows:?} {cpu:?}");
            Some(up)
        };
        assert!(
            monitor
                .scrape()
                .samples("kata_monitor_container_up", &[])
                .is_empty()
        );
        let plain = containerd.run_container(&[], &IDLE);
        let page = monitor.scrape();
        assert_eq!(up(&page, &plain.id), Some(true));
        let (sandbox, child) = run_pod(containerd, &[], &IDLE);
        let page = monitor.scrape();
        page.check();
        for task in [&plain, &sandbox, &child] {
            assert_eq!(up(&page, &task.id), Some(true), "{}", task.id);
        }
        assert_eq!(page.sandbox(&sandbox.id), ("1", None));
        let guest = [("sandbox_id", &*sandbox.id), ("item", "load1")];
        assert_eq!(page.samples("kata_guest_load", &guest).len(), 1);
        // A second container in the pod is there too, although its shim was asked a moment ago.
        let second = containerd.run_child(&sandbox, &POD, &IDLE);
        assert_eq!(up(&monitor.scrape(), &second.id), Some(true));

        // A task that has stopped and was not deleted is not served as if it ran.
        plain.stop();
        thread::sleep(SHARED);
        let page = monitor.scrape();
        assert_eq!(up(&page, &plain.id), Some(false));
        let why = [("id", &*plain.id), ("reason", "stopped")];
        assert_eq!(page.samples("kata_monitor_container_failure", &why).len(), 1);
        containerd.ctr(&["task", "rm", &plain.id]);
        delete(containerd, &second);
        let page = monitor.scrape();
        for id in [&plain.id, &second.id] {
            assert!(!page.text.contains(id.as_str()), "{id} is gone");
        }
        assert_eq!(up(&page, &child.id), Some(true));
        delete(containerd, &child);
        delete(containerd, &sandbox);
        let page = monitor.scrape();
        assert!(!page.text.contains(&sandbox.id) && !page.text.contains(&child.id));
        page.check();
    });
}

#[test]
fn a_stopped_shim_costs_its_own_rows() {
    for_each_containerd(|containerd| {
        let monitor = monitor(containerd);
        let prometheus = prometheus(&monitor);
        let plain = containerd.run_container(&[], &IDLE);
        let hung = run_pod(containerd, &[], &IDLE);
        let well = run_pod(containerd, &[], &IDLE);
        prometheus.eventually("container_cpu_usage_seconds_total", 5);
        prometheus.eventually("kata_monitor_sandbox_up{cri_name='web'} == 1", 2);

        hung.0.signal_shim(Signal::SIGSTOP);
        let down = |id: &str| format!("kata_monitor_sandbox_up{{sandbox_id='{id}'}} == 0");
        prometheus.eventually(&down(&hung.0.id), 1);
        for task in [&hung.0, &hung.1] {
            let query = format!("kata_monitor_container_up{{id='{}'}} == 0", task.id);
            prometheus.eventually(&query, 1);
            let query = format!("container_cpu_usage_seconds_total{{id='{}'}}", task.id);
            prometheus.eventually(&query, 0);
        }
        // A few scrapes on, the others are as they were. (A busy machine may miss one.)
        thread::sleep(Duration::from_secs(3));
        let mostly = |row: &str| {
            let share = value(&prometheus, &format!("avg_over_time({row}[4s])"));
            assert!(share > 0.5, "{row} is up for {share} of the scrapes");
        };
        mostly("up{job='node'}");
        for task in [&plain, &well.0, &well.1] {
            mostly(&format!("kata_monitor_container_up{{id='{}'}}", task.id));
            let query = format!("container_cpu_usage_seconds_total{{id='{}'}}", task.id);
            prometheus.eventually(&query, 1);
        }
        mostly(&format!("kata_monitor_sandbox_up{{sandbox_id='{}'}}", well.0.id));
        let page = monitor.scrape();
        page.check();
        let (up, reason) = page.sandbox(&hung.0.id);
        assert!(
            up == "0" && matches!(reason, Some("timeout" | "resting")),
            "{up} {reason:?}"
        );

        hung.0.signal_shim(Signal::SIGCONT);
        prometheus.eventually("kata_monitor_sandbox_up{cri_name='web'} == 1", 2);
        prometheus.eventually("container_cpu_usage_seconds_total", 5);
    });
}

/// All series about these tasks, without their values. The parts of a VMM's memory are left out: they are read in the
/// background, and appear some scrapes later.
fn series(page: &Page, tasks: &[&Task]) -> BTreeSet<String> {
    let about = |line: &&str| tasks.iter().any(|task| line.contains(&task.id));
    page.text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("kata_sandbox_memory_"))
        .filter(about)
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}

#[test]
fn nothing_changes_when_containerd_is_down() {
    for_each_containerd(|containerd| {
        let plain = containerd.run_container(&[], &IDLE);
        let (sandbox, child) = run_pod(containerd, &[], &IDLE);
        let monitor = monitor(containerd);
        let tasks = [&plain, &sandbox, &child];
        // The shim tells of the calls that it has had: each kind has been there by the second scrape.
        monitor.scrape();
        thread::sleep(SHARED);
        let before = monitor.scrape();
        let expected = series(&before, &tasks);
        assert!(expected.len() > 100, "{expected:#?}");
        let assert_same = |page: &Page| {
            let found = series(page, &tasks);
            let different: Vec<_> = found.symmetric_difference(&expected).collect();
            assert!(different.is_empty(), "{different:#?}");
        };
        containerd.kill();
        thread::sleep(SHARED);
        let page = monitor.scrape();
        page.check();
        assert_same(&page);
        let seen = [("id", &*plain.id)];
        assert_ne!(
            page.value("container_last_seen", &seen),
            before.value("container_last_seen", &seen),
            "these are new answers"
        );
        assert_eq!(page.sandbox(&sandbox.id), ("1", None));
        // Nor for an exporter that has not seen containerd at all.
        assert_same(&self::monitor(containerd).scrape());
    });
}

#[test]
fn a_sandbox_that_would_die_of_the_question_survives_being_scraped() {
    for_each_containerd(|containerd| {
        let sandbox = containerd.run_sandbox(&[
            "--annotation",
            "io.kata-runtime.test.flavour=rust",
            "--annotation",
            "io.kata-runtime.test.hypervisor=qemu",
        ]);
        let monitor = monitor(containerd);
        for _ in 0..2 {
            let page = monitor.scrape();
            assert_eq!(page.sandbox(&sandbox.id), ("0", Some("risk")));
            // Its containers are no risk to ask about.
            page.value("container_cpu_usage_seconds_total", &[("id", &sandbox.id)]);
            thread::sleep(SHARED);
        }
        assert!(sandbox.has_shim());
        assert_eq!(sandbox.status(), "RUNNING");
    });
}
