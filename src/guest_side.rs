//! What a guest tells of itself: its agent's version, its memory, interfaces and filesystems.

use std::collections::BTreeMap;

use promtext::Filter;
use serde::Serialize;
use shimstat::guest::{GuestInterface, VolumeStats, VolumeUsage};
use shimstat::node::{GuestVolume, Pod};
use shimstat::survey::{GuestFacts, MonitorError, Survey};

use crate::readings::{Readings, amount};
use crate::show::units;

/// The most filesystems that are taken from a guest's metrics.
const MOST_FILESYSTEMS: usize = 32;

/// What a guest tells. Untrusted text. As JSON, its keys are in alphabetical order, and what is not known is left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GuestSide {
    /// Those of block devices, by mount, then the pod's volumes in the guest's memory.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filesystems: Vec<Filesystem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<Interface>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<GuestMemory>,
    /// Whether the agent applies seccomp profiles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<bool>,
    /// Kata's release, of the agent.
    pub version: String,
}

/// The guest's memory as it sees it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct GuestMemory {
    #[serde(rename = "total_bytes")]
    pub total: u64,
    /// What is not available.
    #[serde(rename = "used_bytes", skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
}

/// A network interface of the guest.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Interface {
    /// Such as `10.88.0.5/16`.
    pub addresses: Vec<String>,
    pub mtu: u64,
    pub name: String,
}

/// A filesystem of the guest.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Filesystem {
    #[serde(skip_serializing_if = "Usage::is_unknown")]
    pub bytes: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    #[serde(skip_serializing_if = "Usage::is_unknown")]
    pub inodes: Usage,
    pub mount: String,
    /// The name of the pod's volume that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
}

impl GuestSide {
    /// Asks the guest of a pod.
    pub async fn ask(survey: &Survey, pod: &Pod) -> Result<Self, MonitorError> {
        let facts = survey.guest_facts(pod, true).await?;
        let metrics = facts.metrics.as_deref();
        // What cannot be read is not shown.
        let readings =
            metrics.and_then(|text| Readings::read(text.as_bytes(), &Filter::parse("kata_guest_")).ok());
        Ok(Self::new(&facts, readings.as_ref()))
    }

    /// From what the agent told, and the guest's families.
    pub fn new(facts: &GuestFacts, metrics: Option<&Readings>) -> Self {
        let volumes = facts
            .volumes
            .iter()
            .map(|(volume, stats)| of_volume(volume, stats));
        let interfaces = facts.agent.interfaces.as_ref();
        Self {
            filesystems: metrics
                .map_or_else(Vec::new, filesystems)
                .into_iter()
                .chain(volumes)
                .collect(),
            interfaces: interfaces.map(|all| all.iter().map(Interface::from).collect()),
            memory: metrics.and_then(GuestMemory::read),
            seccomp: facts
                .agent
                .details
                .as_ref()
                .map(|details| details.supports_seccomp),
            version: facts.agent.version.clone(),
        }
    }

    /// `eth0 10.88.0.5/16`, without the loopback.
    pub fn interfaces(&self) -> impl Iterator<Item = String> {
        let all = self.interfaces.iter().flatten();
        all.filter(|interface| interface.name != "lo").map(|interface| {
            let addresses = interface.addresses.join(" ");
            format!("{} {addresses}", interface.name).trim_end().to_string()
        })
    }
}

impl GuestMemory {
    pub fn read(metrics: &Readings) -> Option<Self> {
        let bytes = |item| metrics.amount("kata_guest_meminfo", &[("item", item)]);
        let total = bytes("mem_total")?;
        Some(Self {
            total,
            used: bytes("mem_available").and_then(|available| total.checked_sub(available)),
        })
    }

    /// `64MiB of 399MiB`.
    pub fn show(&self) -> String {
        of(self.used.map(units::bytes), Some(units::bytes(self.total)))
    }
}

impl From<&GuestInterface> for Interface {
    fn from(interface: &GuestInterface) -> Self {
        Self {
            addresses: interface
                .addresses
                .iter()
                .map(|(address, prefix)| format!("{address}/{prefix}"))
                .collect(),
            mtu: interface.mtu,
            name: interface.name.clone(),
        }
    }
}

impl Filesystem {
    /// `/data (sda) 40MiB of 100MiB`; of a volume, its name is enough.
    pub fn show(&self) -> String {
        let bytes = |number: Option<u64>| number.map(units::bytes);
        let name = match (&self.volume, &self.device) {
            (Some(volume), _) => volume.clone(),
            (None, Some(device)) => format!("{} ({device})", self.mount),
            (None, None) => self.mount.clone(),
        };
        format!("{name} {}", of(bytes(self.bytes.used), bytes(self.bytes.total)))
    }

    /// How much of it is used: its bytes or its inodes, whichever is more.
    pub fn share(&self) -> Option<f64> {
        let share = |usage: &Usage| Some(usage.used? as f64 / usage.total.filter(|total| *total > 0)? as f64);
        [&self.bytes, &self.inodes]
            .into_iter()
            .filter_map(share)
            .reduce(f64::max)
    }
}

impl Usage {
    fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    /// Filesystems that make inodes as needed have a total of 0.
    fn of_volume(usage: VolumeUsage) -> Self {
        let known = |number| Some(number).filter(|_| usage.total != 0);
        Self {
            available: known(usage.available),
            total: known(usage.total),
            used: known(usage.used),
        }
    }
}

fn of(used: Option<String>, total: Option<String>) -> String {
    format!(
        "{} of {}",
        used.as_deref().unwrap_or("-"),
        total.as_deref().unwrap_or("-")
    )
}

/// `kata_guest_filesystem_bytes` and `…_inodes`, since Kata 3.32: the filesystems on block devices that can be written to,
/// each device once (Kata 4.1.0, `src/agent/src/metrics.rs`).
fn filesystems(metrics: &Readings) -> Vec<Filesystem> {
    let mut all: BTreeMap<(&str, &str), Filesystem> = BTreeMap::new();
    let families = ["kata_guest_filesystem_bytes", "kata_guest_filesystem_inodes"];
    for (number, family) in families.into_iter().enumerate() {
        for sample in metrics.samples(family) {
            let (Some(mount), Some(device), Some(item)) = (
                sample.label("mount"),
                sample.label("device"),
                sample.label("item"),
            ) else {
                continue;
            };
            if all.len() >= MOST_FILESYSTEMS && !all.contains_key(&(mount, device)) {
                continue;
            }
            let filesystem = all.entry((mount, device)).or_insert_with(|| Filesystem {
                mount: mount.to_string(),
                device: Some(device.to_string()),
                ..Filesystem::default()
            });
            let usage = match number {
                0 => &mut filesystem.bytes,
                _ => &mut filesystem.inodes,
            };
            match item {
                "available" => usage.available = amount(sample.value),
                "total" => usage.total = amount(sample.value),
                "used" => usage.used = amount(sample.value),
                _ => {}
            }
        }
    }
    all.into_values().collect()
}

fn of_volume(volume: &GuestVolume, stats: &VolumeStats) -> Filesystem {
    let usage = |usage: Option<VolumeUsage>| usage.map(Usage::of_volume).unwrap_or_default();
    Filesystem {
        bytes: usage(stats.capacity),
        device: None,
        inodes: usage(stats.inodes),
        mount: volume.path.clone(),
        volume: Some(volume.name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use shimstat::survey::AgentFacts;
    use std::sync::Arc;

    fn facts() -> GuestFacts {
        GuestFacts {
            agent: Arc::new(AgentFacts {
                version: "4.1.0".into(),
                details: None,
                interfaces: Some(
                    [("lo", "127.0.0.1", 8), ("eth0", "10.88.0.6", 16)]
                        .map(|(name, address, prefix)| GuestInterface {
                            name: name.into(),
                            addresses: vec![(address.parse().unwrap(), prefix)],
                            mtu: 1500,
                            hardware_address: String::new(),
                        })
                        .into(),
                ),
            }),
            volumes: vec![(
                GuestVolume {
                    name: "cache".into(),
                    path: "/run/kata-containers/sandbox/ephemeral/cache".into(),
                },
                VolumeStats {
                    capacity: Some(VolumeUsage {
                        total: u64::MAX,
                        used: 1 << 20,
                        available: u64::MAX - (1 << 20),
                    }),
                    inodes: Some(VolumeUsage {
                        total: 0,
                        used: 0,
                        available: 0,
                    }),
                    abnormal: None,
                },
            )],
            metrics: None,
        }
    }

    /// As `src/agent/src/metrics.rs` writes them.
    const METRICS: &str = r#"kata_guest_meminfo{item="mem_available"} 350785536
kata_guest_meminfo{item="mem_total"} 418349056
kata_guest_filesystem_bytes{device="sda",item="available",mount="/data"} 62914560
kata_guest_filesystem_bytes{device="sda",item="total",mount="/data"} 104857600
kata_guest_filesystem_bytes{device="sda",item="used",mount="/data"} 41943040
kata_guest_filesystem_inodes{device="sda",item="available",mount="/data"} 10
kata_guest_filesystem_inodes{device="sda",item="total",mount="/data"} 100
kata_guest_filesystem_inodes{device="sda",item="used",mount="/data"} 90
kata_guest_filesystem_bytes{device="sdb",item="total",mount="/odd"} 1.8446744073709552e+19
kata_guest_filesystem_bytes{device="sdb",item="used",mount="/odd"} NaN
kata_guest_filesystem_bytes{mount="/none"} 1
"#;

    fn read(text: &str) -> Readings {
        Readings::read(text.as_bytes(), &Filter::default()).unwrap()
    }

    #[test]
    fn what_a_guest_tells_as_json() {
        let side = GuestSide::new(&facts(), Some(&read(METRICS)));
        assert_eq!(
            serde_json::to_value(&side).unwrap(),
            json!({
                "version": "4.1.0",
                "memory": {"total_bytes": 418_349_056, "used_bytes": 67_563_520},
                "interfaces": [
                    {"name": "lo", "addresses": ["127.0.0.1/8"], "mtu": 1500},
                    {"name": "eth0", "addresses": ["10.88.0.6/16"], "mtu": 1500},
                ],
                "filesystems": [
                    {
                        "mount": "/data", "device": "sda",
                        "bytes": {"available": 62_914_560, "total": 104_857_600, "used": 41_943_040},
                        "inodes": {"available": 10, "total": 100, "used": 90},
                    },
                    {"mount": "/odd", "device": "sdb"},
                    {
                        "mount": "/run/kata-containers/sandbox/ephemeral/cache", "volume": "cache",
                        "bytes": {"available": u64::MAX - (1 << 20), "total": u64::MAX, "used": 1 << 20},
                    },
                ],
            })
        );
    }

    #[test]
    fn what_a_guest_tells_for_people() {
        let side = GuestSide::new(&facts(), Some(&read(METRICS)));
        assert_eq!(side.memory.unwrap().show(), "64.4MiB of 398MiB");
        assert_eq!(side.interfaces().collect::<Vec<_>>(), ["eth0 10.88.0.6/16"]);
        let shown: Vec<_> = side.filesystems.iter().map(Filesystem::show).collect();
        assert_eq!(shown[..2], ["/data (sda) 40MiB of 100MiB", "/odd (sdb) - of -"]);
        assert!(shown[2].starts_with("cache 1MiB of "), "{}", shown[2]);
        assert_eq!(side.filesystems[0].share(), Some(0.9), "of its inodes");
        assert_eq!(side.filesystems[1].share(), None);
    }

    #[test]
    fn a_guest_has_not_more_than_a_few_filesystems() {
        let many: String = (0..1000)
            .map(|n| {
                format!("kata_guest_filesystem_bytes{{device=\"d\",item=\"total\",mount=\"/{n:04}\"}} 1\n")
            })
            .collect();
        assert_eq!(filesystems(&read(&many)).len(), MOST_FILESYSTEMS);
    }
}
