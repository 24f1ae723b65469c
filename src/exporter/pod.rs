//! Asking one pod.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use promtext::{Page, PageReader, Relabel};
use shimstat::node::processes::{ResourceUse, VmParts};
use shimstat::node::{Container, NetworkNamespace, Pod, interfaces_of_task};
use shimstat::shim::task::TaskState;
use shimstat::stats::Stats;
use shimstat::survey::{
    AskError, ConcurrencyLimit, Flight, Network, NoGuest, Origin, Sample, Statistics, Survey, Via,
};
use tokio::time::Instant;

use super::container_metrics;
use super::host::HostReader;
use super::last_scrape::ContainerFigures;
use super::page_budget::{Charge, PageBudget};
use super::reason::{NoAnswer, Reason};
use super::vm::{Uses, VmRequest, Vms};
use crate::sandbox_page::{self, MetricsSource, has_family, has_guest_family};

/// The longest page that a sandbox may have, in bytes. Kata's have 17 to 135 KB. A sandbox that sends more is not
/// to use up the memory that the others need.
pub const MOST: usize = 8 << 20;

/// Families that a sandbox's page may not have under these names: those of its shim's own process, as kata-monitor
/// has it, and those that are ours to tell. A guest is not to pass its figures off as another pod's.
const PREFIXED: [&str; 5] = ["go_", "process_", "container_", "kata_monitor_", "kata_sandbox_"];

/// What is wanted of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// The page of the sandbox.
    pub pages: bool,
    /// The statistics of the tasks.
    pub stats: bool,
    /// What the virtual machine uses of this host. It takes the statistics too.
    pub vm: Option<VmParts>,
    /// What this host says of those tasks that run on it, beyond their statistics.
    pub host: bool,
}

/// What is said of a sandbox whose page has no family of its guest.
const NO_GUEST: &str =
    "its page has no family of the guest (kata_agent_*, kata_guest_*): the guest may be hung";

/// An answer and how long it took.
#[derive(Debug, Clone)]
pub struct Outcome<T> {
    pub result: Result<T, NoAnswer>,
    pub took: Duration,
}

/// A sandbox's page.
#[derive(Debug, Clone)]
pub struct SandboxPage {
    pub page: Arc<Page>,
    /// Held for as long as the page is.
    pub charge: Option<Arc<Charge>>,
    /// Why not all is in it.
    pub shortfall: Option<NoAnswer>,
    /// Why its guest could not be asked first whether it lives.
    pub no_guest: Option<Arc<NoGuest>>,
}

impl SandboxPage {
    /// Whether its monitor or its agent has told it, and not the host alone.
    pub fn is_told(&self) -> bool {
        self.shortfall
            .as_ref()
            .is_none_or(|shortfall| shortfall.reason == Reason::NoGuest)
    }

    /// Whether its guest may be hung, as far as it shows.
    fn lacks_guest(&self) -> bool {
        self.shortfall
            .as_ref()
            .is_some_and(|shortfall| shortfall.reason == Reason::NoGuest)
    }
}

/// A container's page, and what people look for in it.
#[derive(Debug, Clone)]
pub struct ContainerPage {
    pub page: Arc<Page>,
    /// The network that is told with it.
    pub network: Option<NetworkNamespace>,
    pub figures: ContainerFigures,
}

/// What has come of asking a pod, so far.
#[derive(Debug)]
pub struct PodAnswers {
    pod: Arc<Pod>,
    wish: Wish,
    begun: bool,
    pub sandbox: Option<Outcome<SandboxPage>>,
    /// In the order of [`Pod::all`].
    pub containers: Vec<Outcome<ContainerPage>>,
    /// What its virtual machine uses, where it has one.
    pub vm: Option<Arc<Page>>,
}

impl PodAnswers {
    pub fn nothing(pod: Arc<Pod>, wish: Wish) -> Self {
        Self {
            containers: Vec::with_capacity(pod.all().count()),
            pod,
            wish,
            begun: false,
            sandbox: None,
            vm: None,
        }
    }

    /// Whether this is what was asked for.
    pub fn fits(&self, pod: &Pod, wish: Wish) -> bool {
        pod.is_unchanged(&self.pod)
            && self.wish.pages >= wish.pages
            && self.wish.stats >= wish.stats
            && wish
                .vm
                .is_none_or(|wanted| self.wish.vm.is_some_and(|read| read.has_all(wanted)))
            && self.wish.host >= wish.host
    }

    /// What is to be said where an answer is not there.
    pub fn missing(&self) -> NoAnswer {
        match &self.sandbox {
            Some(Outcome { result: Ok(page), .. }) if page.lacks_guest() => {
                NoAnswer::new(Reason::NoGuest, NO_GUEST)
            }
            _ if self.begun => NoAnswer::new(Reason::Timeout, "it has not answered in time"),
            _ => NoAnswer::new(Reason::Skipped, "its turn did not come in time"),
        }
    }
}

/// What asking takes, whatever the pod.
#[derive(Clone)]
pub struct Asker {
    pub survey: Survey,
    /// How long all of a pod's answers are waited for.
    pub limit: Duration,
    pub concurrency: ConcurrencyLimit,
    pub reader: Arc<PageReader>,
    pub budget: Arc<PageBudget>,
    /// How many sandboxes have a page.
    pub sandboxes: usize,
    pub host: HostReader,
    pub vms: Arc<Vms>,
}

/// What a pod's containers said that the figures of its virtual machine need.
#[derive(Default)]
struct Told {
    /// The pid of the sandbox's task.
    task_pid: Option<u32>,
    /// `None` where one of them is not known.
    uses: Option<Uses>,
}

impl Asker {
    /// Asks all that is wanted of a pod, one question after the other. What is not there after the limit is not waited
    /// for.
    pub async fn ask(self, flight: Arc<Flight<PodAnswers>>) {
        let (pod, wish) = {
            let found = flight.found();
            (found.pod.clone(), found.wish)
        };
        let asking = pin!(async {
            flight.found().begun = true;
            let mut told = Told::default();
            // Thousands of pods may wait for their turn: what asking takes is there once it comes.
            let asking = Box::pin(self.ask_in_turn(&flight, &pod, wish, &mut told));
            let _ = tokio::time::timeout(self.limit, asking).await;
            // Without the host's pids it would be other processes that are looked at.
            if let Some(wanted) = wish.vm.filter(|_| self.survey.sees_pids() != Some(false)) {
                flight.found().vm = self.vm(&pod, &told, wanted).map(Arc::new);
            }
        });
        self.concurrency.run(asking).await;
    }

    async fn ask_in_turn(&self, flight: &Flight<PodAnswers>, pod: &Pod, wish: Wish, told: &mut Told) {
        if wish.pages && !pod.monitor.is_empty() {
            let started = Instant::now();
            let result = self.page(pod).await;
            // Asked for its statistics now, a shim would wait for its guest, and hold up whoever wants to end it.
            let hung = match &result {
                Ok(page) => page.lacks_guest(),
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
        let mut uses = Some(Uses::new());
        // All containers of a pod are in one network, which is told of once: with the first that knows it.
        let mut network = Network::Interfaces;
        for container in pod.all() {
            let started = Instant::now();
            let question = Statistics {
                network,
                via: Via::Both,
            };
            let mut answer = self.survey.ask(container, question).await;
            let is_unmeasured = matches!(answer, Err(AskError::NoStatistics(_)));
            if let Err(AskError::NoStatistics(state)) = answer {
                answer = Ok(unmeasured(state, network));
            }
            if container.is_sandbox() {
                told.task_pid = answer.as_ref().ok().map(|sample| sample.state.pid);
            }
            match &answer {
                // A sandbox that is no container, so that it uses nothing as one.
                Ok(_) if is_unmeasured => {}
                Ok(sample) => uses.iter_mut().for_each(|uses| {
                    uses.push((container.id().to_string(), resource_use(&sample.stats)));
                }),
                // One that has stopped uses nothing.
                Err(AskError::NotRunning(_)) => {}
                Err(_) => uses = None,
            }
            let result = match answer {
                Ok(mut sample) => {
                    // A reply may have it, whether it is asked for or not.
                    if network == Network::None {
                        sample.stats.network = None;
                    }
                    if sample.stats.network.is_some() {
                        network = Network::None;
                    }
                    self.container_page(container, &sample, wish).await
                }
                Err(error) => Err(error.into()),
            };
            // Without its spec it would have another's labels, or none.
            let result = match container.unread() {
                Some(error) => Err(NoAnswer::new(Reason::Error, error.to_string())),
                None => result,
            };
            let outcome = Outcome {
                result,
                took: started.elapsed(),
            };
            flight.found().containers.push(outcome);
        }
        told.uses = uses.filter(|_| pod.sandbox.is_some());
    }

    /// What the pod's virtual machine uses of this host.
    fn vm(&self, pod: &Pod, told: &Told, wanted: VmParts) -> Option<Page> {
        let labels = Relabel::new(labels(pod)).ok()?;
        let request = VmRequest {
            pod,
            task_pid: told.task_pid,
            uses: told.uses.as_ref(),
            wanted,
        };
        self.vms.look(&request, labels, &self.reader)?.ok()
    }

    /// A container's page.
    async fn container_page(
        &self,
        container: &Arc<Container>,
        sample: &Sample,
        wish: Wish,
    ) -> Result<ContainerPage, NoAnswer> {
        let host = match wish.host {
            true => self.host.read(container, sample.state.pid).await,
            false => None,
        };
        let now = SystemTime::now();
        let page = container_metrics::page(container, &sample.stats, host.as_ref(), now, &self.reader)?;
        let network = sample.stats.network.as_ref();
        Ok(ContainerPage {
            page: Arc::new(page),
            network: network.and_then(|_| NetworkNamespace::of_task(sample.state.pid)),
            figures: ContainerFigures::of(sample),
        })
    }

    /// A sandbox's page, for being served with others.
    async fn page(&self, pod: &Pod) -> Result<SandboxPage, NoAnswer> {
        let answer = sandbox_page::ask(&self.survey, pod, MOST).await?;
        let has_guest = !is_katas(&answer.body) || has_guest_family(&answer.body);
        let no_guest = match &answer.source {
            MetricsSource::Monitor { no_guest, .. } => no_guest.clone(),
            MetricsSource::Agent { .. } | MetricsSource::Host { .. } => None,
        };
        let shortfall = match answer.source {
            MetricsSource::Monitor { .. } | MetricsSource::Agent { .. } => {
                (!has_guest).then(|| NoAnswer::new(Reason::NoGuest, NO_GUEST))
            }
            MetricsSource::Host { why, guest } => Some(NoAnswer {
                reason: Reason::from(&why),
                text: match guest {
                    Some(guest) => format!("{why}; {guest}"),
                    None => why.to_string(),
                },
            }),
        };
        let relabel = Relabel::new(labels(pod))?.prefix("kata_shim_", PREFIXED)?;
        let page = self.reader.read(answer.body, relabel)?;
        let charge = self.budget.admit(page.memory(), self.sandboxes)?;
        Ok(SandboxPage {
            page: Arc::new(page),
            charge: charge.map(Arc::new),
            shortfall,
            no_guest,
        })
    }
}

fn resource_use(stats: &Stats) -> ResourceUse {
    ResourceUse {
        cpu: stats.cpu.usage.total.map(Duration::from_nanos),
        memory: stats.memory.usage.usage,
    }
}

/// What is known of a sandbox of which its shim has no statistics: that it runs, and its pod's network.
fn unmeasured(state: TaskState, network: Network) -> Sample {
    let stats = Stats {
        network: match network {
            Network::None => None,
            Network::Interfaces | Network::InterfacesAndSockets => interfaces_of_task(state.pid),
        },
        ..Stats::default()
    };
    Sample {
        state,
        stats,
        taken: Instant::now().into_std(),
        origin: Origin::Shim,
    }
}

/// kata-monitor's labels of a sandbox's metrics, empty if not known.
pub fn labels(sandbox: &Pod) -> [(&str, &str); 4] {
    fn text(name: &Option<String>) -> &str {
        name.as_deref().unwrap_or_default()
    }
    let names = sandbox.names();
    [
        ("sandbox_id", &sandbox.id),
        ("cri_uid", text(&names.uid)),
        ("cri_name", text(&names.name)),
        ("cri_namespace", text(&names.namespace)),
    ]
}

/// Whether a page has a family of one of Kata's shims. What serves none may have no guest either.
fn is_katas(body: &[u8]) -> bool {
    has_family(body, "kata_shim_") || has_family(body, "kata_hypervisor_")
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
