//! What a container's samples are made of.

use std::time::SystemTime;

use shimstat::node::{Container, HostReadings};
use shimstat::stats::{Limits, Stats};

use super::device_io::DeviceNumbers;

/// A container's numbers, from its shim and from this host.
pub struct ContainerRow<'a> {
    pub stats: &'a Stats,
    /// Of a container that runs on this host.
    pub host: Option<&'a HostReadings>,
    pub io: DeviceNumbers,
    pub created: Option<SystemTime>,
    pub taken: SystemTime,
}

impl<'a> ContainerRow<'a> {
    pub fn new(
        container: &Container,
        stats: &'a Stats,
        host: Option<&'a HostReadings>,
        taken: SystemTime,
    ) -> Self {
        Self {
            stats,
            host,
            io: DeviceNumbers::of(stats, || host.is_some() || container.is_on_host()),
            created: container.bundle.created().ok(),
            taken,
        }
    }

    /// What it may use today; `None` where only what it was created with is known, which may have changed.
    pub fn limits(&self) -> Option<&'a Limits> {
        Some(&self.host?.limits)
    }
}
