//! `monitor`: the node's exporter for Prometheus.
//!
//! [`exporter_web`] lets requests in, and [`routes`] answers them. A scrape is gathered by [`scrape`] from the
//! node's pods, each of them asked once ([`pod`]), however many scrapers want to know.

mod container_metrics;
mod host;
mod last_scrape;
mod page_budget;
mod pages;
mod pod;
mod profile;
mod reason;
mod routes;
mod scrape;
mod self_metrics;
#[cfg(test)]
mod tests;
mod vm;

use std::sync::Arc;

use exporter_web::Server;
use shimstat::node::Inventory;

use self::profile::Selection;
use self::routes::Routes;
use self::scrape::Scraper;
use crate::cli::Monitor;
use crate::context::Context;
use crate::exit::Failure;
use crate::start;
use crate::{descriptors, output};

pub async fn run(context: &Context, arguments: &Monitor) -> Result<(), Failure> {
    let flags = &arguments.kata_monitor;
    let tls = flags.tls()?;
    descriptors::allow_many();
    let server = Server::builder()
        .listen(arguments.listen_address.clone())
        .systemd_socket(arguments.systemd_socket)
        .web_config_file(arguments.web_config_file.clone())
        .tls_files(tls)
        .on_event(|event| output::notice(&event.to_string()))
        .bind()?;
    for line in flags.without_meaning() {
        output::notice(&line);
    }
    // Started while it is not too late to say that there is none. It has nothing to do yet that could fail.
    let _ = start::or_say_what_is_missing(|| tokio::task::spawn_blocking(|| ())).await;
    let mut inventory = Inventory::new(context.node.clone());
    let survey = context
        .survey_of(arguments.max_concurrent)
        .at_pace(arguments.pacing.pace());
    let scraper = Scraper::new(
        Box::new(move || inventory.pods()),
        survey,
        context.timeout,
        context.concurrency_limit(arguments.max_concurrent),
        context.verbose || flags.is_verbose(),
    );
    let routes = Arc::new(Routes::new(
        context.clone(),
        scraper,
        Selection::new(arguments.profile, &arguments.families),
    ));
    let answer = move |request| {
        let routes = routes.clone();
        async move { routes.answer(request).await }
    };
    Ok(server.run(answer).await?)
}
