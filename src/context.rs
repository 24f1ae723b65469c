//! What every command works with.

use std::sync::Arc;
use std::time::Duration;

use shimstat::node::{Bundle, Container, Id, Inventory, Node};

use crate::cli::Global;
use crate::exit::Failure;
use crate::output;

/// The most shims that are asked at once. An answer takes a millisecond or less, and those that take long make room.
pub const CONCURRENCY: usize = 256;

pub struct Context {
    pub node: Node,
    /// How long each answer is waited for.
    pub timeout: Duration,
    pub verbose: bool,
}

impl Context {
    pub fn new(global: Global) -> Result<Self, Failure> {
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
    pub fn bundles(&self) -> Result<Vec<Bundle>, Failure> {
        self.check_that_the_node_is_there()?;
        self.node.bundles().map_err(Failure::from)
    }

    /// All tasks, with what their bundles say, as [`bundles`](Self::bundles).
    pub fn read(&self, inventory: &mut Inventory) -> Result<Vec<Arc<Container>>, Failure> {
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
