//! `kata-runtime` on containers that real containerds run: with runc's shim, and with the example shim that
//! stands in for Kata's. `tests/run.sh` brings what this needs.

#[path = "../support/mod.rs"]
mod support;

mod events;
mod ids;
mod list;
mod many;
mod metrics;
mod network;
mod rates;
mod streams;
#[cfg(feature = "top")]
mod top;
