//! What a gVisor sandbox says of a container on its control socket → [`Stats`]. No I/O.
//!
//! The reply is `boot.EventOut` of
//! [runsc/boot/events.go](https://github.com/google/gvisor/blob/master/runsc/boot/events.go), in the schema of
//! `runc events`. The sandbox fills the number of tasks, the memory in use and the network. It counts the processor
//! time of all its containers, which `runsc events` turns into that of one
//! ([runsc/container/container.go](https://github.com/google/gvisor/blob/master/runsc/container/container.go),
//! `populateStats`): the sandbox's own time on the host, shared out in proportion. [`GvisorEvent::stats`] does the same.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::model::{Cpu, CpuUsage, Interface, Memory, MemoryEntry, Pids, Stats, reported};

/// The result of `containerManager.Event`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct GvisorEvent {
    event: Event,
    /// Processor time by container, in nanoseconds, as the sandbox counts it.
    #[serde(default, rename = "containerUsage")]
    container_usage: Option<BTreeMap<String, u64>>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Event {
    id: String,
    data: Data,
}

/// Go leaves out the numbers that are zero (`omitempty`), and sends an empty list as `null`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Data {
    #[serde(default)]
    memory: MemoryData,
    pids: Option<PidsData>,
    network_interfaces: Option<Vec<InterfaceData>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct MemoryData {
    cache: u64,
    usage: EntryData,
    swap: EntryData,
    kernel: EntryData,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: EntryData,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct EntryData {
    limit: u64,
    usage: u64,
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct PidsData {
    current: u64,
    limit: u64,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct InterfaceData {
    name: String,
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

impl GvisorEvent {
    /// The container that the sandbox says it answered for.
    pub fn id(&self) -> &str {
        &self.event.id
    }

    /// How many tasks (threads) the container has; `None` where the sandbox did not say.
    pub fn tasks(&self) -> Option<u64> {
        self.event.data.pids.as_ref().map(|pids| pids.current)
    }

    /// The container's statistics.
    ///
    /// `sandbox_cpu` is what the sandbox's cgroup on the host has used, in nanoseconds; `None` where it has no cgroup of
    /// its own, so that the sandbox's own count has to do. `name` is the container's name in its pod: where the guest
    /// has mounted a cgroup v1 hierarchy, gVisor counts processor time by that instead of the id.
    ///
    /// The sandbox's network is every container's: a pod's sum must count it once.
    pub fn stats(&self, name: Option<&str>, sandbox_cpu: Option<u64>) -> Stats {
        let data = &self.event.data;
        Stats {
            cpu: Cpu {
                usage: CpuUsage {
                    total: self.cpu_total(name, sandbox_cpu),
                    ..CpuUsage::default()
                },
                ..Cpu::default()
            },
            memory: Memory {
                cache: reported(data.memory.cache, false),
                usage: entry(&data.memory.usage),
                swap: entry(&data.memory.swap),
                kernel: entry(&data.memory.kernel),
                kernel_tcp: entry(&data.memory.kernel_tcp),
                ..Memory::default()
            },
            pids: data.pids.as_ref().map(pids).unwrap_or_default(),
            network: data
                .network_interfaces
                .as_ref()
                .filter(|interfaces| !interfaces.is_empty())
                .map(|interfaces| interfaces.iter().map(interface).collect()),
            ..Stats::default()
        }
    }

    /// The container's processor time in nanoseconds; `None` where the sandbox did not count it.
    fn cpu_total(&self, name: Option<&str>, sandbox_cpu: Option<u64>) -> Option<u64> {
        let usage = self.container_usage.as_ref()?;
        let own = usage.get(&self.event.id).or_else(|| usage.get(name?)).copied()?;
        let Some(sandbox_cpu) = sandbox_cpu.filter(|cpu| *cpu != 0).map(u128::from) else {
            return Some(own);
        };
        let all: u128 = usage.values().copied().map(u128::from).sum();
        let share = match all {
            0 => sandbox_cpu / (usage.len() as u128).max(1),
            _ => u128::from(own) * sandbox_cpu / all,
        };
        u64::try_from(share).ok()
    }
}

fn entry(entry: &EntryData) -> MemoryEntry {
    MemoryEntry {
        limit: reported(entry.limit, false),
        usage: reported(entry.usage, false),
        max: reported(entry.max, false),
        failcnt: reported(entry.failcnt, false),
    }
}

fn pids(pids: &PidsData) -> Pids {
    Pids {
        current: Some(pids.current),
        limit: reported(pids.limit, false),
    }
}

fn interface(interface: &InterfaceData) -> Interface {
    Interface {
        name: interface.name.clone(),
        rx_bytes: interface.rx_bytes,
        rx_packets: interface.rx_packets,
        rx_errors: interface.rx_errors,
        rx_dropped: interface.rx_dropped,
        tx_bytes: interface.tx_bytes,
        tx_packets: interface.tx_packets,
        tx_errors: interface.tx_errors,
        tx_dropped: interface.tx_dropped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const CONTAINER: &str = "f9823c73086ceae8430f3cf99a65221f2d03675bb19fc9cee465ee4ab54813e7";

    fn recorded(json: &str) -> GvisorEvent {
        let reply: Value = serde_json::from_str(json).unwrap();
        serde_json::from_value(reply["result"].clone()).unwrap()
    }

    fn container() -> GvisorEvent {
        recorded(include_str!(
            "../../tests/fixtures/gvisor-2026-08/urpc-event-container.json"
        ))
    }

    fn sandbox() -> GvisorEvent {
        recorded(include_str!(
            "../../tests/fixtures/gvisor-2026-08/urpc-event-sandbox.json"
        ))
    }

    /// A reply for container `c`, with these counts.
    fn event(usage: Value) -> GvisorEvent {
        serde_json::from_value(json!({"event": {"id": "c", "data": {}}, "containerUsage": usage})).unwrap()
    }

    #[test]
    fn says_what_the_shim_says_and_the_network() {
        let shim = crate::stats::decode(
            "io.containerd.cgroups.v1.Metrics",
            include_bytes!("../../tests/fixtures/gvisor-2026-08/stats.v1.bin"),
        )
        .unwrap();
        let event = container();
        assert_eq!(event.id(), CONTAINER);
        // The other container of the sandbox had used nothing, so the shim's figure is the cgroup's.
        let stats = event.stats(Some("app"), shim.cpu.usage.total);
        assert_eq!(stats.cpu.usage.total, Some(328_810_336));
        assert_eq!(stats.memory.usage.usage, Some(2_220_032));
        assert_eq!(stats.pids.current, Some(2));
        let network = stats.network.clone().unwrap();
        assert_eq!(
            network.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(),
            ["lo", "eth0"]
        );
        assert_eq!((network[1].rx_bytes, network[1].rx_packets), (548, 7));
        assert_eq!(
            Stats {
                network: None,
                ..stats
            },
            shim
        );
    }

    #[test]
    fn what_the_sandbox_did_not_measure_is_absent() {
        let stats = sandbox().stats(None, Some(328_810_336));
        // Of the sandbox's own container it says no memory, and that it has counted no processor time.
        assert_eq!(stats.memory, Memory::default());
        assert_eq!(stats.cpu.usage.total, Some(0));
        assert_eq!(
            stats.pids,
            Pids {
                current: Some(1),
                limit: None
            }
        );
        let bare = event(Value::Null).stats(None, Some(5));
        assert_eq!(bare, Stats::default());
    }

    #[test]
    fn processor_time_is_shared_out_as_runsc_does() {
        for (usage, sandbox_cpu, expected) in [
            // No cgroup, or one that tells nothing: the sandbox's own count.
            (json!({"c": 30, "d": 10}), None, Some(30)),
            (json!({"c": 30, "d": 10}), Some(0), Some(30)),
            // In proportion: 30 of 40.
            (json!({"c": 30, "d": 10}), Some(100), Some(75)),
            (json!({"c": 1, "d": 2}), Some(100), Some(33)),
            // Nothing counted yet: equally.
            (json!({"c": 0, "d": 0, "e": 0}), Some(100), Some(33)),
            // Products and sums beyond 64 bits.
            (json!({"c": u64::MAX}), Some(u64::MAX), Some(u64::MAX)),
            (
                json!({"c": u64::MAX, "d": u64::MAX}),
                Some(u64::MAX),
                Some(u64::MAX / 2),
            ),
            // 16 s of each overflow 64 bits in runsc's own words.
            (
                json!({"c": 16_000_000_000_u64}),
                Some(16_000_000_000),
                Some(16_000_000_000),
            ),
            // Counted, and nothing used.
            (json!({"c": 0, "d": 10}), Some(100), Some(0)),
            // Not counted.
            (json!({"d": 10}), Some(100), None),
            (json!({}), Some(100), None),
            // By name, in guests with cgroup v1.
            (json!({"app": 10, "__no_name_0": 30}), Some(100), Some(25)),
        ] {
            assert_eq!(
                event(usage.clone())
                    .stats(Some("app"), sandbox_cpu)
                    .cpu
                    .usage
                    .total,
                expected,
                "{usage} {sandbox_cpu:?}"
            );
        }
    }

    #[test]
    fn no_number_is_taken_from_what_is_none() {
        for wrong in [
            json!({"event": {"id": "c", "data": {"pids": {"current": "2"}}}}),
            json!({"event": {"id": "c", "data": {"pids": {"current": -1}}}}),
            json!({"event": {"id": "c", "data": {"pids": {"current": 1.5}}}}),
            json!({"event": {"id": "c", "data": {"memory": {"usage": {"usage": null}}}}}),
            json!({"event": {"id": "c", "data": {"network_interfaces": [{"Name": "eth0"}]}}}),
            json!({"event": {"id": "c", "data": {}}, "containerUsage": {"c": "330000000"}}),
            json!({"event": {"id": 5, "data": {}}}),
            json!({"event": {"data": {}}}),
            json!({"event": null}),
            json!(null),
            json!([]),
        ] {
            assert!(
                serde_json::from_value::<GvisorEvent>(wrong.clone()).is_err(),
                "{wrong}"
            );
        }
        let too_large = r#"{"event":{"id":"c","data":{}},"containerUsage":{"c":18446744073709551616}}"#;
        assert!(serde_json::from_str::<GvisorEvent>(too_large).is_err());
    }

    proptest! {
        #[test]
        fn no_share_is_more_than_the_whole(
            usage in proptest::collection::btree_map("[a-e]", any::<u64>(), 0..5),
            sandbox_cpu in any::<u64>(),
        ) {
            let stats = |id: &str| {
                let event = json!({"event": {"id": id, "data": {}}, "containerUsage": usage.clone()});
                serde_json::from_value::<GvisorEvent>(event).unwrap().stats(None, Some(sandbox_cpu))
            };
            let shares: u128 = usage.keys().filter_map(|id| stats(id).cpu.usage.total).map(u128::from).sum();
            prop_assert!(sandbox_cpu == 0 || shares <= u128::from(sandbox_cpu));
        }
    }
}
