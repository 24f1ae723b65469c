use containerd_shim_protos::cgroups::metrics::{
    CPUUsage, HugetlbStat, MemoryOomControl, NetworkStat, Throttle,
};
use protobuf::MessageField;
use serde_json::{Value, json};

use super::*;
use crate::stats::DeviceIo;

/// The v1 "unlimited" of kernels with pages of 4 KiB.
const UNLIMITED: u64 = 9_223_372_036_854_771_712;

fn data(metrics: Metrics, object: &str) -> Value {
    stats(metrics).to_json()[object].take()
}

fn with_memory(memory: MemoryStat) -> Metrics {
    Metrics {
        memory: MessageField::some(memory),
        ..Default::default()
    }
}

fn some_entry(limit: u64, usage: u64, max: u64, failcnt: u64) -> MessageField<Entry> {
    MessageField::some(Entry {
        limit,
        usage,
        max,
        failcnt,
        ..Default::default()
    })
}

/// A `memory.stat` of a real cgroup in which most is zero.
fn mostly_zero() -> MemoryStat {
    MemoryStat {
        hierarchical_memory_limit: UNLIMITED,
        total_pg_fault: 7,
        ..Default::default()
    }
}

fn with_cpu(usage: CPUUsage, throttling: Throttle) -> Metrics {
    let cpu = CPUStat {
        usage: MessageField::some(usage),
        throttling: MessageField::some(throttling),
        ..Default::default()
    };
    Metrics {
        cpu: MessageField::some(cpu),
        ..Default::default()
    }
}

#[test]
fn cpu_field_by_field() {
    let usage = CPUUsage {
        total: 1,
        kernel: 2,
        user: 3,
        per_cpu: vec![4, 0, 5],
        ..Default::default()
    };
    let throttling = Throttle {
        periods: 6,
        throttled_periods: 7,
        throttled_time: 8,
        ..Default::default()
    };
    assert_eq!(
        data(with_cpu(usage, throttling), "cpu"),
        json!({
            "usage": { "total": 1, "kernel": 2, "user": 3, "percpu": [4, 0, 5] },
            "throttling": { "periods": 6, "throttledPeriods": 7, "throttledTime": 8 },
        })
    );
}

#[test]
fn a_total_without_its_parts_has_no_split() {
    let usage = CPUUsage {
        total: 5,
        ..Default::default()
    };
    let cpu = stats(with_cpu(usage, Throttle::default())).cpu;
    assert_eq!(
        cpu.usage,
        CpuUsage {
            total: Some(5),
            ..Default::default()
        }
    );
    assert_eq!(cpu.throttling, Throttling::default());
}

#[test]
fn a_total_of_zero_was_not_measured() {
    let cpu = stats(with_cpu(CPUUsage::default(), Throttle::default())).cpu;
    assert_eq!(cpu, Cpu::default());
}

#[test]
fn one_part_alone_is_a_split() {
    let usage = CPUUsage {
        total: 5,
        user: 5,
        ..Default::default()
    };
    let cpu = stats(with_cpu(usage, Throttle::default())).cpu;
    assert_eq!((cpu.usage.kernel, cpu.usage.user), (Some(0), Some(5)));
    assert_eq!(
        cpu.throttling,
        Throttling::default(),
        "no quota, or no cpu controller"
    );
}

#[test]
fn throttled_periods_without_their_time_leave_the_time_unknown() {
    let usage = CPUUsage {
        total: 5,
        user: 5,
        ..Default::default()
    };
    let throttling = Throttle {
        periods: 9,
        throttled_periods: 4,
        ..Default::default()
    };
    let throttling = stats(with_cpu(usage, throttling)).cpu.throttling;
    assert_eq!(
        throttling,
        Throttling {
            periods: Some(9),
            throttled_periods: Some(4),
            throttled_time: None
        }
    );
}

#[test]
fn periods_without_throttling_took_no_time() {
    let throttling = Throttle {
        periods: 9,
        ..Default::default()
    };
    assert_eq!(
        stats(with_cpu(CPUUsage::default(), throttling)).cpu.throttling,
        Throttling {
            periods: Some(9),
            throttled_periods: Some(0),
            throttled_time: Some(0)
        }
    );
}

#[test]
fn memory_field_by_field() {
    let memory = MemoryStat {
        cache: 1,
        rss: 2,
        rss_huge: 3,
        mapped_file: 4,
        dirty: 5,
        writeback: 6,
        pg_pg_in: 7,
        pg_pg_out: 8,
        pg_fault: 9,
        pg_maj_fault: 10,
        inactive_anon: 11,
        active_anon: 12,
        inactive_file: 13,
        active_file: 14,
        unevictable: 15,
        hierarchical_memory_limit: 16,
        hierarchical_swap_limit: 17,
        total_cache: 18,
        total_rss: 19,
        total_rss_huge: 20,
        total_mapped_file: 21,
        total_dirty: 22,
        total_writeback: 23,
        total_pg_pg_in: 24,
        total_pg_pg_out: 25,
        total_pg_fault: 26,
        total_pg_maj_fault: 27,
        total_inactive_anon: 28,
        total_active_anon: 29,
        total_inactive_file: 30,
        total_active_file: 31,
        total_unevictable: 32,
        usage: some_entry(33, 34, 35, 36),
        swap: some_entry(37, 38, 39, 40),
        kernel: some_entry(41, 42, 43, 44),
        kernel_tcp: some_entry(45, 46, 47, 48),
        ..Default::default()
    };
    let oom = MemoryOomControl {
        oom_kill_disable: 49,
        under_oom: 1,
        oom_kill: 50,
        ..Default::default()
    };
    let metrics = Metrics {
        memory_oom_control: MessageField::some(oom),
        ..with_memory(memory)
    };

    let memory = stats(metrics.clone()).memory;
    assert_eq!(
        (memory.rss, memory.mapped_file, memory.inactive_file),
        (Some(19), Some(21), Some(30))
    );
    assert_eq!((memory.pgfault, memory.pgmajfault), (Some(26), Some(27)));
    assert_eq!((memory.oom_kill, memory.total_cache), (Some(50), Some(18)));
    assert_eq!(
        (memory.limit(), memory.working_set(), memory.swapped()),
        (Some(33), Some(4), Some(4))
    );
    assert_eq!(
        data(metrics, "memory"),
        json!({
            "cache": 1,
            "usage": { "limit": 33, "usage": 34, "max": 35, "failcnt": 36 },
            "swap": { "limit": 37, "usage": 38, "max": 39, "failcnt": 40 },
            "kernel": { "limit": 41, "usage": 42, "max": 43, "failcnt": 44 },
            "kernelTCP": { "limit": 45, "usage": 46, "max": 47, "failcnt": 48 },
            "raw": {
                "cache": 1, "rss": 2, "rss_huge": 3, "mapped_file": 4, "dirty": 5, "writeback": 6,
                "pgpgin": 7, "pgpgout": 8, "pgfault": 9, "pgmajfault": 10,
                "inactive_anon": 11, "active_anon": 12, "inactive_file": 13, "active_file": 14,
                "unevictable": 15, "hierarchical_memory_limit": 16, "hierarchical_memsw_limit": 17,
                "total_cache": 18, "total_rss": 19, "total_rss_huge": 20, "total_mapped_file": 21,
                "total_dirty": 22, "total_writeback": 23, "total_pgpgin": 24, "total_pgpgout": 25,
                "total_pgfault": 26, "total_pgmajfault": 27, "total_inactive_anon": 28,
                "total_active_anon": 29, "total_inactive_file": 30, "total_active_file": 31,
                "total_unevictable": 32,
            },
        })
    );
}

#[test]
fn zeros_of_a_memory_stat_that_was_read_are_numbers() {
    let memory = stats(with_memory(mostly_zero())).memory;
    assert_eq!(
        memory.raw.len(),
        31,
        "all keys but the limit on swap, which is never 0"
    );
    assert_eq!(memory.raw.get("hierarchical_memsw_limit"), None);
    assert_eq!(memory.raw.get("total_writeback"), Some(&0));
    assert_eq!(
        (memory.cache, memory.rss, memory.mapped_file),
        (Some(0), Some(0), Some(0))
    );
    assert_eq!((memory.inactive_file, memory.pgmajfault), (Some(0), Some(0)));
}

#[test]
fn keys_that_katas_go_shim_does_not_fill_are_left_out() {
    let memory = stats(with_memory(MemoryStat {
        cache: 1,
        rss: 2,
        mapped_file: 3,
        pg_fault: 4,
        pg_maj_fault: 5,
        total_inactive_file: 6,
        ..Default::default()
    }))
    .memory;
    let filled = [
        ("cache", 1),
        ("mapped_file", 3),
        ("pgfault", 4),
        ("pgmajfault", 5),
        ("rss", 2),
        ("total_inactive_file", 6),
    ];
    assert_eq!(
        memory.raw,
        BTreeMap::from(filled.map(|(key, value)| (key.into(), value)))
    );
    assert_eq!(
        (memory.rss, memory.mapped_file, memory.inactive_file),
        (Some(2), Some(3), Some(6))
    );
    assert_eq!((memory.pgfault, memory.pgmajfault), (Some(4), Some(5)));
}

#[test]
fn page_events_that_katas_rust_shim_looks_for_under_wrong_names_are_left_out() {
    // Its reply about a cgroup v1 guest: the limit and most keys are there, page events are not.
    let stat = MemoryStat {
        total_pg_fault: 0,
        total_rss: 5,
        ..mostly_zero()
    };
    let memory = stats(with_memory(stat)).memory;
    assert_eq!((memory.pgfault, memory.pgmajfault), (None, None));
    assert!(
        memory.raw.keys().all(|key| !key.contains("pg")),
        "{:?}",
        memory.raw
    );
    for key in [
        "active_anon",
        "total_active_anon",
        "total_rss_huge",
        "total_writeback",
    ] {
        assert_eq!(memory.raw.get(key), None, "{key}");
    }
    assert_eq!(memory.raw.get("total_cache"), Some(&0));
    assert_eq!((memory.rss, memory.cache), (Some(5), Some(0)));
}

#[test]
fn any_page_event_shows_that_all_were_read() {
    let no_event = MemoryStat {
        total_pg_fault: 0,
        ..mostly_zero()
    };
    let events: [fn(&mut MemoryStat); 8] = [
        |stat: &mut MemoryStat| stat.pg_pg_in = 7,
        |stat: &mut MemoryStat| stat.pg_pg_out = 7,
        |stat: &mut MemoryStat| stat.pg_fault = 7,
        |stat: &mut MemoryStat| stat.pg_maj_fault = 7,
        |stat: &mut MemoryStat| stat.total_pg_pg_in = 7,
        |stat: &mut MemoryStat| stat.total_pg_pg_out = 7,
        |stat: &mut MemoryStat| stat.total_pg_fault = 7,
        |stat: &mut MemoryStat| stat.total_pg_maj_fault = 7,
    ];
    for event in events {
        let mut stat = no_event.clone();
        event(&mut stat);
        let raw = stats(with_memory(stat)).memory.raw;
        assert_eq!(raw.len(), 31, "{raw:?}");
    }
}

#[test]
fn an_entry_without_a_limit_was_not_read() {
    let unlimited = || some_entry(UNLIMITED, 0, 0, 0);
    let stat = MemoryStat {
        usage: unlimited(),
        swap: some_entry(0, 0, 0, 0),
        ..mostly_zero()
    };
    let memory = stats(with_memory(stat)).memory;
    let read = MemoryEntry {
        limit: Some(UNLIMITED),
        usage: Some(0),
        max: Some(0),
        failcnt: Some(0),
    };
    assert_eq!(memory.usage, read);
    assert_eq!(memory.swap, MemoryEntry::default());
    assert_eq!(memory.kernel, MemoryEntry::default());

    let stat = MemoryStat {
        swap: unlimited(),
        kernel: unlimited(),
        kernel_tcp: unlimited(),
        ..mostly_zero()
    };
    let memory = stats(with_memory(stat)).memory;
    assert_eq!(
        [memory.swap, memory.kernel, memory.kernel_tcp],
        [read.clone(), read.clone(), read]
    );
    assert_eq!(memory.usage, MemoryEntry::default());
}

#[test]
fn an_oom_control_of_zeros_is_a_measurement() {
    let oom_kill = |oom_kill| {
        let oom = MemoryOomControl {
            oom_kill,
            ..Default::default()
        };
        let metrics = Metrics {
            memory_oom_control: MessageField::some(oom),
            ..Default::default()
        };
        stats(metrics).memory.oom_kill
    };
    assert_eq!((oom_kill(0), oom_kill(3)), (Some(0), Some(3)));
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
        assert_eq!(
            stats(metrics(1, none)).pids,
            Pids {
                current: Some(1),
                limit: None
            }
        );
    }
}

#[test]
fn no_process_is_told_from_a_controller_that_is_off() {
    let used = CPUUsage {
        total: 5,
        ..Default::default()
    };
    let current = |limit, memory| {
        let metrics = Metrics {
            pids: MessageField::some(PidsStat {
                limit,
                ..Default::default()
            }),
            cpu: with_cpu(used.clone(), Throttle::default()).cpu,
            ..with_memory(memory)
        };
        let stats = stats(metrics);
        (stats.pids.current, stats.is_emptied())
    };
    let with_rss = MemoryStat {
        total_rss: 4096,
        ..mostly_zero()
    };
    assert_eq!(current(0, with_rss.clone()), (None, false), "off");
    assert_eq!(current(50, with_rss), (Some(0), true));
    assert_eq!(current(0, mostly_zero()), (Some(0), true), "nothing runs in it");
}

fn blk(major: u64, minor: u64, op: &str, value: u64) -> BlkIOEntry {
    BlkIOEntry {
        major,
        minor,
        op: op.into(),
        value,
        device: "/dev/x".into(),
        ..Default::default()
    }
}

#[test]
fn blkio_field_by_field() {
    let list = |n: u64| vec![blk(n, n + 1, &format!("op{n}"), n + 2)];
    let blkio = BlkIOStat {
        io_service_bytes_recursive: list(10),
        io_serviced_recursive: list(20),
        io_queued_recursive: list(30),
        io_service_time_recursive: list(40),
        io_wait_time_recursive: list(50),
        io_merged_recursive: list(60),
        io_time_recursive: list(70),
        sectors_recursive: vec![blk(8, 0, "", 0)],
        ..Default::default()
    };
    let metrics = Metrics {
        blkio: MessageField::some(blkio),
        ..Default::default()
    };
    let entry = |n: u64| json!([{ "major": n, "minor": n + 1, "op": format!("op{n}"), "value": n + 2 }]);
    assert_eq!(
        data(metrics, "blkio"),
        json!({
            "ioServiceBytesRecursive": entry(10),
            "ioServicedRecursive": entry(20),
            "ioQueueRecursive": entry(30),
            "ioServiceTimeRecursive": entry(40),
            "ioWaitTimeRecursive": entry(50),
            "ioMergedRecursive": entry(60),
            "ioTimeRecursive": entry(70),
            "sectorsRecursive": [{ "major": 8 }],
        })
    );
}

#[test]
fn devices_add_up_what_the_kernel_calls_reads_and_writes() {
    let blkio = blkio(BlkIOStat {
        io_service_bytes_recursive: vec![
            blk(8, 0, "Read", 1000),
            blk(8, 0, "Write", 200),
            blk(8, 0, "Sync", 1100),
            blk(8, 0, "Async", 100),
            blk(8, 0, "Total", 1200),
            blk(8, 16, "Read", 30),
        ],
        io_serviced_recursive: vec![blk(8, 0, "Read", 5), blk(8, 0, "Write", 4), blk(8, 0, "Total", 9)],
        ..Default::default()
    });
    let io = |read_bytes, write_bytes, reads, writes| DeviceIo {
        read_bytes,
        write_bytes,
        reads,
        writes,
    };
    let expected = [
        ((8, 0), io(Some(1000), Some(200), Some(5), Some(4))),
        ((8, 16), io(Some(30), None, None, None)),
    ];
    assert_eq!(blkio.devices(), BTreeMap::from(expected));
}

#[test]
fn operations_that_katas_agent_puts_among_the_bytes_are_not_counted_as_bytes() {
    let sent = ["read", "write", "rios", "wios", "dbytes", "dios"];
    let blkio = blkio(BlkIOStat {
        io_service_bytes_recursive: sent.iter().zip(1..).map(|(op, n)| blk(254, 0, op, n)).collect(),
        ..Default::default()
    });
    let expected = DeviceIo {
        read_bytes: Some(1),
        write_bytes: Some(2),
        reads: Some(3),
        writes: Some(4),
    };
    assert_eq!(blkio.devices()[&(254, 0)], expected);
    assert_eq!(
        blkio.io_service_bytes_recursive[2].op, "rios",
        "passed on as sent"
    );
}

#[test]
fn hugetlb_field_by_field() {
    let pages = |pagesize: &str, n| HugetlbStat {
        usage: n,
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
        json!({
            "2MB": { "usage": 1, "max": 2, "failcnt": 3 },
            "1GB": { "usage": 4, "max": 5, "failcnt": 6 },
        })
    );
}

#[test]
fn zeros_of_huge_pages_are_numbers_beside_a_full_memory_stat() {
    let empty = HugetlbStat {
        pagesize: "2MB".into(),
        ..Default::default()
    };
    let hugetlb = |memory| {
        let metrics = Metrics {
            hugetlb: vec![empty.clone()],
            ..with_memory(memory)
        };
        stats(metrics).hugetlb
    };
    let zeros = Hugetlb {
        usage: Some(0),
        max: Some(0),
        failcnt: Some(0),
    };
    assert_eq!(hugetlb(mostly_zero()), BTreeMap::from([("2MB".into(), zeros)]));
    // Kata sends such an entry for a guest with cgroup v2.
    assert_eq!(hugetlb(MemoryStat::default()), BTreeMap::new());
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
        network: vec![eth0, NetworkStat::default()],
        ..Default::default()
    };
    assert_eq!(
        data(metrics, "interfaces"),
        json!([
            {
                "name": "eth0",
                "rx_bytes": 1, "rx_packets": 2, "rx_errors": 3, "rx_dropped": 4,
                "tx_bytes": 5, "tx_packets": 6, "tx_errors": 7, "tx_dropped": 8,
            },
            {
                "name": "",
                "rx_bytes": 0, "rx_packets": 0, "rx_errors": 0, "rx_dropped": 0,
                "tx_bytes": 0, "tx_packets": 0, "tx_errors": 0, "tx_dropped": 0,
            },
        ])
    );
}

#[test]
fn gvisor_reports_three_numbers() {
    let usage = CPUUsage {
        total: 1,
        ..Default::default()
    };
    let memory = MemoryStat {
        usage: some_entry(0, 2, 0, 0),
        swap: some_entry(0, 0, 0, 0),
        kernel: some_entry(0, 0, 0, 0),
        kernel_tcp: some_entry(0, 0, 0, 0),
        ..Default::default()
    };
    let metrics = Metrics {
        memory: MessageField::some(memory),
        pids: MessageField::some(PidsStat {
            current: 3,
            ..Default::default()
        }),
        ..with_cpu(usage, Throttle::default())
    };
    assert_eq!(
        stats(metrics),
        Stats {
            cpu: Cpu {
                usage: CpuUsage {
                    total: Some(1),
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
