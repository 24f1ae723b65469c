//! What every command works with.

use std::sync::Arc;
use std::time::Duration;

use go_duration as duration;
use shimstat::node::processes::ShimTime;
use shimstat::node::{Bundle, Container, Id, Inventory, Node};
use shimstat::survey::{ConcurrencyLimit, Survey};

use crate::cli::Global;
use crate::descriptors;
use crate::exit::{Failure, PLACES};
use crate::output;
use crate::state_dirs::StateDirs;

/// How many shims are asked at once. An answer takes about a millisecond; slow ones make room for others.
pub const CONCURRENCY: usize = 256;

#[derive(Clone)]
pub struct Context {
    pub node: Node,
    state_dirs: Arc<StateDirs>,
    /// How long to wait for each answer.
    pub timeout: Duration,
    pub verbose: bool,
}

impl Context {
    pub fn new(global: Global) -> Result<Self, Failure> {
        let namespace = global.namespace.filter(|namespace| !namespace.is_empty());
        // containerd requires the same pattern of namespaces as of ids, and this one becomes part of a path.
        if let Some(namespace) = &namespace {
            Id::parse(namespace).map_err(|e| Failure::usage(format!("--namespace {namespace:?}: {e}"))
                    .and("it is one of containerd's, such as k8s.io; for Kubernetes': kata-runtime list --pod-namespace"))?;
        }
        let state_dirs = StateDirs::new(global.state_dirs);
        Ok(Self {
            node: state_dirs.node(namespace, global.timeout)?,
            state_dirs: Arc::new(state_dirs),
            timeout: global.timeout,
            verbose: global.verbose,
        })
    }

    /// The bundles of all tasks. No tasks are an answer; no state directory to look into is not.
    pub fn bundles(&self) -> Result<Vec<Bundle>, Failure> {
        self.check_that_the_node_is_there()?;
        self.node.bundles().map_err(Failure::from)
    }

    /// All tasks with what their bundles say; fails where [`bundles`](Self::bundles) does.
    pub async fn read(&self, inventory: &mut Inventory) -> Result<Vec<Arc<Container>>, Failure> {
        self.expect_an_answer().await?;
        self.check_that_the_node_is_there()?;
        Ok(inventory.read()?)
    }

    /// Fails where the state directories do not answer in time: reading them would never end.
    pub async fn expect_an_answer(&self) -> Result<(), Failure> {
        self.state_dirs.answer(&self.node, self.timeout).await
    }

    fn check_that_the_node_is_there(&self) -> Result<(), Failure> {
        if self.node.is_there() {
            Ok(())
        } else {
            Err(Failure::new(format!("no containers: {}", self.node.looked_in())).and(PLACES))
        }
    }

    /// Says that there are no containers, and where they were looked for.
    pub fn tell_none(&self) {
        output::notice(&format!("no containers: {}", self.node.looked_in()));
        output::notice(PLACES);
    }

    /// A survey of the node. With `--verbose` it measures what answering costs.
    pub fn survey(&self) -> Survey {
        let survey = self.survey_of(CONCURRENCY);
        match self.verbose {
            true => survey.measuring(),
            false => survey,
        }
    }

    /// A survey that asks so many at once, as far as there are descriptors for it, and keeps no more connections than leave
    /// room for others.
    pub fn survey_of(&self, concurrency: usize) -> Survey {
        let keep_below = descriptors::limit() / 2;
        Survey::new(self.timeout, concurrency)
            .keeping_below(i32::try_from(keep_below).unwrap_or(i32::MAX))
            .with_at_most(at_most())
    }

    /// So many at once, as far as there are descriptors for it.
    pub fn concurrency_limit(&self, at_once: usize) -> ConcurrencyLimit {
        ConcurrencyLimit::new(at_once).with_at_most(at_most())
    }

    /// Writes to stderr what asking and answering has cost so far, with `--verbose`.
    pub fn note_cost(&self, survey: &Survey) {
        let Some(cost) = survey.induced_cost() else { return };
        let mut text = format!(
            "cost: shims used {} of CPU to answer {} question{}",
            rounded(cost.cpu),
            cost.measured,
            if cost.measured == 1 { "" } else { "s" }
        );
        if cost.unmeasured > 0 {
            text += &format!(
                " ({} more went to shims whose process is not known)",
                cost.unmeasured
            );
        }
        if let Some(own) = ShimTime::read(std::process::id(), false) {
            text += &format!(", this program {} in all", rounded(own.total()));
        }
        self.note(|| text);
    }

    /// Says of which containers something could not be read; whether there are any whose spec it is, so that what is told
    /// of them is not to be trusted.
    pub fn tell_unread<'a>(&self, containers: impl IntoIterator<Item = &'a Arc<Container>>) -> bool {
        let mut any = false;
        for container in containers {
            if let Some(error) = container.unread() {
                output::notice(&format!("container {}: {error}", container.id()));
                any = true;
            }
            if let Some(error) = container.unread_note() {
                let id = container.id();
                output::notice(&format!(
                    "container {id}: {error}: its runtime is told by other signs"
                ));
            }
        }
        any
    }

    /// Writes to stderr what is being done, with `--verbose`.
    pub fn note(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            output::notice(&text());
        }
    }
}

/// How many can be asked at once, with half of the descriptors for it: each may take one for its shim, its monitor, its guest
/// and a file.
fn at_most() -> usize {
    descriptors::limit() / 8
}

/// To the microsecond: nobody reads more.
fn rounded(time: Duration) -> String {
    duration::show(Duration::from_micros(
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX),
    ))
}
