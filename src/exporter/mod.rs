//! `monitor`: the node's exporter for Prometheus.
//!
//! [`exporter_web`] lets requests in, and [`routes`] answers them. A scrape is gathered by [`scrape`] from the
//! node's pods, each of them asked once ([`pod`]), however many scrapers want to know.

mod container_metrics;
mod pages;
mod pod;
mod query;
mod reason;
mod routes;
mod scrape;
mod self_metrics;

use exporter_web::{Connections, Listener, MOST_CONNECTIONS, Protection};
use shimstat::node::Inventory;

use self::routes::Routes;
use self::scrape::Scraper;
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
    let inventory = Inventory::new(context.node.clone());
    let scraper = Scraper::new(
        inventory,
        context.timeout,
        arguments.max_concurrent,
        context.verbose,
    );
    let connections = Connections::new(MOST_CONNECTIONS);
    let app = Routes::new(connections.clone(), scraper);
    exporter_web::serve(listener, protection, connections, app)
        .await
        .map_err(|error| Failure::new(format!("wait for signals: {error}")))
}
