//! Replies of real runc containers on a cgroup v2 machine, against the kernel's files of the same cgroup read just
//! before and after the call, and against what `runc events --stats` said. The files are read here by other code
//! than the library's. Paused containers (`-frozen`) did not change in between, so every number must be equal.

#![allow(clippy::restriction)] // A test may panic.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use shimstat::stats::{CgroupVersion, Limit, Limits, Psi, Stats, decode, from_files};

/// The numbers of a tree by their paths in it, such as `memory.usage.limit`.
type Numbers = BTreeMap<String, String>;

/// What the replies leave out of what the kernel and the schema have: the recordings, the path, why.
const NOT_IN_REPLIES: [(&str, &str, &str); 11] = [
    (
        "containerd-1.6",
        "cpu.psi",
        "version 1.0 of containerd's cgroups library reads no pressure",
    ),
    ("containerd-1.6", "memory.psi", "the same"),
    ("containerd-1.6", "blkio.psi", "the same"),
    (
        "containerd-1.6",
        "memory.usage.max",
        "it does not read memory.peak",
    ),
    (
        "no-pids-io-cpu",
        "cpu.usage",
        "before version 3.1 the library reads cpu.stat only where the cpu controller is on",
    ),
    (
        "-hugetlb",
        "hugetlb.2MB.failcnt",
        "before version 3.1.2 the library does not read hugetlb.*.events",
    ),
    (
        "",
        "memory.raw.workingset_",
        "the message has no fields for refaults and activations by kind",
    ),
    (
        "",
        "memory.raw.numa_",
        "keys newer than the message, here and below",
    ),
    ("", "memory.raw.pg", "pgscan_direct and its like"),
    ("", "memory.raw.swp", ""),
    ("", "memory.raw.thp_swpout", ""),
];

/// Keys of `memory.stat` for which the message has no field, and two that are left out as zeros since a kernel may
/// lack them.
const NEWER_KEYS: [&str; 10] = [
    "file_thp",
    "kernel",
    "pagetables",
    "percpu",
    "sec_pagetables",
    "shmem_thp",
    "swapcached",
    "vmalloc",
    "anon_thp",
    "thp_collapse_alloc",
];

fn recordings() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/runc-cgroup-v2-frozen");
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    all.sort();
    assert_eq!(all.len(), 8);
    all
}

fn reply(recording: &Path) -> Stats {
    let bytes = fs::read(recording.join("stats.v2.bin")).unwrap();
    decode("io.containerd.cgroups.v2.Metrics", &bytes).unwrap()
}

/// The files of a recorded cgroup, by name. A recording has `;` for a newline.
fn files(recording: &Path, when: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(recording.join(format!("cgroup-files-{when}.txt"))).unwrap();
    text.lines()
        .map(|line| {
            let (name, content) = line.split_once(": ").unwrap();
            (name.to_owned(), content.replace(';', "\n"))
        })
        .collect()
}

/// The numbers that an event has, as the kernel's files have them.
fn of_files(files: &BTreeMap<String, String>) -> Numbers {
    let mut numbers = Numbers::new();
    let mut put = |path: String, number: u64| drop(numbers.insert(path, number.to_string()));
    let single = |name: &str| match files.get(name).map(|text| text.trim()) {
        Some("max") => Some(u64::MAX),
        text => text.map(|number| number.parse().unwrap()),
    };
    let keyed = |name: &str| -> BTreeMap<&str, u64> {
        let lines = files.get(name).map_or("", String::as_str).lines();
        lines
            .map(|line| line.split_once(' ').unwrap())
            .map(|(key, number)| (key, number.parse().unwrap()))
            .collect()
    };
    for (path, file, key, unit) in [
        ("cpu.usage.total", "cpu.stat", "usage_usec", 1000),
        ("cpu.usage.user", "cpu.stat", "user_usec", 1000),
        ("cpu.usage.kernel", "cpu.stat", "system_usec", 1000),
        ("cpu.throttling.periods", "cpu.stat", "nr_periods", 1),
        ("cpu.throttling.throttledPeriods", "cpu.stat", "nr_throttled", 1),
        ("cpu.throttling.throttledTime", "cpu.stat", "throttled_usec", 1000),
        ("memory.cache", "memory.stat", "file", 1),
        ("hugetlb.2MB.failcnt", "hugetlb.2MB.events", "max", 1),
        ("hugetlb.1GB.failcnt", "hugetlb.1GB.events", "max", 1),
    ] {
        if let Some(number) = keyed(file).get(key) {
            put(path.into(), number * unit);
        }
    }
    for (key, number) in keyed("memory.stat") {
        put(format!("memory.raw.{key}"), number);
    }
    for (path, file) in [
        ("memory.usage.usage", "memory.current"),
        ("memory.usage.limit", "memory.max"),
        ("memory.usage.max", "memory.peak"),
        ("pids.current", "pids.current"),
        ("hugetlb.2MB.usage", "hugetlb.2MB.current"),
        ("hugetlb.1GB.usage", "hugetlb.1GB.current"),
    ] {
        if let Some(number) = single(file) {
            put(path.into(), number);
        }
    }
    // "max" is no limit on processes.
    if let Some(limit) = single("pids.max").filter(|limit| *limit != u64::MAX) {
        put("pids.limit".into(), limit);
    }
    let sum = |a: &str, b: &str| Some(single(a)?.saturating_add(single(b)?));
    for (path, memory, swap) in [
        ("memory.swap.usage", "memory.current", "memory.swap.current"),
        ("memory.swap.limit", "memory.max", "memory.swap.max"),
    ] {
        if let Some(number) = sum(memory, swap) {
            put(path.into(), number);
        }
    }
    for line in files.get("io.stat").map_or("", String::as_str).lines() {
        let mut words = line.split(' ');
        let device = words.next().unwrap();
        for word in words {
            let (key, number) = word.split_once('=').unwrap();
            let path = match key {
                "rbytes" => "blkio.ioServiceBytesRecursive.Read",
                "wbytes" => "blkio.ioServiceBytesRecursive.Write",
                "rios" => "blkio.ioServicedRecursive.Read",
                "wios" => "blkio.ioServicedRecursive.Write",
                _ => continue,
            };
            put(format!("{path}.{device}"), number.parse().unwrap());
        }
    }
    for (object, file) in [
        ("cpu", "cpu.pressure"),
        ("memory", "memory.pressure"),
        ("blkio", "io.pressure"),
    ] {
        for line in files.get(file).map_or("", String::as_str).lines() {
            let (kind, values) = line.split_once(' ').unwrap();
            for value in values.split(' ') {
                let (key, number) = value.split_once('=').unwrap();
                let number: f64 = number.parse().unwrap();
                numbers.insert(format!("{object}.psi.{kind}.{key}"), number.to_string());
            }
        }
    }
    numbers
}

/// The numbers of an event's `data`.
fn of_event(data: &Value) -> Numbers {
    fn walk(path: &str, value: &Value, numbers: &mut Numbers) {
        match value {
            Value::Object(object) => {
                for (key, value) in object {
                    walk(&format!("{path}.{key}"), value, numbers);
                }
            }
            Value::Array(list) => {
                for entry in list {
                    let number = |key| entry.get(key).and_then(Value::as_u64).unwrap_or(0);
                    let op = entry["op"].as_str().unwrap();
                    let path = format!("{path}.{op}.{}:{}", number("major"), number("minor"));
                    numbers.insert(path, number("value").to_string());
                }
            }
            Value::Null => {}
            number => drop(numbers.insert(path.trim_start_matches('.').into(), number.to_string())),
        }
    }
    let mut numbers = Numbers::new();
    walk("", data, &mut numbers);
    numbers
        .into_iter()
        .map(|(path, number)| (path.trim_start_matches('.').to_owned(), number))
        .collect()
}

/// The schema leaves most zeros out, so a zero and an absent number are the same to it, but not in `raw`.
fn without_zeros(numbers: Numbers) -> Numbers {
    let keep = |path: &str, number: &str| number != "0" || path.starts_with("memory.raw.");
    numbers
        .into_iter()
        .filter(|(path, number)| keep(path, number))
        .collect()
}

fn is_between(number: &str, one: &str, other: &str) -> bool {
    if one == other {
        return number == one;
    }
    let [number, one, other] = [number, one, other].map(|text| text.parse::<f64>().unwrap());
    (one.min(other)..=one.max(other)).contains(&number)
}

#[test]
fn every_number_of_an_event_is_the_kernels() {
    let mut compared = 0;
    let mut used = [false; NOT_IN_REPLIES.len()];
    for recording in recordings() {
        let name = recording.file_name().unwrap().to_str().unwrap();
        let [before, after] = ["before", "after"].map(|when| of_files(&files(&recording, when)));
        if name.contains("limits-frozen") {
            assert_eq!(before, after, "{name} was paused");
        }
        let event = without_zeros(of_event(&reply(&recording).to_json()));
        for (path, number) in &event {
            let kernel = (before.get(path)).zip(after.get(path));
            let (before, after) =
                kernel.unwrap_or_else(|| panic!("{name}: nobody measured {path} = {number}"));
            // Processes came and went in these, and memory went up and down.
            let moves = name.contains("no-pids") && path.starts_with("memory.") && !path.ends_with("pgfault");
            assert!(
                moves || is_between(number, before, after),
                "{name}: {path} is {number}, the kernel says {before} and {after}"
            );
            compared += 1;
        }
        for (path, number) in without_zeros(before) {
            if event.contains_key(&path) {
                continue;
            }
            let raw = path.strip_prefix("memory.raw.");
            let known = NOT_IN_REPLIES
                .iter()
                .position(|(recordings, prefix, _)| name.contains(recordings) && path.starts_with(prefix));
            match known {
                Some(known) => used[known] = true,
                None if raw.is_some_and(|key| NEWER_KEYS.contains(&key)) => {}
                // A pressure that has passed by the time of the call.
                None if path.contains(".psi.") && after[&path] == "0" => {}
                None => panic!("{name}: {path} = {number} is missing"),
            }
        }
    }
    assert!(compared > 350, "{compared}");
    for (known, used) in NOT_IN_REPLIES.iter().zip(used) {
        assert!(used, "{known:?} is no difference");
    }
}

#[test]
fn runc_says_the_same() {
    for recording in recordings() {
        let name = recording.file_name().unwrap().to_str().unwrap();
        // The numbers of the others moved between the two commands.
        if name.contains("no-pids") {
            continue;
        }
        let text = fs::read_to_string(recording.join("runc.json")).unwrap();
        let event: Value = serde_json::from_str(&text).unwrap();
        let runc = without_zeros(of_event(&event["data"]));
        let ours = without_zeros(of_event(&reply(&recording).to_json()));
        for (path, number) in &ours {
            // runc 1.1 reads neither of these on cgroup v2.
            if !path.contains(".psi.") && path != "memory.usage.max" {
                assert_eq!(Some(number), runc.get(path), "{name}: {path}");
            }
        }
        for (path, number) in &runc {
            let known = path.starts_with("memory.raw.") || path == "hugetlb.2MB.failcnt";
            assert!(
                known || ours.contains_key(path),
                "{name}: runc has {path} = {number}"
            );
        }
    }
}

/// A container that runs without the pids, io, cpu and hugetlb controllers.
#[test]
fn nothing_is_said_of_controllers_that_are_off() {
    for recording in recordings() {
        if !recording.to_str().unwrap().contains("no-pids-io-cpu-hugetlb") {
            continue;
        }
        let stats = reply(&recording);
        assert_eq!((stats.pids.current, stats.pids.limit), (None, None));
        assert_eq!(stats.cpu.usage, Default::default());
        assert_eq!(stats.cpu.throttling, Default::default());
        assert!(stats.blkio.as_ref().unwrap().devices().is_empty());
        assert!(stats.hugetlb.is_empty());
        assert!(!stats.is_emptied());
        let data = stats.to_json();
        assert_eq!(data["pids"], serde_json::json!({}));
        assert_eq!(data["hugetlb"], serde_json::json!({}), "as runc says");
    }
}

/// Huge pages that are on and not used are a zero that was measured.
#[test]
fn a_zero_of_a_controller_that_is_on_is_a_number() {
    for recording in recordings() {
        let name = recording.file_name().unwrap().to_str().unwrap();
        let stats = reply(&recording);
        let used = match name {
            name if name.contains("no-pids") => continue,
            name if name.ends_with("-hugetlb") => 6_291_456,
            _ => 0,
        };
        assert_eq!(stats.hugetlb["2MB"].usage, Some(used), "{name}");
        assert_eq!(stats.hugetlb["1GB"].usage, Some(0), "{name}");
        assert_eq!(
            stats.hugetlb["2MB"].failcnt, None,
            "{name}: not read, so not known"
        );
    }
}

/// The averages go on while a container is paused.
fn without_averages(psi: &mut Option<Psi>) {
    for pressure in psi
        .iter_mut()
        .flat_map(|psi| [&mut psi.some, &mut psi.full])
        .flatten()
    {
        (pressure.avg10, pressure.avg60, pressure.avg300) = (0.0, 0.0, 0.0);
    }
}

#[test]
fn the_files_of_a_cgroup_give_what_the_shim_says() {
    let sizes = ["1GB".to_owned(), "2MB".to_owned()];
    for recording in recordings() {
        let name = recording.file_name().unwrap().to_str().unwrap();
        let files = files(&recording, "before");
        let mut read = from_files(CgroupVersion::V2, &sizes, &|name| files.get(name).cloned());
        let mut said = reply(&recording);
        if name.contains("no-pids") {
            // It was not paused. Of what is off there are no numbers; unlike the shim, the kernel counts CPU time.
            assert_eq!((&read.pids, &read.hugetlb), (&said.pids, &said.hugetlb));
            assert_eq!(read.cpu.throttling, said.cpu.throttling);
            assert!(read.cpu.usage.total.unwrap() > 1_000_000_000);
            assert_eq!(read.memory.usage.limit, said.memory.usage.limit);
            continue;
        }
        for stats in [&mut read, &mut said] {
            without_averages(&mut stats.cpu.psi);
            without_averages(&mut stats.memory.psi);
            without_averages(&mut stats.blkio.as_mut().unwrap().psi);
        }
        // What the shim leaves out (see NOT_IN_REPLIES).
        read.memory.raw.retain(|key, _| said.memory.raw.contains_key(key));
        for pages in read.hugetlb.values_mut() {
            pages.failcnt = None;
        }
        if name.contains("containerd-1.6") {
            (read.cpu.psi, read.memory.psi, read.memory.usage.max) = (None, None, None);
            read.blkio.as_mut().unwrap().psi = None;
        }
        assert_eq!(read, said, "{name}");
    }
}

#[test]
fn the_kernel_counts_what_the_shim_does_not() {
    for recording in recordings() {
        let name = recording.file_name().unwrap().to_str().unwrap();
        let files = files(&recording, "before");
        let read = from_files(CgroupVersion::V2, &["2MB".to_owned()], &|name| {
            files.get(name).cloned()
        });
        if name.ends_with("-hugetlb") {
            assert_eq!(read.hugetlb["2MB"].failcnt, Some(1), "{name}");
        }
        for key in ["kernel", "workingset_refault_file", "pagetables", "percpu"] {
            assert!(read.memory.raw.contains_key(key), "{name}: {key}");
        }
    }
}

/// The limits that the containers were started with: `--memory-limit`, `--cpus 0.2`, `--pids-limit` and so on.
#[test]
fn limits_are_those_of_the_cgroup() {
    let limits = |recording: &str| {
        let recording = recordings()
            .into_iter()
            .find(|path| path.ends_with(recording))
            .unwrap();
        let files = files(&recording, "before");
        Limits::from_files(CgroupVersion::V2, &|name| files.get(name).cloned())
    };
    assert_eq!(
        limits("containerd-2.1-limits-frozen"),
        Limits {
            cpu_quota: Some(Limit::At(20_000)),
            cpu_period: Some(100_000),
            // Made from 512 shares: 1 + 510 * 9999 / 262142 = 20, and 2 + 19 * 262142 / 9999 = 500.
            cpu_shares: Some(500),
            memory: Some(Limit::At(64 << 20)),
            memory_swap: Some(Limit::At(32 << 20)),
            memory_reservation: Some(Limit::At(0)),
            pids: Some(Limit::At(50)),
        }
    );
    let unlimited = limits("containerd-2.1-hugetlb");
    assert_eq!(unlimited.cpu_quota, Some(Limit::Unlimited));
    assert_eq!(unlimited.memory, Some(Limit::Unlimited));
    assert_eq!(unlimited.memory_swap, Some(Limit::Unlimited));
    assert_eq!(unlimited.pids, Some(Limit::Unlimited));
    let off = limits("containerd-2.1-no-pids-io-cpu-hugetlb-controller");
    assert_eq!(
        (off.cpu_quota, off.cpu_period, off.cpu_shares, off.pids),
        (None, None, None, None),
        "their controllers are off"
    );
    assert_eq!(off.memory, Some(Limit::At(64 << 20)));
}
