//! The commands: each asks the node, and shows the answer.

mod events;
mod metrics;
#[cfg(feature = "top")]
mod top;

use std::time::Duration;

use kata_runtime::node::{Bundle, FindError, Id, Node};

use crate::cli::{Cli, Command, Global};
use crate::failure::Failure;
use crate::output;

/// What every command works with.
struct Context {
    node: Node,
    /// How long each answer is waited for.
    timeout: Duration,
    verbose: bool,
}

/// Runs a command on a runtime of one thread: a multi-threaded one costs more than a question takes.
pub fn run(cli: Cli) -> Result<(), Failure> {
    let context = Context::new(cli.global)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| Failure::new(format!("start: {error}")))?;
    runtime.block_on(async {
        match cli.command {
            Command::Events(arguments) => events::run(&context, &arguments).await,
            Command::Metrics(arguments) => metrics::run(&context, &arguments).await,
            #[cfg(feature = "top")]
            Command::Top(arguments) => top::run(&context, &arguments).await,
        }
    })
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

    /// Says what is being done, where that was asked for.
    fn note(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            output::notice(&text());
        }
    }
}

/// An id or the beginning of one, from the command line.
fn id(text: &str) -> Result<Id, Failure> {
    Id::parse(text).map_err(|error| Failure::usage(error.to_string()))
}

/// Several containers fit: which, so that a longer beginning or a namespace can be chosen.
fn ambiguous(error: &FindError, candidates: &[Bundle]) -> Failure {
    const SHOWN: usize = 20;
    let mut failure = Failure::new(error.to_string());
    for bundle in candidates.iter().take(SHOWN) {
        failure = failure.and(format!(
            "  {} in namespace {} ({})",
            bundle.id,
            bundle.namespace,
            bundle.state_dir.display()
        ));
    }
    if candidates.len() > SHOWN {
        failure = failure.and(format!("  and {} more", candidates.len() - SHOWN));
    }
    failure.and("give more of the id, or choose with --namespace or --state")
}

/// An error about a file or socket, with what to do about it where that is known.
fn with_remedy(line: impl Into<String>) -> Failure {
    let line = line.into();
    let denied = line.to_lowercase().contains("permission denied");
    let failure = Failure::new(line);
    if denied {
        failure.and("containerd's state and the shims' sockets are root's: run this as root")
    } else {
        failure
    }
}
