//! The commands: each asks the node, and shows the answer.

mod completion;
mod events;
mod list;
pub mod metrics;
#[cfg(feature = "top")]
mod top;

use std::sync::Arc;
use std::time::Duration;

use shimstat::node::{Bundle, Container, Id, Inventory, Node};
use tokio::runtime::Builder;

use crate::cli::{Cli, Command, Global};
use crate::exit::Failure;
use crate::{exporter, output};

/// The most shims that are asked at once. An answer takes a millisecond or less, and those that take long make room.
const CONCURRENCY: usize = 256;

/// What every command works with.
pub struct Context {
    pub node: Node,
    /// How long each answer is waited for.
    pub timeout: Duration,
    pub verbose: bool,
}

pub fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Events(arguments) => ask(cli.global, async |node| events::run(node, &arguments).await),
        Command::List(arguments) => ask(cli.global, async |node| list::run(node, &arguments).await),
        Command::Metrics(arguments) => ask(cli.global, async |node| metrics::run(node, &arguments).await),
        Command::Monitor(arguments) => ask(cli.global, async |node| exporter::run(node, &arguments).await),
        #[cfg(feature = "top")]
        Command::Top(arguments) => ask(cli.global, async |node| top::run(node, &arguments).await),
        Command::Completion(arguments) => completion::script(&arguments),
        Command::Complete(arguments) => completion::complete(&arguments),
    }
}

/// Asks the node, on a runtime of one thread: a multi-threaded one costs more than a question takes.
fn ask(global: Global, question: impl AsyncFnOnce(&Context) -> Result<(), Failure>) -> Result<(), Failure> {
    let context = Context::new(global)?;
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| Failure::new(format!("start: {error}")))?;
    let answer = runtime.block_on(question(&context));
    // The process ends here, and what the runtime holds ends with it: taking it down piece by piece would cost a
    // short question more than asking it.
    #[allow(clippy::mem_forget)]
    std::mem::forget(runtime);
    answer
}

impl Context {
    fn new(global: Global) -> Result<Self, Failure> {
        let namespace = global.namespace.filter(|namespace| !namespace.is_empty());
        // containerd holds its namespaces to the same pattern as ids, and this one becomes part of a path.
        if let Some(namespace) = &namespace {
            Id::parse(namespace).map_err(|e| Failure::usage(format!("--namespace {namespace:?}: {e}")))?;
        }
        Ok(Self {
            node: Node::new(global.state_dirs, namespace),
            timeout: global.timeout,
            verbose: global.verbose,
        })
    }

    /// The bundles of all tasks. That there are none is an answer, but that there is nowhere to look is not.
    fn bundles(&self) -> Result<Vec<Bundle>, Failure> {
        self.check_that_the_node_is_there()?;
        self.node.bundles().map_err(Failure::from)
    }

    /// All tasks, with what their bundles say, as [`bundles`](Self::bundles).
    fn read(&self, inventory: &mut Inventory) -> Result<Vec<Arc<Container>>, Failure> {
        self.check_that_the_node_is_there()?;
        Ok(inventory.read()?)
    }

    fn check_that_the_node_is_there(&self) -> Result<(), Failure> {
        if self.node.is_there() {
            Ok(())
        } else {
            Err(Failure::new(format!("no containers: {}", self.node.looked_in())))
        }
    }

    /// Says what is being done, where that was asked for.
    pub fn note(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            output::notice(&text());
        }
    }
}
