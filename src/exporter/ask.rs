//! Asking one unit, for whoever wants to know.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use promtext::{Page, PageReader, PageTooLong, Relabel};
use shimstat::node::Container;
use shimstat::survey::{AskError, Bound, Flight, Lane, NotRunning, Scrape, ScrapeError};

use super::containers;
use super::units::{Sandbox, Unit};
use crate::commands::metrics::{has_family, has_guest_family};

/// The longest page that a sandbox may have, in bytes. Kata's have 17 to 135 KB. A sandbox that sends more is not
/// to use up the memory that the others need.
const MOST: usize = 8 << 20;

/// Families that a sandbox's page may not have under these names: those of its shim's own process, as kata-monitor
/// has it, and those that are ours to tell. A guest is not to pass its figures off as another pod's.
const PREFIXED: [&str; 4] = ["go_", "process_", "container_", "kata_monitor_"];

/// The path of a sandbox's metrics.
pub const METRICS: &str = "/metrics";

/// What is wanted of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// The page of the sandbox.
    pub pages: bool,
    /// The statistics of the tasks.
    pub stats: bool,
}

/// What is said of a sandbox whose page has no family of its guest.
pub const NO_GUEST: &str =
    "its page has no family of the guest (kata_agent_*, kata_guest_*): the guest may be hung";

/// Why there is no answer, or not all of it: what a label says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The answer did not come in time.
    Timeout,
    /// An answer before came late: the sandbox is left alone for a while.
    Resting,
    /// It was not asked, for want of time.
    Skipped,
    /// Its task has stopped.
    Stopped,
    /// Nobody listens.
    Gone,
    /// The shim does not know the task.
    Unknown,
    /// It would be at risk from being asked.
    Risk,
    /// Its page lacks what only the guest can tell.
    NoGuest,
    /// What it sent cannot be read.
    Malformed,
    /// Where it listens cannot be told.
    NoAddress,
    /// Something else.
    Error,
}

impl Reason {
    pub fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Resting => "resting",
            Self::Skipped => "skipped",
            Self::Stopped => "stopped",
            Self::Gone => "gone",
            Self::Unknown => "unknown",
            Self::Risk => "risk",
            Self::NoGuest => "no_guest",
            Self::Malformed => "malformed",
            Self::NoAddress => "no_address",
            Self::Error => "error",
        }
    }

    fn of_ask(error: &AskError) -> Self {
        match error {
            AskError::NotRunning(NotRunning::Stopped(_)) => Self::Stopped,
            AskError::NotRunning(NotRunning::Gone(_)) => Self::Gone,
            AskError::NotRunning(NotRunning::Unknown(_)) => Self::Unknown,
            AskError::Unanswered { .. } => Self::Timeout,
            AskError::Resting { .. } => Self::Resting,
            AskError::NoAddress(_) => Self::NoAddress,
            AskError::Decode { .. } => Self::Malformed,
            AskError::Shim(error) => Self::of_shim(error),
        }
    }

    fn of_scrape(error: &ScrapeError) -> Self {
        match error {
            ScrapeError::Risk(_) => Self::Risk,
            ScrapeError::Unanswered { .. } => Self::Timeout,
            ScrapeError::NoAddress => Self::NoAddress,
            ScrapeError::Shim(error) => Self::of_shim(error),
        }
    }

    fn of_shim(error: &shimstat::shim::ShimError) -> Self {
        use shimstat::shim::ShimError;
        match error {
            _ if error.is_gone() => Self::Gone,
            ShimError::Closed { .. }
            | ShimError::Malformed { .. }
            | ShimError::Status { .. }
            | ShimError::Encoding { .. }
            | ShimError::TooLarge { .. } => Self::Malformed,
            _ => Self::Error,
        }
    }
}

/// Why there is no answer, for a label and for people.
#[derive(Debug, Clone)]
pub struct Failure {
    pub reason: Reason,
    pub text: String,
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        Self {
            reason: Reason::of_ask(&error),
            text: error.to_string(),
        }
    }
}

impl From<ScrapeError> for Failure {
    fn from(error: ScrapeError) -> Self {
        Self {
            reason: Reason::of_scrape(&error),
            text: error.to_string(),
        }
    }
}

/// An answer and how long it took.
#[derive(Debug, Clone)]
pub struct Outcome<T> {
    pub result: Result<T, Failure>,
    pub took: Duration,
}

/// A sandbox's page.
#[derive(Debug, Clone)]
pub struct SandboxPage {
    pub page: Arc<Page>,
    pub has_guest: bool,
}

/// What has come of asking a unit, so far.
#[derive(Debug)]
pub struct Found {
    unit: Arc<Unit>,
    wish: Wish,
    begun: bool,
    pub sandbox: Option<Outcome<SandboxPage>>,
    /// In the order of the unit's tasks.
    pub tasks: Vec<Outcome<Arc<Page>>>,
}

impl Found {
    pub fn nothing(unit: Arc<Unit>, wish: Wish) -> Self {
        Self {
            tasks: Vec::with_capacity(unit.tasks.len()),
            unit,
            wish,
            begun: false,
            sandbox: None,
        }
    }

    /// Whether this is what somebody wants to know.
    pub fn fits(&self, unit: &Unit, wish: Wish) -> bool {
        self.unit.is_like(unit) && self.wish.pages >= wish.pages && self.wish.stats >= wish.stats
    }

    /// What is to be said where an answer is not there.
    pub fn missing(&self) -> Failure {
        let (reason, text) = match &self.sandbox {
            Some(Outcome { result: Ok(page), .. }) if !page.has_guest => (Reason::NoGuest, NO_GUEST),
            _ if self.begun => (Reason::Timeout, "it has not answered in time"),
            _ => (Reason::Skipped, "its turn did not come in time"),
        };
        Failure {
            reason,
            text: text.to_string(),
        }
    }
}

/// What asking takes, whatever the unit.
#[derive(Clone)]
pub struct Asker {
    /// How long all of a unit's answers are waited for.
    pub limit: Duration,
    pub bound: Bound,
    pub reader: Arc<PageReader>,
}

/// Asks all that is wanted of a unit, one after the other. What is not there after the limit is not waited for.
pub async fn ask(flight: Arc<Flight<Found>>, lane: Lane, asker: Asker) {
    let (unit, wish) = {
        let found = flight.found();
        (found.unit.clone(), found.wish)
    };
    let asking = async {
        flight.found().begun = true;
        let calls = ask_in_turn(&flight, &unit, wish, &lane, &asker);
        let _ = tokio::time::timeout(asker.limit, calls).await;
    };
    asker.bound.run(asking).await;
}

async fn ask_in_turn(flight: &Flight<Found>, unit: &Unit, wish: Wish, lane: &Lane, asker: &Asker) {
    if let Some(sandbox) = unit.sandbox.as_ref().filter(|_| wish.pages) {
        let started = Instant::now();
        let result = page(sandbox, lane, asker).await;
        // Asked for its statistics now, a shim would wait for its guest, and hold up whoever wants to end it.
        let hung = match &result {
            Ok(page) => !page.has_guest,
            Err(failure) => failure.reason == Reason::Timeout,
        };
        let took = started.elapsed();
        flight.found().sandbox = Some(Outcome { result, took });
        if hung {
            return;
        }
    }
    if !wish.stats {
        return;
    }
    for task in &unit.tasks {
        let started = Instant::now();
        let id = &task.bundle.id;
        let result = if unit.tells_network(task) {
            lane.sample(id).await
        } else {
            lane.sample_without_network(id).await
        };
        let page = result.map_err(Failure::from).and_then(|sample| {
            let page = containers::page(task, &sample.stats, SystemTime::now(), &asker.reader);
            let page = page.map_err(too_long)?;
            Ok(Arc::new(page))
        });
        let outcome = Outcome {
            result: page,
            took: started.elapsed(),
        };
        flight.found().tasks.push(outcome);
    }
}

/// A sandbox's page, for being served with others. Whether it runs is asked first: a stopped one may still have a
/// shim that serves its own families, and one that does not answer this is not asked for more.
async fn page(sandbox: &Sandbox, lane: &Lane, asker: &Asker) -> Result<SandboxPage, Failure> {
    let body = fetch(sandbox, lane, asker.limit, METRICS).await?;
    let has_guest = !is_katas(&body) || has_guest_family(&body);
    let text = |names: &Option<String>| names.clone().unwrap_or_default();
    let names = &sandbox.names;
    let relabel = Relabel::kata(
        &sandbox.id,
        &text(&names.uid),
        &text(&names.name),
        &text(&names.namespace),
    )
    .prefix("kata_shim_", &PREFIXED);
    let page = asker.reader.read(body, relabel).map_err(too_long)?;
    Ok(SandboxPage {
        page: Arc::new(page),
        has_guest,
    })
}

fn too_long(error: PageTooLong) -> Failure {
    Failure {
        reason: Reason::Malformed,
        text: error.to_string(),
    }
}

/// What a sandbox's monitor answers, where the sandbox runs and is not at risk from being asked.
pub async fn fetch(
    sandbox: &Sandbox,
    lane: &Lane,
    limit: Duration,
    path: &'static str,
) -> Result<Vec<u8>, Failure> {
    if sandbox.has_task {
        match lane.running(&sandbox.id).await {
            // A shim that is gone is left for its monitor to tell.
            Ok(_) | Err(AskError::NotRunning(NotRunning::Gone(_))) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (id, addresses) = (sandbox.id.clone(), sandbox.addresses.clone());
    let call = async move {
        let scrape = Scrape {
            sandbox: &id,
            addresses: &addresses,
            path,
            // The risk is in its metrics alone.
            force: path != METRICS,
        };
        scrape.run_to_its_end(limit, MOST).await
    };
    Ok(lane.call(call_name(path), call).await??)
}

fn call_name(path: &str) -> &'static str {
    match path {
        METRICS => "GET /metrics",
        _ => "GET /agent-url",
    }
}

/// Whether a page has a family of one of Kata's shims. What serves none may have no guest either.
fn is_katas(body: &[u8]) -> bool {
    has_family(body, "kata_shim_") || has_family(body, "kata_hypervisor_")
}

/// A failure to say of a task whose bundle does not tell where its shim is.
pub fn unreachable(task: &Container) -> Failure {
    Failure {
        reason: Reason::NoAddress,
        text: task.endpoint.as_ref().err().cloned().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_katas_is_told_from_others() {
        assert!(is_katas(include_bytes!(
            "../../crates/promtext/tests/fixtures/kata-3.30-go/metrics.txt"
        )));
        assert!(is_katas(include_bytes!(
            "../../crates/promtext/tests/fixtures/kata-3.30-rs/metrics.txt"
        )));
        assert!(!is_katas(b"# TYPE kata_shim_threads gauge\nnode_load1 1\n"));
    }
}
