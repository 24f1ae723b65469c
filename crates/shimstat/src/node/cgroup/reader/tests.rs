use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::node::cgroup::{CountBounds, ProcessCounts};
use crate::stats::Limit;

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn v2(directory: &Path) -> Cgroup {
    Cgroup {
        directories: CgroupDirectories::V2(directory.into()),
        page_sizes: Arc::from(["2MB".to_owned()]),
    }
}

#[test]
fn a_files_name_tells_its_controllers_directory() {
    let dir = tempfile::tempdir().unwrap();
    let controllers = ["cpu", "cpuacct", "memory", "hugetlb"];
    let files = [
        ("cpuacct/cpuacct.usage", "5\n"),
        ("cpu/cpu.shares", "512\n"),
        ("memory/memory.kmem.tcp.usage_in_bytes", "6\n"),
        ("hugetlb/hugetlb.2MB.usage_in_bytes", "7\n"),
        ("pids/pids.current", "8\n"),
    ];
    for (file, text) in files {
        write(&dir.path().join(file), text);
    }
    let cgroup = Cgroup {
        directories: CgroupDirectories::V1(
            controllers
                .iter()
                .map(|name| ((*name).into(), dir.path().join(name)))
                .collect(),
        ),
        ..v2(dir.path())
    };
    let stats = cgroup.stats().unwrap();
    assert_eq!(stats.cpu.usage.total, Some(5));
    assert_eq!(stats.memory.kernel_tcp.usage, Some(6));
    assert_eq!(stats.hugetlb["2MB"].usage, Some(7));
    assert_eq!(stats.pids.current, None, "it is not in that hierarchy");
    assert_eq!(cgroup.limits().cpu_shares, Some(512));
    assert_eq!(cgroup.version(), CgroupVersion::V1);
}

#[test]
fn what_cannot_be_read_is_not_known() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("memory.max"), "max\n");
    write(&dir.path().join("memory.stat"), &"x 1\n".repeat(300_000));
    fs::create_dir(dir.path().join("cpu.max")).unwrap();
    let cgroup = v2(dir.path());
    assert_eq!(cgroup.limits().memory, Some(Limit::Unlimited));
    assert_eq!(cgroup.limits().cpu_quota, None);
    assert!(cgroup.stats().unwrap().memory.raw.is_empty(), "it is too long");
    let gone = v2(&dir.path().join("gone"));
    assert_eq!(gone.stats(), None);
    assert_eq!(gone.limits(), Limits::default());
    assert_eq!(
        gone.count_processes(CountBounds::default()),
        ProcessCounts::default()
    );
}

/// A process with so many files and sockets open.
fn process(proc: &Path, pid: u32, files: u32, sockets: u32) {
    let fds = proc.join(format!("{pid}/fd"));
    fs::create_dir_all(&fds).unwrap();
    for fd in 0..files {
        symlink("/dev/null", fds.join(fd.to_string())).unwrap();
    }
    for fd in files..files + sockets {
        symlink(format!("socket:[{fd}]"), fds.join(fd.to_string())).unwrap();
    }
}

#[test]
fn processes_of_the_cgroup_and_below_are_counted_with_what_they_have_open() {
    let dir = tempfile::tempdir().unwrap();
    let (cgroup, proc) = (dir.path().join("c1"), dir.path().join("proc"));
    write(&cgroup.join("cgroup.procs"), "10\n11\n");
    write(&cgroup.join("init.scope/cgroup.procs"), "12\n10\n");
    write(&cgroup.join("system.slice/x.service/cgroup.procs"), "13\n");
    write(&cgroup.join("system.slice/cgroup.procs"), "");
    process(&proc, 10, 3, 1);
    process(&proc, 11, 2, 2);
    process(&proc, 12, 1, 0);
    // 13 has ended.
    let count = |processes, descriptors| {
        let bounds = CountBounds {
            processes,
            descriptors,
        };
        v2(&cgroup).count_processes_in(&proc, bounds, |_| None)
    };
    let all = ProcessCounts {
        processes: Some(4),
        file_descriptors: Some(9),
        sockets: Some(3),
    };
    assert_eq!(count(4, 9), all);
    let processes_only = ProcessCounts {
        processes: Some(4),
        ..ProcessCounts::default()
    };
    assert_eq!(count(3, 9), processes_only);
    assert_eq!(count(4, 8), processes_only);
    let told = v2(&cgroup).count_processes_in(
        &proc,
        CountBounds {
            processes: 4,
            descriptors: 9,
        },
        |_| Some(100),
    );
    assert_eq!(
        (told.file_descriptors, told.sockets),
        (Some(400), None),
        "the kernel tells that there are too many to look at"
    );
    fs::write(proc.join("14"), "").unwrap();
    write(&cgroup.join("cgroup.procs"), "14\n");
    assert_eq!(count(9, 9).file_descriptors, None, "it may not be looked at");
}

#[test]
fn too_many_child_cgroups_are_not_counted_in_part() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("cgroup.procs"), "1\n");
    for child in 0..200 {
        write(&dir.path().join(format!("{child}/cgroup.procs")), "2\n");
    }
    assert_eq!(
        v2(dir.path()).count_processes_in(dir.path(), CountBounds::default(), |_| None),
        ProcessCounts::default()
    );
}
