//! A node full of Kata sandboxes that are none: one process serves N of them, with what a real one once answered.
//!
//! ```text
//! cargo run --release -p replay -- 1000 --dir /tmp/replay &
//! kata-runtime --state /tmp/replay/state monitor &
//! curl -s localhost:8090/metrics | wc -c
//! ```
//!
//! Each sandbox has a bundle as containerd writes it, a shim that answers `State` and `Stats` for it and for one
//! container in it, and a monitor that serves the metrics recorded from Kata 3.30's Go shim. `--hung-every 10` has the
//! guest of every tenth hang: its monitor takes the question and never answers. `--sockets-only` leaves out bundles
//! and shims, and puts the monitors' sockets where Kata has them (`/run/vc/sbs/<id>/shim-monitor.sock`), so that
//! other exporters find them.
//!
//! It says `ready` on stdout when all are there, and takes everything away when it is told to end.

#![allow(clippy::restriction)] // A tool for benchmarks may panic.

mod http;
mod place;
mod ttrpc;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use place::Place;

/// Serves N recorded Kata sandboxes.
#[derive(Parser)]
struct Arguments {
    /// How many sandboxes
    sandboxes: usize,
    /// Where their bundles and sockets are to be; is made, and removed in the end
    #[arg(long, default_value = "/tmp/kata-runtime-replay")]
    dir: PathBuf,
    /// The guest of every one of so many hangs
    #[arg(long, value_name = "N")]
    hung_every: Option<usize>,
    /// No bundles and no shims: only monitors, where Kata has them
    #[arg(long)]
    sockets_only: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    allow_descriptors();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(serve(&arguments))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) | Err(error) => {
            eprintln!("replay: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: &Arguments) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Everything that it made goes with it.
    let place = Place::make(&arguments.dir, arguments.sockets_only)?;
    for number in 0..arguments.sandboxes {
        let hangs = arguments
            .hung_every
            .is_some_and(|every| every > 0 && number % every == 0);
        let sandbox = place.sandbox(number)?;
        tokio::spawn(http::serve(UnixListener::bind(&sandbox.monitor)?, hangs));
        if let Some(shim) = &sandbox.shim {
            tokio::spawn(ttrpc::serve(UnixListener::bind(shim)?, sandbox.id.clone(), hangs));
        }
    }
    println!("ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Two sockets a sandbox, and a connection on each.
fn allow_descriptors() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read and write `limit` alone.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
