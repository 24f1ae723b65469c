//! One scrape: all that is on the node is asked, and becomes one page.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use exporter_web::Source;
use promtext::{Filter, Kind, Merge, Page, Relabel, Value, Writer};
use shimstat::node::{Container, NetworkNamespace, Pod, ReadError, Runtime};
use shimstat::survey::{ConcurrencyLimit, Flight, Hidden, MonitorQuestion, SingleFlight, Survey};
use tokio::time::Instant;

use super::container_metrics;
use super::host::HostReader;
use super::last_scrape::{LastScrape, PodResult};
use super::page_budget::{ALL_PAGES, Charge, PageBudget};
use super::pod::{self, Asker, Outcome, PodAnswers, SandboxPage};
use super::profile::Selection;
use super::reason::{NoAnswer, Reason};
use super::self_metrics::ScrapeFigures;
use super::vm;
use crate::exit::hidden;
use crate::output;
use crate::sandbox_page::{self, MetricsSource, SandboxMetrics};

/// How old an answer may be that a scraper shares with another that came a moment before.
pub const FRESH: Duration = Duration::from_secs(1);

/// Pages that took this much memory are worth being given back to the machine when they are gone.
const MUCH: u64 = 4 << 20;

/// Lists the pods of the node.
pub type ListPods = Box<dyn FnMut() -> Result<Vec<Pod>, ReadError> + Send>;

/// Asks the node's shims, for all scrapers together.
pub struct Scraper {
    list: Mutex<ListPods>,
    asker: Asker,
    pods: SingleFlight<PathBuf, PodAnswers>,
    bodies: SingleFlight<(PathBuf, MonitorQuestion), Option<Result<Bytes, NoAnswer>>>,
    figures: ScrapeFigures,
    last: Mutex<Option<Arc<LastScrape>>>,
    /// Says on stderr what fails.
    verbose: bool,
    /// The sandboxes of which it was said why their guests cannot be asked.
    told: Mutex<HashSet<PathBuf>>,
    said_hidden: Once,
}

/// All that was gathered, ready to be written.
pub struct Gathered {
    pages: Vec<Arc<Page>>,
    charges: Vec<Arc<Charge>>,
}

impl Scraper {
    /// Asks as many pods at once as `concurrency` allows, and waits `limit` for all answers of a pod.
    pub fn new(
        list: ListPods,
        survey: Survey,
        limit: Duration,
        concurrency: ConcurrencyLimit,
        verbose: bool,
    ) -> Self {
        Self {
            list: Mutex::new(list),
            asker: Asker {
                survey: survey.keeping_connections().measuring(),
                limit,
                concurrency,
                reader: Arc::default(),
                budget: Arc::new(PageBudget::new(ALL_PAGES)),
                sandboxes: 0,
                vms: Arc::default(),
                host: HostReader::default(),
            },
            pods: SingleFlight::new(FRESH),
            bodies: SingleFlight::new(Duration::ZERO),
            figures: ScrapeFigures::default(),
            last: Mutex::default(),
            verbose,
            told: Mutex::default(),
            said_hidden: Once::new(),
        }
    }

    /// The pods of the node.
    fn list(&self) -> Result<Vec<Arc<Pod>>, ReadError> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(list()?.into_iter().map(Arc::new).collect())
    }

    /// What the last scrape of everything found; `None` before the first.
    pub fn last(&self) -> Option<Arc<LastScrape>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The pods whose sandbox has a monitor, by id.
    pub fn sandboxes(&self) -> Result<Vec<Arc<Pod>>, ReadError> {
        let mut pods = self.list()?;
        pods.retain(|pod| !pod.monitor.is_empty());
        pods.sort_by(|one, other| one.id.cmp(&other.id));
        Ok(pods)
    }

    /// Asks all that is on the node, until the deadline. What has not answered by then shows as such.
    pub async fn gather(&self, selection: &Selection, deadline: Instant) -> Result<Gathered, ReadError> {
        let wish = selection.wish;
        let started = Instant::now();
        self.figures.begun();
        let pods = self.list().inspect_err(|_| self.figures.failed())?;
        let mut round = Round {
            scraper: self,
            flights: Vec::with_capacity(pods.len()),
        };
        let asker = Asker {
            sandboxes: pods.iter().filter(|pod| !pod.monitor.is_empty()).count(),
            ..self.asker.clone()
        };
        for pod in &pods {
            let asker = asker.clone();
            let flight = self.pods.join(
                pod.key.clone(),
                PodAnswers::nothing(pod.clone(), wish),
                |found| found.fits(pod, wish),
                |flight| asker.ask(flight),
            );
            round.flights.push(flight);
        }
        let all = async {
            for flight in &round.flights {
                flight.ended().await;
            }
        };
        // What is not there by then is said to be missing.
        let _ = tokio::time::timeout_at(deadline, all).await;
        let waited = started.elapsed();
        let gathered = self.compose(&pods, &round, selection, waited, asker.sandboxes);
        self.figures.took(waited);
        Ok(gathered)
    }

    /// What one sandbox's monitor answers, as it came. The id of a container in it leads there as well.
    pub async fn body(
        &self,
        id: &str,
        question: MonitorQuestion,
        deadline: Instant,
    ) -> Result<Bytes, NoAnswer> {
        let pods = self
            .list()
            .map_err(|error| NoAnswer::new(Reason::Error, error.to_string()))?;
        let with_monitor = || pods.iter().filter(|pod| !pod.monitor.is_empty());
        let own = with_monitor().find(|pod| pod.id == id);
        let holds = |pod: &&Arc<Pod>| pod.containers.iter().any(|container| container.id() == id);
        let Some(pod) = own.or_else(|| with_monitor().find(holds)).cloned() else {
            let text = format!("there is no sandbox {id} with a monitor on this node");
            return Err(NoAnswer::new(Reason::Gone, text));
        };
        let survey = self.asker.survey.clone();
        let flight = self.bodies.join(
            (pod.key.clone(), question),
            None,
            |_| true,
            |flight| async move {
                let body = match question {
                    MonitorQuestion::Metrics => match sandbox_page::ask(&survey, &pod, pod::MOST).await {
                        // A part is not the page of one sandbox.
                        Ok(SandboxMetrics {
                            source: MetricsSource::Host { why, .. },
                            ..
                        }) => Err(why),
                        metrics => metrics.map(|metrics| metrics.body),
                    },
                    question => survey
                        .ask_monitor(&pod, question, pod::MOST)
                        .await
                        .map(|page| page.body),
                };
                *flight.found() = Some(body.map(Bytes::from).map_err(NoAnswer::from));
            },
        );
        let ended = tokio::time::timeout_at(deadline, flight.ended()).await;
        let body = flight.found().clone();
        drop(flight);
        self.rest();
        match (ended, body) {
            (_, Some(body)) => body,
            _ => Err(NoAnswer::new(
                Reason::Timeout,
                "the sandbox has not answered in time",
            )),
        }
    }

    fn compose(
        &self,
        pods: &[Arc<Pod>],
        round: &Round<'_>,
        selection: &Selection,
        waited: Duration,
        sandboxes: usize,
    ) -> Gathered {
        let wish = selection.wish;
        let mut rows = Rows {
            has_runtimes: selection.filter.may_fit("kata_monitor_container_info"),
            ..Rows::default()
        };
        let mut results = Vec::with_capacity(pods.len());
        let (mut pages, mut charges) = (Vec::with_capacity(1 + 3 * pods.len()), Vec::new());
        self.asker.vms.keep(pods.iter().map(|pod| pod.key.as_path()));
        let networks = network_tellers(pods, &round.flights);
        for (pod, flight) in pods.iter().zip(&round.flights) {
            let found = flight.found();
            let mut result = PodResult {
                pod: pod.clone(),
                failure: None,
                containers: Vec::with_capacity(found.containers.len()),
            };
            if wish.pages && !pod.monitor.is_empty() {
                let outcome = found.sandbox.clone().unwrap_or_else(|| Outcome {
                    result: Err(found.missing()),
                    took: waited,
                });
                match &outcome.result {
                    Ok(page) => {
                        pages.push(page.page.clone());
                        charges.extend(page.charge.clone());
                        result.failure.clone_from(&page.shortfall);
                    }
                    Err(failure) => result.failure = Some(failure.clone()),
                }
                rows.sandboxes.push((pod.clone(), outcome));
            } else if wish.stats && !pod.monitor.is_empty() && pod.first().is_some() {
                // The first of its containers is its own.
                let reason = match found.containers.first().map(|outcome| &outcome.result) {
                    Some(Ok(_)) => None,
                    Some(Err(failure)) => Some(failure.reason),
                    None => Some(found.missing().reason),
                };
                rows.without_page.push((pod.clone(), reason));
            }
            pages.extend(found.vm.clone().filter(|_| wish.vm.is_some()));
            for (index, container) in pod.all().enumerate().filter(|_| wish.stats) {
                let answer = match found.containers.get(index).map(|outcome| &outcome.result) {
                    Some(Ok(answer)) => {
                        let teller = answer.network.and_then(|network| networks.get(&network));
                        pages.push(match teller {
                            Some(teller) if *teller != &pod.key => without_network(&answer.page),
                            _ => answer.page.clone(),
                        });
                        Ok(answer.figures)
                    }
                    Some(Err(failure)) => Err(failure.clone()),
                    None => Err(found.missing()),
                };
                rows.containers.push((container.clone(), answer.clone().err()));
                result.containers.push(answer);
            }
            results.push(result);
        }
        if wish.pages && wish.stats {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some(Arc::new(LastScrape::new(results, waited, last.as_deref())));
        }
        if self.verbose {
            rows.tell();
            if wish.pages {
                self.tell_of_guests(&rows);
            }
        }
        let mut writer = Writer::default();
        let induced = self.asker.survey.induced_cost().unwrap_or_default();
        self.figures.write(&mut writer, sandboxes, tasks_alive(), induced);
        rows.write(&mut writer);
        self.write_visibility(&mut writer);
        container_metrics::describe(&mut writer);
        vm::describe(&mut writer);
        // Ours goes first: what it says of a family counts. It is shorter than the longest page by far.
        if let Ok(own) = Page::read(writer.into_text(), Relabel::default()) {
            pages.insert(0, Arc::new(own));
        }
        Gathered { pages, charges }
    }

    /// Says once of each sandbox on stderr why its guest cannot be asked.
    fn tell_of_guests(&self, rows: &Rows) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let here: HashSet<_> = rows.sandboxes.iter().map(|(pod, _)| &pod.key).collect();
        told.retain(|key| here.contains(key));
        for (pod, outcome) in &rows.sandboxes {
            if let Ok(SandboxPage {
                no_guest: Some(why), ..
            }) = &outcome.result
                && told.insert(pod.key.clone())
            {
                output::notice(&format!(
                    "sandbox {}: {}",
                    pod.id,
                    sandbox_page::without_guest(why)
                ));
            }
        }
    }

    /// Tells whether this is a place from which processes can be seen; where it is not, the first time also on stderr.
    fn write_visibility(&self, writer: &mut Writer) {
        let survey = &self.asker.survey;
        let mut tell = |name, help, seen: Option<bool>, why| {
            let Some(seen) = seen else { return };
            if !seen {
                self.said_hidden.call_once(|| output::notice(hidden(why)));
            }
            writer.family(name, Kind::Gauge, help).sample(&[], seen);
        };
        tell(
            "kata_monitor_host_pids_visible",
            "Whether the pids that shims tell are those of processes here; 0: run it with the host's pids.",
            survey.sees_pids(),
            Hidden::Pids,
        );
        tell(
            "kata_monitor_host_processes_readable",
            "Whether containers' processes may be looked at; 0: it lacks the capability CAP_SYS_PTRACE.",
            survey.may_look_at_processes(),
            Hidden::Forbidden,
        );
    }

    /// Closes what is open to shims, once nobody needs it.
    fn rest(&self) {
        if self.pods.is_idle() && self.bodies.is_idle() {
            self.asker.survey.rest();
        }
    }
}

impl Gathered {
    /// The page of the families that are asked for, written as it is taken.
    pub fn page(self, selection: &Selection) -> MergedPage {
        let merge = Merge::new(self.pages, &selection.filter);
        let merge = match selection.is_lean {
            true => merge.without_help(),
            false => merge,
        };
        MergedPage {
            merge: Some(merge),
            _charges: self.charges,
            written: 0,
        }
    }
}

/// The flights of one scrape. They are let go when it is over, also where its client goes away meanwhile.
struct Round<'a> {
    scraper: &'a Scraper,
    flights: Vec<Arc<Flight<PodAnswers>>>,
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

/// Which pod tells of a network that several pods are in (Docker's `--network container:`, pods of CRI-O with a network in
/// common): the one that was there first, whose network it most likely is.
fn network_tellers<'a>(
    pods: &'a [Arc<Pod>],
    flights: &[Arc<Flight<PodAnswers>>],
) -> HashMap<NetworkNamespace, &'a PathBuf> {
    let mut tellers: HashMap<NetworkNamespace, &Arc<Pod>> = HashMap::new();
    for (pod, flight) in pods.iter().zip(flights) {
        let found = flight.found();
        let told = found
            .containers
            .iter()
            .filter_map(|outcome| outcome.result.as_ref().ok()?.network);
        for network in told {
            let teller = tellers.entry(network).or_insert(pod);
            let age = |pod: &Pod| {
                (
                    pod.first().and_then(|first| first.bundle.created().ok()),
                    pod.key.clone(),
                )
            };
            if teller.key != pod.key && age(pod) < age(teller) {
                *teller = pod;
            }
        }
    }
    tellers
        .into_iter()
        .map(|(network, pod)| (network, &pod.key))
        .collect()
}

/// The same page without the families of the network, which another pod tells.
fn without_network(page: &Arc<Page>) -> Arc<Page> {
    let filter = Filter::parse("-container_network_");
    let text = Merge::new(vec![page.clone()], &filter).into_bytes();
    Page::read(text, Relabel::default()).map_or_else(|_| page.clone(), Arc::new)
}

/// What a container's runtime is, as far as it is known.
fn runtime_labels(runtime: &Runtime) -> impl Iterator<Item = (&'static str, &str)> {
    let all = [
        ("runtime", Some(runtime.name.as_str())),
        ("hypervisor", runtime.hypervisor.as_deref()),
        ("shim", runtime.kata_shim_word()),
        ("machine", runtime.machine_word()),
    ];
    all.into_iter().filter_map(|(key, value)| Some((key, value?)))
}

/// Which sandboxes and containers answered.
#[derive(Default)]
struct Rows {
    sandboxes: Vec<(Arc<Pod>, Outcome<SandboxPage>)>,
    /// Those whose pages were not asked for, and why their own containers have no statistics.
    without_page: Vec<(Arc<Pod>, Option<Reason>)>,
    containers: Vec<(Arc<Container>, Option<NoAnswer>)>,
    /// Whether the containers' runtimes are told.
    has_runtimes: bool,
}

impl Rows {
    fn write(&self, writer: &mut Writer) {
        let (up, took, failure, lost) = (
            (
                "kata_monitor_sandbox_up",
                "Whether the sandbox answered: its monitor, or in the lean profile its shim or guest.",
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
            let labels = pod::labels(sandbox);
            let page = outcome.result.as_ref();
            writer
                .family(up.0, Kind::Gauge, up.1)
                .sample(&labels, page.is_ok_and(SandboxPage::is_told));
            let nanoseconds = u64::try_from(outcome.took.as_nanos()).unwrap_or(u64::MAX);
            writer
                .family(took.0, Kind::Gauge, took.1)
                .sample(&labels, Value::Nanoseconds(nanoseconds));
            let reason = match page {
                Ok(page) => page.shortfall.as_ref().map(|shortfall| shortfall.reason),
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
        for (sandbox, reason) in &self.without_page {
            let labels = pod::labels(sandbox);
            writer
                .family(up.0, Kind::Gauge, up.1)
                .sample(&labels, reason.is_none());
            if let Some(reason) = reason {
                let labels = [&labels[..], &[("reason", reason.label())]].concat();
                writer
                    .family(failure.0, Kind::Gauge, failure.1)
                    .sample(&labels, 1u64);
            }
        }
        let info = (
            "kata_monitor_container_info",
            "What runs the container: runtime, hypervisor, which of Kata's shims, kind of machine.",
        );
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
        for (container, missing) in &self.containers {
            let mut labels: Vec<_> = container_metrics::labels(container).collect();
            labels.extend(container.sandbox_id().map(|id| ("sandbox_id", id)));
            writer
                .family(up.0, Kind::Gauge, up.1)
                .sample(&labels, missing.is_none());
            if self.has_runtimes
                && let Some(runtime) = container.remembered_runtime()
            {
                let labels: Vec<_> = labels.iter().copied().chain(runtime_labels(&runtime)).collect();
                writer.family(info.0, Kind::Gauge, info.1).sample(&labels, 1u64);
            }
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
                Ok(SandboxPage {
                    shortfall: Some(shortfall),
                    ..
                }) => output::notice(&format!("sandbox {}: {}", sandbox.id, shortfall.text)),
                Ok(page) => {
                    if let Some(first) = page.page.tally().first {
                        output::notice(&format!("sandbox {}: its page: {first}", sandbox.id));
                    }
                }
            }
        }
        for (container, failure) in &self.containers {
            if let Some(failure) = failure {
                output::notice(&format!("container {}: {}", container.id(), failure.text));
            }
        }
    }
}

/// The page of a scrape, on its way out.
pub struct MergedPage {
    merge: Option<Merge<Arc<Page>>>,
    _charges: Vec<Arc<Charge>>,
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
