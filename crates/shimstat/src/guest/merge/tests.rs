use super::*;
use crate::guest::messages::StatsContainerResponse;
use crate::proto;
use crate::stats::{
    Blkio, BlkioEntry, CgroupVersion, Cpu, CpuUsage, Interface, Memory, Pids, Psi, Sockets, Throttling,
    decode,
};
use containerd_shim_protos::cgroups_v2::metrics::{CPUStat, IOEntry, IOStat, MemoryStat, Metrics, PidsStat};
use protobuf::{Message, MessageField};

const GO: &[u8] = include_bytes!("../../../tests/fixtures/kata-4.1-go/stats-L.v1.bin");
const RUST: &[u8] = include_bytes!("../../../tests/fixtures/kata-4.1-rs-clh/stats-L.v1.bin");
const AGENT: &[u8] = include_bytes!("../../../tests/fixtures/kata-4.1-agent/stats-container.bin");

fn shim(reply: &[u8]) -> Stats {
    decode("io.containerd.cgroups.v1.Metrics", reply).unwrap()
}

fn merge(mut shim: Stats, guest: &GuestStats) -> Stats {
    super::merge(&mut shim, guest);
    shim
}

fn guest() -> GuestStats {
    proto::parse::<StatsContainerResponse>(AGENT).unwrap().into()
}

/// Statistics in which every number is this one, except those of the devices and page sizes, which tell it as well.
fn every(number: u64) -> Stats {
    let some = Some(number);
    let entry = || MemoryEntry {
        limit: some,
        usage: some,
        max: some,
        failcnt: some,
    };
    Stats {
        cpu: Cpu {
            usage: CpuUsage {
                total: some,
                percpu: vec![number],
                kernel: some,
                user: some,
            },
            throttling: Throttling {
                periods: some,
                throttled_periods: some,
                throttled_time: some,
            },
            psi: Some(Psi::default()).filter(|_| number == 1),
        },
        memory: Memory {
            cache: some,
            usage: entry(),
            swap: entry(),
            kernel: entry(),
            kernel_tcp: entry(),
            raw: BTreeMap::from([(Cow::Owned(format!("key{number}")), number)]),
            psi: Some(Psi::default()).filter(|_| number == 1),
            total_cache: some,
            rss: some,
            mapped_file: some,
            inactive_file: some,
            pgfault: some,
            pgmajfault: some,
            oom_kill: some,
        },
        pids: Pids {
            current: some,
            limit: some,
        },
        blkio: Some(Blkio {
            sectors_recursive: vec![BlkioEntry {
                value: number,
                ..BlkioEntry::default()
            }],
            ..Blkio::default()
        }),
        hugetlb: BTreeMap::from(["2MB".to_owned(), format!("{number}GB")].map(|size| {
            let pages = Hugetlb {
                usage: some,
                max: some,
                failcnt: some,
            };
            (size, pages)
        })),
        network: Some(vec![Interface {
            rx_bytes: number,
            ..Interface::default()
        }]),
        sockets: Some(Sockets::default()).filter(|_| number == 1),
    }
}

#[test]
fn each_field_is_whose_the_table_says() {
    let says = GuestStats {
        stats: every(2),
        cgroup: Some(CgroupVersion::V2),
    };
    let mut expected = every(1);
    let twos = every(2);
    expected.cpu.usage.kernel = Some(2);
    expected.cpu.usage.user = Some(2);
    expected.memory.cache = Some(2);
    expected.memory.total_cache = Some(2);
    expected.memory.swap = twos.memory.swap.clone();
    expected.memory.raw = twos.memory.raw.clone();
    expected.memory.rss = Some(2);
    expected.memory.mapped_file = Some(2);
    expected.memory.inactive_file = Some(2);
    expected.memory.pgfault = Some(2);
    expected.memory.pgmajfault = Some(2);
    expected.blkio = twos.blkio.clone();
    // A page size that the shim did not have.
    expected
        .hugetlb
        .extend(twos.hugetlb.into_iter().filter(|(size, _)| size == "2GB"));
    let mut merged = every(1);
    let taken = super::merge(&mut merged, &says);
    assert_eq!(merged, expected);
    let expected = TABLE
        .iter()
        .filter(|row| row.rule == Rule::Guest || row.field == "hugetlb");
    assert_eq!(taken, expected.map(|row| row.field).collect::<Vec<_>>());
}

#[test]
fn a_shim_that_says_nothing_is_filled_in_and_a_guest_that_says_nothing_changes_nothing() {
    for reply in [GO, RUST] {
        assert_eq!(merge(shim(reply), &GuestStats::default()), shim(reply));
    }
    assert_eq!(merge(every(1), &GuestStats::default()), every(1));
    assert!(super::merge(&mut every(1), &GuestStats::default()).is_empty());
    assert_eq!(merge(Stats::default(), &guest()), guest().stats);

    let mut expected = every(2);
    expected.cpu.psi = None;
    expected.memory.kernel_tcp = MemoryEntry::default();
    expected.memory.oom_kill = None;
    expected.network = None;
    let says = GuestStats {
        stats: every(2),
        cgroup: None,
    };
    assert_eq!(merge(Stats::default(), &says), expected);
}

#[test]
fn a_cgroup_v1_reply_of_the_go_shim_gets_all_that_it_lacks() {
    // Expected of the reply: `protoc --decode_raw`.
    let merged = merge(shim(GO), &guest());
    assert_eq!(merged.cpu.usage.total, Some(274_826_000));
    assert_eq!(merged.cpu.throttling.throttled_periods, Some(11_197));
    assert_eq!(merged.memory.usage.usage, Some(1_720_320));
    assert_eq!(merged.memory.usage.max, Some(1_753_088));
    assert_eq!(merged.memory.working_set(), Some(1_720_320 - 20_480));
    assert_eq!(merged.memory.cache, Some(1_015_808));
    assert_eq!(merged.memory.raw.len(), 60);
    assert_eq!(merged.pids.current, Some(1));
}

/// A cgroup v2 reply as the Go shim makes it (src/runtime/pkg/containerd-shim-v2/metrics.go, statsToMetricsV2) from what
/// the recorded agent sent, and from two devices.
#[test]
fn a_cgroup_v2_reply_of_the_go_shim_is_put_right() {
    let reply = Metrics {
        cpu: MessageField::some(CPUStat {
            usage_usec: 229_959_250,
            user_usec: 130_875_022,
            system_usec: 99_084_227,
            nr_periods: 12_286,
            nr_throttled: 11_197,
            ..CPUStat::default()
        }),
        memory: MessageField::some(MemoryStat {
            usage: 1_585_152,
            usage_limit: 67_108_864,
            swap_limit: 67_108_864,
            kernel_stack: 16_384,
            file: 1_015_808,
            ..MemoryStat::default()
        }),
        pids: MessageField::some(PidsStat {
            current: 2,
            ..PidsStat::default()
        }),
        io: MessageField::some(IOStat {
            usage: vec![IOEntry {
                major: 254,
                minor: 16,
                rbytes: 8192,
                ..IOEntry::default()
            }],
            ..IOStat::default()
        }),
        ..Metrics::default()
    };
    let bytes = reply.write_to_bytes().unwrap();
    let shim = decode("io.containerd.cgroups.v2.Metrics", &bytes).unwrap();
    let device = |minor, value| BlkioEntry {
        major: 254,
        minor,
        op: "Read".to_owned(),
        value,
    };
    let mut says = guest();
    let devices = vec![device(0, 4096), device(16, 8192)];
    says.stats.blkio = Some(Blkio {
        io_service_bytes_recursive: devices.clone(),
        ..Blkio::default()
    });
    let merged = merge(shim, &says);
    assert_eq!(
        (merged.cpu.usage.kernel, merged.cpu.usage.user),
        (Some(130_875_022_000), Some(99_084_227_000))
    );
    assert_eq!(merged.cpu.usage.total, Some(229_959_250_000));
    assert_eq!(merged.memory.usage.max, Some(2_727_936));
    assert_eq!(merged.memory.swap.limit, Some(134_217_728));
    assert_eq!(merged.memory.raw.get("pagetables"), Some(&65_536));
    assert_eq!(merged.blkio.unwrap().io_service_bytes_recursive, devices);
}

#[test]
fn a_zero_that_the_rust_shim_passes_on_is_not_kept() {
    let mut shim = shim(RUST);
    shim.blkio = Some(Blkio {
        io_service_bytes_recursive: vec![BlkioEntry {
            major: 254,
            minor: 0,
            op: "read".to_owned(),
            value: 0,
        }],
        ..Blkio::default()
    });
    let merged = merge(shim, &guest());
    assert_eq!(merged.blkio, Some(Blkio::default()));
}

#[test]
fn the_documentation_has_the_same_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guest-numbers.md");
    let documentation = std::fs::read_to_string(path).unwrap();
    let rows: Vec<String> = TABLE
        .iter()
        .map(|row| {
            let whose = match row.rule {
                Rule::Shim => "the shim's, else the guest's",
                Rule::Guest => "the guest's, else the shim's",
                Rule::ShimOnly => "the shim's alone",
            };
            format!("| `{}` | {whose} | {} |", row.field, row.why)
        })
        .collect();
    let documented: Vec<&str> = documentation
        .lines()
        .skip_while(|line| *line != "| field | whose | why |")
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(documented, rows, "{path} should have:\n{}", rows.join("\n"));
}
