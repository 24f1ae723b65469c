//! On cgroup v2, every number of every command against the kernel's files of a container, beside what ctr and runc say. The tables
//! of docs/cgroup-v2.md tell which number is which. `tests/cgroup-v2/run.sh` runs this in a virtual machine.

mod readings;
mod tables;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use self::tables::{Numbers, Tables};
use crate::exporter::Monitor;
use crate::monitor::{SHARED, monitor};
#[cfg(feature = "top")]
use crate::rates::near;
#[cfg(feature = "top")]
use crate::support::tmux::cells;
use crate::support::{Containerd, Task, eventually, for_each_containerd, fresh_id};

/// Fills shared memory until some of it is swapped out, asks for more than there is, writes and reads a disk, uses huge
/// pages and asks for too many; then sleeps.
const LOAD: &str = "until [ -e /go ]; do sleep 0.1; done
    dd if=/dev/urandom of=/dev/shm/file bs=64k count=480
    dd if=/dev/zero of=/dev/null bs=200M count=1
    truncate -s 28M /dev/shm/file
    dd if=/dev/zero of=/file bs=64k count=48 conv=fsync
    dd if=/file of=/dev/null bs=64k iflag=direct
    dd if=/dev/zero of=/other bs=64k count=32
    fallocate -l 4M /huge/file
    fallocate -l 8M /huge/file
    sleep 1000 & sleep 1000 &
    touch /done; exec sleep 1000";

/// The limits that LOAD runs into.
const LIMITS: [&str; 6] = [
    "--memory-limit",
    "33554432",
    "--cpus",
    "0.5",
    "--mount",
    "type=hugetlbfs,src=none,dst=/huge,options=rw",
];

/// What LOAD makes other than 0, so that its comparison says something.
const MOVED: [&str; 17] = [
    "cpu.stat system_usec",
    "cpu.stat throttled_usec",
    "cpu.pressure some total",
    "memory.stat anon",
    "memory.stat file",
    "memory.stat shmem",
    "memory.stat inactive_file",
    "memory.stat pgscan",
    "memory.stat pgsteal",
    "memory.swap.current",
    "memory.pressure full total",
    "memory.events oom_kill",
    "io.stat 259:0 rbytes",
    "io.stat 259:0 wbytes",
    "io.pressure some total",
    "hugetlb.2MB.current",
    "hugetlb.2MB.events max",
];

/// The cgroup of a container.
fn cgroup(task: &Task) -> PathBuf {
    task.cgroup_file("", "")
}

#[test]
#[ignore = "tests/cgroup-v2/run.sh runs it, in a virtual machine"]
fn every_number_is_the_kernels() {
    let tables = Tables::read();
    let (places, wrong) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    for_each_containerd(|containerd| {
        // The third word of "ctr containerd.io 1.6.20", or of "ctr github.com/containerd/containerd 1.7.24~ds1".
        let version = containerd.version.split(' ').nth(2).expect("a version");
        let monitor = monitor(containerd);
        for (name, start) in [
            ("loaded", loaded as fn(&Containerd) -> Task<'_>),
            ("idle", idle),
            ("controllers off", without_controllers),
        ] {
            let place = format!("containerd {version}, {name}");
            let task = start(containerd);
            wrong
                .borrow_mut()
                .extend(all_of(containerd, &monitor, &task, &tables, &place));
            places.borrow_mut().push(place);
        }
    });
    let (places, mut wrong) = (places.into_inner(), wrong.into_inner());
    wrong.extend(
        tables
            .outdated(&places)
            .into_iter()
            .map(|row| format!("is no difference: {row}")),
    );
    assert!(wrong.is_empty(), "{} faults\n{}", wrong.len(), wrong.join("\n"));
}

fn loaded(containerd: &Containerd) -> Task<'_> {
    let task = containerd.run_container(&LIMITS, &["sh", "-c", LOAD]);
    for (file, limit) in [
        ("memory.swap.max", "25165824"),
        ("pids.max", "50"),
        ("hugetlb.2MB.max", "4194304"),
    ] {
        task.set_cgroup("", file, limit);
    }
    let root = PathBuf::from(format!("/proc/{}/root", task.pid()));
    fs::write(root.join("go"), "").expect("the container's files are there");
    eventually("it has done its work", || root.join("done").exists());
    task
}

fn idle(containerd: &Containerd) -> Task<'_> {
    containerd.run_container(&[], &["sleep", "1000"])
}

/// A container for which only memory and CPU time are counted.
fn without_controllers(containerd: &Containerd) -> Task<'_> {
    let id = fresh_id("off");
    let task = containerd.run_as("off", &id, &["--memory-limit", "67108864"], &["sleep", "1000"]);
    let parent = cgroup(&task)
        .parent()
        .expect("of its namespace")
        .join("cgroup.subtree_control");
    fs::write(parent, "-pids -io -cpu -hugetlb").expect("they can be turned off");
    task
}

/// Compares all that is said of a paused container. Returns what is wrong.
fn all_of(
    containerd: &Containerd,
    monitor: &Monitor,
    task: &Task,
    tables: &Tables,
    place: &str,
) -> Vec<String> {
    containerd.ctr(&["--namespace", &task.namespace, "task", "pause", &task.id]);
    let directory = cgroup(task);
    // When a pressure file is read, its averages are brought up to date if 2 s have passed. From the second time on they sink.
    readings::kernel(&directory);
    thread::sleep(Duration::from_millis(2100));
    let mut last = None;
    for _ in 0..20 {
        let before = readings::kernel(&directory);
        let said = said(containerd, monitor, task);
        let after = readings::kernel(&directory);
        let is_at_rest = at_rest(&before, &after);
        last = Some((before, said, after));
        if is_at_rest {
            break;
        }
    }
    let (before, said, after) = last.expect("looked at least once");
    let mut wrong: Vec<_> = tables
        .unnamed(&before)
        .iter()
        .map(|name| format!("{place}: no table names {name}"))
        .collect();
    if !at_rest(&before, &after) {
        wrong.push(format!("{place}: its numbers do not stand still"));
    }
    let mut counts = Vec::new();
    for (who, numbers) in &said {
        let (compared, found) = tables.compare(who, place, numbers, [&before, &after]);
        counts.push(format!("{who} {compared}"));
        wrong.extend(found);
    }
    eprintln!("{place}: equal to the kernel's, and not 0: {}", counts.join(", "));
    if place.ends_with("loaded") {
        let unmoved = MOVED
            .iter()
            .filter(|name| before.get(**name).is_none_or(|number| *number == 0.0));
        wrong.extend(unmoved.map(|name| format!("{place}: {name} did not move")));
        #[cfg(feature = "top")]
        wrong.extend(shown_by_top(containerd, task, &before).err());
    }
    wrong.extend(listed(containerd, task, &directory).err());
    wrong
}

/// Whether nothing moved but pressure's averages, which sink by themselves.
fn at_rest(before: &Numbers, after: &Numbers) -> bool {
    let still = |numbers: &Numbers| -> Numbers {
        numbers
            .iter()
            .filter(|(name, _)| !name.contains(" avg"))
            .map(|(name, number)| (name.clone(), *number))
            .collect()
    };
    still(before) == still(after)
}

/// What all say of a container, by who says it.
fn said(containerd: &Containerd, monitor: &Monitor, task: &Task) -> [(&'static str, Numbers); 5] {
    let (namespace, id) = (task.namespace.as_str(), task.id.as_str());
    let ask = |format: &str| {
        containerd.ask(&[
            "--namespace",
            namespace,
            "events",
            "--stats",
            "--format",
            format,
            id,
        ])
    };
    // The network has no part in this: the namespace has no link but its own.
    let mut ours = ask("json").json()["data"].clone();
    for network in ["interfaces", "tcp", "tcp6", "udp", "udp6"] {
        ours.as_object_mut().expect("an object").remove(network);
    }
    let csv = ask("csv").answer().to_owned();
    let ctr = containerd.ctr(&[
        "--namespace",
        namespace,
        "task",
        "metrics",
        "--format",
        "json",
        id,
    ]);
    let ctr: Value = serde_json::from_str(&ctr).expect("ctr answers");
    let runc = Command::new("runc")
        .args([
            "--root",
            &format!("/run/containerd/runc/{namespace}"),
            "events",
            "--stats",
            id,
        ])
        .output()
        .expect("runc starts");
    let runc: Value = serde_json::from_slice(&runc.stdout).expect("runc answers");
    thread::sleep(SHARED);
    let page = monitor.scrape();
    [
        ("events", readings::json(&ours)),
        ("csv", readings::csv(&csv)),
        ("monitor", readings::page(&page, id)),
        ("ctr", readings::json(&ctr)),
        ("runc", readings::json(&runc["data"])),
    ]
}

/// Whether `list` says of a paused container what the kernel does.
fn listed(containerd: &Containerd, task: &Task, directory: &Path) -> Result<(), String> {
    let listed = containerd.ask(&["list", "--format", "json"]).json();
    let rows = listed.as_array().ok_or("list has an array")?;
    let row = rows
        .iter()
        .find(|row| row["id"] == task.id.as_str())
        .ok_or(format!("{} is in no row", task.id))?;
    let processes = fs::read_to_string(directory.join("cgroup.procs")).map_err(|error| error.to_string())?;
    let is_there = row["pid"]
        .as_u64()
        .is_some_and(|pid| processes.lines().any(|line| line == pid.to_string()));
    let expected = is_there
        && row["status"] == "paused"
        && row["runtime"] == "runc"
        && row["namespace"] == task.namespace.as_str();
    expected
        .then_some(())
        .ok_or(format!("list says {row}, and its processes are {processes}"))
}

/// Whether `top` shows what the kernel says, rounded as it does.
#[cfg(feature = "top")]
fn shown_by_top(containerd: &Containerd, task: &Task, kernel: &Numbers) -> Result<(), String> {
    let tmux = crate::top::top(containerd, "");
    let row = |screen: &[String]| -> Vec<String> {
        let mut cells = cells(screen, &task.id);
        cells.retain(|cell| cell != "(paused)");
        cells
    };
    let screen = tmux.wait_for("its numbers", |screen| {
        row(screen).get(1).is_some_and(|memory| memory != "-")
    });
    let cells = row(&screen);
    let working_set = kernel["memory.current"] - kernel["memory.stat inactive_file"];
    let counts = [kernel["pids.current"], kernel["memory.events oom_kill"]].map(|number| number.to_string());
    let megabytes = cells[1]
        .strip_suffix('M')
        .and_then(|number| number.parse::<f64>().ok());
    (megabytes.is_some_and(|shown| near(shown * 1048576.0, working_set, 0.05))
        && [cells.get(7), cells.get(9)] == [counts.first(), counts.last()])
    .then_some(())
    .ok_or(format!(
        "top shows {cells:?}, the kernel has {working_set} and {counts:?}"
    ))
}
