//! Which names of Kubernetes' conformance list a container has, by what runs it, from replies that real shims sent. runc and
//! containers without a shim are in tests/e2e, gVisor's control socket in tests/gvisor.rs.

use std::fs;

use containerd_shim_protos::cgroups::metrics::{Metrics, NetworkStat};
use protobuf::Message;

use crate::conformance::{self, CGROUP_V2, GVISOR, Lack, OUT_OF_SIGHT};
use crate::mock;
use crate::support::Node;

/// Kata's shims, with a guest on cgroup v2, where its agent is not asked.
const KATA: [Lack; 16] = [
    ("container_blkio_", "nothing was read or written"),
    ("container_cpu_cfs_", "the shims report no periods"),
    ("container_fs_reads_", "nothing was read or written"),
    ("container_fs_writes_", "nothing was read or written"),
    (
        "container_hugetlb_max_usage_bytes",
        "the shims send zeros that mean nothing",
    ),
    (
        "container_hugetlb_usage_bytes",
        "the shims send zeros that mean nothing",
    ),
    (
        "container_memory_cache",
        "the shims look for it under cgroup v1's name",
    ),
    ("container_memory_failcnt", "cgroup v2 has no such file"),
    ("container_memory_kernel_usage", "cgroup v2 has no such file"),
    (
        "container_memory_mapped_file",
        "the shims look for it under cgroup v1's name",
    ),
    (
        "container_memory_rss",
        "the shims look for it under cgroup v1's name",
    ),
    (
        "container_memory_swap",
        "the guest has none, and the shims send zeros for unknown as well",
    ),
    ("container_oom_events_total", "the shims do not report it"),
    ("container_pressure_", "the shims do not report it"),
    (
        "container_spec_memory_swap_limit_bytes",
        "the shims do not report it",
    ),
    (
        "container_threads_max",
        "an unlimited number is not told from an unknown one",
    ),
];

const KATA_RUST: [Lack; 1] = [(
    "container_memory_failures_total",
    "the Rust shim looks for it under a wrong name",
)];

/// A recorded reply has no network, and this one's container no limit of its threads.
const RECORDED: [Lack; 2] = [
    (
        "container_network_",
        "the network namespace is the recorded machine's",
    ),
    ("container_threads_max", "no limit was set"),
];

/// Checks the names that the exporter has of a container whose shim sends this reply.
#[track_caller]
fn check(kind: &str, recorded: &str, lacks: &[&[Lack]]) {
    let path = format!(
        "{}/crates/shimstat/tests/fixtures/{recorded}",
        env!("CARGO_MANIFEST_DIR")
    );
    let mut stats = fs::read(path).unwrap();
    if kind == mock::V1 {
        let mut metrics = Metrics::parse_from_bytes(&stats).unwrap();
        // On a node it is the pod's network namespace that tells it.
        metrics.network = vec![NetworkStat {
            name: "eth0".into(),
            rx_bytes: 1,
            ..Default::default()
        }];
        stats = metrics.write_to_bytes().unwrap();
    }
    let node = Node::new();
    let kind = kind.to_owned();
    node.node.task("c1", move |call| match call.method.as_str() {
        "State" => mock::running(0),
        _ => mock::stats(&kind, &stats),
    });
    let page = node.monitor().scrape();
    conformance::check(&page, "c1", &lacks.concat(), false);
}

#[test]
fn katas_go_shim() {
    check(mock::V1, "kata-4.1-go/stats-L.v1.bin", &[&OUT_OF_SIGHT, &KATA]);
    check(
        mock::V1,
        "kata-3.30-go/stats-child.v1.bin",
        &[&OUT_OF_SIGHT, &KATA],
    );
}

#[test]
fn katas_rust_shim() {
    let lacks: [&[Lack]; 3] = [&OUT_OF_SIGHT, &KATA, &KATA_RUST];
    check(mock::V1, "kata-4.1-rs-clh/stats-L.v1.bin", &lacks);
    check(mock::V1, "kata-3.30-rs/stats-child.v1.bin", &lacks);
}

#[test]
fn gvisors_shim() {
    check(mock::V1, "gvisor-2026-08/stats.v1.bin", &[&OUT_OF_SIGHT, &GVISOR]);
}

#[test]
fn runcs_shim_on_cgroup_v2() {
    let recorded = "runc-cgroup-v2/stats-containerd-2.1.v2.bin";
    check(mock::V2, recorded, &[&OUT_OF_SIGHT, &CGROUP_V2, &RECORDED]);
}
