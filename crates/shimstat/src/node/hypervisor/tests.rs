use super::*;
use std::os::unix::fs::symlink;

struct StateDirs {
    dir: tempfile::TempDir,
}

impl StateDirs {
    fn new() -> Self {
        let roots = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        fs::create_dir_all(roots.dir.path().join("kata/s1")).unwrap();
        fs::create_dir_all(roots.dir.path().join("sbs/s1")).unwrap();
        roots
    }

    fn state(&self, json: &str) {
        fs::write(self.dir.path().join("kata/s1/state.json"), json).unwrap();
    }

    fn risk(&self, socket: &str) -> Risk {
        let (rust, go) = (self.dir.path().join("kata"), self.dir.path().join("sbs"));
        risk_below(&rust, &go, "s1", &Address::Path(self.dir.path().join(socket)))
    }
}

#[test]
fn notes_are_read_again_when_they_have_changed() {
    let roots = StateDirs::new();
    let (go, rust) = (roots.dir.path().join("sbs"), roots.dir.path().join("kata"));
    let path = go.join("s1/persist.json");
    let write = |pid: u32, age: u64| {
        fs::write(&path, format!("{{\"HypervisorState\":{{\"Pid\":{pid}}}}}")).unwrap();
        let changed = SystemTime::now() - std::time::Duration::from_secs(age);
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(changed)
            .unwrap();
    };
    let mut notes = MachineNotes::default();
    let mut pid = || {
        notes
            .read_below(&go, &rust, "s1")
            .unwrap()
            .and_then(|machine| machine.vmm_pid)
    };
    write(11, 60);
    assert_eq!((pid(), pid()), (Some(11), Some(11)));
    write(12, 50);
    assert_eq!(pid(), Some(12));
    // The clock of a filesystem is coarse: what was just written may change without a trace.
    write(13, 0);
    assert_eq!(pid(), Some(13));
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "{\"HypervisorState\":{\"Pid\":14}}").unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(modified)
        .unwrap();
    assert_eq!(pid(), Some(14));
    fs::remove_file(&path).unwrap();
    assert_eq!(pid(), None);
}

#[test]
fn reads_the_recorded_virtual_machines() {
    let roots = StateDirs::new();
    let (go, rust) = (roots.dir.path().join("sbs"), roots.dir.path().join("kata"));
    let read = |id| virtual_machine_below(&go, &rust, id).unwrap();
    assert_eq!(read("s1"), None);
    roots.state(include_str!("../../../tests/fixtures/kata-3.30-rs/state.json"));
    let expected = VirtualMachine {
        shim: KataShim::Rust,
        hypervisor: Some("clh".into()),
        kind: MachineKind::Local,
        vmm_pid: None,
        virtiofsd_pid: None,
        configured_memory: None,
        cgroups: CgroupPaths::default(),
    };
    let read_rust = read("s1").unwrap();
    assert_eq!(read_rust.vmm_pid, None, "null and 0 are no pids");
    assert_eq!(
        VirtualMachine {
            cgroups: CgroupPaths::default(),
            ..read_rust
        },
        expected
    );
    roots.state(include_str!("../../../tests/fixtures/kata-4.1-rs-clh/state.json"));
    let expected = VirtualMachine {
        configured_memory: Some(512 << 20),
        cgroups: CgroupPaths {
            sandbox: Some("k8s.io/879137f111b1d18dc71f2ad9f02aaf15e1db4a3d23e5c8440e5f4e2a30702734".into()),
            overhead: None,
        },
        ..expected
    };
    assert_eq!(
        read("s1"),
        Some(expected),
        "sandbox_cgroup_only: there is no cgroup for the overhead"
    );

    let recorded = include_str!("../../../tests/fixtures/kata-3.30-go/persist.json");
    fs::write(go.join("s1/persist.json"), recorded).unwrap();
    let old = read("s1").unwrap();
    assert_eq!(
        (
            old.shim,
            old.hypervisor.as_deref(),
            old.vmm_pid,
            old.virtiofsd_pid
        ),
        (KataShim::Go, Some("clh"), Some(7752), Some(7751))
    );
    let recorded = include_str!("../../../tests/fixtures/kata-4.1-go/persist.json");
    fs::write(go.join("s1/persist.json"), recorded).unwrap();
    let id = "3088681c97850785a2776c7b4575910a3c91545567c9c97d78c240177f524945";
    let expected = VirtualMachine {
        shim: KataShim::Go,
        hypervisor: Some("qemu".into()),
        kind: MachineKind::Local,
        vmm_pid: Some(14367),
        virtiofsd_pid: Some(14366),
        configured_memory: Some(512 << 20),
        cgroups: CgroupPaths {
            sandbox: Some(format!("/k8s.io/kata_{id}")),
            overhead: Some(format!("/kata_overhead/{id}")),
        },
    };
    assert_eq!(read("s1"), Some(expected));
    assert_eq!(read("../sbs/s1"), None, "no path is made of what is no id");
}

#[test]
fn a_broken_note_of_a_virtual_machine_is_none() {
    let roots = StateDirs::new();
    let (go, rust) = (roots.dir.path().join("sbs"), roots.dir.path().join("kata"));
    for broken in ["", "{", "[]", "7", r#"{"HypervisorState":null}"#] {
        fs::write(go.join("s1/persist.json"), broken).unwrap();
        let read = virtual_machine_below(&go, &rust, "s1").unwrap();
        assert!(read.is_none_or(|vm| vm.hypervisor.is_none()), "{broken}");
    }
    fs::write(
        go.join("s1/persist.json"),
        r#"{"HypervisorState":{"Type":"","Pid":-1,"VirtiofsDaemonPid":99999999999}}"#,
    )
    .unwrap();
    let vm = virtual_machine_below(&go, &rust, "s1").unwrap().unwrap();
    assert_eq!((vm.hypervisor, vm.vmm_pid, vm.virtiofsd_pid), (None, None, None));
}

#[test]
fn qemu_and_firecracker_below_the_rust_shim_are_deadly() {
    let roots = StateDirs::new();
    for name in ["qemu", "firecracker", "QEMU"] {
        roots.state(&format!(r#"{{"hypervisor":{{"hypervisor_type":"{name}"}}}}"#));
        assert!(
            matches!(roots.risk("kata/s1/shim-monitor.sock"), Risk::Deadly { hypervisor } if hypervisor == name)
        );
        assert!(
            matches!(roots.risk("sbs/s1/shim-monitor.sock"), Risk::None),
            "that is the Go shim's socket"
        );
    }
}

#[test]
fn the_recorded_cloud_hypervisor_sandbox_may_be_asked() {
    let roots = StateDirs::new();
    roots.state(include_str!("../../../tests/fixtures/kata-3.30-rs/state.json"));
    assert!(matches!(roots.risk("kata/s1/shim-monitor.sock"), Risk::None));
}

#[test]
fn a_socket_by_another_name_is_as_deadly() {
    let roots = StateDirs::new();
    let at = |path: &str| roots.dir.path().join(path);
    roots.state(r#"{"hypervisor":{"hypervisor_type":"qemu"}}"#);
    let socket = at("kata/s1/shim-monitor.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    symlink(roots.dir.path(), at("var-run")).unwrap();
    symlink(&socket, at("elsewhere.sock")).unwrap();
    symlink("../kata/s1", at("sbs/to-s1")).unwrap();
    fs::hard_link(&socket, at("same-inode.sock")).unwrap();
    for name in [
        "var-run/kata/s1/shim-monitor.sock",
        "elsewhere.sock",
        "sbs/to-s1/shim-monitor.sock",
        "sbs/../kata/s1/shim-monitor.sock",
        "same-inode.sock",
    ] {
        assert!(matches!(roots.risk(name), Risk::Deadly { .. }), "{name}");
    }
    // Whatever sandbox it is asked for, the one that listens there is at risk.
    let (rust, go) = (at("kata"), at("sbs"));
    let other = risk_below(
        &rust,
        &go,
        "s2",
        &Address::Path(at("var-run/kata/s1/shim-monitor.sock")),
    );
    assert!(matches!(other, Risk::Deadly { .. }));
    // A stopped shim removes its socket, and the directory still tells whose it was.
    drop(listener);
    fs::remove_file(&socket).unwrap();
    let gone = roots.risk("var-run/kata/s1/shim-monitor.sock");
    assert!(matches!(gone, Risk::Deadly { .. }));
    assert!(matches!(roots.risk("sbs/s1/shim-monitor.sock"), Risk::None));
    assert!(matches!(roots.risk("no-such-directory/x.sock"), Risk::None));
}

#[test]
fn what_cannot_be_told_is_unknown() {
    let roots = StateDirs::new();
    assert!(matches!(
        roots.risk("kata/s1/shim-monitor.sock"),
        Risk::Unknown { .. }
    ));
    for broken in [
        "",
        "{",
        "[]",
        r#"{"hypervisor":{}}"#,
        r#"{"hypervisor":{"hypervisor_type":""}}"#,
    ] {
        roots.state(broken);
        assert!(
            matches!(roots.risk("kata/s1/shim-monitor.sock"), Risk::Unknown { .. }),
            "{broken}"
        );
    }
}

#[test]
fn a_go_shim_with_a_misplaced_socket_may_be_asked() {
    let roots = StateDirs::new();
    fs::write(roots.dir.path().join("sbs/s1/persist.json"), "{}").unwrap();
    assert!(matches!(roots.risk("kata/s1/shim-monitor.sock"), Risk::None));
}

#[test]
fn a_note_that_cannot_be_read_is_an_error() {
    let roots = StateDirs::new();
    let (go, rust) = (roots.dir.path().join("sbs"), roots.dir.path().join("kata"));
    let path = go.join("s1/persist.json");
    fs::create_dir(&path).unwrap();
    let error = virtual_machine_below(&go, &rust, "s1").unwrap_err();
    assert_eq!(error.path, path);
}
