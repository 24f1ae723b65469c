use super::*;
use crate::node::proc_fs::testing::Tree;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::fs;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
const SANDBOX: &str = "799c4f122b55eaf1ba58c36f1a7757be0d0d976a7933fa4c8669b5663274a9bf";
const CONTAINER: &str = "f9823c73086ceae8430f3cf99a65221f2d03675bb19fc9cee465ee4ab54813e7";
const ROOT: &str = "/run/containerd/runsc/k8s.io";

fn bundle(path: impl Into<PathBuf>, namespace: &str) -> Bundle {
    Bundle::of_task(namespace, "c", path)
}

/// The root that a bundle with this `state.json` names.
fn root_of(state: &str) -> Result<PathBuf, GvisorError> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("state.json"), state).unwrap();
    root(&bundle(dir.path(), "k8s.io"))
}

/// The recorded state of the pod's container, as one of `id` in `sandbox`, with a change to it.
fn state(
    id: &str,
    sandbox: &str,
    change: impl FnOnce(&mut Value),
) -> Result<Option<GvisorState>, GvisorError> {
    let recorded = format!("{FIXTURES}/gvisor-2026-08/{CONTAINER}_sandbox:{SANDBOX}.state");
    let mut value: Value = serde_json::from_slice(&fs::read(recorded).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    value["sandbox"]["controlSocketPath"] =
        json!(dir.path().join(format!("runsc-{SANDBOX}.sock")).to_str().unwrap());
    change(&mut value);
    fs::write(
        dir.path().join(format!("{id}_sandbox:{sandbox}.state")),
        value.to_string(),
    )
    .unwrap();
    GvisorState::read(dir.path(), id, sandbox)
}

fn changed(change: impl FnOnce(&mut Value)) -> GvisorState {
    state(CONTAINER, SANDBOX, change).unwrap().unwrap()
}

#[test]
fn the_shim_notes_its_root_in_the_bundle() {
    for (fixture, namespace, expected) in [
        (format!("gvisor-2026-08/bundle-{SANDBOX}"), "k8s.io", ROOT),
        (format!("gvisor-2026-08/bundle-{CONTAINER}"), "k8s.io", ROOT),
        (
            "crio-1.37/runsc-sandbox-bundle".into(),
            "default",
            "/run/containerd/runsc/default",
        ),
        (
            "crio-1.37/runsc-container-bundle".into(),
            "default",
            "/run/containerd/runsc/default",
        ),
        // A bundle that notes nothing.
        (
            "kata-3.30-go/bundle-child".into(),
            "default",
            "/run/containerd/runsc/default",
        ),
    ] {
        let bundle = bundle(format!("{FIXTURES}/{fixture}"), namespace);
        assert_eq!(root(&bundle).unwrap(), Path::new(expected), "{fixture}");
    }
    for (state, expected) in [
        (
            r#"{"options":{"root":"/var/run/runsc","runscConfig":null}}"#,
            "/var/run/runsc/k8s.io",
        ),
        (
            r#"{"options":{"root":"/var/run/runsc/"}}"#,
            "/var/run/runsc/k8s.io",
        ),
        // A flag for runsc itself comes last, and names the whole path.
        (
            r#"{"options":{"root":"/a","runscConfig":{"root":"/b","debug":"true"}}}"#,
            "/b",
        ),
        ("{}", ROOT),
    ] {
        assert_eq!(root_of(state).unwrap(), Path::new(expected), "{state}");
    }
    for relative in ["runsc", "../runsc", "."] {
        let error = root_of(&format!(r#"{{"options":{{"root":"{relative}"}}}}"#)).unwrap_err();
        assert!(matches!(error, GvisorError::Root { .. }), "{error}");
    }
    for broken in ["", "{", "[1]", r#"{"options":{"root":5}}"#] {
        let error = root_of(broken).unwrap_err();
        assert!(matches!(error, GvisorError::Json { .. }), "{error}");
    }
}

#[test]
fn reads_the_state_of_a_pod() {
    for id in [SANDBOX, CONTAINER] {
        let dir = tempfile::tempdir().unwrap();
        let name = format!("{id}_sandbox:{SANDBOX}.state");
        let text = fs::read_to_string(format!("{FIXTURES}/gvisor-2026-08/{name}")).unwrap();
        let socket = dir.path().join(format!("runsc-{SANDBOX}.sock"));
        // As recorded, except the root.
        fs::write(
            dir.path().join(&name),
            text.replace(ROOT, dir.path().to_str().unwrap()),
        )
        .unwrap();
        let state = GvisorState::read(dir.path(), id, SANDBOX).unwrap().unwrap();
        assert_eq!((state.id.as_str(), state.status), (id, Status::Running));
        let sandbox = state.sandbox.unwrap();
        assert_eq!((sandbox.id.as_str(), sandbox.pid), (SANDBOX, Some(18841)));
        assert_eq!(sandbox.control_socket().unwrap(), Address::Path(socket));
        assert_eq!(
            sandbox.cgroup,
            Some(GvisorCgroup::V1(format!("k8s.io/{SANDBOX}").into()))
        );
        assert!(!sandbox.host_network_stack);
        assert_eq!(
            GvisorState::read(dir.path(), id, id).unwrap().is_some(),
            id == SANDBOX
        );
    }
}

#[test]
fn a_sandbox_that_is_gone_or_on_the_hosts_network_says_so() {
    assert_eq!(changed(|state| state["sandbox"] = Value::Null).sandbox, None);
    let sandbox = |change: fn(&mut Value)| changed(|state| change(&mut state["sandbox"])).sandbox.unwrap();
    assert_eq!(sandbox(|s| s["pid"] = json!(0)).pid, None);
    assert!(sandbox(|s| s["metricMetadata"]["network"] = json!("host")).host_network_stack);
    assert!(!sandbox(|s| s["metricMetadata"] = Value::Null).host_network_stack);
}

#[test]
fn the_control_socket_is_where_gvisor_puts_it_or_nowhere() {
    let socket = |path: &str| {
        let state = changed(|state| state["sandbox"]["controlSocketPath"] = json!(path));
        state.sandbox.unwrap().control_socket()
    };
    for directory in ["/run", "/var/run"] {
        let path = format!("{directory}/runsc-{SANDBOX}.sock");
        assert_eq!(socket(&path).unwrap(), Address::Path(path.into()));
    }
    for elsewhere in [
        format!("/tmp/runsc-{SANDBOX}.sock"),
        format!("/run/user/1000/runsc-{SANDBOX}.sock"),
        format!("/run/../tmp/runsc-{SANDBOX}.sock"),
        format!("runsc-{SANDBOX}.sock"),
        format!("/run/runsc-{CONTAINER}.sock"),
        "/run/containerd/containerd.sock".into(),
        "/run/docker.sock".into(),
        format!("\0runsc-sandbox.{SANDBOX}"),
        "/".into(),
        String::new(),
    ] {
        let error = socket(&elsewhere).unwrap_err();
        assert!(
            matches!(error, GvisorError::ControlSocket { .. }),
            "{elsewhere:?}: {error}"
        );
    }
}

#[test]
fn a_file_that_says_what_cannot_be_is_an_error() {
    let wrong = |change: fn(&mut Value)| state(CONTAINER, SANDBOX, change).unwrap_err();
    for error in [
        wrong(|s| *s = json!([])),
        wrong(|s| s["status"] = json!(7)),
        wrong(|s| s["sandbox"]["pid"] = json!(-1)),
        wrong(|s| s["sandbox"]["pid"] = json!(1_u64 << 32)),
        wrong(|s| s["sandbox"]["pid"] = json!("18841")),
        wrong(|s| s["sandbox"]["cgroup"] = json!("/")),
    ] {
        assert!(matches!(error, GvisorError::Json { .. }), "{error}");
    }
    for error in [
        wrong(|s| s["id"] = json!("other")),
        wrong(|s| s["sandbox"]["id"] = json!("other")),
        state(CONTAINER, CONTAINER, |_| {}).unwrap_err(),
    ] {
        assert!(matches!(error, GvisorError::OtherContainer { .. }), "{error}");
    }
    for (id, sandbox) in [("../c", "s"), ("c", "../s"), ("", "s"), ("c", "a/b")] {
        let error = GvisorState::read(Path::new(ROOT), id, sandbox).unwrap_err();
        assert!(matches!(error, GvisorError::Id { .. }), "{error}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c_sandbox:c.state");
    fs::write(&path, r#"{"id":"c","status":"run"#).unwrap();
    let cut_off = GvisorState::read(dir.path(), "c", "c").unwrap_err().to_string();
    assert!(
        cut_off.starts_with(&format!("{}: not as gVisor writes it: EOF", path.display())),
        "{cut_off}"
    );
    fs::write(&path, "[".repeat(100_000)).unwrap();
    assert!(GvisorState::read(dir.path(), "c", "c").is_err());
}

#[test]
fn a_new_word_for_a_status_is_not_an_error() {
    assert_eq!(
        changed(|state| state["status"] = json!("hibernating")).status,
        Status::Unknown
    );
}

#[test]
fn the_sandboxs_process_is_known_by_its_arguments() {
    let sandbox = changed(|_| {}).sandbox.unwrap();
    let proc = tempfile::tempdir().unwrap();
    let directory = proc.path().join("18841");
    // No process: it is gone, or in a pid namespace that we do not see.
    assert_eq!(sandbox.is_running_in(proc.path(), true), Some(false));
    assert_eq!(sandbox.is_running_in(proc.path(), false), None);
    fs::create_dir(&directory).unwrap();
    let arguments = |words: &[&str]| {
        fs::write(
            directory.join("cmdline"),
            words.iter().map(|word| format!("{word}\0")).collect::<String>(),
        )
        .unwrap();
        sandbox.is_running_in(proc.path(), true)
    };
    assert_eq!(
        arguments(&["runsc-sandbox", "--root=/r", "boot", "--bundle=/b", SANDBOX]),
        Some(true)
    );
    for other in [
        // A zombie; another sandbox with the pid; other processes that name this one.
        &[][..],
        &["runsc-sandbox", "boot", CONTAINER],
        &["runsc-gofer", "gofer", SANDBOX],
        &["runsc", "state", SANDBOX],
        &["vi", SANDBOX],
        &[SANDBOX],
        &["runsc-sandbox", "boot", SANDBOX, ""],
    ] {
        assert_eq!(arguments(other), Some(false), "{other:?}");
    }
    assert_eq!(
        arguments(&["gvisor-prewarmer", "/runsc", "runsc-sandbox", "boot", SANDBOX]),
        Some(true)
    );
    let none = GvisorSandbox {
        pid: None,
        ..sandbox.clone()
    };
    assert_eq!(none.is_running_in(proc.path(), false), Some(false));
}

#[test]
fn the_status_is_the_files_while_the_sandbox_lives() {
    // A process that looks like the sandbox's, blocked on its input.
    let mut living = std::process::Command::new("sh");
    std::os::unix::process::CommandExt::arg0(&mut living, "runsc-sandbox");
    let mut living = living
        .args(["-c", "read line", "boot", SANDBOX])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let status = |status: &str, pid: u32| {
        let (status, pid) = (json!(status), json!(pid));
        changed(|state| {
            state["status"] = status;
            state["sandbox"]["pid"] = pid;
        })
        .status()
    };
    for (word, expected) in [
        ("creating", Status::Creating),
        ("created", Status::Created),
        ("running", Status::Running),
        ("paused", Status::Paused),
        ("stopped", Status::Stopped),
    ] {
        assert_eq!(status(word, living.id()), Some(expected));
        assert_eq!(status(word, 0), Some(Status::Stopped));
    }
    let pid = living.id();
    living.kill().unwrap();
    let gone = |status| {
        let sees_all = fs::read_link("/proc/self/ns/pid").unwrap() == Path::new("pid:[4026531836]");
        assert_eq!(status, sees_all.then_some(Status::Stopped));
    };
    living.wait().unwrap();
    gone(status("running", pid));
    assert_eq!(status("stopped", pid), Some(Status::Stopped));
    assert_eq!(
        changed(|state| state["sandbox"] = Value::Null).status(),
        Some(Status::Stopped)
    );
}

#[test]
fn the_cgroup_is_read_as_gvisor_writes_it() {
    let cgroup = |value: Value| {
        changed(|state| state["sandbox"]["cgroup"] = value)
            .sandbox
            .unwrap()
            .cgroup
    };
    let v1 = |path: &str| Some(GvisorCgroup::V1(path.into()));
    let v2 = |path: &str| Some(GvisorCgroup::V2(path.into()));
    for (value, expected) in [
        (
            json!({"cgroupv1": {"name": "/kubepods/podx", "parents": null, "own": {"cpu": true}}}),
            v1("kubepods/podx"),
        ),
        // A relative name is below what the controllers' parents are.
        (
            json!({"cgroupv1": {"name": "podx", "parents": {"cpuacct": "/user.slice", "cpu": "/other"}, "own": {}}}),
            v1("user.slice/podx"),
        ),
        (
            json!({"cgroupv2": {"mountpoint": "/sys/fs/cgroup", "path": "/k8s.io/x", "controllers": ["cpu"], "own": null}}),
            v2("k8s.io/x"),
        ),
        // cgroupSystemd holds a cgroupV2, with its path made of slice and unit.
        (
            json!({"cgroupsystemd": {
                "mountpoint": "/sys/fs/cgroup", "path": "kubepods.slice/cri-containerd-x.scope", "controllers": [],
                "own": null, "Name": "x", "Parent": "kubepods.slice", "ScopePrefix": "cri-containerd",
            }}),
            v2("kubepods.slice/cri-containerd-x.scope"),
        ),
        (json!({"cgroupunknown": null}), None),
        (json!({"cgroupv2": {"path": "/"}}), None),
        (json!({"cgroupv2": {"path": "/../../etc"}}), None),
        (
            json!({"cgroupv1": {"name": "x", "parents": {"cpuacct": "/.."}}}),
            None,
        ),
    ] {
        assert_eq!(cgroup(value.clone()), expected, "{value}");
    }
    assert_eq!(
        changed(|state| state["sandbox"]["cgroup"] = json!({}))
            .sandbox
            .unwrap()
            .cgroup,
        None
    );
}

#[test]
fn the_cgroups_processor_time_is_in_nanoseconds() {
    let tree = Tree::new();
    let mounts = tree.mounts(&[("unified", "cgroup2", "rw"), ("cpu", "cgroup", "rw,cpu,cpuacct")]);
    let (v1, v2) = (GvisorCgroup::V1("a/b".into()), GvisorCgroup::V2("a/b".into()));
    assert_eq!(v1.cpu_usage_in(&mounts).unwrap(), None);
    assert_eq!(v2.cpu_usage_in(&mounts).unwrap(), None);
    tree.write("cpu/a/b/cpuacct.usage", "328810336\n");
    // A recorded cpu.stat; newlines are semicolons there.
    let cpu_stat = "usage_usec 4185290\nuser_usec 4170132\nsystem_usec 15157\nnr_periods 209\n";
    tree.write("unified/a/b/cpu.stat", cpu_stat);
    assert_eq!(v1.cpu_usage_in(&mounts).unwrap(), Some(328_810_336));
    assert_eq!(v2.cpu_usage_in(&mounts).unwrap(), Some(4_185_290_000));
    for broken in [
        "",
        "usage_usec",
        "usage_usec x\n",
        "usage_usec 18446744073709551615\n",
        "user_usec 5\n",
    ] {
        tree.write("unified/a/b/cpu.stat", broken)
            .write("cpu/a/b/cpuacct.usage", broken);
        assert!(v2.cpu_usage_in(&mounts).is_err(), "{broken:?}");
        assert!(v1.cpu_usage_in(&mounts).is_err(), "{broken:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_state_file_panics(at in any::<proptest::sample::Index>(), bytes in proptest::collection::vec(any::<u8>(), 0..8)) {
        let path = format!("{FIXTURES}/gvisor-2026-08/{CONTAINER}_sandbox:{SANDBOX}.state");
        let mut json = fs::read(path).unwrap();
        let at = at.index(json.len());
        let end = (at + bytes.len()).min(json.len());
        json.splice(at..end, bytes.iter().copied());
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(format!("{CONTAINER}_sandbox:{SANDBOX}.state")), json).unwrap();
        if let Ok(Some(state)) = GvisorState::read(dir.path(), CONTAINER, SANDBOX) {
            let _ = state.status();
        }
        fs::write(dir.path().join("state.json"), &bytes).unwrap();
        let _ = root(&bundle(dir.path(), "k8s.io"));
    }
}
