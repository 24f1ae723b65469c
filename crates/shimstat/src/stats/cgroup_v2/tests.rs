use containerd_shim_protos::cgroups_v2::metrics::{MemoryEvents, NetworkStat};
use protobuf::MessageField;
use serde_json::{Value, json};

use super::*;
use crate::stats::DeviceIo;

fn data(metrics: Metrics, object: &str) -> Value {
    stats(metrics).to_json()[object].take()
}

fn with_cpu(cpu: CPUStat) -> Metrics {
    Metrics {
        cpu: MessageField::some(cpu),
        ..Default::default()
    }
}

fn with_memory(memory: MemoryStat) -> Metrics {
    Metrics {
        memory: MessageField::some(memory),
        ..Default::default()
    }
}

/// Averages n + a quarter, a half and nought; total n.
fn some_psi(n: u32) -> MessageField<PSIStats> {
    let data = |n: u32| {
        MessageField::some(PSIData {
            avg10: f64::from(n) + 0.25,
            avg60: f64::from(n) + 0.5,
            avg300: f64::from(n),
            total: n.into(),
            ..Default::default()
        })
    };
    MessageField::some(PSIStats {
        some: data(n),
        full: data(n + 1),
        ..Default::default()
    })
}

#[test]
fn cpu_field_by_field() {
    let cpu = CPUStat {
        usage_usec: 1,
        user_usec: 2,
        system_usec: 3,
        nr_periods: 4,
        nr_throttled: 5,
        throttled_usec: 6,
        psi: some_psi(7),
        nr_bursts: 9,
        burst_usec: 10,
        ..Default::default()
    };
    assert_eq!(
        data(with_cpu(cpu), "cpu").to_string(),
        concat!(
            r#"{"psi":{"full":{"avg10":8.25,"avg300":8,"avg60":8.5,"total":8},"#,
            r#""some":{"avg10":7.25,"avg300":7,"avg60":7.5,"total":7}},"#,
            r#""throttling":{"periods":4,"throttledPeriods":5,"throttledTime":6000},"#,
            r#""usage":{"kernel":3000,"total":1000,"user":2000}}"#
        )
    );
}

#[test]
fn swapped_user_and_system_times_are_passed_on_as_sent() {
    // 600 ms user, 250 ms system, as Kata's Go shim sends them: the other way round.
    let cpu = CPUStat {
        usage_usec: 850_000,
        user_usec: 250_000,
        system_usec: 600_000,
        ..Default::default()
    };
    let usage = stats(with_cpu(cpu)).cpu.usage;
    assert_eq!((usage.user, usage.kernel), (Some(250_000_000), Some(600_000_000)));
}

#[test]
fn a_time_past_what_fits_is_no_number() {
    // 2^64 ns are 18446744073709551.616 µs.
    let usage = |usec| {
        stats(with_cpu(CPUStat {
            usage_usec: usec,
            system_usec: 1,
            ..Default::default()
        }))
        .cpu
        .usage
        .total
    };
    assert_eq!(usage(18_446_744_073_709_551), Some(18_446_744_073_709_551_000));
    assert_eq!(usage(18_446_744_073_709_552), None);
    assert_eq!(usage(u64::MAX), None);
}

#[test]
fn throttled_periods_without_their_time_leave_the_time_unknown() {
    let cpu = CPUStat {
        system_usec: 1,
        nr_periods: 9,
        nr_throttled: 4,
        ..Default::default()
    };
    assert_eq!(
        stats(with_cpu(cpu)).cpu.throttling,
        Throttling {
            periods: Some(9),
            throttled_periods: Some(4),
            throttled_time: None
        }
    );
    let cpu = CPUStat {
        nr_periods: 9,
        ..Default::default()
    };
    assert_eq!(
        stats(with_cpu(cpu)).cpu.throttling,
        Throttling {
            periods: Some(9),
            throttled_periods: Some(0),
            throttled_time: Some(0)
        }
    );
}

#[test]
fn no_period_is_no_quota_or_no_cpu_controller() {
    let cpu = CPUStat {
        usage_usec: 2,
        system_usec: 1,
        ..Default::default()
    };
    assert_eq!(stats(with_cpu(cpu)).cpu.throttling, Throttling::default());
}

#[test]
fn the_split_of_the_total() {
    let usage = |usage_usec, user_usec, system_usec| {
        let cpu = CPUStat {
            usage_usec,
            user_usec,
            system_usec,
            ..Default::default()
        };
        let usage = stats(with_cpu(cpu)).cpu.usage;
        (usage.total, usage.user, usage.kernel)
    };
    assert_eq!(usage(5, 5, 0), (Some(5000), Some(5000), Some(0)));
    assert_eq!(usage(5, 0, 5), (Some(5000), Some(0), Some(5000)));
    assert_eq!(usage(5, 0, 0), (Some(5000), None, None));
    assert_eq!(
        usage(0, 0, 0),
        (None, None, None),
        "nothing ran without taking time"
    );
}

#[test]
fn memory_field_by_field() {
    let memory = MemoryStat {
        anon: 1,
        file: 2,
        kernel_stack: 3,
        slab: 4,
        sock: 5,
        shmem: 6,
        file_mapped: 7,
        file_dirty: 8,
        file_writeback: 9,
        anon_thp: 10,
        inactive_anon: 11,
        active_anon: 12,
        inactive_file: 13,
        active_file: 14,
        unevictable: 15,
        slab_reclaimable: 16,
        slab_unreclaimable: 17,
        pgfault: 18,
        pgmajfault: 19,
        workingset_refault: 20,
        workingset_activate: 21,
        workingset_nodereclaim: 22,
        pgrefill: 23,
        pgscan: 24,
        pgsteal: 25,
        pgactivate: 26,
        pgdeactivate: 27,
        pglazyfree: 28,
        pglazyfreed: 29,
        thp_fault_alloc: 30,
        thp_collapse_alloc: 31,
        usage: 3200,
        usage_limit: 33_000,
        swap_usage: 34,
        swap_limit: 35,
        max_usage: 36,
        swap_max_usage: 37,
        psi: some_psi(38),
        ..Default::default()
    };
    let events = MemoryEvents {
        low: 40,
        high: 41,
        max: 42,
        oom: 43,
        oom_kill: 44,
        oom_group_kill: 45,
        ..Default::default()
    };
    let metrics = Metrics {
        memory_events: MessageField::some(events),
        ..with_memory(memory)
    };

    let memory = stats(metrics.clone()).memory;
    assert_eq!(
        (memory.rss, memory.mapped_file, memory.inactive_file),
        (Some(1), Some(7), Some(13))
    );
    assert_eq!(
        (memory.pgfault, memory.pgmajfault, memory.oom_kill),
        (Some(18), Some(19), Some(44))
    );
    assert_eq!(memory.limit(), Some(33_000));
    assert_eq!((memory.working_set(), memory.swapped()), (Some(3187), Some(34)));
    assert_eq!((memory.usage.failcnt, memory.swap.max), (None, None));
    assert_eq!(
        data(metrics, "memory"),
        json!({
            "cache": 2,
            "usage": { "limit": 33_000, "usage": 3200, "max": 36, "failcnt": 0 },
            "swap": { "limit": 33_035, "usage": 3234, "failcnt": 0 },
            "kernel": { "limit": 0, "failcnt": 0 },
            "kernelTCP": { "limit": 0, "failcnt": 0 },
            "raw": {
                "anon": 1, "file": 2, "kernel_stack": 3, "slab": 4, "sock": 5, "shmem": 6,
                "file_mapped": 7, "file_dirty": 8, "file_writeback": 9, "anon_thp": 10,
                "inactive_anon": 11, "active_anon": 12, "inactive_file": 13, "active_file": 14,
                "unevictable": 15, "slab_reclaimable": 16, "slab_unreclaimable": 17, "pgfault": 18,
                "pgmajfault": 19, "workingset_refault": 20, "workingset_activate": 21,
                "workingset_nodereclaim": 22, "pgrefill": 23, "pgscan": 24, "pgsteal": 25,
                "pgactivate": 26, "pgdeactivate": 27, "pglazyfree": 28, "pglazyfreed": 29,
                "thp_fault_alloc": 30, "thp_collapse_alloc": 31,
            },
            "psi": {
                "some": { "avg10": 38.25, "avg60": 38.5, "avg300": 38, "total": 38 },
                "full": { "avg10": 39.25, "avg60": 39.5, "avg300": 39, "total": 39 },
            },
        })
    );
}

#[test]
fn the_limit_on_memory_and_swap() {
    let swap = |usage_limit, swap_limit| {
        let stat = MemoryStat {
            usage: 10,
            usage_limit,
            swap_usage: 5,
            swap_limit,
            ..Default::default()
        };
        stats(with_memory(stat)).memory.swap
    };
    assert_eq!(swap(100, 30).limit, Some(130));
    assert_eq!(swap(100, UNLIMITED).limit, Some(UNLIMITED));
    assert_eq!(swap(UNLIMITED, 30).limit, Some(UNLIMITED), "no wrap-around");
    assert_eq!(swap(UNLIMITED, UNLIMITED).limit, Some(UNLIMITED));
    assert_eq!(swap(100, 30).usage, Some(15));
    assert_eq!(swap(UNLIMITED, UNLIMITED).finite_limit(), None);
}

#[test]
fn the_usage_beside_a_limit_is_a_number_even_if_zero() {
    let usage = |usage_limit| {
        let stat = MemoryStat {
            usage_limit,
            kernel_stack: 16_384,
            ..Default::default()
        };
        stats(with_memory(stat)).memory.usage
    };
    assert_eq!(
        usage(100),
        MemoryEntry {
            limit: Some(100),
            usage: Some(0),
            max: None,
            failcnt: None
        }
    );
    assert_eq!(usage(0), MemoryEntry::default());
}

#[test]
fn unlimited_memory_is_printed_and_is_no_limit() {
    let stat = MemoryStat {
        usage: 10,
        usage_limit: UNLIMITED,
        ..Default::default()
    };
    assert_eq!(stats(with_memory(stat.clone())).memory.limit(), None);
    assert_eq!(
        data(with_memory(stat), "memory")["usage"]["limit"],
        json!(18_446_744_073_709_551_615_u64)
    );
}

#[test]
fn zeros_of_a_memory_stat_that_was_read_are_numbers() {
    let stat = MemoryStat {
        kernel_stack: 16_384,
        ..Default::default()
    };
    let memory = stats(with_memory(stat)).memory;
    // The fields of the reply that are in the memory.stat of every kernel since 4.13.
    let keys = [
        "active_anon",
        "active_file",
        "anon",
        "file",
        "file_dirty",
        "file_mapped",
        "file_writeback",
        "inactive_anon",
        "inactive_file",
        "kernel_stack",
        "pgactivate",
        "pgdeactivate",
        "pgfault",
        "pglazyfree",
        "pglazyfreed",
        "pgmajfault",
        "pgrefill",
        "pgscan",
        "pgsteal",
        "shmem",
        "slab",
        "slab_reclaimable",
        "slab_unreclaimable",
        "sock",
        "unevictable",
        "workingset_nodereclaim",
    ];
    assert_eq!(memory.raw.keys().collect::<Vec<_>>(), keys.each_ref());
    assert_eq!(
        (memory.rss, memory.cache, memory.mapped_file),
        (Some(0), Some(0), Some(0))
    );
    assert_eq!(
        (memory.inactive_file, memory.pgfault, memory.pgmajfault),
        (Some(0), Some(0), Some(0))
    );
}

#[test]
fn a_memory_stat_of_a_v1_guest_fills_what_the_versions_have_in_common() {
    let stat = MemoryStat {
        active_file: 4096,
        pgfault: 7,
        ..Default::default()
    };
    let memory = stats(with_memory(stat)).memory;
    assert_eq!(
        memory.raw,
        BTreeMap::from([("active_file".into(), 4096), ("pgfault".into(), 7)])
    );
    assert_eq!(
        (memory.rss, memory.pgfault, memory.pgmajfault),
        (None, Some(7), None)
    );
}

#[test]
fn pids_field_by_field() {
    let metrics = |current, limit| Metrics {
        pids: MessageField::some(PidsStat {
            current,
            limit,
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(data(metrics(1, 2), "pids"), json!({ "current": 1, "limit": 2 }));
    for none in [0, u64::MAX] {
        assert_eq!(data(metrics(1, none), "pids"), json!({ "current": 1 }));
    }
}

#[test]
fn blkio_field_by_field() {
    let device = |n| IOEntry {
        major: n,
        minor: n + 1,
        rbytes: n + 2,
        wbytes: n + 3,
        rios: n + 4,
        wios: n + 5,
        ..Default::default()
    };
    let io = IOStat {
        usage: vec![device(10), device(20)],
        psi: some_psi(30),
        ..Default::default()
    };
    let metrics = Metrics {
        io: MessageField::some(io),
        ..Default::default()
    };
    assert_eq!(
        stats(metrics.clone()).blkio.unwrap().devices()[&(20, 21)],
        DeviceIo {
            read_bytes: Some(22),
            write_bytes: Some(23),
            reads: Some(24),
            writes: Some(25)
        }
    );
    assert_eq!(
        data(metrics, "blkio"),
        json!({
            "ioServiceBytesRecursive": [
                { "major": 10, "minor": 11, "op": "Read", "value": 12 },
                { "major": 10, "minor": 11, "op": "Write", "value": 13 },
                { "major": 20, "minor": 21, "op": "Read", "value": 22 },
                { "major": 20, "minor": 21, "op": "Write", "value": 23 },
            ],
            "ioServicedRecursive": [
                { "major": 10, "minor": 11, "op": "Read", "value": 14 },
                { "major": 10, "minor": 11, "op": "Write", "value": 15 },
                { "major": 20, "minor": 21, "op": "Read", "value": 24 },
                { "major": 20, "minor": 21, "op": "Write", "value": 25 },
            ],
            "psi": {
                "some": { "avg10": 30.25, "avg60": 30.5, "avg300": 30, "total": 30 },
                "full": { "avg10": 31.25, "avg60": 31.5, "avg300": 31, "total": 31 },
            },
        })
    );
}

#[test]
fn the_empty_entry_of_katas_go_shim_is_no_device() {
    let io = IOStat {
        usage: vec![IOEntry::default()],
        ..Default::default()
    };
    let metrics = Metrics {
        io: MessageField::some(io),
        ..Default::default()
    };
    assert_eq!(stats(metrics).blkio, Some(Blkio::default()));
}

#[test]
fn hugetlb_field_by_field() {
    let pages = |pagesize: &str, n| HugeTlbStat {
        current: n,
        max: n + 1,
        failcnt: n + 2,
        pagesize: pagesize.into(),
        ..Default::default()
    };
    let metrics = Metrics {
        hugetlb: vec![pages("2MB", 1), pages("1GB", 4)],
        ..Default::default()
    };
    assert_eq!(
        data(metrics, "hugetlb"),
        json!({ "2MB": { "usage": 1, "failcnt": 3 }, "1GB": { "usage": 4, "failcnt": 6 } })
    );
}

#[test]
fn unused_huge_pages_are_told_from_a_controller_that_is_off() {
    let hugetlb = |max| {
        let pages = HugeTlbStat {
            max,
            pagesize: "2MB".into(),
            ..Default::default()
        };
        let metrics = Metrics {
            hugetlb: vec![pages],
            ..Default::default()
        };
        stats(metrics).hugetlb
    };
    let unused = Hugetlb {
        usage: Some(0),
        max: None,
        failcnt: None,
    };
    assert_eq!(hugetlb(UNLIMITED), BTreeMap::from([("2MB".into(), unused)]));
    assert_eq!(hugetlb(0), BTreeMap::new());
}

#[test]
fn no_process_is_told_from_a_controller_that_is_off() {
    let stats = |limit| {
        let metrics = Metrics {
            pids: MessageField::some(PidsStat {
                limit,
                ..Default::default()
            }),
            ..with_cpu(CPUStat {
                usage_usec: 1,
                ..Default::default()
            })
        };
        let stats = stats(metrics);
        (stats.pids.current, stats.is_emptied())
    };
    assert_eq!(stats(0), (None, false));
    assert_eq!(stats(UNLIMITED), (Some(0), true));
    assert_eq!(stats(50), (Some(0), true));
}

#[test]
fn interfaces_field_by_field() {
    let eth0 = NetworkStat {
        name: "eth0".into(),
        rx_bytes: 1,
        rx_packets: 2,
        rx_errors: 3,
        rx_dropped: 4,
        tx_bytes: 5,
        tx_packets: 6,
        tx_errors: 7,
        tx_dropped: 8,
        ..Default::default()
    };
    let metrics = Metrics {
        network: vec![eth0],
        ..Default::default()
    };
    assert_eq!(
        data(metrics, "interfaces"),
        json!([{
            "name": "eth0",
            "rx_bytes": 1, "rx_packets": 2, "rx_errors": 3, "rx_dropped": 4,
            "tx_bytes": 5, "tx_packets": 6, "tx_errors": 7, "tx_dropped": 8,
        }])
    );
}

#[test]
fn pressure_that_was_not_reported_is_left_out() {
    let only_some = PSIStats {
        some: MessageField::some(PSIData::default()),
        ..Default::default()
    };
    let cpu = CPUStat {
        psi: MessageField::some(only_some),
        ..Default::default()
    };
    assert_eq!(
        data(with_cpu(cpu), "cpu")["psi"],
        json!({ "some": { "avg10": 0, "avg60": 0, "avg300": 0, "total": 0 } })
    );
    let cpu = CPUStat {
        psi: MessageField::some(PSIStats::default()),
        ..Default::default()
    };
    assert_eq!(stats(with_cpu(cpu)).cpu.psi, None);
}

#[test]
fn gvisor_reports_three_numbers() {
    let metrics = Metrics {
        cpu: MessageField::some(CPUStat {
            usage_usec: 1,
            ..Default::default()
        }),
        memory: MessageField::some(MemoryStat {
            usage: 2,
            ..Default::default()
        }),
        pids: MessageField::some(PidsStat {
            current: 3,
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(
        stats(metrics),
        Stats {
            cpu: Cpu {
                usage: CpuUsage {
                    total: Some(1000),
                    ..Default::default()
                },
                ..Default::default()
            },
            memory: Memory {
                usage: MemoryEntry {
                    usage: Some(2),
                    ..Default::default()
                },
                ..Default::default()
            },
            pids: Pids {
                current: Some(3),
                limit: None
            },
            ..Default::default()
        }
    );
}
