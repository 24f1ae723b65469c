//! Every fault of a shim, its monitor and its bundle, before every command: one test a cell. A fault or a command more is
//! one line in `list.rs`, and `docs/faults.md` is the same list.

#![allow(clippy::restriction)] // A test may panic.
#![cfg(feature = "top")]

mod commands;
mod descriptors;
#[path = "../support/exporter.rs"]
mod exporter;
mod fuse;
mod ground;
mod list;
#[path = "../mock/mod.rs"]
mod mock;
#[path = "../support/tmux.rs"]
mod tmux;
