//! Container statistics, under the names and labels that dashboards know from cAdvisor and the kubelet.
//!
//! Names, types, units and meanings are those of cAdvisor's `lib/metrics/prometheus.go`; what differs is listed in
//! `docs/cadvisor-meanings.md`. What nobody measured is left out, with one exception, cAdvisor's own: the limit of what
//! has no limit is 0.

mod cpu;
mod device_io;
mod devices;
mod family;
mod labels;
mod limits;
mod memory;
mod network;
mod pressure;
mod processes;
mod row;
mod time;

use std::sync::LazyLock;
use std::time::SystemTime;

use promtext::{Filter, Page, PageReader, Relabel, Writer};
use shimstat::node::{Container, HostReadings};
use shimstat::stats::Stats;

use self::family::{ContainerFamily, Sink};
pub use self::labels::labels;
use self::row::ContainerRow;

/// All families, by name.
static FAMILIES: LazyLock<Vec<&ContainerFamily>> = LazyLock::new(|| {
    let mut families: Vec<&ContainerFamily> = [
        cpu::FAMILIES,
        devices::FAMILIES,
        limits::FAMILIES,
        memory::FAMILIES,
        network::FAMILIES,
        pressure::FAMILIES,
        processes::FAMILIES,
        time::FAMILIES,
    ]
    .into_iter()
    .flatten()
    .collect();
    families.sort_by_key(|family| family.name);
    families
});

/// Families, by prefix, that need what this host says of a container.
const OF_HOST: [&str; 8] = [
    "container_cpu_cfs_",
    "container_file_descriptors",
    "container_fs_",
    "container_processes",
    "container_sockets",
    "container_spec_",
    "container_threads_max",
    "container_ulimits_soft",
];

/// Whether one of these families needs what this host says of a container.
pub fn needs_host(filter: &Filter) -> bool {
    OF_HOST.iter().any(|family| filter.may_fit(family))
}

/// Writes type and help of every family of a container's page.
pub fn describe(writer: &mut Writer) {
    for family in FAMILIES.iter() {
        writer.family(family.name, family.kind, family.help);
    }
}

/// A container's samples, without type and help. `host` is there for a container that runs on this host.
pub fn page(
    container: &Container,
    stats: &Stats,
    host: Option<&HostReadings>,
    taken: SystemTime,
    reader: &PageReader,
) -> Result<Page, promtext::Error> {
    let row = ContainerRow::new(container, stats, host, taken);
    let mut writer = Writer::default();
    for family in FAMILIES.iter() {
        (family.write)(&row, Sink(writer.samples(family.name)));
    }
    reader.read(writer.into_text(), Relabel::new(labels(container))?)
}
