//! The commands: each asks the node, and shows the answer.

mod completion;
mod events;
mod list;
#[cfg(feature = "man")]
mod man;
pub mod metrics;
mod overview;
#[cfg(feature = "top")]
mod top;

use std::time::Duration;

use tokio::runtime::Builder;

use crate::cli::{Cli, Command, Global};
use crate::context::Context;
use crate::exit::{Failure, RESOURCES};
use crate::exporter;
use crate::start;

pub fn run(cli: Cli) -> Result<(), Failure> {
    let Some(command) = cli.command else {
        return ask(cli.global, async |node| overview::run(node).await);
    };
    match command {
        Command::Events(arguments) => ask(cli.global, async |node| events::run(node, &arguments).await),
        Command::List(arguments) => ask(cli.global, async |node| list::run(node, &arguments).await),
        Command::Metrics(arguments) => ask(cli.global, async |node| metrics::run(node, &arguments).await),
        Command::Monitor(arguments) => ask(cli.global, async |node| exporter::run(node, &arguments).await),
        #[cfg(feature = "top")]
        Command::Top(arguments) => ask(cli.global, async |node| top::run(node, &arguments).await),
        Command::Completion(arguments) => completion::script(&arguments),
        Command::Complete(arguments) => completion::complete(&arguments),
        #[cfg(feature = "man")]
        Command::Man(arguments) => man::write(&arguments),
    }
}

/// Asks the node, on a runtime with one thread: starting several would take longer than most questions.
fn ask(global: Global, question: impl AsyncFnOnce(&Context) -> Result<(), Failure>) -> Result<(), Failure> {
    let context = Context::new(global)?;
    let mut builder = Builder::new_current_thread();
    builder
        .enable_io()
        .enable_time()
        // An exporter keeps its thread for reads that may wait: where there are no more to be had later, tokio would end
        // the process.
        // Those that are kept would become more with each moment in which none is idle.
        .max_blocking_threads(16)
        .thread_keep_alive(Duration::from_secs(u64::from(u32::MAX)));
    let runtime = start::or_say_what_is_missing(|| builder.build())
        .map_err(|error| Failure::new(format!("start: {error}")).and(RESOURCES))?;
    let answer = runtime.block_on(question(&context));
    // The process ends here, and everything that the runtime holds ends with it: taking it apart would cost more than
    // a short question.
    #[allow(clippy::mem_forget)]
    std::mem::forget(runtime);
    answer
}
