//! The container image, made by packaging/image.py and run by CRI as the DaemonSet of packaging/kubernetes would.

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use test_needs::needs;

use crate::exporter::{Monitor, exchange};
use crate::support::cri::Cri;
use crate::support::{eventually, for_each_cri, fresh_id};

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// The one container of the DaemonSet.
fn daemon_set() -> Value {
    let manifest = fs::read_to_string(format!(
        "{REPOSITORY}/packaging/kubernetes/kata-runtime-monitor.yaml"
    ))
    .unwrap();
    let manifest: Value = yaml_serde::from_str(&manifest).unwrap();
    assert_eq!(manifest["kind"], "DaemonSet");
    let pod = &manifest["spec"]["template"]["spec"];
    assert_eq!(pod["hostPID"], true);
    pod["containers"][0].clone()
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
}

/// An image of this name with the program that is tested.
fn image(directory: &Path, name: &str) -> String {
    let [binary, image] = ["kata-runtime", "image.tar"].map(|name| directory.join(name));
    run(Command::new("strip")
        .arg("-o")
        .arg(&binary)
        .arg(env!("CARGO_BIN_EXE_kata-runtime")));
    run(Command::new("python3")
        .arg(format!("{REPOSITORY}/packaging/image.py"))
        .arg(name)
        .arg(&image)
        .arg(&binary));
    image.display().to_string()
}

/// Families that say on which device a container's layer is, or how large it is.
const OF_LAYERS: [&str; 3] = [
    "container_fs_inodes_",
    "container_fs_limit_",
    "container_fs_usage_",
];

/// Names and labels of the series that are about sandboxes and containers.
fn series(page: &str) -> BTreeSet<&str> {
    // A container's layer is found from the root directory of process 1, which some machines for tests hide from root.
    let has_layers = Path::new("/proc/1/root/proc").exists();
    page.lines()
        .filter(|line| has_layers || !OF_LAYERS.iter().any(|family| line.starts_with(family)))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| Some(line.rsplit_once(' ')?.0))
        .filter(|series| {
            series.contains('{')
                && !series.starts_with("kata_monitor_scrape")
                && !series.starts_with("kata_monitor_build")
        })
        .collect()
}

#[test]
fn the_image_sees_in_a_daemon_sets_pod_what_there_is_to_see_on_the_host() {
    needs!("root", "python3", "strip");
    let daemon_set = daemon_set();
    let name = daemon_set["image"].as_str().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let image = image(directory.path(), &name);
    for_each_cri(|containerd| {
        containerd.ctr(&["--namespace", "k8s.io", "image", "import", &image]);
        let cri = Cri::of(containerd);
        let pod = cri.run_pod(&fresh_id("web"), "");
        let app = pod.run("app", &["sleep", "1000"], 64 << 20);

        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let mut container = daemon_set.clone();
        container["args"][0] = format!("--listen-address={address}").into();
        let daemon = cri.run_pod_with_host_pids(&fresh_id("monitor"));
        let state = containerd.state();
        // Without a namespace, sandboxes of other tests on this machine are in the pages.
        let global = ["--state", &state, "--namespace", "k8s.io"];
        let exporter = daemon.run_of_manifest(&container, &global, &[&state]);
        let get = |path: &str| {
            let stream = TcpStream::connect(&address).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            exchange(stream, "GET", path, &[]).ok()
        };
        eventually("the exporter answers", || get("/healthz").is_some());
        assert_eq!(get("/healthz").unwrap().status, 200);

        let mut command = Command::new(env!("CARGO_BIN_EXE_kata-runtime"));
        command
            .args(global)
            .args(["monitor", "--listen-address", "127.0.0.1:0"]);
        let on_host = Monitor::start(command).scrape();
        let in_pod = get("/metrics").unwrap();
        assert!(in_pod.text().contains("\nkata_monitor_host_pids_visible 1\n"));
        let (in_pod, on_host) = (series(in_pod.text()), series(&on_host.text));
        // What the exporter itself uses changes from one scrape to the next.
        let differ = in_pod.symmetric_difference(&on_host);
        let differ: Vec<_> = differ.filter(|series| !series.contains(&exporter)).collect();
        assert_eq!(differ, Vec::<&&str>::new());
        let of = |id: &str| {
            on_host
                .iter()
                .filter(|line| line.contains(&format!("id=\"{id}\"")))
                .count()
        };
        assert!(of(&app) > 20 && of(&exporter) > 20, "{on_host:#?}");

        // The program is there for people as well, at its name.
        let exec = [
            "--namespace",
            "k8s.io",
            "task",
            "exec",
            "--exec-id",
            "list",
            &exporter,
        ];
        let list =
            containerd.ctr(&[&exec[..], &["kata-runtime", "--state", &state, "list", "--quiet"]].concat());
        assert!(list.lines().any(|id| id == app), "{list}");
    });
}
