//! The pod's own links.

use shimstat::stats::Interface;

use super::family::{COUNTER, ContainerFamily, Sink, family};
use super::row::ContainerRow;

pub const FAMILIES: &[ContainerFamily] = &[
    family(
        "container_network_receive_bytes_total",
        COUNTER,
        "Bytes received.",
        |row, to| {
            by_interface(row, to, |interface| interface.rx_bytes);
        },
    ),
    family(
        "container_network_receive_errors_total",
        COUNTER,
        "Errors in receiving.",
        |row, to| {
            by_interface(row, to, |interface| interface.rx_errors);
        },
    ),
    family(
        "container_network_receive_packets_dropped_total",
        COUNTER,
        "Packets dropped on arrival.",
        |row, to| {
            by_interface(row, to, |interface| interface.rx_dropped);
        },
    ),
    family(
        "container_network_receive_packets_total",
        COUNTER,
        "Packets received.",
        |row, to| {
            by_interface(row, to, |interface| interface.rx_packets);
        },
    ),
    family(
        "container_network_transmit_bytes_total",
        COUNTER,
        "Bytes sent.",
        |row, to| {
            by_interface(row, to, |interface| interface.tx_bytes);
        },
    ),
    family(
        "container_network_transmit_errors_total",
        COUNTER,
        "Errors in sending.",
        |row, to| {
            by_interface(row, to, |interface| interface.tx_errors);
        },
    ),
    family(
        "container_network_transmit_packets_dropped_total",
        COUNTER,
        "Packets not sent.",
        |row, to| {
            by_interface(row, to, |interface| interface.tx_dropped);
        },
    ),
    family(
        "container_network_transmit_packets_total",
        COUNTER,
        "Packets sent.",
        |row, to| {
            by_interface(row, to, |interface| interface.tx_packets);
        },
    ),
];

fn by_interface(row: &ContainerRow<'_>, mut to: Sink<'_>, number: fn(&Interface) -> u64) {
    let interfaces = row.stats.network.iter().flatten();
    for interface in interfaces.filter(|interface| interface.is_pods_own()) {
        to.put(&[("interface", &interface.name)], Some(number(interface)));
    }
}
