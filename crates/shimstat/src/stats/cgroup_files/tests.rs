use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::stats::{BlkioEntry, Hugetlb, MemoryEntry, Throttling};

fn read(version: CgroupVersion, files: &[(&str, &str)]) -> Stats {
    from_files(version, &["2MB".to_owned()], &|name| {
        let (_, text) = files.iter().find(|(file, _)| *file == name)?;
        Some(format!("{text}\n"))
    })
}

fn entry(minor: u64, op: &str, value: u64) -> BlkioEntry {
    BlkioEntry {
        major: 254,
        minor,
        op: op.into(),
        value,
    }
}

#[test]
fn cgroup_v1_file_by_file() {
    let stats = read(
        CgroupVersion::V1,
        &[
            ("cpuacct.usage", "4117081000"),
            ("cpuacct.usage_percpu", "4117000000 81000 "),
            ("cpuacct.stat", "user 247\nsystem 163"),
            (
                "cpu.stat",
                "nr_periods 70\nnr_throttled 61\nthrottled_time 3064773000",
            ),
            (
                "memory.stat",
                "cache 1\nrss 2\ntotal_cache 3\ntotal_rss 4\ntotal_mapped_file 5\ntotal_inactive_file 6\ntotal_pgfault 7\ntotal_pgmajfault 8\ntotal_swap 9",
            ),
            ("memory.limit_in_bytes", "9223372036854771712"),
            ("memory.usage_in_bytes", "100"),
            ("memory.max_usage_in_bytes", "200"),
            ("memory.failcnt", "3"),
            ("memory.memsw.usage_in_bytes", "150"),
            ("memory.kmem.usage_in_bytes", "10"),
            ("memory.kmem.tcp.usage_in_bytes", "11"),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 2",
            ),
            ("pids.current", "3"),
            ("pids.max", "50"),
            ("hugetlb.2MB.usage_in_bytes", "2097152"),
            ("hugetlb.2MB.max_usage_in_bytes", "4194304"),
            ("hugetlb.2MB.failcnt", "1"),
        ],
    );
    assert_eq!(stats.cpu.usage.total, Some(4_117_081_000));
    assert_eq!(stats.cpu.usage.percpu, [4_117_000_000, 81_000]);
    assert_eq!(
        (stats.cpu.usage.user, stats.cpu.usage.kernel),
        (Some(2_470_000_000), Some(1_630_000_000)),
        "ticks of 10 ms"
    );
    assert_eq!(
        stats.cpu.throttling,
        Throttling {
            periods: Some(70),
            throttled_periods: Some(61),
            throttled_time: Some(3_064_773_000)
        }
    );
    let memory = &stats.memory;
    assert_eq!((memory.cache, memory.total_cache), (Some(1), Some(3)));
    assert_eq!((memory.rss, memory.mapped_file), (Some(4), Some(5)));
    assert_eq!((memory.inactive_file, memory.working_set()), (Some(6), Some(94)));
    assert_eq!((memory.pgfault, memory.pgmajfault), (Some(7), Some(8)));
    assert_eq!(memory.swapped(), Some(9), "the kernel's own number, not 50");
    assert_eq!(
        memory.usage,
        MemoryEntry {
            limit: Some(9_223_372_036_854_771_712),
            usage: Some(100),
            max: Some(200),
            failcnt: Some(3)
        }
    );
    assert_eq!((memory.limit(), memory.oom_kill), (None, Some(2)));
    assert_eq!(
        [&memory.swap, &memory.kernel, &memory.kernel_tcp].map(|entry| entry.usage),
        [Some(150), Some(10), Some(11)]
    );
    assert_eq!(memory.raw.len(), 9);
    assert_eq!((stats.pids.current, stats.pids.limit), (Some(3), Some(50)));
    let pages = Hugetlb {
        usage: Some(2_097_152),
        max: Some(4_194_304),
        failcnt: Some(1),
    };
    assert_eq!(stats.hugetlb, BTreeMap::from([("2MB".into(), pages)]));
    assert_eq!(stats.blkio, None, "no file says anything of devices");
}

#[test]
fn cgroup_v1_counts_devices_where_the_scheduler_does() {
    let throttle = [
        (
            "blkio.throttle.io_serviced",
            "254:0 Read 5\n254:0 Write 4\n254:0 Total 9\nTotal 9",
        ),
        ("blkio.throttle.io_service_bytes", "254:0 Read 4096\nTotal 4096"),
    ];
    let blkio = |files: &[(&str, &str)]| read(CgroupVersion::V1, files).blkio;
    let counted = blkio(&throttle).unwrap();
    assert_eq!(
        counted.io_serviced_recursive,
        [entry(0, "Read", 5), entry(0, "Write", 4), entry(0, "Total", 9)]
    );
    assert_eq!(counted.io_service_bytes_recursive, [entry(0, "Read", 4096)]);

    let mut with_scheduler = vec![
        ("blkio.io_serviced_recursive", "254:16 Read 7"),
        ("blkio.io_service_bytes_recursive", "254:16 Read 8"),
        ("blkio.io_wait_time_recursive", "254:16 Read 9"),
        ("blkio.time_recursive", "254:16 10"),
        ("blkio.sectors_recursive", "254:16 11"),
    ];
    with_scheduler.extend(throttle);
    let counted = blkio(&with_scheduler).unwrap();
    assert_eq!(counted.io_serviced_recursive, [entry(16, "Read", 7)]);
    assert_eq!(counted.io_service_bytes_recursive, [entry(16, "Read", 8)]);
    assert_eq!(counted.io_wait_time_recursive, [entry(16, "Read", 9)]);
    assert_eq!(counted.io_time_recursive, [entry(16, "", 10)]);
    assert_eq!(counted.sectors_recursive, [entry(16, "", 11)]);

    // A scheduler that is there and not in use.
    with_scheduler[0].1 = "Total 0";
    assert_eq!(blkio(&with_scheduler).unwrap().io_serviced_recursive.len(), 3);
    let unused = blkio(&[("blkio.throttle.io_serviced", "Total 0")]).unwrap();
    assert!(unused.devices().is_empty());
}

#[test]
fn cgroup_v2_devices_without_numbers_are_left_out() {
    let io =
        "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6 cost.usage=7\n8:0 \nnonsense\n254:16 rios=8";
    let blkio = read(CgroupVersion::V2, &[("io.stat", io)]).blkio.unwrap();
    assert_eq!(
        blkio.io_service_bytes_recursive,
        [entry(0, "Read", 1), entry(0, "Write", 2)]
    );
    assert_eq!(
        blkio.io_serviced_recursive,
        [entry(0, "Read", 3), entry(0, "Write", 4), entry(16, "Read", 8)]
    );
    assert!(read(CgroupVersion::V2, &[("io.stat", "")]).blkio.is_some());
    assert!(read(CgroupVersion::V2, &[]).blkio.is_none());
}

#[test]
fn a_pressure_that_cannot_be_read_is_left_out() {
    let psi = |text: &str| read(CgroupVersion::V2, &[("cpu.pressure", text)]).cpu.psi;
    let some = psi("some avg10=3.02 avg60=35.72 avg300=46.91 total=428272259").unwrap();
    assert_eq!(some.full, None);
    assert_eq!(some.some.unwrap().avg60, 35.72);
    assert_eq!(psi("some avg10=3.02 avg60=35.72 total=4"), None);
    assert_eq!(psi(""), None);
}

#[test]
fn without_swap_accounting_there_is_no_swap() {
    let stats = read(
        CgroupVersion::V2,
        &[("memory.current", "100"), ("memory.max", "max")],
    );
    assert_eq!(stats.memory.swap, MemoryEntry::default());
    assert_eq!(stats.memory.swapped(), None);
}

#[test]
fn an_empty_cgroup_has_a_zero_and_one_that_is_gone_has_nothing() {
    for version in [CgroupVersion::V1, CgroupVersion::V2] {
        let files = [
            ("pids.current", "0"),
            ("memory.current", "4096"),
            ("cpuacct.usage", "5"),
        ];
        assert!(read(version, &files).is_emptied());
        assert_eq!(read(version, &[]), Stats::default());
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_left_out(text in "(some |full )?([a-z]{1,9}|[0-9]{1,2}:[0-9])?[ =]?[0-9.]{0,21}\n?.{0,9}") {
        for version in [CgroupVersion::V1, CgroupVersion::V2] {
            let stats = from_files(version, &["2MB".to_owned()], &|_| Some(text.clone()));
            stats.to_json();
            super::super::Limits::from_files(version, &|_| Some(text.clone()));
        }
    }
}
