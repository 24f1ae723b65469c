//! One scrape: all that is on the node is asked, and becomes one page.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use exporter_web::Source;
use promtext::{Filter, Kind, Merge, Page, Value, Writer};
use shimstat::node::{Container, ReadError};
use shimstat::shim::address::Address;
use shimstat::survey::{Bound, Flight, Shared, Survey};

use super::ask::{self, Asker, Failure, Found, Outcome, Reason, Wish};
use super::containers;
use super::figures::Figures;
use super::units::{Lister, Listing, Sandbox};
use crate::output;

/// How old an answer may be that a scraper shares with another that came a moment before.
const FRESH: Duration = Duration::from_secs(1);

/// Pages that took this much memory are worth being given back to the machine when they are gone.
const MUCH: u64 = 4 << 20;

/// Asks the node's shims, for all scrapers together.
pub struct Scraper {
    lister: Mutex<Lister>,
    survey: Survey,
    asker: Asker,
    units: Shared<Address, Found>,
    bodies: Shared<(Address, &'static str), Option<Result<Bytes, Failure>>>,
    figures: Figures,
    /// Says on stderr what fails.
    verbose: bool,
}

/// All that was gathered, ready to be written.
pub struct Gathered {
    pages: Vec<Arc<Page>>,
}

impl Scraper {
    /// Asks so many units at once, and waits `limit` for each answer.
    pub fn new(lister: Lister, limit: Duration, at_once: usize, verbose: bool) -> Self {
        Self {
            lister: Mutex::new(lister),
            survey: Survey::new(limit, at_once),
            asker: Asker {
                limit,
                bound: Bound::new(at_once),
                reader: Arc::default(),
            },
            units: Shared::new(FRESH),
            bodies: Shared::new(Duration::ZERO),
            figures: Figures::default(),
            verbose,
        }
    }

    /// What is on the node.
    pub fn list(&self) -> Result<Listing, ReadError> {
        self.lister.lock().unwrap_or_else(PoisonError::into_inner).list()
    }

    /// Asks all that is on the node, until the deadline. What has not answered by then shows as such.
    pub async fn gather(&self, wish: Wish, deadline: Instant) -> Result<Gathered, ReadError> {
        let started = Instant::now();
        self.figures.begun();
        let listing = self.list().inspect_err(|_| self.figures.failed())?;
        let mut round = Round {
            scraper: self,
            flights: Vec::with_capacity(listing.units.len()),
        };
        for unit in &listing.units {
            let lane = self.survey.lane(&unit.endpoint);
            let asker = self.asker.clone();
            let flight = self.units.join(
                unit.endpoint.address.clone(),
                Found::nothing(unit.clone(), wish),
                |found| found.fits(unit, wish),
                |flight| ask::ask(flight, lane, asker),
            );
            round.flights.push(flight);
        }
        let all = async {
            for flight in &round.flights {
                flight.ended().await;
            }
        };
        // What is not there by then is said to be missing.
        let _ = tokio::time::timeout_at(deadline.into(), all).await;
        let waited = started.elapsed();
        let gathered = self.compose(&listing, &round, wish, waited);
        self.figures.took(waited);
        Ok(gathered)
    }

    /// What one sandbox's monitor answers, as it came.
    pub async fn body(&self, sandbox: &str, path: &'static str, deadline: Instant) -> Result<Bytes, Failure> {
        let failure = |reason, text: String| Failure { reason, text };
        let listing = self
            .list()
            .map_err(|error| failure(Reason::Error, error.to_string()))?;
        let unit = listing
            .units
            .iter()
            .find(|unit| unit.sandbox.as_ref().is_some_and(|one| one.id == sandbox));
        let Some((unit, sandbox)) = unit.and_then(|unit| Some((unit, unit.sandbox.clone()?))) else {
            return Err(failure(
                Reason::Gone,
                format!("there is no sandbox {sandbox} with a monitor on this node"),
            ));
        };
        let lane = self.survey.lane(&unit.endpoint);
        let limit = self.asker.limit;
        let key = (unit.endpoint.address.clone(), path);
        let flight = self.bodies.join(
            key,
            None,
            |_| true,
            |flight| async move {
                let body = ask::fetch(&sandbox, &lane, limit, path).await;
                *flight.found() = Some(body.map(Bytes::from));
            },
        );
        let ended = tokio::time::timeout_at(deadline.into(), flight.ended()).await;
        let body = flight.found().clone();
        drop(flight);
        self.rest();
        match (ended, body) {
            (_, Some(body)) => body,
            _ => Err(failure(
                Reason::Timeout,
                "the sandbox has not answered in time".to_string(),
            )),
        }
    }

    fn compose(&self, listing: &Listing, round: &Round<'_>, wish: Wish, waited: Duration) -> Gathered {
        let mut rows = Rows::default();
        let mut pages = Vec::with_capacity(1 + 2 * listing.units.len());
        for (unit, flight) in listing.units.iter().zip(&round.flights) {
            let found = flight.found();
            if let Some(sandbox) = unit.sandbox.as_ref().filter(|_| wish.pages) {
                let outcome = match &found.sandbox {
                    Some(outcome) => outcome.clone(),
                    None => Outcome {
                        result: Err(found.missing()),
                        took: waited,
                    },
                };
                pages.extend(outcome.result.as_ref().ok().map(|page| page.page.clone()));
                rows.sandboxes.push((sandbox.clone(), outcome));
            }
            for (index, task) in unit.tasks.iter().enumerate().filter(|_| wish.stats) {
                let failure = match found.tasks.get(index).map(|outcome| &outcome.result) {
                    Some(Ok(page)) => {
                        pages.push(page.clone());
                        None
                    }
                    Some(Err(failure)) => Some(failure.clone()),
                    None => Some(found.missing()),
                };
                rows.tasks.push((task.clone(), failure));
            }
        }
        for task in listing.unreachable.iter().filter(|_| wish.stats) {
            rows.tasks.push((task.clone(), Some(ask::unreachable(task))));
        }
        if self.verbose {
            rows.tell();
        }
        let mut writer = Writer::default();
        self.figures
            .write(&mut writer, listing.sandboxes().len(), tasks_alive());
        rows.write(&mut writer);
        containers::describe(&mut writer);
        // Ours goes first: what it says of a family counts. It is shorter than the longest page by far.
        if let Ok(own) = writer.page() {
            pages.insert(0, Arc::new(own));
        }
        Gathered { pages }
    }

    /// Closes what is open to shims, once nobody needs it.
    fn rest(&self) {
        if self.units.is_idle() && self.bodies.is_idle() {
            self.survey.rest();
        }
    }
}

impl Gathered {
    /// The page of the families that are asked for, written as it is taken.
    pub fn page(self, filter: &Filter) -> MergedPage {
        MergedPage {
            merge: Some(Merge::new(self.pages, filter)),
            written: 0,
        }
    }
}

/// The flights of one scrape. They are let go when it is over, also where its client goes away meanwhile.
struct Round<'a> {
    scraper: &'a Scraper,
    flights: Vec<Arc<Flight<Found>>>,
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        self.flights.clear();
        self.scraper.rest();
    }
}

/// How many of the runtime's tasks there are.
fn tasks_alive() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// Which sandboxes and containers answered.
#[derive(Default)]
struct Rows {
    sandboxes: Vec<(Sandbox, Outcome<ask::SandboxPage>)>,
    tasks: Vec<(Arc<Container>, Option<Failure>)>,
}

impl Rows {
    fn write(&self, writer: &mut Writer) {
        let (up, took, failure, lost) = (
            (
                "kata_monitor_sandbox_up",
                "Whether the sandbox's monitor answered.",
            ),
            (
                "kata_monitor_sandbox_scrape_duration_seconds",
                "Time until the sandbox's answer was there, or was no longer waited for.",
            ),
            (
                "kata_monitor_sandbox_failure",
                "Why the sandbox did not answer, or not with all there is.",
            ),
            (
                "kata_monitor_sandbox_lost_lines",
                "Lines of the sandbox's answer that are not valid and not served.",
            ),
        );
        for (sandbox, outcome) in &self.sandboxes {
            let labels = sandbox_labels(sandbox);
            let page = outcome.result.as_ref();
            writer
                .family(up.0, Kind::Gauge, up.1)
                .sample(&labels, page.is_ok());
            let nanoseconds = u64::try_from(outcome.took.as_nanos()).unwrap_or(u64::MAX);
            writer
                .family(took.0, Kind::Gauge, took.1)
                .sample(&labels, Value::Nanoseconds(nanoseconds));
            let reason = match page {
                Ok(page) => (!page.has_guest).then_some(Reason::NoGuest),
                Err(failure) => Some(failure.reason),
            };
            if let Some(reason) = reason {
                let labels = [&labels[..], &[("reason", reason.label())]].concat();
                writer
                    .family(failure.0, Kind::Gauge, failure.1)
                    .sample(&labels, 1u64);
            }
            if let Ok(page) = page {
                let count = page.page.tally().lost as u64;
                writer.family(lost.0, Kind::Gauge, lost.1).sample(&labels, count);
            }
        }
        let (up, failure) = (
            (
                "kata_monitor_container_up",
                "Whether there are statistics of the container.",
            ),
            (
                "kata_monitor_container_failure",
                "Why there are no statistics of the container.",
            ),
        );
        for (task, missing) in &self.tasks {
            let mut labels: Vec<_> = containers::labels(task).collect();
            labels.extend(task.sandbox_id().map(|id| ("sandbox_id", id)));
            writer
                .family(up.0, Kind::Gauge, up.1)
                .sample(&labels, missing.is_none());
            if let Some(missing) = missing {
                labels.push(("reason", missing.reason.label()));
                writer
                    .family(failure.0, Kind::Gauge, failure.1)
                    .sample(&labels, 1u64);
            }
        }
    }

    /// Says on stderr what has failed, and why.
    fn tell(&self) {
        for (sandbox, outcome) in &self.sandboxes {
            match &outcome.result {
                Err(failure) => output::notice(&format!("sandbox {}: {}", sandbox.id, failure.text)),
                Ok(page) if !page.has_guest => {
                    output::notice(&format!("sandbox {}: {}", sandbox.id, ask::NO_GUEST))
                }
                Ok(page) => {
                    if let Some(first) = page.page.tally().first {
                        output::notice(&format!("sandbox {}: its page: {first}", sandbox.id));
                    }
                }
            }
        }
        for (task, failure) in &self.tasks {
            if let Some(failure) = failure {
                output::notice(&format!("container {}: {}", task.bundle.id, failure.text));
            }
        }
    }
}

/// Kata-monitor's labels of a sandbox, empty where they are not known.
fn sandbox_labels(sandbox: &Sandbox) -> [(&str, &str); 4] {
    fn text(name: &Option<String>) -> &str {
        name.as_deref().unwrap_or_default()
    }
    let names = &sandbox.names;
    [
        ("sandbox_id", &sandbox.id),
        ("cri_uid", text(&names.uid)),
        ("cri_name", text(&names.name)),
        ("cri_namespace", text(&names.namespace)),
    ]
}

/// The page of a scrape, on its way out.
pub struct MergedPage {
    merge: Option<Merge<Arc<Page>>>,
    written: u64,
}

impl Source for MergedPage {
    fn fill(&mut self, out: &mut Vec<u8>, least: usize) -> bool {
        let before = out.len();
        let more = self.merge.as_mut().is_some_and(|merge| merge.fill(out, least));
        self.written += (out.len() - before) as u64;
        more
    }
}

impl Drop for MergedPage {
    fn drop(&mut self) {
        self.merge = None;
        if self.written > MUCH {
            give_back();
        }
    }
}

/// Gives memory that is free back to the machine: a scrape of thousands of sandboxes is over in a second, and there
/// is none for the next quarter of a minute.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it changes nothing that a program can see of its memory.
    unsafe {
        libc::malloc_trim(0);
    }
}
