//! What a sandboxed container uses and what its sandbox costs, straight from its shim.
//!
//! The binary `kata-runtime` is made of these parts, and another tool may call them as well. One
//! container id goes through them like this: [`node`] turns it into a container (bundle, sandbox,
//! shim address), [`shim`] turns that into a reply, [`stats`] turns the reply into exact numbers.
//! A sandbox goes the other way: [`shim`] fetches its metrics text, [`exposition`] joins the texts
//! of several sandboxes.
//!
//! For people, [`rates`] makes rates of two samples, [`readings`] numbers of a metrics text, and [`units`] and
//! [`duration`] show them.
//!
//! [`survey`] is how shims are asked without harm to what they run: one call at a time, each with a deadline.
//!
//! [`stats`] and [`exposition`] do no I/O, [`node`] reads files and nothing else, [`shim`] opens
//! sockets and nothing else.

pub mod duration;
pub mod exposition;
pub mod node;
pub mod rates;
pub mod readings;
pub mod shim;
pub mod stats;
pub mod survey;
pub mod units;
mod wire;
