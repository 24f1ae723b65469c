//! What Kubernetes expects of a node's container metrics, on containers of runc.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use super::{IDLE, SHARED, monitor};
use crate::conformance::{self, CGROUP_V1, CGROUP_V2};
use crate::exporter::Page;
use crate::support::{Containerd, Task, eventually, for_each_containerd, is_cgroup_v2};
use crate::wire::wire;

fn number(page: &Page, name: &str, task: &Task) -> u64 {
    let value = page.value(name, &[("id", &task.id)]);
    value.parse().unwrap_or_else(|_| panic!("{name} is {value}"))
}

/// Where the container's writes go: `upperdir` of its root.
fn layer(task: &Task) -> Option<PathBuf> {
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", task.pid())).expect("mounts");
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/"))?;
    let upper = root
        .split(',')
        .find_map(|option| option.strip_prefix("upperdir="))?;
    Some(upper.into())
}

/// The blocks of a directory and all in it, by du.
fn du(path: &Path) -> u64 {
    let output = Command::new("du")
        .args(["-s", "-B512"])
        .arg(path)
        .output()
        .expect("du starts");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split_whitespace()
        .next()
        .and_then(|blocks| blocks.parse().ok())
        .expect("a number")
}

#[test]
fn containers_of_runcs_are_told_of_as_kubernetes_expects() {
    for_each_containerd(|containerd| {
        a_container_of_runcs_has_the_names_of_the_conformance_list(containerd);
        a_resize_shows_in_the_next_scrape(containerd);
        cpu_time_has_all_its_digits(containerd);
        the_page_cache_of_child_cgroups_counts(containerd);
    });
}

fn a_container_of_runcs_has_the_names_of_the_conformance_list(containerd: &Containerd) {
    // On cgroup v1 the kernel counts user and system time in ticks of 10 ms.
    let work = "dd if=/dev/zero of=/f bs=64k count=64 conv=fsync 2>/dev/null; i=0; \
                while [ $i -lt 200000 ]; do i=$((i+1)); done; nc -l -p 7777 & \
                exec sleep 1000 </dev/null 5</etc/passwd";
    let options = ["--cpus", "0.5", "--memory-limit", "67108864"];
    let task = containerd.run_container(&options, &["sh", "-c", work]);
    wire(&task, "198.51.100.5", "198.51.100.6");
    eventually("it has written its file", || {
        task.cgroup_text("cpu", "cgroup.procs").lines().count() == 2
    });
    let monitor = monitor(containerd);
    let throttled = || task.cgroup_text("cpu", "cpu.stat").contains("nr_periods 0");
    eventually("a period has passed", || !throttled());
    let scrape = || {
        thread::sleep(SHARED);
        monitor.scrape()
    };
    eventually("it listens", || {
        number(&scrape(), "container_sockets", &task) == 1
    });
    let page = scrape();
    page.check();
    conformance::check(
        &page,
        &task.id,
        if is_cgroup_v2() { &CGROUP_V2 } else { &CGROUP_V1 },
        true,
    );

    // Beside what the kernel says of its processes and its disk.
    assert_eq!(number(&page, "container_processes", &task), 2);
    let pids = task.cgroup_text("cpu", "cgroup.procs");
    let open = |pid: &str| {
        fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("descriptors")
            .count()
    };
    let open: usize = pids.lines().map(open).sum();
    assert_eq!(number(&page, "container_file_descriptors", &task), open as u64);
    let limits = fs::read_to_string(format!("/proc/{}/limits", task.pid())).expect("limits");
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = soft.and_then(|line| line.split_whitespace().next());
    let ulimit = [("id", &*task.id), ("ulimit", "max_open_files")];
    assert_eq!(Some(page.value("container_ulimits_soft", &ulimit)), soft);
    let stat = Command::new("stat")
        .args(["--file-system", "--format", "%b %S %c"])
        .arg(format!("/proc/{}/root", task.pid()))
        .output()
        .expect("stat starts");
    let stat = String::from_utf8(stat.stdout).expect("text");
    let stat: Vec<u64> = stat
        .split_whitespace()
        .map(|word| word.parse().expect("a number"))
        .collect();
    if let Some(layer) = layer(&task) {
        assert_eq!(
            number(&page, "container_fs_limit_bytes", &task),
            stat[0] * stat[1]
        );
        assert_eq!(number(&page, "container_fs_inodes_total", &task), stat[2]);
        // du counts the directory itself as well.
        let own = fs::metadata(&layer).expect("the layer").blocks();
        let written = number(&page, "container_fs_usage_bytes", &task);
        assert_eq!(written, (du(&layer) - own) * 512);
        assert!(written >= 64 * 65536, "{written}");
    }
}

fn a_resize_shows_in_the_next_scrape(containerd: &Containerd) {
    let task = containerd.run_container(&["--cpus", "0.5"], &IDLE);
    let monitor = monitor(containerd);
    assert_eq!(
        number(&monitor.scrape(), "container_spec_cpu_quota", &task),
        50_000
    );
    let root = format!("/run/containerd/runc/{}", task.namespace);
    let update = |options: &[&str]| {
        let status = Command::new("runc")
            .args(["--root", &root, "update"])
            .args(options)
            .arg(&task.id)
            .status();
        assert!(status.expect("runc starts").success());
        thread::sleep(SHARED);
        monitor.scrape()
    };
    let page = update(&[
        "--cpu-quota",
        "150000",
        "--cpu-share",
        "512",
        "--pids-limit",
        "77",
    ]);
    assert_eq!(number(&page, "container_spec_cpu_quota", &task), 150_000);
    assert_eq!(number(&page, "container_threads_max", &task), 77);
    if !is_cgroup_v2() {
        assert_eq!(number(&page, "container_spec_cpu_shares", &task), 512);
    }
    let page = update(&["--cpu-quota", "-1"]);
    for name in ["container_spec_cpu_quota", "container_cpu_cfs_periods_total"] {
        let found = page.samples(name, &[("id", &task.id)]);
        assert!(found.is_empty(), "{found:?}: there is no quota");
    }
}

/// The kernel counts nanoseconds on cgroup v1 and microseconds on v2. The CRI's own metrics have whole seconds.
fn cpu_time_has_all_its_digits(containerd: &Containerd) {
    let task = containerd.run_container(&[], &["sh", "-c", "while :; do :; done"]);
    let monitor = monitor(containerd);
    let used = || -> u64 {
        if is_cgroup_v2() {
            let text = task.cgroup_text("cpu", "cpu.stat");
            let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
            line.and_then(|word| word.parse::<u64>().ok()).expect("a number") * 1000
        } else {
            task.cgroup("cpuacct", "cpuacct.usage")
        }
    };
    eventually("it has worked", || used() > 100_000_000);
    containerd.ctr(&["task", "pause", &task.id]);
    let labels = [("id", &*task.id), ("cpu", "total")];
    // The kernel's own housekeeping goes on in a container that is paused.
    eventually("the page has what the kernel has", || {
        thread::sleep(SHARED);
        let before = used();
        let page = monitor.scrape();
        let seconds = format!("{}.{:09}", before / 1_000_000_000, before % 1_000_000_000);
        page.value("container_cpu_usage_seconds_total", &labels) == seconds.trim_end_matches('0')
    });
    containerd.ctr(&["task", "resume", &task.id]);
}

/// A process of the host in a child of the container's memory cgroup, as systemd or Docker in a container make.
struct InChild {
    process: Child,
    cgroup: PathBuf,
}

impl Drop for InChild {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir(&self.cgroup);
    }
}

fn the_page_cache_of_child_cgroups_counts(containerd: &Containerd) {
    if is_cgroup_v2() {
        return; // All of memory.stat is with child cgroups there.
    }
    let task = containerd.run_container(&[], &IDLE);
    let monitor = monitor(containerd);
    let cgroup = task.cgroup_file("memory", "child");
    fs::create_dir(&cgroup).expect("a child cgroup");
    let dir = tempfile::tempdir().expect("a directory");
    let script = format!(
        "echo $$ >{0}/cgroup.procs && dd if=/dev/zero of={1}/f bs=1M count=20 2>/dev/null; exec sleep 1000",
        cgroup.display(),
        dir.path().display()
    );
    let process = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .spawn();
    let _child = InChild {
        process: process.expect("sh starts"),
        cgroup,
    };
    let stat = |key: &str| -> u64 {
        let text = task.cgroup_text("memory", "memory.stat");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.and_then(|word| word.parse().ok()).expect("a number")
    };
    eventually("it is written", || stat("total_cache") >= 20 << 20);
    thread::sleep(SHARED);
    let cache = number(&monitor.scrape(), "container_memory_cache", &task);
    assert!(cache >= 20 << 20, "{cache}, and its own is {}", stat("cache"));
    // The kernel counts in lots.
    assert!(cache.abs_diff(stat("total_cache")) < 1 << 20, "{cache}");
    assert!(stat("cache") < 10 << 20, "the cgroup's own");
}
