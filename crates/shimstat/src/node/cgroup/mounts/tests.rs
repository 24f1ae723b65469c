use super::*;
use std::os::unix::fs::symlink;

/// A machine: `proc`, and hierarchies below `cg`.
struct Machine(tempfile::TempDir);

impl Machine {
    /// Mounts in the form (root, directory below `cg`, type, options).
    fn new(mounts: &[(&str, &str, &str, &str)]) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        let lines = mounts.iter().map(|(root, point, fs_type, options)| {
            let point = machine.path("cg").join(point);
            format!(
                "30 29 0:26 {root} {} rw - {fs_type} none {options}\n",
                point.display()
            )
        });
        let text: String = lines.collect();
        machine.write("proc/self/mountinfo", &text);
        machine
    }

    fn v2() -> Self {
        Self::new(&[("/", "", "cgroup2", "rw,nsdelegate")])
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn write(&self, file: &str, text: &str) -> &Self {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn dir(&self, below: &str) -> &Self {
        fs::create_dir_all(self.path("cg").join(below)).unwrap();
        self
    }

    fn mounts(&self) -> CgroupMounts {
        CgroupMounts::read_in(&self.path("proc"), &self.path("hugepages")).unwrap()
    }

    /// The directories of the cgroup of process 42, below `cg`, by controller.
    fn of_process(&self, memberships: &str, id: &str, path: Option<&str>) -> Result<String, CgroupError> {
        self.write("proc/42/cgroup", memberships);
        Ok(self.shown(&self.mounts().of_process(42, id, path)?))
    }

    fn at(&self, path: &str) -> Option<String> {
        match self.mounts().at(path) {
            Ok(cgroup) => Some(self.shown(&cgroup)),
            Err(CgroupError::NotFound { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn shown(&self, cgroup: &Cgroup) -> String {
        let below = |path: &Path| {
            let path = path.strip_prefix(self.path("cg")).unwrap();
            path.to_str().unwrap().to_owned()
        };
        match &cgroup.directories {
            CgroupDirectories::V2(path) => below(path),
            CgroupDirectories::V1(all) => {
                let all: Vec<_> = all
                    .iter()
                    .map(|(controller, path)| format!("{controller}={}", below(path)))
                    .collect();
                all.join(" ")
            }
        }
    }
}

#[test]
fn the_containers_directory_and_not_the_processs_own() {
    let machine = Machine::v2();
    for (path, directory) in [
        ("/default/c1", "default/c1"),
        ("/default/c1/init.scope", "default/c1"),
        (
            "/kubepods.slice/pod1.slice/cri-containerd-c1.scope",
            "kubepods.slice/pod1.slice/cri-containerd-c1.scope",
        ),
        ("/pod1.slice/crio-c1.scope/container", "pod1.slice/crio-c1.scope"),
        ("/system.slice/c1.scope", "system.slice/c1.scope"),
        // A container in the container.
        ("/a/c1/docker/c1", "a/c1"),
    ] {
        machine.dir(directory);
        let found = machine.of_process(&format!("0::{path}\n"), "c1", None).unwrap();
        assert_eq!(found, directory, "{path}");
    }
}

#[test]
fn a_process_of_somebody_else_has_no_cgroup_of_the_container() {
    let machine = Machine::v2();
    machine
        .dir("a/c1")
        .dir("a/crio-conmon-c1.scope")
        .dir("a/xc1")
        .dir("a/c1.slice");
    for path in [
        "/",
        "/a",
        "/a/c12",
        "/a/xc1",
        "/a/xc1.scope",
        "/a/crio-conmon-c1.scope",
        "/a/c1.slice",
        "/a/c1 (deleted)",
    ] {
        let error = machine
            .of_process(&format!("0::{path}\n"), "c1", None)
            .unwrap_err();
        assert!(
            matches!(&error, CgroupError::OtherContainer { pid: 42, id, .. } if id == "c1"),
            "{path}: {error}"
        );
        assert!(
            error.to_string().contains(&format!("is in the cgroup {path}, ")),
            "{error}"
        );
    }
    assert!(machine.of_process("", "c1", None).is_err());
    assert!(machine.of_process("0::/a/c1", "", None).is_err(), "no id");
    let hostile = machine.of_process("0::/\u{1b}[2J\n", "c1", None).unwrap_err();
    assert!(!hostile.to_string().contains('\u{1b}'), "{hostile}");
    let ended = machine.mounts().of_process(43, "c1", None).unwrap_err();
    assert!(matches!(ended, CgroupError::Read(error) if error.is_missing()));
}

#[test]
fn a_specs_path_tells_the_cgroup_where_there_is_one() {
    let machine = Machine::v2();
    machine
        .dir("my/own")
        .dir("sys/my/own")
        .dir("a.slice/a-b.slice/cri-x.scope")
        .dir("my/c1");
    let of = |path: &str, expected: &str| {
        machine
            .of_process(&format!("0::{path}\n"), "c1", Some(expected))
            .ok()
    };
    assert_eq!(of("/my/own/below", "/my/own").as_deref(), Some("my/own"));
    // runc takes a relative path as one below its own cgroup.
    assert_eq!(of("/sys/my/own", "my/own").as_deref(), Some("sys/my/own"));
    assert_eq!(
        of("/a.slice/a-b.slice/cri-x.scope/init", "a-b.slice:cri:x").as_deref(),
        Some("a.slice/a-b.slice/cri-x.scope")
    );
    assert_eq!(of("/my/owner", "/my/own"), None);
    assert_eq!(of("/my/c1", "/my/own"), None, "the spec says where it is");
    assert_eq!(of("/my/c1", "").as_deref(), Some("my/c1"));
}

#[test]
fn cgroup_v1_has_a_directory_for_each_controller_that_knows_the_container() {
    let machine = Machine::new(&[
        ("/", "systemd", "cgroup", "rw,xattr,name=systemd"),
        ("/", "cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
        ("/", "memory", "cgroup", "rw,memory"),
        ("/", "pids", "cgroup", "rw,pids"),
        ("/", "freezer", "cgroup", "rw,freezer"),
        ("/", "unified", "cgroup2", "rw"),
    ]);
    for hierarchy in ["systemd", "cpu,cpuacct", "memory", "pids", "freezer", "unified"] {
        machine.dir(&format!("{hierarchy}/k8s.io/c1"));
    }
    let memberships = "6:name=systemd:/k8s.io/c1\n5:freezer:/k8s.io/c1\n4:pids:/\n3:memory:/k8s.io/c1/init\n\
                       2:cpu,cpuacct:/k8s.io/c1\n1:blkio:/k8s.io/c1\n0::/k8s.io/c1\n";
    assert_eq!(
        machine.of_process(memberships, "c1", None).unwrap(),
        "cpu=cpu,cpuacct/k8s.io/c1 cpuacct=cpu,cpuacct/k8s.io/c1 freezer=freezer/k8s.io/c1 memory=memory/k8s.io/c1",
        "pids are those of the whole machine, and blkio is not mounted"
    );
    let cgroup = machine.mounts().at("/k8s.io/c1").unwrap();
    assert_eq!(cgroup.version(), crate::stats::CgroupVersion::V1);
    assert!(machine.shown(&cgroup).contains("pids=pids/k8s.io/c1"));
}

#[test]
fn a_mount_of_a_part_shows_what_is_in_it() {
    // The hierarchy of a container that has a cgroup namespace of its own, with the host's mounted beside it.
    let machine = Machine::new(&[("/", "own", "cgroup2", "rw"), ("/../..", "host", "cgroup2", "rw")]);
    machine.dir("own/c1").dir("host/kubepods/c1");
    assert_eq!(
        machine.of_process("0::/../../kubepods/c1\n", "c1", None).unwrap(),
        "host/kubepods/c1"
    );
    assert_eq!(machine.of_process("0::/c1\n", "c1", None).unwrap(), "own/c1");
    let part = Machine::new(&[("/kubepods", "", "cgroup2", "rw")]);
    part.dir("c1").dir("podsx/c1");
    assert_eq!(part.of_process("0::/kubepods/c1\n", "c1", None).unwrap(), "c1");
    let beside = part.of_process("0::/kubepodsx/c1\n", "c1", None).unwrap_err();
    assert!(matches!(beside, CgroupError::NotFound { .. }), "{beside}");
}

/// A container in a pod of Kubernetes has a cgroup namespace of its own, and the kernel tells the paths of others relative to
/// it: only those that share no directory with it go up to the root.
#[test]
fn in_the_hosts_hierarchy_what_shares_a_part_of_our_path_is_found() {
    let machine = Machine::new(&[("/../..", "host", "cgroup2", "rw")]);
    machine.write("proc/self/stat", "7 (kata-runtime) S 1");
    machine.write("cg/host/kubepods/own/cgroup.procs", "5\n7\n");
    machine.write("cg/host/kubepods/c1/cgroup.procs", "77\n");
    machine.dir("host/system/c2").dir("host/kubepods/own/c3");
    let found = |path: &str, id| machine.of_process(&format!("0::{path}\n"), id, None);
    assert_eq!(found("/../c1", "c1").unwrap(), "host/kubepods/c1");
    assert_eq!(found("/../../system/c2", "c2").unwrap(), "host/system/c2");
    assert_eq!(found("/c3", "c3").unwrap(), "host/kubepods/own/c3");
    for (path, id) in [
        ("/../../../system/c2", "c2"),
        ("/..c1", "c1"),
        ("/../none/c1", "c1"),
    ] {
        assert!(matches!(
            found(path, id),
            Err(CgroupError::NotFound { .. } | CgroupError::OtherContainer { .. })
        ));
    }
    // A spec's path is from the root, whatever our namespace is.
    assert_eq!(machine.at("/kubepods/c1").as_deref(), Some("host/kubepods/c1"));
    assert_eq!(machine.at("/c3"), None);
}

#[test]
fn a_path_that_would_leave_the_hierarchy_is_not_followed() {
    let machine = Machine::v2();
    machine.dir("a/c1").dir("b");
    fs::create_dir(machine.path("outside")).unwrap();
    symlink(machine.path("outside"), machine.path("cg/link")).unwrap();
    assert_eq!(machine.at("/a/c1").as_deref(), Some("a/c1"));
    assert_eq!(machine.at("a/c1/").as_deref(), Some("a/c1"));
    for path in [
        "",
        "/",
        "..",
        "/../outside",
        "/a/../../outside",
        "/no",
        "/a/c1/no",
    ] {
        assert_eq!(machine.at(path), None, "{path}");
    }
    let error = machine.of_process("0::/../c1\n", "c1", None).unwrap_err();
    assert!(matches!(error, CgroupError::NotFound { .. }), "{error}");
}

// The units are those of systemd.slice(5), and runc's expandSlice.
#[test]
fn systemd_paths_stand_for_units() {
    for (path, unit) in [
        ("/kubepods/pod1/c1", "kubepods/pod1/c1"),
        ("system.slice:docker:c1", "system.slice/docker-c1.scope"),
        (":cri:c1", "system.slice/cri-c1.scope"),
        ("a-b-c.slice:cri:c1", "a.slice/a-b.slice/a-b-c.slice/cri-c1.scope"),
        ("-.slice:cri:c1", "cri-c1.scope"),
        ("a.slice::c1", "a.slice/c1.scope"),
        ("a.slice:x:c1.slice", "a.slice/c1.slice"),
    ] {
        assert_eq!(relative(path), unit, "{path}");
    }
}

#[test]
fn huge_pages_are_called_as_in_the_files_of_cgroups() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "hugepages-64kB",
        "hugepages-2048kB",
        "hugepages-1048576kB",
        "hugepages-x",
        "other",
    ] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let mut sizes = page_sizes(dir.path());
    sizes.sort();
    assert_eq!(sizes, ["1GB", "2MB", "64KB"]);
    assert!(page_sizes(&dir.path().join("no")).is_empty());
}
