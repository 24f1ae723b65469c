use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const DOCUMENTED: &[u8] = include_bytes!("../../tests/fixtures/documented-example/stats.v1.bin");
const GO_CHILD: &[u8] = include_bytes!("../../tests/fixtures/kata-3.30-go/stats-child.v1.bin");
const GO_SANDBOX: &[u8] = include_bytes!("../../tests/fixtures/kata-3.30-go/stats-sandbox.v1.bin");
const RS_CHILD: &[u8] = include_bytes!("../../tests/fixtures/kata-3.30-rs/stats-child.v1.bin");
const RS_SANDBOX: &[u8] = include_bytes!("../../tests/fixtures/kata-3.30-rs/stats-sandbox.v1.bin");
const RUNC_V2: &[u8] = include_bytes!("../../tests/fixtures/runc-cgroup-v2/stats-containerd-2.1.v2.bin");

fn v1(reply: &[u8]) -> Stats {
    decode(V1, reply).expect("the fixture is a v1 Metrics")
}

/// Indented by four spaces. `serde_json` indents by two, and no line begins within a string.
fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
        .split_inclusive('\n')
        .map(|line| " ".repeat(line.len() - line.trim_start_matches(' ').len()) + line)
        .collect()
}

#[test]
fn the_documented_example_byte_for_byte() {
    let expected = include_str!("../../tests/fixtures/documented-example/events.expected.json");
    let id = "5779b2366f47cd1468ebb1ba7c52cbdde3c7d3a5f2af3eefadc8356700fc860b";
    assert_eq!(pretty(&event(id, &v1(DOCUMENTED))), expected);
}

#[test]
fn the_documented_examples_numbers_for_other_commands() {
    let memory = v1(DOCUMENTED).memory;
    assert_eq!(memory.rss, Some(4096));
    assert_eq!(memory.mapped_file, Some(540_672));
    assert_eq!((memory.pgfault, memory.pgmajfault), (Some(6765), Some(0)));
    // 1204224 - 839680
    assert_eq!(memory.working_set(), Some(364_544));
    assert_eq!(memory.swapped(), Some(0));
    assert_eq!(memory.limit(), None, "unlimited");
    assert_eq!(memory.usage.failcnt, Some(0));
    assert_eq!(
        memory.kernel_tcp,
        MemoryEntry::default(),
        "an empty entry was not read"
    );
    assert_eq!(memory.oom_kill, None, "the reply carries no oom control");
    assert_eq!(
        v1(DOCUMENTED).pids,
        Pids {
            current: Some(1),
            limit: None
        }
    );
}

/// What a reply from a guest with cgroup v2 has beside its own numbers.
fn guest_event(cpu: Value, usage: Value, raw: Value) -> Value {
    json!({
        "cpu": { "usage": cpu, "throttling": {} },
        "memory": {
            "usage": usage,
            "swap": { "limit": 0, "failcnt": 0 },
            "kernel": { "limit": 18_446_744_073_709_551_615_u64, "failcnt": 0 },
            "kernelTCP": { "limit": 0, "failcnt": 0 },
            "raw": raw,
        },
        "pids": { "current": 1 },
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "interfaces": [],
        "tcp": {}, "tcp6": {}, "udp": {}, "udp6": {},
    })
}

// Expected values: the fixtures' wire format, read field by field with another decoder.
#[test]
fn katas_go_shim() {
    assert_eq!(
        v1(GO_CHILD).to_json(),
        guest_event(
            json!({ "total": 132_360_000, "kernel": 68_462_000, "user": 63_898_000 }),
            json!({ "limit": u64::MAX, "usage": 1_777_664, "max": 1_777_664, "failcnt": 0 }),
            json!({ "pgfault": 91, "pgmajfault": 15 }),
        )
    );
    assert_eq!(
        v1(GO_SANDBOX).to_json(),
        guest_event(
            json!({ "total": 216_221_000, "kernel": 131_842_000, "user": 84_379_000 }),
            json!({ "limit": u64::MAX, "usage": 1_753_088, "max": 1_777_664, "failcnt": 0 }),
            json!({ "pgfault": 93, "pgmajfault": 15 }),
        )
    );
}

#[test]
fn katas_rust_shim() {
    assert_eq!(
        v1(RS_CHILD).to_json(),
        guest_event(
            json!({ "total": 121_119_000, "kernel": 48_447_000, "user": 72_671_000 }),
            json!({ "limit": u64::MAX, "usage": 1_781_760, "max": 1_781_760, "failcnt": 0 }),
            json!({ "inactive_file": 20_480, "active_file": 1_474_560 }),
        )
    );
    assert_eq!(
        v1(RS_SANDBOX).to_json(),
        guest_event(
            json!({ "total": 140_496_000, "kernel": 72_049_000, "user": 68_447_000 }),
            json!({ "limit": u64::MAX, "usage": 1_748_992, "max": 1_777_664, "failcnt": 0 }),
            json!({ "inactive_file": 20_480, "active_file": 1_560_576 }),
        )
    );
}

#[test]
fn what_kata_did_not_measure_is_absent() {
    let go = v1(GO_CHILD);
    assert_eq!(go.memory.limit(), None, "unlimited");
    assert_eq!((go.memory.pgfault, go.memory.pgmajfault), (Some(91), Some(15)));
    assert_eq!(
        (go.memory.cache, go.memory.rss, go.memory.mapped_file),
        (None, None, None)
    );
    assert_eq!(go.memory.inactive_file, None);
    assert_eq!(
        go.memory.working_set(),
        Some(1_777_664),
        "the usage, since the inactive pages are not reported"
    );
    assert_eq!(go.memory.usage.failcnt, None);
    assert_eq!(go.memory.swap, MemoryEntry::default());
    assert_eq!(go.memory.swapped(), None);
    assert_eq!(
        go.memory.kernel.usage, None,
        "a limit alone says nothing of the usage"
    );
    assert_eq!(go.memory.oom_kill, None);
    assert!(go.cpu.usage.percpu.is_empty());
    assert_eq!(go.blkio, Some(Blkio::default()));
    assert_eq!(go.network, None);

    let rs = v1(RS_CHILD);
    assert_eq!((rs.memory.pgfault, rs.memory.pgmajfault), (None, None));
    // 1781760 - 20480
    assert_eq!(rs.memory.working_set(), Some(1_761_280));
}

#[test]
fn runc_on_cgroup_v2() {
    let stats = decode(V2, RUNC_V2).expect("the fixture is a v2 Metrics");
    let psi = |avg: [f64; 3], total: u64| json!({ "avg10": avg[0], "avg60": avg[1], "avg300": avg[2], "total": total });
    // memory.max, memory.current, memory.peak, pids.current, pids.max and io.stat are in the cgroup's files
    // beside the fixture; cpu.stat there was read a moment later, with its counters a little higher.
    assert_eq!(
        stats.to_json(),
        json!({
            "cpu": {
                "usage": { "total": 4_117_081_000_u64, "kernel": 1_638_266_000, "user": 2_478_814_000_u64 },
                "throttling": { "periods": 70, "throttledPeriods": 61, "throttledTime": 3_064_773_000_u64 },
                "psi": { "some": psi([19.19, 4.17, 0.9], 2_737_440), "full": psi([18.89, 4.08, 0.88], 2_657_657) },
            },
            "memory": {
                "cache": 26_214_400,
                "usage": { "limit": 33_554_432, "usage": 26_583_040, "max": 28_958_720, "failcnt": 0 },
                "swap": { "limit": u64::MAX, "usage": 26_583_040, "failcnt": 0 },
                "kernel": { "limit": 0, "failcnt": 0 },
                "kernelTCP": { "limit": 0, "failcnt": 0 },
                "raw": {
                    "anon": 57_344, "file": 26_214_400, "kernel_stack": 16_384, "slab": 250_672, "sock": 0,
                    "shmem": 26_214_400, "file_mapped": 0, "file_dirty": 0, "file_writeback": 0,
                    "inactive_anon": 26_271_744, "active_anon": 0, "inactive_file": 0, "active_file": 0,
                    "unevictable": 0, "slab_reclaimable": 122_616, "slab_unreclaimable": 128_056,
                    "pgfault": 972, "pgmajfault": 0, "workingset_nodereclaim": 0, "pgrefill": 0, "pgscan": 0,
                    "pgsteal": 0, "pgactivate": 1850, "pgdeactivate": 0, "pglazyfree": 0, "pglazyfreed": 0,
                    "thp_fault_alloc": 1,
                },
                "psi": {
                    "some": { "avg10": 0, "avg60": 0, "avg300": 0, "total": 0 },
                    "full": { "avg10": 0, "avg60": 0, "avg300": 0, "total": 0 },
                },
            },
            "pids": { "current": 1 },
            "blkio": {
                "ioServiceBytesRecursive": [
                    { "major": 254, "op": "Read", "value": 4_325_376 },
                    { "major": 254, "op": "Write" },
                ],
                "ioServicedRecursive": [
                    { "major": 254, "op": "Read", "value": 33 },
                    { "major": 254, "op": "Write" },
                ],
                "psi": {
                    "some": { "avg10": 0, "avg60": 0, "avg300": 0, "total": 6716 },
                    "full": { "avg10": 0, "avg60": 0, "avg300": 0, "total": 2751 },
                },
            },
            "hugetlb": { "2MB": { "failcnt": 0 } },
            "intel_rdt": {},
            "interfaces": [],
            "tcp": {}, "tcp6": {}, "udp": {}, "udp6": {},
        })
    );
    assert_eq!(stats.memory.limit(), Some(33_554_432));
    assert_eq!(stats.memory.swap.finite_limit(), None);
    assert_eq!(
        stats.memory.working_set(),
        Some(26_583_040),
        "there are no inactive file pages"
    );
    assert_eq!(stats.memory.rss, Some(57_344));
    assert_eq!(stats.memory.oom_kill, Some(0), "memory.events was read");
    assert_eq!(
        stats.blkio.expect("io.stat").devices()[&(254, 0)],
        DeviceIo {
            read_bytes: Some(4_325_376),
            write_bytes: Some(0),
            reads: Some(33),
            writes: Some(0)
        }
    );
}

#[test]
fn an_empty_reply_has_the_keys_that_are_always_there() {
    let expected = r#"{
    "data": {
        "blkio": {},
        "cpu": {
            "throttling": {},
            "usage": {
                "kernel": 0,
                "user": 0
            }
        },
        "hugetlb": {},
        "intel_rdt": {},
        "interfaces": [],
        "memory": {
            "kernel": {
                "failcnt": 0,
                "limit": 0
            },
            "kernelTCP": {
                "failcnt": 0,
                "limit": 0
            },
            "swap": {
                "failcnt": 0,
                "limit": 0
            },
            "usage": {
                "failcnt": 0,
                "limit": 0
            }
        },
        "pids": {},
        "tcp": {},
        "tcp6": {},
        "udp": {},
        "udp6": {}
    },
    "id": "c1",
    "type": "stats"
}
"#;
    for schema in [V1, V2] {
        let stats = decode(schema, b"").expect("a message may be empty");
        assert_eq!(stats, Stats::default(), "{schema}");
        assert_eq!(pretty(&event("c1", &stats)), expected, "{schema}");
    }
}

#[test]
fn a_prefix_of_the_type_does_not_matter() {
    let expected = v1(GO_CHILD);
    for prefix in ["", "/", "type.googleapis.com/", "a/b/"] {
        assert_eq!(
            decode(&format!("{prefix}{V1}"), GO_CHILD).expect("known"),
            expected,
            "{prefix}"
        );
    }
    assert!(decode(&format!("type.googleapis.com/{V2}"), RUNC_V2).is_ok());
}

#[test]
fn an_unknown_type_is_named() {
    for unknown in [
        "",
        "io.containerd.cgroups.v3.Metrics",
        "io.containerd.cgroups.v1.Metrics/",
        "v1.Metrics",
    ] {
        let error = decode(unknown, GO_CHILD).expect_err("unknown").to_string();
        assert!(error.contains(&format!("\"{unknown}\"")), "{error}");
    }
}

#[test]
fn an_unknown_types_name_is_escaped_and_bounded() {
    let error = decode("\u{1b}[2J\u{9b}\n", b"").expect_err("unknown").to_string();
    assert!(error.contains(r#""\u{1b}[2J\u{9b}\n""#), "{error}");

    let error = decode(&"x".repeat(1 << 20), b"")
        .expect_err("unknown")
        .to_string();
    assert!(error.contains(&format!("\"{}…\"", "x".repeat(128))), "{error}");
    assert!(error.len() < 512, "{}", error.len());
}

#[test]
fn bytes_that_are_no_message_are_an_error_that_names_the_type() {
    // A length of 127 with nothing behind it; field 0; text where a number in a message should be.
    for bytes in [&b"\x1a\x7f"[..], b"\x00\x00", b"not protobuf"] {
        for schema in [V1, V2] {
            let error = decode(schema, bytes).expect_err("no message");
            assert!(matches!(error, DecodeError::Malformed { .. }), "{error:?}");
            assert!(error.to_string().contains(schema), "{error}");
        }
    }
}

#[test]
fn a_reply_that_was_cut_off_is_an_error_unless_between_its_objects() {
    // Where the fixtures' top-level fields end: there alone a shorter reply is a whole message, too.
    let replies: [(&str, &[u8], &[usize]); 3] = [
        (V1, DOCUMENTED, &[0, 4, 31, 197, 199, 205]),
        (V1, RS_CHILD, &[0, 7, 11, 32, 81, 83]),
        (V2, RUNC_V2, &[0, 15, 110, 197, 199, 225, 243, 245]),
    ];
    for (schema, reply, ends) in replies {
        for end in 0..=reply.len() {
            assert_eq!(
                decode(schema, &reply[..end]).is_ok(),
                ends.contains(&end),
                "{schema}, {end} bytes"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        for schema in [V1, V2] {
            if let Ok(stats) = decode(schema, &bytes) {
                event("c1", &stats).to_string();
            }
        }
    }

    #[test]
    fn a_damaged_reply_decodes_or_fails(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)
    ) {
        for (schema, reply) in [(V1, DOCUMENTED), (V1, GO_CHILD), (V2, RUNC_V2)] {
            let mut reply = reply.to_vec();
            for (place, byte) in &damage {
                let place = place.index(reply.len());
                reply[place] = *byte;
            }
            if let Ok(stats) = decode(schema, &reply) {
                event("c1", &stats).to_string();
                let _ = (stats.memory.working_set(), stats.memory.swapped(), stats.is_emptied());
                let _ = stats.blkio.map(|blkio| blkio.devices());
            }
        }
    }

    #[test]
    fn any_type_name_is_refused_or_known(name in any::<String>()) {
        if let Err(DecodeError::UnknownType(shown)) = decode(&name, b"") {
            prop_assert!(shown.chars().count() <= 129);
            prop_assert!(shown.chars().all(|c| c == '…' || c.is_ascii_graphic() || c == ' '));
        }
    }
}
