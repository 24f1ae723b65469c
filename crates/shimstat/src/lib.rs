//! What runs on a container node, and what it uses: read straight from the node's files and the shims' sockets.
//!
//! One container goes through it like this: [`node`] finds it (bundle, sandbox, shim address), [`survey`] asks its
//! shim without harm to what it runs (one call at a time, each with a deadline), and [`stats`] turns the reply into
//! exact numbers. [`rates`] makes rates of two samples.
//!
//! [`stats`] does no I/O, [`node`] reads files and nothing else, [`shim`] opens sockets and nothing else.

#![cfg_attr(not(test), warn(clippy::string_slice, clippy::unreachable))]

pub mod guest;
pub mod node;
mod proto;
pub mod rates;
pub mod shim;
pub mod stats;
pub mod survey;
mod wire;
