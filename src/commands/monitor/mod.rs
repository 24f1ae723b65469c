//! `monitor`: the node's exporter for Prometheus.
//!
//! A request goes through it like this: [`listen`] and [`connections`] let its connection in, [`patience`] sees that
//! it does not stay for nothing, [`protection`] that it may ask, and [`app`] answers it. A scrape is gathered by
//! [`scrape`] from [`units`] (what is there), each of them asked once by [`ask`] however many scrapers want to know;
//! [`body`] sends the page as it is made.

mod app;
mod ask;
mod body;
mod connections;
mod containers;
mod figures;
mod listen;
mod negotiate;
mod pages;
mod patience;
mod protection;
mod query;
mod scrape;
mod server;
mod units;
#[cfg(feature = "web-config")]
mod web_config;

use std::sync::Arc;

use kata_runtime::node::Inventory;

use self::app::App;
use self::connections::Connections;
pub use self::listen::ListenAddress;
use self::listen::Listener;
use self::protection::Protection;
use self::scrape::Scraper;
use self::units::Lister;
use super::Context;
use crate::cli::Monitor;
use crate::failure::Failure;
use crate::output;

pub async fn run(context: &Context, arguments: &Monitor) -> Result<(), Failure> {
    let protection = Protection::load(arguments.web_config_file.as_deref()).map_err(Failure::new)?;
    allow_descriptors();
    let listener = Listener::bind(&arguments.listen_address)
        .map_err(|error| Failure::new(format!("listen on {}: {error}", arguments.listen_address)))?;
    let scheme = if protection.has_tls() { "https" } else { "http" };
    output::notice(&match &listener {
        Listener::Tcp(_) => format!("listening on {scheme}://{}/metrics", listener.place()),
        Listener::Unix(..) => format!("listening on {}", listener.place()),
    });
    if listener.is_public() && arguments.web_config_file.is_none() {
        output::notice(
            "warning: other machines can connect, without TLS or a password: see --web.config.file, or listen on \
             127.0.0.1",
        );
    }
    let node = context.node.clone();
    // A socket without a bundle is in no namespace.
    let orphans = node.namespace().is_none();
    let lister = Lister::new(Inventory::new(node), orphans);
    let scraper = Scraper::new(lister, context.timeout, arguments.max_concurrent, context.verbose);
    let app = App::new(protection, Connections::new(server::MOST_CONNECTIONS), scraper);
    server::serve(listener, Arc::new(app))
        .await
        .map_err(|error| Failure::new(format!("wait for signals: {error}")))
}

/// Raises the limit on open descriptors as far as is allowed: each sandbox that is being asked takes two.
fn allow_descriptors() {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: both calls read and write `limit` alone, which is there for as long as they run.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
}
