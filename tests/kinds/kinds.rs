//! The kinds of nodes of docs/explanation/nodes.md: how each is laid out, and what there is to know of it.

use containerd_shim_protos::cgroups::metrics::Metrics;
use protobuf::Message as _;
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::mock::{Call, Reply, V1, running, stats};

const PAGE: &[u8] = include_bytes!("../../crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt");

const TASKS: &str = "io.containerd.runtime.v2.task";
const SANDBOXES: &str = "io.containerd.sandbox.controller.v1.shim";
const STORAGE: &str = "/run/containers/storage/overlay-containers";

const RUNC: (&str, &str) = ("shim-binary-path", "/usr/bin/containerd-shim-runc-v2");
const KATA: (&str, &str) = ("shim-binary-path", "/opt/kata/bin/containerd-shim-kata-v2");

/// What only Kata's sandboxes have.
const NO_MONITOR: &str = "only Kata's sandboxes have a monitor";
const NO_SANDBOX: &str = "is in no sandbox, and has no monitor of its own";

/// What there is to know of a container.
pub struct Kind {
    /// As people name it.
    pub given: String,
    pub runtime: &'static str,
    pub status: &'static str,
    pub memory: Memory,
    /// Why its statistics are missing, as a label of the exporter.
    pub failure: Option<&'static str>,
    /// What `metrics` says instead of an answer.
    pub no_metrics: Option<&'static str>,
    /// What `metrics --summary` says: in an answer, and where there is none.
    pub summary: Result<&'static [&'static str], &'static str>,
}

/// The memory that its statistics tell.
#[derive(Clone, Copy, PartialEq)]
pub enum Memory {
    Mebibytes(u64),
    /// That of a real process.
    Some,
    /// None, for this reason.
    None(&'static str),
}

impl Kind {
    fn new(given: impl Into<String>, runtime: &'static str, memory: Memory) -> Self {
        let given = given.into();
        let why = if given.contains('/') {
            NO_MONITOR
        } else {
            NO_SANDBOX
        };
        Self {
            given,
            runtime,
            status: "running",
            memory,
            failure: None,
            no_metrics: Some(why),
            summary: Err(why),
        }
    }

    /// A container in a pod.
    fn in_pod(pod: &str, runtime: &'static str, memory: Memory) -> Self {
        Self::new(format!("shop/{pod}/c-{pod}"), runtime, memory)
    }

    /// One with a monitor.
    fn in_kata(pod: &str, runtime: &'static str, memory: Memory, summary: &'static [&'static str]) -> Self {
        Self {
            no_metrics: None,
            summary: Ok(summary),
            ..Self::in_pod(pod, runtime, memory)
        }
    }

    pub fn id(&self) -> String {
        match self.given.split('/').nth(1) {
            None => format!("{}-container", self.given),
            Some(pod) if self.given.ends_with(&format!("/{pod}")) => format!("{pod}-sandbox"),
            Some(pod) => format!("{pod}-container"),
        }
    }

    /// What tells it from others in a line: the container's name.
    pub fn name(&self) -> &str {
        self.given.rsplit('/').next().unwrap()
    }
}

/// A shim whose tasks hold this memory, and whose first process has this pid.
fn holding(mebibytes: u64, pid: u32) -> impl Fn(&Call) -> Reply + Send + Sync + 'static {
    let mut metrics = Metrics::new();
    let cpu = metrics.cpu.mut_or_insert_default();
    cpu.usage.mut_or_insert_default().total = 1_500_000_000;
    let memory = metrics.memory.mut_or_insert_default();
    memory.usage.mut_or_insert_default().usage = mebibytes << 20;
    let metrics = metrics.write_to_bytes().unwrap();
    move |call| match call.method.as_str() {
        "State" => running(pid),
        _ => stats(V1, &metrics),
    }
}

/// What CRI writes of a pod's sandbox, or of the container in it.
fn of_cri(pod: &str, is_sandbox: bool) -> Value {
    let mut annotations = json!({
        "io.kubernetes.cri.container-type": if is_sandbox { "sandbox" } else { "container" },
        "io.kubernetes.cri.sandbox-id": format!("{pod}-sandbox"),
        "io.kubernetes.cri.sandbox-namespace": "shop",
        "io.kubernetes.cri.sandbox-name": pod,
    });
    if !is_sandbox {
        annotations["io.kubernetes.cri.container-name"] = format!("c-{pod}").into();
    }
    annotations
}

/// The same of CRI-O.
fn of_crio(pod: &str, is_sandbox: bool) -> Value {
    let container = if is_sandbox {
        "POD".to_string()
    } else {
        format!("c-{pod}")
    };
    json!({
        "io.kubernetes.cri-o.ContainerType": if is_sandbox { "sandbox" } else { "container" },
        "io.kubernetes.cri-o.SandboxID": format!("{pod}-sandbox"),
        "io.kubernetes.cri-o.SandboxName": format!("k8s_{pod}_shop_uid_0"),
        "io.kubernetes.cri-o.Name": format!("k8s_{container}_{pod}_shop_uid_0"),
        "io.kubernetes.cri-o.RuntimeHandler": "kata-qemu",
    })
}

/// The bundle of a container in containerd's usual state directory.
fn task(id: &str) -> String {
    format!("/run/containerd/{TASKS}/k8s.io/{id}")
}

/// A pod as containerd 1.x has it, with what is noted in both bundles, and its shim.
fn pod(
    machine: &Machine,
    pod: &str,
    notes: &[(&str, &str)],
    shim: impl Fn(&Call) -> Reply + Send + Sync + 'static,
) {
    let socket = format!("/run/containerd/s/{pod}");
    let address = format!("unix://{socket}");
    let notes = [&[("address", address.as_str())], notes].concat();
    for (part, is_sandbox) in [("sandbox", true), ("container", false)] {
        machine.bundle(&task(&format!("{pod}-{part}")), &of_cri(pod, is_sandbox), &notes);
    }
    machine.shim(&socket, shim);
}

/// Lays out every kind.
pub fn all(machine: &Machine) -> Vec<Kind> {
    [
        with_shims(machine),
        with_containerd_2(machine),
        kata(machine),
        sandboxers(machine),
        gvisor(machine),
        storage(machine),
        state_directories(machine),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Runtimes that containerd starts shims for.
fn with_shims(machine: &Machine) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for (memory, runtime, shim, noted) in [
        (100, "runc", "runc-v2", Some("")),
        (101, "crun", "runc-v2", Some("/usr/bin/crun")),
        (102, "youki", "runc-v2", Some("/usr/bin/youki")),
        (103, "firecracker", "aws-firecracker", None),
        (104, "urunc", "urunc-v2", None),
        (105, "wasmtime", "wasmtime-v1", None),
        (106, "spin", "spin-v2", None),
    ] {
        let binary = format!("/usr/bin/containerd-shim-{shim}");
        let runtime_note = noted.map(|noted| ("runtime", noted));
        let notes: Vec<_> = [("shim-binary-path", binary.as_str())]
            .into_iter()
            .chain(runtime_note)
            .collect();
        pod(machine, runtime, &notes, holding(memory, 0));
        kinds.push(Kind::in_pod(runtime, runtime, Memory::Mebibytes(memory)));
    }
    // As the shims of containerd's Rust crates do that have no statistics.
    const UNSUPPORTED: &str = "answered Stats with code 5: /containerd.task.v2.Task/Stats is not supported";
    let binary = ("shim-binary-path", "/usr/bin/containerd-shim-slight-v1");
    pod(machine, "slight", &[binary], |call| match call.method.as_str() {
        "State" => running(0),
        _ => Reply::Error(5, format!("/{}/{} is not supported", call.service, call.method)),
    });
    kinds.push(Kind {
        failure: Some("error"),
        ..Kind::in_pod("slight", "slight", Memory::None(UNSUPPORTED))
    });
    kinds
}

/// What is new in 2.x: `bootstrap.json`, the file `sandbox`, sandboxes that their shims manage.
fn with_containerd_2(machine: &Machine) -> Vec<Kind> {
    let bootstrap = r#"{"version":3,"address":"unix:///run/containerd/s/new","protocol":"ttrpc"}"#;
    let bootstrap = ("bootstrap.json", bootstrap);
    machine.bundle(&task("new-sandbox"), &of_cri("new", true), &[bootstrap, RUNC]);
    let container = [bootstrap, ("sandbox", "new-sandbox")];
    machine.bundle(&task("new-container"), &of_cri("new", false), &container);
    machine.shim("/run/containerd/s/new", holding(107, 0));

    let bootstrap = r#"{"version":3,"address":"unix:///run/containerd/s/managed","protocol":"ttrpc"}"#;
    let sandbox = format!("/run/containerd/{SANDBOXES}/k8s.io/managed-sandbox");
    machine.write(&format!("{sandbox}/bootstrap.json"), bootstrap);
    machine.write(&format!("{sandbox}/shim-binary-path"), KATA.1);
    let container = [("bootstrap.json", bootstrap), ("sandbox", "managed-sandbox")];
    machine.bundle(&task("managed-container"), &of_cri("managed", false), &container);
    let task = holding(108, 0);
    machine.shim("/run/containerd/s/managed", move |call| {
        match call.method.as_str() {
            // Its field 3.
            "SandboxStatus" => Reply::Payload(b"\x1a\x0dSANDBOX_READY".to_vec()),
            "SandboxMetrics" => Reply::Error(5, "not supported".to_string()),
            _ => task(call),
        }
    });
    let notes = r#"{"hypervisor":{"hypervisor_type":"clh"}}"#;
    machine.write("/run/kata/managed-sandbox/state.json", notes);
    machine.monitor("/run/kata/managed-sandbox/shim-monitor.sock", PAGE);
    vec![
        Kind::in_pod("new", "runc", Memory::Mebibytes(107)),
        Kind::in_kata(
            "managed",
            "kata (clh, rust)",
            Memory::Mebibytes(108),
            &["not known: container sandbox: it runs, and its shim has no statistics of the sandbox itself"],
        ),
    ]
}

fn kata(machine: &Machine) -> Vec<Kind> {
    let note = |id: &str, text: &str| machine.write(&format!("/run/vc/sbs/{id}/persist.json"), text);
    let monitor = |root: &str, id: &str| machine.monitor(&format!("{root}/{id}/shim-monitor.sock"), PAGE);

    pod(machine, "go", &[KATA], holding(109, 0));
    note("go-sandbox", r#"{"HypervisorState":{"Type":"qemu"}}"#);
    monitor("/run/vc/sbs", "go-sandbox");

    let address = ("address", "unix:///run/containerd/s/starting");
    machine.bundle(
        &task("starting-sandbox"),
        &of_cri("starting", true),
        &[address, KATA],
    );
    machine.shim("/run/containerd/s/starting", |_| Reply::Hang);

    let process = |name, id| machine.process(name, &[id]);
    let shim = process("containerd-shim-kata-v2", "tdx-sandbox").to_string();
    let vmm = process("qemu-system-x86_64", "");
    pod(machine, "tdx", &[KATA, ("shim.pid", &shim)], holding(110, vmm));
    let notes = r#"{"hypervisor":{"hypervisor_type":"qemu","guest_protection_to_use":"Tdx"}}"#;
    machine.write("/run/kata/tdx-sandbox/state.json", notes);
    monitor("/run/kata", "tdx-sandbox");

    // A shim whose machine is elsewhere tells its own pid.
    let shim = process("containerd-shim-kata-v2", "peer-sandbox");
    pod(
        machine,
        "peer",
        &[KATA, ("shim.pid", &shim.to_string())],
        holding(111, shim),
    );
    note(
        "peer-sandbox",
        r#"{"HypervisorState":{},"Config":{"HypervisorType":"remote"}}"#,
    );
    monitor("/run/vc/sbs", "peer-sandbox");

    const STARTING: &str =
        "it is starting: the shim at /run/containerd/s/starting answers when its virtual machine is up";
    vec![
        Kind::in_kata(
            "go",
            "kata (qemu, go)",
            Memory::Mebibytes(109),
            &["\nVMM ", "\nshim ", "\noverhead ", "\nguest "],
        ),
        Kind {
            status: "starting",
            failure: Some("starting"),
            no_metrics: Some(STARTING),
            summary: Err(STARTING),
            ..Kind::new("shop/starting", "kata", Memory::None(STARTING))
        },
        Kind {
            no_metrics: Some("only the metrics of its processes, from /proc, are shown"),
            ..Kind::in_kata(
                "tdx",
                "kata (qemu, rust, tdx)",
                Memory::Mebibytes(110),
                &[
                    "\nVMM ",
                    "not known: overhead: the guest's memory is hidden from the host's processes",
                ],
            )
        },
        Kind::in_kata(
            "peer",
            "kata (peer-pod, go)",
            Memory::Mebibytes(111),
            &[
                "\nshim ",
                "\nguest ",
                "not known: VMM: the virtual machine is not on this host",
                "not known: overhead",
            ],
        ),
    ]
}

/// Shims without a sandbox on disk.
fn sandboxers(machine: &Machine) -> Vec<Kind> {
    for (pod, bootstrap) in [
        (
            "kuasar",
            r#"{"version":3,"address":"hvsock:///run/kuasar-vmm/task.vsock:1024","protocol":"TTRPC"}"#,
        ),
        (
            "grpc",
            r#"{"version":3,"address":"unix:///run/kuasar-wasm/grpc.sock","protocol":"grpc"}"#,
        ),
        (
            "thrift",
            r#"{"version":3,"address":"unix:///run/x.sock","protocol":"thrift"}"#,
        ),
    ] {
        let notes = [("bootstrap.json", bootstrap)];
        machine.bundle(&task(&format!("{pod}-container")), &of_cri(pod, false), &notes);
    }
    machine.shim("/run/kuasar-vmm/shim.sock", holding(112, 0));
    machine.hybrid_vsock("/run/kuasar-vmm/task.vsock", "/run/kuasar-vmm/shim.sock");
    machine.grpc_shim("/run/kuasar-wasm/grpc.sock", holding(113, 0));
    vec![
        Kind::in_pod("kuasar", "kuasar", Memory::Mebibytes(112)),
        Kind::in_pod("grpc", "kuasar", Memory::Mebibytes(113)),
        Kind {
            status: "error",
            failure: Some("no_address"),
            no_metrics: Some("no such file or directory"),
            summary: Err("no such file or directory"),
            ..Kind::in_pod(
                "thrift",
                "",
                Memory::None("the shim speaks \"thrift\", and only ttrpc and gRPC are supported"),
            )
        },
    ]
}

fn gvisor(machine: &Machine) -> Vec<Kind> {
    let notes = [
        ("shim-binary-path", "/usr/local/bin/containerd-shim-runsc-v1"),
        ("state.json", "{}"),
    ];
    pod(machine, "gvisor", &notes, |_| {
        panic!("its shim would start two processes")
    });
    machine.gvisor(
        "/run/containerd/runsc/k8s.io",
        "gvisor-sandbox",
        "gvisor-container",
    );
    vec![Kind::in_pod("gvisor", "gvisor", Memory::Some)]
}

/// CRI-O and podman.
fn storage(machine: &Machine) -> Vec<Kind> {
    for (part, is_sandbox) in [("sandbox", true), ("container", false)] {
        let id = format!("crio-vm-{part}");
        let address = [("address", "unix:///run/containerd/s/crio-vm")];
        machine.bundle(
            &format!("{STORAGE}/{id}/userdata"),
            &of_crio("crio-vm", is_sandbox),
            &address,
        );
        let id = format!("crio-{part}");
        let pid = machine.container_process(&id);
        let pidfile = pid.to_string();
        let pidfile = [("pidfile", pidfile.as_str())];
        machine.bundle(
            &format!("{STORAGE}/{id}/userdata"),
            &of_crio("crio", is_sandbox),
            &pidfile,
        );
        let state = json!({"id": id, "init_process_pid": pid});
        machine.write(&format!("/run/runc/{id}/state.json"), state.to_string());
    }
    machine.shim("/run/containerd/s/crio-vm", holding(114, 0));
    machine.write(
        "/run/vc/sbs/crio-vm-sandbox/persist.json",
        r#"{"HypervisorState":{"Type":"qemu"}}"#,
    );
    machine.monitor("/run/vc/sbs/crio-vm-sandbox/shim-monitor.sock", PAGE);

    let pid = machine.container_process("by-podman-container").to_string();
    let conmon = [
        "--cid",
        "by-podman-container",
        "-r",
        "/usr/bin/crun",
        "-n",
        "by-podman",
    ];
    let conmon = machine.process("conmon", &conmon).to_string();
    let notes = [("pidfile", pid.as_str()), ("conmon.pid", conmon.as_str())];
    machine.bundle(
        &format!("{STORAGE}/by-podman-container/userdata"),
        &json!({}),
        &notes,
    );
    vec![
        Kind::in_kata(
            "crio-vm",
            "kata (qemu, go)",
            Memory::Mebibytes(114),
            &["\nVMM ", "\noverhead "],
        ),
        Kind::in_pod("crio", "runc", Memory::Some),
        Kind::new("by-podman", "crun", Memory::Some),
    ]
}

/// Containers of runc in every state directory, by the names that nerdctl and Docker give.
fn state_directories(machine: &Machine) -> Vec<Kind> {
    let mut kinds = Vec::new();
    for (memory, name, state_dir, sockets) in [
        (120, "by-k3s", "/run/k3s/containerd", "/run/containerd/s"),
        (121, "by-k0s", "/run/k0s/containerd", "/run/containerd/s"),
        (
            122,
            "by-bottlerocket",
            "/run/host-containerd",
            "/run/containerd/s",
        ),
        (123, "by-talos", "/system/run/containerd", "/run/containerd/s"),
        (
            124,
            "by-docker",
            "/run/docker/containerd/daemon",
            "/run/containerd/s",
        ),
        (
            125,
            "by-snap",
            "/run/snap.docker/containerd/daemon",
            "/run/containerd/s",
        ),
        (
            126,
            "by-microk8s",
            "/var/snap/microk8s/common/run/containerd",
            "/run/containerd/s",
        ),
        (
            127,
            "by-user",
            "/run/user/1000/containerd",
            "/run/user/1000/containerd/s",
        ),
        // In the mount namespace of user 1001's Docker.
        (
            128,
            "by-rootless",
            "/run/user/1001/docker/containerd/daemon",
            "/namespace/containerd/s",
        ),
        (
            0,
            "by-hidden",
            "/run/user/1002/docker/containerd/daemon",
            "/namespace/containerd/s",
        ),
    ] {
        // Docker's names are not in its bundles.
        let (namespace, annotations) = match state_dir.ends_with("daemon") {
            true => ("moby", json!({})),
            false => ("default", json!({"nerdctl/name": name})),
        };
        let id = format!("{name}-container");
        let data_root = match name {
            "by-snap" => "/var/snap/docker/common/var-lib-docker",
            _ => "/var/lib/docker",
        };
        if namespace == "moby" {
            let config = json!({"Name": format!("/{name}")}).to_string();
            machine.write(&format!("{data_root}/containers/{id}/config.v2.json"), config);
        }
        let address = format!("unix:///run/containerd/s/{name}");
        let notes = [("address", address.as_str()), RUNC, ("runtime", "")];
        machine.bundle(
            &format!("{state_dir}/{TASKS}/{namespace}/{id}"),
            &annotations,
            &notes,
        );
        machine.shim(&format!("{sockets}/{name}"), holding(memory, 0));
        kinds.push(Kind::new(name, "runc", Memory::Mebibytes(memory)));
    }
    let pid = machine.process_in_namespace("/namespace").to_string();
    machine.write("/run/user/1001/docker/containerd/containerd.pid", pid);
    const HIDDEN: &str = "its shim is in the mount namespace of a user's Docker, which cannot be entered";
    *kinds.last_mut().unwrap() = Kind {
        status: "error",
        failure: Some("no_address"),
        no_metrics: Some(HIDDEN),
        summary: Err(HIDDEN),
        ..Kind::new("by-hidden", "runc", Memory::None(HIDDEN))
    };
    kinds
}

/// So many sandboxes of Kata's Go shim, whose guests answer: one shim, one monitor and one agent under many names.
pub fn many_of_kata(machine: &Machine, count: usize) {
    const STATS: &[u8] =
        include_bytes!("../../crates/shimstat/tests/fixtures/kata-4.1-agent/stats-container.bin");
    machine.shim("/shim", holding(113, 0));
    machine.monitor("/monitor", PAGE);
    machine.shim("/agent", |call| match call.method.as_str() {
        "Check" => Reply::Payload(vec![8, 1]),
        "StatsContainer" => Reply::Payload(STATS.to_vec()),
        method => Reply::Error(12, format!("{method} is not supported")),
    });
    machine.hybrid_vsock("/vmm", "/agent");
    for number in 0..count {
        let (pod, id) = (format!("many{number}"), format!("many{number}-sandbox"));
        let shim = format!("/run/containerd/s/{number}");
        let address = format!("unix://{shim}");
        machine.bundle(&task(&id), &of_cri(&pod, true), &[("address", &address), KATA]);
        let agent = format!("/run/vc/vm/{id}/clh.sock");
        let notes = json!({
            "HypervisorState": {"Type": "clh"},
            "AgentState": {"URL": format!("hvsock://{agent}:1024")},
        });
        machine.write(&format!("/run/vc/sbs/{id}/persist.json"), notes.to_string());
        machine.link("/shim", &shim);
        machine.link("/monitor", &format!("/run/vc/sbs/{id}/shim-monitor.sock"));
        machine.link("/vmm", &agent);
    }
}
