//! A container's cgroup, read by the library without its shim, against what the shim says and what the kernel does.

use std::process::Command;

use serde_json::{Map, Value};
use shimstat::node::RootFilesystem;
use shimstat::node::cgroup::{Cgroup, CgroupError, CgroupMounts, CountBounds};
use shimstat::stats::Limit;

use crate::support::{Task, eventually, for_each_containerd};

fn mounts() -> CgroupMounts {
    CgroupMounts::read().expect("this host has cgroups")
}

fn cgroup(task: &Task) -> Cgroup {
    mounts()
        .of_process(task.pid(), &task.id, None)
        .expect("runc gave it a cgroup")
}

/// What a shim reports of a cgroup: no network, and of `memory.stat` the keys that the reply has a field for.
fn comparable(mut data: Value, keys: &Map<String, Value>) -> Value {
    for network in ["interfaces", "tcp", "tcp6", "udp", "udp6"] {
        data.as_object_mut().unwrap().remove(network);
    }
    let raw = data["memory"]["raw"].as_object_mut().unwrap();
    raw.retain(|key, _| keys.contains_key(key));
    data
}

#[test]
fn its_files_say_what_the_shim_says() {
    for_each_containerd(|containerd| {
        let work = "dd if=/dev/zero of=/f bs=64k count=64 conv=fsync 2>/dev/null; i=0; \
                    while [ $i -lt 200000 ]; do i=$((i+1)); done; exec sleep 1000";
        let options = ["--memory-limit", "67108864", "--cpus", "0.5"];
        let task = containerd.run_container(&options, &["sh", "-c", work]);
        let program = format!("/proc/{}/comm", task.pid());
        eventually("it has done its work", || {
            std::fs::read_to_string(&program).is_ok_and(|name| name == "sleep\n")
        });
        containerd.ctr(&["task", "pause", &task.id]);
        // The kernel's own housekeeping changes the numbers of a paused container now and then.
        let (mut said, mut read) = (Value::Null, Value::Null);
        for _ in 0..20 {
            let event = containerd.ask(&["events", "--stats", &task.id]).json();
            let keys = event["data"]["memory"]["raw"].as_object().unwrap().clone();
            said = comparable(event["data"].clone(), &keys);
            read = comparable(cgroup(&task).stats().unwrap().to_json(), &keys);
            if said == read {
                break;
            }
        }
        assert_eq!(read, said);
        assert!(read["cpu"]["throttling"]["periods"].as_u64() > Some(0));
        assert!(read["memory"]["raw"].as_object().unwrap().len() > 20);
        containerd.ctr(&["task", "resume", &task.id]);
    });
}

#[test]
fn its_limits_are_todays() {
    for_each_containerd(|containerd| {
        let options = ["--memory-limit", "67108864", "--cpus", "0.5"];
        let task = containerd.run_container(&options, &["sleep", "1000"]);
        let created = cgroup(&task).limits();
        assert_eq!(
            (created.cpu_quota, created.cpu_period),
            (Some(Limit::At(50_000)), Some(100_000))
        );
        assert_eq!(created.memory, Some(Limit::At(64 << 20)));
        assert_eq!(created.pids, Some(Limit::Unlimited));

        let root = format!("/run/containerd/runc/{}", task.namespace);
        let update = [
            ["--cpu-quota", "150000"],
            ["--cpu-share", "512"],
            ["--memory", "100000000"],
            ["--memory-reservation", "50000000"],
            ["--pids-limit", "77"],
        ];
        let status = Command::new("runc")
            .args(["--root", &root, "update"])
            .args(update.as_flattened())
            .arg(&task.id)
            .status()
            .expect("runc starts");
        assert!(status.success());
        let resized = cgroup(&task).limits();
        assert_eq!(resized.cpu_quota, Some(Limit::At(150_000)));
        assert_eq!(resized.cpu_shares, Some(512));
        // The kernel rounds to pages.
        assert_eq!(resized.memory, Some(Limit::At(100_000_000 / 4096 * 4096)));
        assert_eq!(
            resized.memory_reservation,
            Some(Limit::At(50_000_000 / 4096 * 4096))
        );
        assert_eq!(resized.pids, Some(Limit::At(77)));
    });
}

#[test]
fn its_processes_are_counted_with_what_they_have_open() {
    for_each_containerd(|containerd| {
        let work = "nc -l -p 7777 & exec sleep 1000 </dev/null 5</etc/passwd";
        let task = containerd.run_container(&[], &["sh", "-c", work]);
        let count = || cgroup(&task).count_processes(CountBounds::default());
        eventually("it listens", || count().sockets == Some(1));
        let counts = count();
        assert_eq!(counts.processes, Some(2));
        let procs = task.cgroup_text("cpu", "cgroup.procs");
        let list = |pid: &str| {
            let ls = Command::new("ls")
                .arg(format!("/proc/{pid}/fd"))
                .output()
                .expect("ls starts");
            ls.stdout.split(|byte| *byte == b'\n').count() as u64 - 1
        };
        assert_eq!(counts.file_descriptors, Some(procs.lines().map(list).sum()));

        let stat = Command::new("stat")
            .args(["--file-system", "--format", "%T %b %S %c %d"])
            .arg(format!("/proc/{}/root", task.pid()))
            .output()
            .expect("stat starts");
        let stat = String::from_utf8(stat.stdout).unwrap();
        let words: Vec<&str> = stat.split_whitespace().collect();
        let number = |index: usize| words[index].parse::<u64>().unwrap();
        let root = RootFilesystem::find(task.pid()).unwrap().expect("a local disk");
        let space = root.space(task.pid()).unwrap();
        assert_eq!(space.bytes, number(1) * number(2), "{stat}");
        assert_eq!(space.inodes.unwrap_or(0), number(3), "{stat}");
    });
}

#[test]
fn a_cgroup_is_empty_once_its_processes_have_ended() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&[], &["sleep", "1000"]);
        let pid = task.pid();
        let running = cgroup(&task);
        assert!(!running.stats().unwrap().is_emptied());
        let error = mounts().of_process(pid, "another", None).unwrap_err();
        assert!(matches!(error, CgroupError::OtherContainer { .. }), "{error}");
        let own = mounts()
            .of_process(std::process::id(), &task.id, None)
            .unwrap_err();
        assert!(matches!(own, CgroupError::OtherContainer { .. }), "{own}");

        task.stop();
        let stopped = running.stats().unwrap();
        assert!(stopped.is_emptied(), "{stopped:?}");
        containerd.ctr(&["task", "delete", &task.id]);
        assert_eq!(running.stats(), None);
        assert!(mounts().of_process(pid, &task.id, None).is_err());
    });
}
