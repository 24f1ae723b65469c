use super::*;
use serde_json::Value;

use crate::guest::testing::{bytes, entry, number};
use crate::proto;
use crate::stats::event;

const RECORDED: &[u8] = include_bytes!("../../../tests/fixtures/kata-4.1-agent/stats-container.bin");

fn stats(reply: &[u8]) -> GuestStats {
    proto::parse::<StatsContainerResponse>(reply).unwrap().into()
}

/// Expected numbers: `protoc --decode grpc.StatsContainerResponse` of the same bytes, with Kata's agent.proto, which the
/// file beside them holds.
#[test]
fn a_recorded_reply_of_a_cgroup_v2_guest() {
    let GuestStats { stats, cgroup } = stats(RECORDED);
    assert_eq!(cgroup, Some(CgroupVersion::V2));
    assert_eq!(
        stats.cpu.usage,
        CpuUsage {
            total: Some(229_959_250_000),
            kernel: Some(130_875_022_000),
            user: Some(99_084_227_000),
            percpu: vec![],
        }
    );
    assert_eq!(
        stats.cpu.throttling,
        Throttling {
            periods: Some(12_286),
            throttled_periods: Some(11_197),
            throttled_time: None,
        }
    );
    let memory = &stats.memory;
    assert_eq!(
        memory.usage,
        MemoryEntry {
            limit: Some(67_108_864),
            usage: Some(1_585_152),
            max: Some(2_727_936),
            failcnt: None,
        }
    );
    // The agent sent a limit on swap of 67108864, and no swap in use.
    assert_eq!(
        memory.swap,
        MemoryEntry {
            limit: Some(134_217_728),
            usage: Some(1_585_152),
            max: None,
            failcnt: None,
        }
    );
    assert_eq!(memory.kernel, MemoryEntry::default());
    assert_eq!(
        [
            memory.cache,
            memory.rss,
            memory.mapped_file,
            memory.inactive_file,
            memory.pgfault,
            memory.pgmajfault
        ],
        [1_015_808, 94_208, 626_688, 20_480, 49_805, 8_116].map(Some)
    );
    assert_eq!(memory.working_set(), Some(1_585_152 - 20_480));
    // `key: "anon"` and, on the next line, `value: 94208`.
    let decoded = include_str!("../../../tests/fixtures/kata-4.1-agent/stats-container.textproto");
    let words: Vec<&str> = decoded.split_whitespace().collect();
    let raw: BTreeMap<Cow<'_, str>, u64> = words
        .windows(4)
        .filter(|words| words[0] == "key:" && words[2] == "value:")
        .map(|words| (words[1].trim_matches('"').into(), words[3].parse().unwrap()))
        .collect();
    assert_eq!(raw.len(), 60);
    assert_eq!(memory.raw, raw);
    assert_eq!(memory.oom_kill, None);
    assert_eq!(
        stats.pids,
        Pids {
            current: Some(2),
            limit: None
        }
    );
    assert_eq!(stats.blkio, Some(Blkio::default()));
    assert_eq!(stats.hugetlb.keys().collect::<Vec<_>>(), ["1GB", "2MB"]);
    for pages in stats.hugetlb.values() {
        assert_eq!(
            *pages,
            Hugetlb {
                usage: Some(0),
                max: None,
                failcnt: Some(0)
            }
        );
    }
    assert_eq!((stats.network, stats.sockets), (None, None));
}

#[test]
fn a_recorded_reply_that_was_cut_off_anywhere_is_an_error() {
    for length in 1..RECORDED.len() {
        let cut = proto::parse::<StatsContainerResponse>(&RECORDED[..length]);
        assert!(cut.is_err(), "{length}");
    }
}

/// The documented output of Kata 1.x as the agent of a cgroup v1 guest would send its numbers today, by the field numbers
/// of agent.proto, becomes that output again: with the four keys of memory.stat that no shim can pass on.
#[test]
fn a_cgroup_v1_guest_gives_the_documented_output() {
    let documented: Value = serde_json::from_str(include_str!(
        "../../../tests/fixtures/documented-example/events.json"
    ))
    .unwrap();
    let of = |path: &str| documented.pointer(&format!("/data/{path}"));
    let get = |path: &str| of(path).and_then(Value::as_u64).unwrap_or(0);
    let memory_data = |name: &str| {
        [("usage", 1), ("max", 2), ("failcnt", 3), ("limit", 4)]
            .map(|(key, field)| number(field, get(&format!("memory/{name}/{key}"))))
            .concat()
    };
    let percpu = of("cpu/usage/percpu").and_then(Value::as_array).unwrap();
    let usage = [
        number(1, get("cpu/usage/total")),
        percpu
            .iter()
            .flat_map(|time| number(2, time.as_u64().unwrap()))
            .collect(),
        number(3, get("cpu/usage/kernel")),
        number(4, get("cpu/usage/user")),
    ]
    .concat();
    let raw = of("memory/raw").and_then(Value::as_object).unwrap();
    let memory = [
        number(1, get("memory/cache")),
        bytes(2, &memory_data("usage")),
        bytes(3, &memory_data("swap")),
        bytes(4, &memory_data("kernel")),
        number(5, 1),
        raw.iter()
            .flat_map(|(key, value)| entry(6, key, &number(2, value.as_u64().unwrap())))
            .collect(),
    ]
    .concat();
    let hugetlb = of("hugetlb").and_then(Value::as_object).unwrap();
    let cgroup = [
        bytes(1, &[bytes(1, &usage), bytes(2, b"")].concat()),
        bytes(2, &memory),
        bytes(3, &number(1, get("pids/current"))),
        bytes(4, b""),
        hugetlb
            .keys()
            .flat_map(|size| entry(5, size, &bytes(2, b"")))
            .collect(),
    ]
    .concat();
    let guest = stats(&bytes(1, &cgroup));
    assert_eq!(guest.cgroup, Some(CgroupVersion::V1));

    let mut printed = event(documented["id"].as_str().unwrap(), &guest.stats);
    // The guest's network is not the agent's to tell.
    printed["data"]["interfaces"] = documented["data"]["interfaces"].clone();
    assert_eq!(printed, documented);
}

/// What agents send of block devices, in the order in which they send it.
fn blkio_of(list: u32, entries: &[(u64, u64, &str, u64)]) -> Blkio {
    let entries: Vec<u8> = entries
        .iter()
        .flat_map(|(major, minor, op, value)| {
            let entry = [
                number(1, *major),
                number(2, *minor),
                bytes(3, op.as_bytes()),
                number(4, *value),
            ];
            bytes(list, &entry.concat())
        })
        .collect();
    stats(&bytes(1, &bytes(4, &entries))).stats.blkio.unwrap()
}

fn list(entries: &[BlkioEntry]) -> Vec<(u64, u64, &str, u64)> {
    entries
        .iter()
        .map(|entry| (entry.major, entry.minor, entry.op.as_str(), entry.value))
        .collect()
}

#[test]
fn a_cgroup_v2_guests_devices_are_put_into_the_schema() {
    // get_blkio_stats_v2(): six entries a device, all in the list of bytes.
    let blkio = blkio_of(
        1,
        &[
            (254, 0, "read", 8192),
            (254, 0, "write", 4096),
            (254, 0, "rios", 2),
            (254, 0, "wios", 1),
            (254, 0, "dbytes", 512),
            (254, 0, "dios", 3),
            // Today's agents read every number as 0. No kernel has such a line.
            (8, 16, "read", 0),
            (8, 16, "write", 0),
            (8, 16, "rios", 0),
            (8, 16, "wios", 0),
            (8, 16, "dbytes", 0),
            (8, 16, "dios", 0),
            (8, 0, "read", 1),
            (8, 0, "write", 0),
            (8, 0, "rios", 1),
            (8, 0, "wios", 0),
            (8, 0, "dbytes", 0),
            (8, 0, "dios", 0),
        ],
    );
    assert_eq!(
        list(&blkio.io_service_bytes_recursive),
        [
            (254, 0, "Read", 8192),
            (254, 0, "Write", 4096),
            (8, 0, "Read", 1),
            (8, 0, "Write", 0)
        ]
    );
    assert_eq!(
        list(&blkio.io_serviced_recursive),
        [
            (254, 0, "Read", 2),
            (254, 0, "Write", 1),
            (8, 0, "Read", 1),
            (8, 0, "Write", 0)
        ]
    );
}

#[test]
fn a_cgroup_v1_guests_operations_have_the_kernels_names() {
    // get_blkio_stat_ioservice(): five entries a device and list; get_blkio_stat_blkiodata(): one without an operation.
    let entries = [
        (8, 0, "read", 1),
        (8, 0, "write", 0),
        (8, 0, "sync", 1),
        (8, 0, "async", 0),
        (8, 0, "total", 1),
    ];
    let expected = [
        (8, 0, "Read", 1),
        (8, 0, "Write", 0),
        (8, 0, "Sync", 1),
        (8, 0, "Async", 0),
        (8, 0, "Total", 1),
    ];
    let lists = |blkio: &Blkio| {
        [
            &blkio.io_service_bytes_recursive,
            &blkio.io_serviced_recursive,
            &blkio.io_queued_recursive,
            &blkio.io_service_time_recursive,
            &blkio.io_wait_time_recursive,
            &blkio.io_merged_recursive,
            &blkio.io_time_recursive,
            &blkio.sectors_recursive,
        ]
        .map(Clone::clone)
    };
    for field in 1..=8 {
        let blkio = blkio_of(field, &entries);
        for (position, entries) in (1..).zip(lists(&blkio)) {
            let expected: &[_] = if position == field { &expected } else { &[] };
            assert_eq!(list(&entries), expected, "field {field}, list {position}");
        }
    }
    let unnamed = blkio_of(8, &[(8, 0, "", 77)]);
    assert_eq!(list(&unnamed.sectors_recursive), [(8, 0, "", 77)]);
}

/// A memory message of a guest with these keys in memory.stat.
fn memory_of(keys: &[(&str, u64)], data: &[(u32, &[(u32, u64)])]) -> GuestStats {
    let mut memory: Vec<u8> = keys
        .iter()
        .flat_map(|(key, value)| entry(6, key, &number(2, *value)))
        .collect();
    for (field, numbers) in data {
        let numbers: Vec<u8> = numbers
            .iter()
            .flat_map(|(field, value)| number(*field, *value))
            .collect();
        memory.extend(bytes(*field, &numbers));
    }
    stats(&bytes(1, &bytes(2, &memory)))
}

#[test]
fn a_swap_limit_that_the_agent_failed_to_read_is_none() {
    // memory.swap.max is "max", which it parses as a number, and sends 0.
    let guest = memory_of(
        &[("anon", 1)],
        &[(2, &[(1, 100), (4, u64::MAX)]), (3, &[(1, 30)])],
    );
    assert_eq!(
        guest.stats.memory.swap,
        MemoryEntry {
            usage: Some(130),
            ..Default::default()
        }
    );
    assert_eq!(guest.stats.memory.swapped(), Some(30));
    assert_eq!(guest.stats.memory.limit(), None);
    // Unlimited memory stays unlimited with swap.
    let guest = memory_of(
        &[("anon", 1)],
        &[(2, &[(1, 100), (4, u64::MAX)]), (3, &[(4, 4096)])],
    );
    assert_eq!(guest.stats.memory.swap.limit, Some(u64::MAX));
}

#[test]
fn an_empty_cgroup_has_measured_zeros_and_a_missing_one_has_none() {
    let guest = memory_of(&[("anon", 0), ("inactive_file", 0)], &[(2, &[])]);
    assert_eq!(guest.stats.memory.usage.usage, Some(0));
    assert_eq!(guest.stats.memory.inactive_file, Some(0));
    let guest = memory_of(&[], &[(2, &[]), (3, &[]), (4, &[(4, u64::MAX)])]);
    assert_eq!((guest.cgroup, guest.stats), (None, Stats::default()));
    assert_eq!(stats(b""), GuestStats::default());
}

#[test]
fn a_cgroup_v1_guest_counts_child_cgroups_too() {
    let keys = [
        ("hierarchical_memory_limit", 1 << 40),
        ("cache", 1),
        ("rss", 2),
        ("mapped_file", 3),
        ("inactive_file", 4),
        ("pgfault", 5),
        ("pgmajfault", 6),
        ("total_cache", 11),
        ("total_rss", 12),
        ("total_mapped_file", 13),
        ("total_inactive_file", 14),
        ("total_pgfault", 15),
        ("total_pgmajfault", 16),
    ];
    let of = |keys: &[_]| {
        let memory = memory_of(keys, &[]).stats.memory;
        [
            memory.total_cache,
            memory.rss,
            memory.mapped_file,
            memory.inactive_file,
            memory.pgfault,
            memory.pgmajfault,
        ]
    };
    assert_eq!(memory_of(&keys, &[]).stats.memory.cache, Some(1));
    assert_eq!(of(&keys), [11, 12, 13, 14, 15, 16].map(Some));
    assert_eq!(of(&keys[..7]), [1, 2, 3, 4, 5, 6].map(Some), "no hierarchy");
    assert_eq!(of(&keys[..1]), [None; 6]);
}

#[test]
fn keys_and_names_that_no_kernel_writes_are_left_out_or_cut() {
    let long = "k".repeat(65);
    let mut keys = vec![
        ("anon", 1),
        ("a\u{1b}[31m", 1),
        ("with space", 1),
        ("", 1),
        (long.as_str(), 1),
        ("zswpout", 2),
    ];
    let guest = memory_of(&keys, &[]);
    let raw: Vec<_> = guest.stats.memory.raw.keys().cloned().collect();
    assert_eq!(raw, ["anon", "zswpout"]);
    let many: Vec<String> = (0..1000).map(|n| format!("key{n}")).collect();
    keys.extend(many.iter().map(|key| (key.as_str(), 1)));
    assert!(memory_of(&keys, &[]).stats.memory.raw.len() <= MOST_KEYS);

    let hugetlb = [
        entry(5, &"9".repeat(17), &bytes(2, b"")),
        entry(5, "2MB", &bytes(2, b"")),
    ]
    .concat();
    let guest = stats(&bytes(1, &hugetlb));
    assert_eq!(guest.stats.hugetlb.keys().collect::<Vec<_>>(), ["2MB"]);
    let network = bytes(2, &bytes(1, "ü".repeat(1000).as_bytes()));
    let interfaces = stats(&network).stats.network.unwrap();
    assert_eq!(interfaces[0].name.chars().count(), 64);
}

/// A reply in which every number is this one.
fn all(value: u64, keys: &[&str]) -> Vec<u8> {
    let numbers = |fields: std::ops::RangeInclusive<u32>| -> Vec<u8> {
        fields.flat_map(|field| number(field, value)).collect()
    };
    let data = numbers(1..=4);
    let memory = [
        bytes(2, &data),
        bytes(3, &data),
        bytes(4, &data),
        keys.iter()
            .flat_map(|key| entry(6, key, &number(2, value)))
            .collect(),
    ]
    .concat();
    let devices: Vec<u8> = ["read", "write", "rios", "wios", "dbytes", "dios"]
        .into_iter()
        .flat_map(|op| {
            let entry = [
                number(1, value),
                number(2, value),
                bytes(3, op.as_bytes()),
                number(4, value),
            ];
            (1..=8).flat_map(move |list| bytes(list, &entry.concat()))
        })
        .collect();
    let cgroup = [
        bytes(1, &[bytes(1, &data), bytes(2, &numbers(1..=3))].concat()),
        bytes(2, &memory),
        bytes(3, &numbers(1..=2)),
        bytes(4, &devices),
        entry(5, "2MB", &bytes(2, &numbers(1..=3))),
    ]
    .concat();
    let network = [bytes(1, b"eth0"), numbers(2..=9)].concat();
    [bytes(1, &cgroup), bytes(2, &network)].concat()
}

#[test]
fn the_largest_numbers_everywhere_are_passed_on_without_harm() {
    for keys in [
        &["anon", "file", "inactive_file"][..],
        &["hierarchical_memory_limit", "total_cache", "total_inactive_file"],
        &[],
    ] {
        let guest = stats(&all(u64::MAX, keys));
        assert_eq!(guest.stats.cpu.usage.total, Some(u64::MAX));
        assert_eq!(guest.stats.pids.limit, None);
        let json = event("x", &guest.stats).to_string();
        assert!(json.contains("18446744073709551615"));
        let _ = (guest.stats.memory.working_set(), guest.stats.memory.swapped());
        assert!(!guest.stats.blkio.unwrap().devices().is_empty());
    }
    // Memory plus swap does not fit: it is none, not a small number.
    let v2 = stats(&all(u64::MAX, &["anon"]));
    assert_eq!(v2.stats.memory.swap.usage, None);
}
