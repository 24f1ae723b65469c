//! Memory and traffic of one container, a line each second until it stops: `cargo run --example watch_one -- ID`, as
//! root. The beginning of an id will do.

#![allow(clippy::print_stdout, clippy::print_stderr)] // To the point.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use shimstat::node::{Container, Id, Node};
use shimstat::rates::Rates;
use shimstat::survey::{AskError, Network, Sample, Statistics, Survey, Via};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let id = arguments.next().ok_or("usage: watch_one ID [STATE-DIRECTORY]")?;
    let state_dirs = arguments.map(PathBuf::from).collect();
    let bundle = Node::new(state_dirs, None).find(&Id::parse(&id)?)?;
    let container = Container::read(bundle).ok_or("the container is being created or deleted")?;

    // The connection to the shim is kept from one second to the next.
    let survey = Survey::new(Duration::from_secs(3), 1).keeping_connections();
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    let mut last: Option<Sample> = None;
    loop {
        seconds.tick().await;
        let question = Statistics {
            network: Network::Interfaces,
            via: Via::Both,
        };
        let sample = match survey.ask(&container, question).await {
            Ok(sample) => sample,
            Err(AskError::NotRunning(why)) => {
                println!("{why}");
                return Ok(());
            }
            Err(error) => {
                eprintln!("{error}");
                continue;
            }
        };
        let rates = last
            .map(|last| Rates::between(&last, &sample))
            .unwrap_or_default();
        let number = |value: Option<f64>| value.map_or("-".to_string(), |value| format!("{value:.0}"));
        println!(
            "memory {} bytes, received {} bytes/s, sent {} bytes/s",
            number(sample.stats.memory.usage.usage.map(|bytes| bytes as f64)),
            number(rates.rx_bytes),
            number(rates.tx_bytes),
        );
        last = Some(sample);
    }
}
