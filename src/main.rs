//! `kata-runtime`: what a sandboxed container uses and what its sandbox costs, straight from its shim.

#![cfg_attr(not(test), warn(clippy::string_slice, clippy::unreachable))]

mod cli;
mod commands;
mod complete;
mod context;
mod descriptors;
mod exit;
mod exporter;
mod find;
#[cfg(test)]
mod fixtures;
mod guest_side;
mod handover;
mod interrupt;
mod kata_monitor_flags;
mod local_path;
mod output;
mod readings;
mod sandbox_page;
mod show;
mod start;
mod state_dirs;
mod ticks;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(unparsed) => return handover::run_or_exit(unparsed),
    };
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output::report(&failure),
    }
}
