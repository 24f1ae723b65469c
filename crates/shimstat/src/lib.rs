#![doc = include_str!("../README.md")]
#![warn(missing_docs)]
#![cfg_attr(not(test), warn(clippy::string_slice, clippy::unreachable))]

pub mod guest;
pub mod node;
mod proto;
pub mod rates;
pub mod shim;
pub mod stats;
pub mod survey;
mod wire;
