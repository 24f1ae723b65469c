//! `monitor`: the node's exporter for Prometheus.
//!
//! [`exporter_web`] lets requests in, and [`app`] answers them. A scrape is gathered by [`scrape`] from [`units`]
//! (what is there), each of them asked once by [`ask`] however many scrapers want to know.

mod app;
mod ask;
mod containers;
mod figures;
mod pages;
mod query;
mod scrape;
mod units;

use exporter_web::{Connections, Listener, MOST_CONNECTIONS, Protection};
use shimstat::node::Inventory;

use self::app::App;
use self::scrape::Scraper;
use self::units::Lister;
use crate::cli::Monitor;
use crate::commands::Context;
use crate::exit::Failure;
use crate::{descriptors, output};

pub async fn run(context: &Context, arguments: &Monitor) -> Result<(), Failure> {
    let protection =
        Protection::load(arguments.web_config_file.as_deref(), output::notice).map_err(Failure::new)?;
    descriptors::allow_many();
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
    let connections = Connections::new(MOST_CONNECTIONS);
    let app = App::new(connections.clone(), scraper);
    exporter_web::serve(listener, protection, connections, app)
        .await
        .map_err(|error| Failure::new(format!("wait for signals: {error}")))
}
