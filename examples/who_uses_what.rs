//! Every container of this node with its CPU and memory: asks all shims at once, and again a second later.
//!
//! `cargo run --example who_uses_what`, as root. An argument is containerd's state directory, where that is not one of
//! the usual ones.

#![allow(clippy::print_stdout, clippy::print_stderr)] // To the point.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use shimstat::node::{Inventory, Node};
use shimstat::rates::Rates;
use shimstat::survey::{Network, Statistics, Survey, Via};

const TIMEOUT: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let state_dirs = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let pods = Inventory::new(Node::new(state_dirs, None)).pods()?;
    let containers: Vec<_> = pods.iter().flat_map(|pod| pod.all()).cloned().collect();

    let survey = Survey::new(TIMEOUT, 64);
    let ask = async || {
        let question = Statistics {
            network: Network::None,
            via: Via::Both,
        };
        let asking = survey.begin(containers.clone(), question).await;
        asking.answers(TIMEOUT).await
    };
    let before = ask().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = ask().await;

    println!("{:>7} {:>12}  CONTAINER", "CPU %", "MEMORY");
    for ((container, before), after) in containers.iter().zip(before).zip(after) {
        let name = container.name().unwrap_or_else(|| container.id().to_string());
        // Whoever may create a pod chooses its name.
        let name = name.escape_debug();
        match (before, after) {
            (Ok(before), Ok(after)) => {
                let cpu = Rates::between(&before, &after).cpu_percent;
                let cpu = cpu.map_or("-".to_string(), |percent| format!("{percent:.1}"));
                let memory = after.stats.memory.working_set();
                let memory = memory.map_or("-".to_string(), |bytes| format!("{} KiB", bytes >> 10));
                println!("{cpu:>7} {memory:>12}  {name}");
            }
            (Err(error), _) | (_, Err(error)) => println!("{:>7} {:>12}  {name}: {error}", "-", "-"),
        }
    }
    Ok(())
}
