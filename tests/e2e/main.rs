//! `kata-runtime` on containers that real containerds run: with runc's shim, and with the test shim that
//! stands in for Kata's. `tests/run.sh` brings what this needs.

#![allow(clippy::restriction)] // A test may panic.

#[path = "../support/conformance.rs"]
mod conformance;
#[path = "../support/exporter.rs"]
mod exporter;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/prometheus.rs"]
mod tsdb;

mod cgroup;
mod cgroup_v2;
mod cost;
mod cri;
mod events;
mod guest;
mod ids;
mod image;
mod list;
mod many;
mod metrics;
mod monitor;
mod network;
mod nodes;
mod rates;
mod streams;
#[cfg(feature = "top")]
mod top;
mod wire;
