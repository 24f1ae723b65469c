//! Kinds of nodes: sandboxes that their shims manage, CRI-O, nerdctl's names, sandboxes that are starting, and where all of
//! that is looked for.

#![allow(clippy::restriction)] // A test may panic.

#[path = "support/exporter.rs"]
mod exporter;
mod mock;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mock::{Call, Calls, Node, Ran, Reply, finish, healthy, serve};
use serde_json::Value;

const SANDBOX: &str = "92afbd2720a535e17c41e806b438747a346a40796371744e6a90eb61743f8583";
const CONTAINER: &str = "f08412e5bc6166ff903c09e6ff4accbd0f7285e7cdc833771f37fca72c67bfb2";
const METRICS: &[u8] =
    include_bytes!("../crates/shimstat/tests/fixtures/sandboxer-shim/sandbox-metrics-response.bin");

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/shimstat/tests/fixtures")
}

fn listed(ran: &Ran) -> Vec<Value> {
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    serde_json::from_str(&ran.stdout).unwrap()
}

fn list(node: &Node) -> Vec<Value> {
    listed(&node.run(&["list", "--format", "json"]))
}

/// What a shell is offered for an argument of `events` of which this is typed.
fn completed(node: &Node, typed: &str) -> String {
    let state = node.state_dir().to_str().unwrap();
    node.run(&["__complete", "--", "--state", state, "events", typed])
        .stdout
}

/// `SandboxStatusResponse`: its fields 1 to 3.
fn sandbox_status(state: &str) -> Reply {
    let mut bytes = vec![0x0a, 64];
    bytes.extend(SANDBOX.as_bytes());
    // 4321
    bytes.extend([0x10, 0xe1, 0x21, 0x1a, state.len() as u8]);
    bytes.extend(state.as_bytes());
    Reply::Payload(bytes)
}

/// A pod under `sandboxer = "shim"`, as recorded, on a shim that does as it is told.
fn sandboxer_pod(shim: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> (Node, Calls) {
    let node = Node::new();
    let socket = node.state_dir().join("shim.sock");
    let bootstrap = format!(
        r#"{{"version":3,"address":"unix://{}","protocol":"ttrpc"}}"#,
        socket.display()
    );
    for (recorded, bundle) in [
        (
            "sandbox-bundle",
            format!("io.containerd.sandbox.controller.v1.shim/k8s.io/{SANDBOX}"),
        ),
        (
            "container-bundle",
            format!("io.containerd.runtime.v2.task/k8s.io/{CONTAINER}"),
        ),
    ] {
        let bundle = node.state_dir().join(bundle);
        fs::create_dir_all(&bundle).unwrap();
        for file in fs::read_dir(fixtures().join("sandboxer-shim").join(recorded)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), bundle.join(file.file_name())).unwrap();
        }
        fs::write(bundle.join("bootstrap.json"), &bootstrap).unwrap();
    }
    let calls = serve(&socket, shim);
    (node, calls)
}

#[test]
fn a_sandbox_that_its_shim_manages_is_known_by_its_containers_and_its_own_service() {
    let (node, calls) = sandboxer_pod(|call| match call.method.as_str() {
        "SandboxStatus" => sandbox_status("SANDBOX_READY"),
        "SandboxMetrics" => Reply::Payload(METRICS.to_vec()),
        _ => healthy(call),
    });
    let rows = list(&node);
    let shown: Vec<_> = rows
        .iter()
        .map(|row| {
            [
                "id",
                "role",
                "pod_namespace",
                "pod",
                "container",
                "runtime",
                "status",
            ]
            .map(|key| row[key].clone())
        })
        .collect();
    let sandbox = [SANDBOX, "sandbox", "shop", "sbweb", "", "runcsb", "running"];
    let container = [
        CONTAINER,
        "container",
        "shop",
        "sbweb",
        "app",
        "runcsb",
        "running",
    ];
    let expected = [sandbox, container]
        .map(|row| row.map(|text| if text.is_empty() { Value::Null } else { text.into() }));
    assert_eq!(shown, expected);
    assert_eq!(rows[0]["pid"], 4321);
    assert_eq!(rows[1]["sandbox"], SANDBOX);
    let table = node.run(&["list"]).stdout;
    assert!(
        table.lines().nth(2).unwrap().starts_with("  f08412e5bc61"),
        "{table}"
    );

    for given in ["shop/sbweb", "sbweb", &SANDBOX[..12]] {
        let ran = node.run(&["events", "--stats", given]);
        let event: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((&event["id"], ran.status), (&SANDBOX.into(), Some(0)), "{given}");
        assert_eq!(event["data"]["cpu"]["usage"]["total"], 123_456_789);
    }
    let listed = node.run(&["list", "-q", "--pod", "shop/sbweb"]);
    assert_eq!(listed.stdout.lines().count(), 2, "{}", listed.stdout);
    let services: Vec<_> = calls
        .lock()
        .unwrap()
        .iter()
        .map(|call| call.service.clone())
        .collect();
    assert!(
        services
            .iter()
            .any(|service| service == "containerd.runtime.sandbox.v1.Sandbox")
    );
    assert!(
        services
            .iter()
            .all(|service| service != "containerd.task.v2.Task"),
        "the shim says version 3"
    );
    let completed = completed(&node, "");
    assert!(
        completed.contains("shop/sbweb") && completed.contains("shop/sbweb/app"),
        "{completed}"
    );
}

#[test]
fn a_sandbox_whose_shim_has_no_statistics_of_it_says_so_and_is_asked_for_them_once() {
    for (code, message) in [
        (5, "not supported"),
        (12, "method SandboxMetrics not implemented"),
    ] {
        let (node, calls) = sandboxer_pod(move |call| match call.method.as_str() {
            "SandboxStatus" => sandbox_status("SANDBOX_READY"),
            "SandboxMetrics" => Reply::Error(code, message.to_string()),
            _ => healthy(call),
        });
        let ran = node.run(&["events", "--stats", "shop/sbweb"]);
        assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""));
        assert!(
            ran.stderr.contains("no statistics of the sandbox itself"),
            "{}",
            ran.stderr
        );
        // Of all containers it is those with statistics that are asked for.
        let ran = node.run(&["events", "--stats", "--all", "--format", "json"]);
        assert_eq!(
            (ran.status, ran.stdout.lines().count()),
            (Some(0), 1),
            "{}",
            ran.stderr
        );
        assert!(ran.stdout.contains(CONTAINER));

        calls.lock().unwrap().clear();
        let mut stream = node.command(&["events", "--all", "--interval", "100ms", "--format", "json"]);
        let mut stream = stream.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let began = Instant::now();
        let asked = |method: &str| {
            let calls = calls.lock().unwrap();
            calls.iter().filter(|call| call.method == method).count()
        };
        while asked("Stats") < 4 && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
        }
        stream.kill().unwrap();
        stream.wait().unwrap();
        assert_eq!(asked("SandboxMetrics"), 1);
    }
}

/// The shim of a sandbox without SandboxMetrics; its process is this one.
#[test]
fn the_exporter_has_a_sandbox_without_statistics_up_with_what_is_known() {
    let (node, _) = sandboxer_pod(|call| match call.method.as_str() {
        "SandboxStatus" => sandbox_status("SANDBOX_READY"),
        "SandboxMetrics" => Reply::Error(12, "not implemented".to_string()),
        _ => healthy(call),
    });
    let monitor = exporter::Monitor::start(node.command(&["monitor", "--listen-address", "127.0.0.1:0"]));
    let page = monitor.get("/metrics").text().to_string();
    let of_sandbox = |family: &str| {
        let mut lines = page
            .lines()
            .filter(|line| line.starts_with(&format!("{family}{{")));
        let id = format!(" id=\"{SANDBOX}\"").trim().to_string();
        lines.find(|line| line.contains(&id)).map(str::to_string)
    };
    let up = of_sandbox("kata_monitor_container_up").unwrap();
    assert!(up.ends_with(" 1"), "{up}");
    assert_eq!(of_sandbox("kata_monitor_container_failure"), None);
    assert_eq!(
        of_sandbox("container_memory_usage_bytes"),
        None,
        "nobody has measured it"
    );
    assert_eq!(of_sandbox("container_cpu_usage_seconds_total"), None);
    let info = of_sandbox("kata_monitor_container_info").unwrap();
    assert!(
        info.contains("runtime=\"runcsb\"") && info.contains("pod=\"sbweb\""),
        "{info}"
    );
}

#[test]
fn a_sandbox_that_its_shim_has_stopped_is_listed_as_stopped() {
    let (node, _) = sandboxer_pod(|call| match call.method.as_str() {
        "SandboxStatus" => sandbox_status("SANDBOX_NOTREADY"),
        _ => healthy(call),
    });
    let rows = list(&node);
    assert_eq!(rows[0]["status"], "stopped");
    assert_eq!(rows[0].get("exit_status"), None, "nobody knows it");
    let ran = node.run(&["events", "--stats", "shop/sbweb"]);
    assert!(
        ran.stderr.contains("its task has stopped and was not deleted"),
        "{}",
        ran.stderr
    );
}

/// A run root of containers/storage with recorded bundles of CRI-O, whose shims answer at sockets in it.
struct Crio {
    dir: tempfile::TempDir,
}

impl Crio {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn add(&self, recorded: &str, id: &str, shim: Option<&Path>) -> PathBuf {
        let bundle = self
            .dir
            .path()
            .join("overlay-containers")
            .join(id)
            .join("userdata");
        fs::create_dir_all(&bundle).unwrap();
        for file in fs::read_dir(fixtures().join("crio-1.37").join(recorded)).unwrap() {
            let file = file.unwrap();
            // Those pids are of the machine that it was recorded on.
            if !file.file_name().to_str().unwrap().contains("pid") {
                fs::copy(file.path(), bundle.join(file.file_name())).unwrap();
            }
        }
        if let Some(socket) = shim {
            fs::write(bundle.join("address"), format!("unix://{}", socket.display())).unwrap();
        }
        bundle
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_kata-runtime"));
        command
            .arg("--state")
            .arg(self.dir.path())
            .args(arguments)
            .env_remove("CONTAINERD_NAMESPACE");
        finish(command)
    }
}

#[test]
fn crios_bundles_are_found_named_and_asked() {
    let node = Crio::new();
    let sandbox = "b48803f77318d66779a46e2e69a221c88de6102c9b3cd43e23c98c2d88b3ec4c";
    let container = "05faa08f696fb403b218c2937496fa9bd5294a17ef25f9de1347736cdc0514ee";
    let socket = |name: &str| node.dir.path().join(name);
    let calls = serve(&socket("s"), healthy);
    serve(&socket("c"), healthy);
    node.add("shimrunc-sandbox-bundle", sandbox, Some(&socket("s")));
    node.add("shimrunc-container-bundle", container, Some(&socket("c")));
    // containers/storage has its lock files beside the containers.
    fs::write(node.dir.path().join("overlay-containers/containers.lock"), "").unwrap();

    let rows = listed(&node.run(&["list", "--format", "json"]));
    let shown: Vec<_> = rows
        .iter()
        .map(|row| {
            ["id", "namespace", "pod_namespace", "pod", "runtime", "status"].map(|key| row[key].clone())
        })
        .collect();
    assert_eq!(
        shown[0],
        [sandbox, "default", "shop", "oshimrunc", "runc", "running"]
    );
    assert_eq!(
        shown[1],
        [container, "default", "shop", "oshimrunc", "runc", "running"]
    );
    assert_eq!(
        (&rows[1]["container"], &rows[0].get("container")),
        (&"app".into(), &None)
    );
    assert_eq!(rows[0]["pod_uid"], "uid-oshimrunc");

    for (given, id) in [
        ("shop/oshimrunc/app", container),
        ("shop/oshimrunc", sandbox),
        ("05faa0", container),
        (sandbox, sandbox),
    ] {
        let ran = node.run(&["events", "--stats", given]);
        let event: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{given}: {ran:?}"));
        assert_eq!(event["id"], id, "{given}");
    }
    // CRI-O's shims are of the old kind.
    let calls = calls.lock().unwrap();
    assert!(calls.iter().all(|call| call.service == "containerd.task.v2.Task"));
    let limited = node.run(&["-n", "default", "list", "-q"]);
    assert_eq!(limited.stdout.lines().count(), 2);
    let other = node.run(&["-n", "k8s.io", "list", "-q"]);
    assert_eq!(other.stdout, "");
}

#[test]
fn a_container_without_a_shim_whose_process_has_ended_is_stopped() {
    let node = Crio::new();
    let id = "b4962c5b7df3778ce6bb17b29021a9b0823f51cab7a6e1cd0000321c7fa7a347";
    let bundle = node.add("runc-container-bundle", id, None);
    assert_eq!(node.run(&["list", "-q"]).stdout, "", "it is being created");
    // A process that is not the container's: this one.
    fs::write(bundle.join("pidfile"), std::process::id().to_string()).unwrap();
    let rows = listed(&node.run(&["list", "--format", "json"]));
    let row = ["id", "pod", "container", "status", "source"].map(|key| rows[0][key].clone());
    assert_eq!(row, [id, "orunc", "app", "stopped", "cgroup"]);
    assert_eq!((rows[0].get("shim"), rows[0].get("pid")), (None, None));
    let ran = node.run(&["events", "--stats", "shop/orunc/app"]);
    assert_eq!(ran.status, Some(1));
    assert!(ran.stderr.contains("its task has stopped"), "{}", ran.stderr);
}

#[test]
fn a_container_in_no_pod_is_known_by_the_name_that_it_was_given() {
    let node = Node::new();
    for (namespace, id, name) in [
        ("default", "4ac1", "web_1"),
        ("default", "4ac2", "db"),
        ("other", "4ac3", "db"),
    ] {
        let (_, socket) = node.bundle(namespace, id, &[("nerdctl/name", name)]);
        serve(&socket, healthy);
    }
    let rows = list(&node);
    let names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["web_1", "db", "db"]);
    assert!(
        node.run(&["list"])
            .stdout
            .lines()
            .nth(1)
            .unwrap()
            .contains("  web_1  ")
    );
    let id = |given: &str| {
        let ran = node.run(&["events", "--stats", given]);
        serde_json::from_str::<Value>(&ran.stdout).map_or(ran.stderr, |event| event["id"].to_string())
    };
    assert_eq!(id("web_1"), "\"4ac1\"");
    assert_eq!(id("other/db"), "\"4ac3\"");
    let ambiguous = id("db");
    assert!(
        ambiguous.contains("4ac2") && ambiguous.contains("4ac3"),
        "{ambiguous}"
    );
    let completed = completed(&node, "we");
    assert!(completed.contains("web_1"), "{completed}");
}

#[test]
fn a_sandbox_whose_machine_is_being_started_costs_a_list_no_timeout() {
    let node = Node::new();
    let calls = node.pod("kr-starting", "shop/web", |_| Reply::Hang);
    let bundle = node
        .state_dir()
        .join("io.containerd.runtime.v2.task/k8s.io/kr-starting");
    fs::write(
        bundle.join("shim-binary-path"),
        "/opt/kata/bin/containerd-shim-kata-v2",
    )
    .unwrap();
    let ran = node.run(&["--timeout", "10s", "list", "--format", "json"]);
    assert!(ran.took < Duration::from_secs(3), "{:?}", ran.took);
    let rows = listed(&ran);
    assert_eq!(rows[0]["status"], "starting");
    assert_eq!(calls.lock().unwrap().len(), 1);
    // Once its monitor listens, the machine is up, and a shim that is silent then is hung.
    fs::write(bundle.join("monitor_address"), "unix:///run/x").unwrap();
    let rows = listed(&node.run(&["--timeout", "500ms", "list", "--format", "json"]));
    assert_eq!(rows[0]["status"], "not answering");
}

#[test]
fn the_places_where_containers_are_looked_for_are_listed() {
    let node = Node::new();
    node.bundle("default", "c1", &[]);
    let table = node.run(&["list", "--places"]);
    assert_eq!(table.status, Some(0), "{}", table.stderr);
    let lines: Vec<_> = table.stdout.lines().collect();
    assert!(
        lines[0].starts_with("DIRECTORY") && lines[0].ends_with("FOUND"),
        "{}",
        table.stdout
    );
    for usual in [
        "/run/containerd ",
        "/run/k0s/containerd ",
        "/run/containers/storage ",
        "/run/host-containerd ",
    ] {
        assert!(
            lines.iter().any(|line| line.starts_with(usual)),
            "{usual}: {}",
            table.stdout
        );
    }
    let own = lines.last().unwrap();
    assert!(
        own.starts_with(node.state_dir().to_str().unwrap()) && own.ends_with("1 container"),
        "{own}"
    );
    let rows = listed(&node.run(&["list", "--places", "--format", "json"]));
    let last = rows.last().unwrap();
    assert_eq!(
        (&last["containers"], &last["sandboxes"], &last["exists"]),
        (&1.into(), &0.into(), &true.into())
    );
    assert!(rows[0]["source"].as_str().unwrap().starts_with("https://"));
}
