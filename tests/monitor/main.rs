//! `monitor` before sandboxes that answer, lie, hang and are gone, and before clients of every kind.
//!
//! The known paths of Kata's sockets are root's (`/run/vc/sbs`, `/run/kata`): these tests make directories with fresh
//! ids there, and take them away. Other sandboxes of this machine may be in the pages as well.

#![allow(clippy::restriction)] // A test may panic.

#[path = "../support/conformance.rs"]
mod conformance;
#[path = "../support/exporter.rs"]
mod exporter;
#[path = "../mock/mod.rs"]
mod mock;
mod support;
#[path = "../support/prometheus.rs"]
mod tsdb;

mod clients;
mod conformance_lists;
mod contract;
mod dashboard;
mod golden;
mod hostile;
mod landing;
mod pages;
mod prometheus;
mod protection;
mod public_dashboards;
mod scrapes;
mod vm;
