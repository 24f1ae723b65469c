//! The sandbox whose metrics are asked for: finding it, and what can be wrong with it.

use std::sync::Arc;

use shimstat::node::{Container, Id, Inventory, Pod, Role, monitor, pods};
use shimstat::shim::monitor::BODY_LIMIT;
use shimstat::shim::{ShimError, dial_text};
use shimstat::survey::{AskError, MonitorError, MonitorQuestion, NotRunning, Survey};

use crate::context::Context;
use crate::exit::{Failure, MORE_OF_IT, Remedy};
use crate::find::{self, Found, Nothing};
use crate::output;
use crate::sandbox_page::{self, MetricsSource, SandboxMetrics};

/// The sandbox that is asked about.
pub struct Sandbox {
    /// With its own container alone, where that is known, and with the places at which its monitor may listen.
    pub pod: Pod,
    /// The container that led to it, where it was not the sandbox that was given.
    by: Option<Arc<Container>>,
    /// What was found instead of a sandbox, where that explains why there is no monitor.
    found: Option<Nothing>,
}

impl Sandbox {
    pub async fn find(context: &Context, given: &str) -> Result<Self, Failure> {
        let wanted = find::wanted(given)?;
        let mut inventory = Inventory::new(context.node.clone());
        let sandbox = match find::container(context, &mut inventory, &wanted, given).await? {
            Found::Container(container) => Self::of(context, container)?,
            Found::Nothing(nothing) => match wanted.id() {
                Some(id) => Self::unknown_to_containerd(id.clone(), nothing)?,
                None => {
                    return Err(Failure::new(format!("Sandbox ({given}) does not exist"))
                        .and(nothing.found)
                        .and(nothing.remedy));
                }
            },
        };
        sandbox.with_monitor()
    }

    /// The sandbox of a container: itself, or the one that it runs in.
    fn of(context: &Context, container: Arc<Container>) -> Result<Self, Failure> {
        let id = container.id();
        context.note(|| format!("container {id}: bundle {}", container.bundle.path.display()));
        let description = container
            .description()
            .map_err(|error| Failure::of(&format!("container {id}"), error))?;
        // Paths are made from it.
        Id::parse(id).map_err(|e| Failure::new(format!("container {id:?}: {e}")))?;
        match &description.role {
            Role::Sandbox => Ok(Self::new(Some(container), None)),
            Role::Plain => {
                let found = Nothing {
                    found: format!("container {id} is in no sandbox, and has no monitor of its own"),
                    remedy: format!("its statistics: kata-runtime events --stats {id}"),
                };
                Ok(Self::new(Some(container), Some(found)))
            }
            Role::InSandbox(sandbox) => {
                let sandbox = Id::parse(sandbox).map_err(|error| {
                    Failure::new(format!(
                        "container {id}: its annotations name the sandbox {sandbox:?}: {error}"
                    ))
                })?;
                let bundle = context.node.sibling(&container.bundle, &sandbox);
                let own = bundle.and_then(Container::read).map(Arc::new);
                let pod = match own {
                    Some(own) => Self::new(Some(own), None).pod,
                    None => Pod::unknown_to_containerd(sandbox.to_string(), Vec::new()),
                };
                Ok(Self {
                    pod,
                    by: Some(container),
                    found: None,
                })
            }
        }
    }

    fn new(own: Option<Arc<Container>>, found: Option<Nothing>) -> Self {
        let pod = pods(own.as_slice()).into_iter().next();
        Self {
            pod: pod.unwrap_or_else(|| Pod::unknown_to_containerd(String::new(), Vec::new())),
            by: None,
            found,
        }
    }

    /// containerd does not know it, but its monitor's socket may be there.
    fn unknown_to_containerd(wanted: Id, looked: Nothing) -> Result<Self, Failure> {
        let below = monitor::sandboxes(wanted.as_str())?;
        let ids: Vec<_> = below.keys().collect();
        let id = match ids.as_slice() {
            _ if below.contains_key(wanted.as_str()) => wanted,
            [] => wanted,
            [only] => Id::parse(only).map_err(|e| Failure::new(format!("sandbox {only:?}: {e}")))?,
            several => {
                let mut failure = Failure::new(format!("multiple containers found ({wanted})"));
                for id in several {
                    failure = failure.and(format!("  {id}"));
                }
                return Err(failure.and(MORE_OF_IT));
            }
        };
        Ok(Self {
            pod: Pod::unknown_to_containerd(id.to_string(), Vec::new()),
            by: None,
            found: Some(looked),
        })
    }

    /// Finds the places at which its monitor may listen.
    fn with_monitor(mut self) -> Result<Self, Failure> {
        let bundle = self.pod.main().map(|main| &main.bundle);
        let error = |error| Failure::of(&format!("sandbox {}", self.pod.id), &error);
        let known = monitor::known(&self.pod.id, bundle).map_err(error)?;
        if known.is_empty()
            && let Some(failure) = self.has_no_monitor()
        {
            return Err(failure);
        }
        let namespace = bundle.map(|bundle| bundle.namespace.as_str());
        self.pod.monitor = monitor::candidates(&self.pod.id, namespace, bundle).map_err(error)?;
        Ok(self)
    }

    /// A sandbox whose runtime is known not to have a monitor: there is no socket to name.
    fn has_no_monitor(&self) -> Option<Failure> {
        let own = self.pod.main().filter(|main| main.is_sandbox());
        // Its sandbox need not be on disk.
        let runtime = own.or(self.by.as_ref())?.runtime()?;
        (!runtime.is_kata()).then(|| {
            Failure::new(format!(
                "sandbox {} has no metrics of its own: its runtime is {runtime}, and only Kata's sandboxes have a \
                 monitor",
                self.pod.id
            ))
            .and("its containers' statistics: kata-runtime events --stats <container>")
        })
    }

    pub fn id(&self) -> &str {
        &self.pod.id
    }

    /// Says whose metrics these are, where another container was given.
    pub fn announce(&self) {
        if let Some(container) = &self.by {
            output::notice(&format!(
                "container {} runs in sandbox {}: these are the sandbox's metrics",
                container.id(),
                self.pod.id
            ));
        }
    }

    /// Its monitor's answer.
    pub async fn scrape(
        &self,
        context: &Context,
        survey: &Survey,
        force: bool,
    ) -> Result<SandboxMetrics, MonitorError> {
        let id = self.id();
        if let Some(endpoint) = self.pod.main().and_then(|main| main.endpoint()) {
            context.note(|| format!("sandbox {id}: shim {} ({:?})", endpoint.address, endpoint.version));
        }
        context.note(|| {
            let places: Vec<_> = self.pod.monitor.iter().map(ToString::to_string).collect();
            format!("sandbox {id}: its monitor may be at {}", places.join(", "))
        });
        let metrics = match force {
            false => sandbox_page::ask(survey, &self.pod, BODY_LIMIT).await?,
            true => {
                let question = MonitorQuestion::MetricsAtAnyRisk;
                let page = survey.ask_monitor(&self.pod, question, BODY_LIMIT).await?;
                SandboxMetrics {
                    source: MetricsSource::from(&page),
                    body: page.body,
                }
            }
        };
        if let MetricsSource::Monitor { address, no_guest } = &metrics.source {
            if let Some(why) = no_guest {
                context.note(|| format!("sandbox {id}: {}", sandbox_page::without_guest(why)));
            }
            context.note(|| format!("sandbox {id}: {address} sent {} bytes", metrics.body.len()));
        }
        Ok(metrics)
    }

    pub fn failure(&self, error: &MonitorError) -> Failure {
        let id = self.id();
        match error {
            // The words of Go's HTTP client, which users of Kata's own `metrics` know.
            MonitorError::Shim(ShimError::Connect { address, source }) => {
                let failure = Failure::new(format!(
                    "Get \"http://shim/metrics\": dial unix {address}: connect: {}",
                    dial_text(source)
                ));
                // Where no sandbox was found, that is why nobody listens there.
                match &self.found {
                    None => failure.and(error.remedy()),
                    Some(instead) => failure.and(&instead.found).and(&instead.remedy),
                }
            }
            MonitorError::Ask(AskError::NotRunning(why)) => not_running(id, why),
            MonitorError::Risk(_) => Failure::of(&format!("sandbox {id} was not asked"), error),
            _ => Failure::of(&format!("sandbox {id}"), error),
        }
    }
}

/// What is said of a sandbox that has stopped, or that its shim does not know.
pub fn not_running(id: &str, why: &NotRunning) -> Failure {
    Failure::new(format!("sandbox {id} is not running: {why}")).and(why.remedy())
}
