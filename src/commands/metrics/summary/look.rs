//! Looking at a sandbox: at its processes, its containers and its metrics. Each may fail without the others.

use std::sync::Arc;
use std::time::Instant;

use crate::commands::metrics::readings::Readings;
use promtext::Filter;
use shimstat::node::hypervisor::{self, VirtualMachine};
use shimstat::node::{Container, HostProcesses, Inventory, host_processes};
use shimstat::survey::{AskError, NotRunning, Sample, Survey};

use super::super::super::{Context, with_remedy};
use super::super::sandbox::Sandbox;
use crate::exit::Failure;

/// What was seen of a sandbox.
pub struct Look {
    /// What its shim noted of its virtual machine.
    pub machine: Option<VirtualMachine>,
    /// Its processes on the host, and when they were read.
    pub processes: (Instant, Vec<HostProcesses>),
    /// Its tasks: the sandbox's own container and the others.
    pub containers: Vec<(Arc<Container>, Result<Sample, AskError>)>,
    /// Its metrics and when they came, or why there are none.
    pub scraped: Result<(Instant, Readings), String>,
}

impl Look {
    /// Looks once. A sandbox that does not run is an error, and one of which nothing says that it has a virtual
    /// machine: neither its shim's notes nor a monitor.
    pub async fn take(
        context: &Context,
        sandbox: &Sandbox,
        survey: &Survey,
        force: bool,
    ) -> Result<Self, Failure> {
        let containers = containers(context, sandbox)?;
        let answers = survey.samples(&containers).await;
        let containers: Vec<_> = containers.into_iter().zip(answers).collect();
        let own = containers
            .iter()
            .find(|(container, _)| container.bundle.id == sandbox.id.as_str())
            .map(|(_, answer)| answer);
        let silent = match own {
            Some(Err(AskError::NotRunning(why @ (NotRunning::Stopped(_) | NotRunning::Unknown(_))))) => {
                return Err(Failure::new(format!(
                    "sandbox {} is not running: {why}",
                    sandbox.id
                )));
            }
            Some(Err(error @ (AskError::Unanswered { .. } | AskError::Resting { .. }))) => Some(error),
            _ => None,
        };
        let machine = hypervisor::virtual_machine(sandbox.id.as_str());
        let scraped = match silent {
            // Its monitor would only add to what the shim waits for.
            Some(error) => Err(format!("{error}, and its monitor was not asked")),
            None => {
                let addresses = sandbox.addresses()?;
                match sandbox.scrape(context, &addresses, force).await {
                    Ok(body) => Readings::read(&body, &Filter::default())
                        .map(|readings| (Instant::now(), readings))
                        .map_err(|error| error.to_string()),
                    Err(error) if machine.is_none() => return Err(sandbox.failure(&error, context)),
                    Err(error) => Err(error.to_string()),
                }
            }
        };
        let shim_pid = sandbox.bundle.as_ref().and_then(|bundle| bundle.shim_pid());
        let task_pid = own.and_then(|answer| Some(answer.as_ref().ok()?.state.pid));
        Ok(Self {
            processes: (
                Instant::now(),
                host_processes(machine.as_ref(), shim_pid, task_pid),
            ),
            machine,
            containers,
            scraped,
        })
    }
}

/// The tasks of a sandbox, its own first; none where containerd does not know it.
fn containers(context: &Context, sandbox: &Sandbox) -> Result<Vec<Arc<Container>>, Failure> {
    let Some(bundle) = &sandbox.bundle else {
        return Ok(Vec::new());
    };
    let mut all = Inventory::new(context.node.clone())
        .read()
        .map_err(|error| with_remedy(error.to_string()))?;
    all.retain(|container| {
        let own = &container.bundle;
        let id = container.sandbox_id().unwrap_or(&own.id);
        (id, &own.namespace, &own.state_dir) == (sandbox.id.as_str(), &bundle.namespace, &bundle.state_dir)
    });
    all.sort_by_key(|container| container.bundle.id != sandbox.id.as_str());
    Ok(all)
}
