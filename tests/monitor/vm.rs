//! What virtual machines cost, told of real ones: QEMU's under software emulation, with a guest that does nothing.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use test_needs::needs;

use crate::exporter::label;
use crate::mock::{self, Reply, http_chunked};
use crate::support::{Answer, GO, KataDir, Log, Monitor, Node, Page, eventually, serve_monitor};

const CHILD_STATS: &[u8] =
    include_bytes!("../../crates/shimstat/tests/fixtures/kata-3.30-go/stats-child.v1.bin");

/// What the recorded statistics of each container say, in bytes.
const CONTAINER_MEMORY: u64 = 1_777_664;

/// A process that ends with the test.
pub struct Process(Child);

impl Process {
    fn start(command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(quiet.stderr(Stdio::null()).spawn().unwrap())
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// A line of its `/proc/<pid>/status`, in bytes.
    fn status(&self, key: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes * 1024
    }

    /// What its threads of this name have run and waited, in seconds.
    fn threads(&self, name: &str) -> (f64, f64) {
        let of = |thread: &Path| {
            let number =
                |text: String, place| -> f64 { text.split_whitespace().nth(place).unwrap().parse().unwrap() };
            let times = || fs::read_to_string(thread.join("schedstat")).unwrap();
            let is_named = fs::read_to_string(thread.join("comm")).unwrap().trim() == name;
            is_named.then(|| (number(times(), 0) / 1e9, number(times(), 1) / 1e9))
        };
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        threads
            .filter_map(|thread| of(&thread.unwrap().path()))
            .next()
            .unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A machine with two virtual processors and all its memory touched, in a network of its own.
pub fn qemu(backend: &str) -> Process {
    let mut command = Command::new("unshare");
    command.args(["-n", "qemu-system-x86_64", "-name", "sandbox,debug-threads=on"]);
    command.args([
        "-machine",
        "pc,accel=tcg,memory-backend=m",
        "-smp",
        "2",
        "-m",
        "128",
    ]);
    command.args(["-object", &format!("{backend},id=m,size=128M,prealloc=on")]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    let machine = Process::start(&mut command);
    eventually("its processors run, and its memory is touched", || {
        let tasks = fs::read_dir(format!("/proc/{}/task", machine.pid())).unwrap();
        let name = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        let mut names = tasks.flatten().map(name);
        names.any(|name| name == "CPU 1/TCG\n") && machine.status("VmRSS:") > 128 << 20
    });
    machine
}

/// A pod whose shim has noted this machine.
fn pod(node: &Node, notes: &KataDir, machine: &Process, shim: &Process, answer: Answer) {
    pod_that_uses(node, notes, machine, shim, answer, || {
        mock::stats(mock::V1, CHILD_STATS)
    });
}

/// The same, with the statistics of its containers.
pub fn pod_that_uses(
    node: &Node,
    notes: &KataDir,
    machine: &Process,
    shim: &Process,
    answer: Answer,
    stats: impl Fn() -> Reply + Send + Sync + 'static,
) {
    let pid = machine.pid();
    node.pod_with(
        &notes.id,
        move |call| match call.method.as_str() {
            "State" => mock::running(pid),
            _ => stats(),
        },
        answer,
    );
    let bundle = node
        .node
        .state_dir()
        .join("io.containerd.runtime.v2.task/k8s.io")
        .join(&notes.id);
    fs::write(bundle.join("shim.pid"), shim.pid().to_string()).unwrap();
    note(notes, machine, None);
}

/// Notes the processes as Kata's Go shim does.
fn note(notes: &KataDir, machine: &Process, virtiofsd: Option<&Process>) {
    let noted = serde_json::json!({
        "HypervisorState": {
            "Type": "qemu", "Pid": machine.pid(), "VirtiofsDaemonPid": virtiofsd.map_or(0, Process::pid),
        },
        "Config": {"HypervisorConfig": {"MemorySize": 128}},
    });
    fs::write(notes.path.join("persist.json"), noted.to_string()).unwrap();
}

pub fn stand_in(node: &Node, name: &str) -> Process {
    let program = node.node.state_dir().join(name);
    fs::copy("/bin/sleep", &program).unwrap();
    Process::start(Command::new(program).arg("600"))
}

fn number(page: &Page, name: &str, labels: &[(&str, &str)]) -> f64 {
    page.value(name, labels).parse().unwrap()
}

/// Each part of a sandbox's memory, in bytes.
fn memory(page: &Page, sandbox: &str) -> Vec<(String, u64)> {
    let samples = page.samples("kata_sandbox_memory_bytes", &[("sandbox_id", sandbox)]);
    let part = |line: &&str| {
        let value = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        (label(line, "part").unwrap().to_string(), value)
    };
    samples.iter().map(part).collect()
}

#[test]
fn a_real_machine_is_told_of_as_the_kernel_has_it() {
    needs!("root", "qemu-system-x86_64", "unshare");
    let node = Node::new();
    let (shim, machine) = (
        stand_in(&node, "containerd-shim-kata-v2"),
        qemu("memory-backend-memfd,share=on"),
    );
    let [noted, hung] = ["vm", "vmhung"].map(|name| KataDir::new("/run/vc/sbs", name));
    pod(&node, &noted, &machine, &shim, Answer::Bytes(http_chunked(GO)));
    pod(&node, &hung, &machine, &shim, Answer::Hang);
    let monitor = node.monitor_with(&["--namespace", "k8s.io", "--timeout", "500ms"], &[]);

    let before = machine.threads("CPU 0/TCG");
    let resident = || machine.status("VmRSS:") + shim.status("VmRSS:");
    let resident_before = resident();
    let first = monitor.scrape();
    let after = machine.threads("CPU 0/TCG");
    first.check();
    let sandbox = [("sandbox_id", noted.id.as_str())];
    let vcpu = [sandbox[0], ("vcpu", "0")];
    let run = number(&first, "kata_sandbox_vcpu_run_seconds_total", &vcpu);
    assert!((before.0..=after.0).contains(&run), "{before:?} {run} {after:?}");
    let wait = number(&first, "kata_sandbox_vcpu_wait_seconds_total", &vcpu);
    assert!(
        (before.1..=after.1).contains(&wait),
        "{before:?} {wait} {after:?}"
    );
    assert_eq!(first.value("kata_sandbox_vcpus", &sandbox), "2");
    let role = |role| number(&first, "kata_sandbox_threads", &[sandbox[0], ("role", role)]);
    assert_eq!((role("vcpu"), role("main")), (2.0, 1.0));

    // All of the guest's memory is touched, and the parts add up to the processes' resident memory.
    let parts = memory(&first, &noted.id);
    let of = |name: &str| {
        parts
            .iter()
            .find(|(part, _)| part == name)
            .map(|(_, bytes)| *bytes)
    };
    assert_eq!(of("guest_shared"), Some(128 << 20));
    assert_eq!(of("guest_anonymous"), Some(0));
    assert_eq!(of("shim"), Some(shim.status("VmRSS:")));
    let all: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    // Its firmware is at work meanwhile, and QEMU gives memory back.
    let about = resident_before - (8 << 20)..=resident() + (8 << 20);
    assert!(about.contains(&all), "{about:?} {all}");
    assert_eq!(first.value("kata_sandbox_memory_age_seconds", &sandbox), "0");
    let overhead = number(&first, "kata_sandbox_overhead_memory_bytes", &sandbox) as u64;
    let process = |part| {
        number(
            &first,
            "kata_sandbox_process_memory_bytes",
            &[sandbox[0], ("part", part)],
        )
    };
    let processes = (process("vmm") + process("shim")) as u64;
    assert_eq!(overhead, processes - 2 * CONTAINER_MEMORY);
    assert_eq!(
        first.value("kata_sandbox_configured_memory_bytes", &sandbox),
        (128 << 20).to_string()
    );
    let info = first.samples("kata_sandbox_info", &sandbox);
    assert!(
        info[0].contains("hypervisor=\"qemu\",machine=\"local\",shim=\"go\""),
        "{info:?}"
    );
    let dropped = [sandbox[0], ("direction", "to_guest")];
    assert_eq!(
        first.value("kata_sandbox_network_dropped_packets_total", &dropped),
        "0"
    );
    assert!(
        number(
            &first,
            "kata_sandbox_disk_written_bytes_total",
            &[sandbox[0], ("part", "vmm")]
        ) >= 0.0
    );
    assert!(
        first
            .samples("kata_sandbox_cgroup_memory_bytes", &sandbox)
            .is_empty(),
        "none is noted"
    );

    // It counts from the first look. What the guest does by its own clock is recorded, and so does not rise.
    assert_eq!(
        first.value("kata_sandbox_overhead_cpu_seconds_total", &sandbox),
        "0"
    );
    eventually("its overhead rises", || {
        number(
            &monitor.scrape(),
            "kata_sandbox_overhead_cpu_seconds_total",
            &sandbox,
        ) > 0.0
    });

    // Of a guest that hangs all is told that its containers are not needed for.
    let hung = [("sandbox_id", hung.id.as_str())];
    assert_eq!(first.sandbox(hung[0].1).0, "0");
    assert_eq!(first.value("kata_sandbox_vcpus", &hung), "2");
    assert!(
        first
            .samples("kata_sandbox_overhead_memory_bytes", &hung)
            .is_empty()
    );
}

#[test]
fn anonymous_guest_memory_is_told_from_the_vmms_own_in_time() {
    needs!("root", "qemu-system-x86_64", "unshare");
    let node = Node::new();
    let (shim, machine) = (
        stand_in(&node, "containerd-shim-kata-v2"),
        qemu("memory-backend-ram"),
    );
    let notes = KataDir::new("/run/vc/sbs", "vmanon");
    pod(&node, &notes, &machine, &shim, Answer::Bytes(http_chunked(GO)));
    let monitor = node.monitor_with(&["--namespace", "k8s.io"], &[]);
    let has = |page: &Page, part: &str| memory(page, &notes.id).iter().any(|(name, _)| name == part);
    let first = monitor.scrape();
    assert!(has(&first, "vmm_and_guest") && !has(&first, "guest_anonymous"));
    eventually("its pages are walked", || {
        has(&monitor.scrape(), "guest_anonymous")
    });
    let page = monitor.scrape();
    let parts = memory(&page, &notes.id);
    let guest = parts
        .iter()
        .find(|(part, _)| part == "guest_anonymous")
        .unwrap()
        .1;
    assert!(guest.abs_diff(128 << 20) < 1 << 20, "{parts:?}");
    assert!(has(&page, "vmm") && !has(&page, "vmm_and_guest"));
    assert!(
        number(
            &page,
            "kata_sandbox_memory_age_seconds",
            &[("sandbox_id", &notes.id)]
        ) < 30.0
    );
}

/// The series of a page, and how many bytes it has compressed.
fn size(monitor: &Monitor) -> (usize, usize) {
    let series = monitor
        .scrape()
        .text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .count();
    let gzip = monitor.request("GET", "/metrics", &[("Accept-Encoding", "gzip")]);
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    (series, gzip.body.len())
}

#[test]
fn the_lean_profile_has_60_series_and_1_kb_of_a_sandbox_with_two_containers() {
    needs!("root", "qemu-system-x86_64", "unshare");
    let node = Node::new();
    let shim = stand_in(&node, "containerd-shim-kata-v2");
    let (virtiofsd, machine) = (
        stand_in(&node, "virtiofsd"),
        qemu("memory-backend-memfd,share=on"),
    );
    let monitors = ["full", "lean"]
        .map(|profile| node.monitor_with(&["--namespace", "k8s.io"], &["--profile", profile]));
    let nothing = monitors.each_ref().map(size);
    let _one = pod_with_two(&node, 1, &shim, &machine, &virtiofsd);
    let one = monitors.each_ref().map(size);
    let other = pod_with_two(&node, 2, &shim, &machine, &virtiofsd);
    let two = monitors.each_ref().map(size);
    let of_one = |place: usize| (one[place].0 - nothing[place].0, one[place].1 - nothing[place].1);
    let of_another = |place: usize| (two[place].0 - one[place].0, two[place].1 - one[place].1);
    // The figures of docs/exporter-costs.md.
    println!(
        "full: {nothing:?} {:?}, {:?}; lean: {:?}, {:?}",
        of_one(0),
        of_another(0),
        of_one(1),
        of_another(1)
    );
    for (series, bytes) in [of_one(1), of_another(1)] {
        assert!(
            (30..=60).contains(&series) && bytes <= 1024,
            "{series} series, {bytes} bytes"
        );
    }
    assert!(of_another(0).0 > 600, "Kata's own page is in the full one");

    let lean = monitors[1].scrape();
    assert!(!lean.text.contains("# HELP") && lean.text.contains("# TYPE kata_sandbox_info gauge\n"));
    let before = other.asked.lock().unwrap().len();
    drop(monitors[1].scrape());
    assert_eq!(
        other.asked.lock().unwrap().len(),
        before,
        "nobody asked it for its page"
    );
}

fn bundle(node: &Node, id: &str) -> PathBuf {
    node.node
        .state_dir()
        .join("io.containerd.runtime.v2.task/k8s.io")
        .join(id)
}

/// An id as containerd makes them up: nothing of it can be compressed.
fn random_id(seed: u64) -> String {
    let word = |place: u64| format!("{:016x}", RandomState::new().hash_one((seed, place)));
    (0..4).map(word).collect()
}

/// A pod of two containers as a kubelet has it, and what its monitor was asked.
struct PodOfTwo {
    _notes: KataDir,
    asked: Log,
}

fn pod_with_two(
    node: &Node,
    number: u64,
    shim: &Process,
    machine: &Process,
    virtiofsd: &Process,
) -> PodOfTwo {
    let id = random_id(number);
    let uid = random_id(number);
    let uid = format!(
        "{}-{}-{}-{}-{}",
        &uid[..8],
        &uid[8..12],
        &uid[12..16],
        &uid[16..20],
        &uid[20..32]
    );
    let name = format!("checkout-7d4b9c6f5d-{}", &random_id(number)[..5]);
    let notes = KataDir {
        path: Path::new("/run/vc/sbs").join(&id),
        id: id.clone(),
    };
    fs::create_dir_all(&notes.path).unwrap();
    note(&notes, machine, Some(virtiofsd));
    let pid = machine.pid();
    let mut asked = Log::default();
    for container in ["", "server", "proxy"] {
        let own = if container.is_empty() {
            id.clone()
        } else {
            random_id(number)
        };
        let image = format!("registry.example/shop/{container}:1.2.3");
        let mut annotations = vec![
            (
                "io.kubernetes.cri.container-type",
                if container.is_empty() {
                    "sandbox"
                } else {
                    "container"
                },
            ),
            ("io.kubernetes.cri.sandbox-id", &id),
            ("io.kubernetes.cri.sandbox-namespace", "shop"),
            ("io.kubernetes.cri.sandbox-name", &name),
            ("io.kubernetes.cri.sandbox-uid", &uid),
            ("io.containerd.cri.runtime-handler", "kata-qemu"),
        ];
        if !container.is_empty() {
            annotations.extend([
                ("io.kubernetes.cri.container-name", container),
                ("io.kubernetes.cri.image-name", &image),
            ]);
        }
        let (path, socket) = node.node.bundle("k8s.io", &own, &annotations);
        if container.is_empty() {
            let monitor = node.node.state_dir().join(format!("{number}.m"));
            fs::write(
                path.join("monitor_address"),
                format!("unix://{}", monitor.display()),
            )
            .unwrap();
            fs::write(path.join("shim.pid"), shim.pid().to_string()).unwrap();
            asked = serve_monitor(&monitor, Answer::Bytes(http_chunked(GO)));
            mock::serve(&socket, move |call| match call.method.as_str() {
                "State" => mock::running(pid),
                _ => mock::stats(mock::V1, CHILD_STATS),
            });
        } else {
            fs::copy(bundle(node, &id).join("address"), path.join("address")).unwrap();
        }
    }
    PodOfTwo { _notes: notes, asked }
}

#[test]
fn the_summary_of_a_real_machine_has_its_threads_and_memory() {
    needs!("root", "qemu-system-x86_64", "unshare");
    let node = Node::new();
    let (shim, machine) = (
        stand_in(&node, "containerd-shim-kata-v2"),
        qemu("memory-backend-ram"),
    );
    let notes = KataDir::new("/run/vc/sbs", "vmsum");
    pod(&node, &notes, &machine, &shim, Answer::Bytes(http_chunked(GO)));
    let ran = node
        .node
        .command(&[
            "metrics",
            "--summary",
            "--interval",
            "300ms",
            "--format",
            "json",
            &notes.id,
        ])
        .output()
        .unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let vm = &summary["vm"];
    let named = |list: &str, name: &str| {
        let found = vm[list]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {vm:#}")).clone()
    };
    let vcpu = named("threads", "vCPU 1");
    assert!(
        vcpu["run_seconds"].as_f64().unwrap() > 0.0 && vcpu["wait_percent"].is_number(),
        "{vcpu}"
    );
    let guest = named("memory", "guest (anonymous)")["bytes"].as_u64().unwrap();
    assert!(guest.abs_diff(128 << 20) < 1 << 20, "{guest}");
    assert_eq!(vm["configured_memory_bytes"], 128 << 20);
    assert_eq!(
        vm["dropped_packets"],
        serde_json::json!({"from_guest": 0, "to_guest": 0})
    );
}
