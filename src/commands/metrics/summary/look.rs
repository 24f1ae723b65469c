//! Looking at a sandbox: its processes, its containers and its metrics. Each may fail without the others.

use std::sync::Arc;
use std::time::Instant;

use promtext::Filter;
use shimstat::node::hypervisor::{self, VirtualMachine};
use shimstat::node::{Container, HostProcesses, Inventory, Pod, host_processes};
use shimstat::survey::{AskError, GuestFacts, Network, NotRunning, Sample, State, Statistics, Survey, Via};

use super::vm::VmLook;
use crate::commands::metrics::sandbox::{Sandbox, not_running};
use crate::context::Context;
use crate::exit::Failure;
use crate::readings::Readings;
use crate::sandbox_page::{MetricsSource, SandboxMetrics};

/// What was found about a sandbox.
pub struct Look {
    /// What its shim has noted about its virtual machine.
    pub machine: Option<VirtualMachine>,
    /// Its processes on the host, and when they were read.
    pub processes: (Instant, Vec<HostProcesses>),
    /// The sandbox's own container, then the others by name.
    pub containers: Vec<(Arc<Container>, Result<Sample, AskError>)>,
    /// What is wrong with containers of which it is not known whether they are in it.
    pub unread: Vec<String>,
    /// What its virtual machine uses of the host, where it is on this one.
    pub vm: Option<VmLook>,
    /// What the agent in its guest tells, where it can be asked.
    pub guest: Option<GuestFacts>,
    /// Its metrics and when they arrived, or why there are none.
    pub scraped: Result<(Instant, Readings), String>,
}

impl Look {
    /// Looks once. It is an error if the sandbox does not run, or if neither its shim's notes nor a monitor show that it
    /// has a virtual machine.
    pub async fn take(
        context: &Context,
        sandbox: &Sandbox,
        survey: &Survey,
        force: bool,
    ) -> Result<Self, Failure> {
        // Its pid leads to the VMM even if there are no statistics.
        let state = match sandbox.pod.main() {
            Some(main) => Some(survey.ask(main, State).await),
            None => None,
        };
        if let Some(Err(AskError::NotRunning(why @ NotRunning::Unknown(_)))) = &state {
            return Err(not_running(sandbox.id(), why));
        }
        let (pod, mut unread) = whole_pod(context, sandbox)?;
        let asking = survey
            .begin(
                pod.all().cloned(),
                Statistics {
                    network: Network::None,
                    via: Via::Both,
                },
            )
            .await;
        let containers = asking.containers().to_vec();
        let answers = asking.answers(context.timeout).await;
        if let Some(Err(AskError::NotRunning(why @ NotRunning::Stopped(_)))) = answers.first()
            && sandbox.pod.main().is_some()
        {
            return Err(not_running(sandbox.id(), why));
        }
        let silent = answers.iter().find_map(|answer| match answer {
            Err(
                error @ (AskError::Unanswered { .. } | AskError::Resting { .. } | AskError::GuestHung { .. }),
            ) => Some(error),
            _ => None,
        });
        let mut machine = hypervisor::virtual_machine(sandbox.id()).unwrap_or_else(|error| {
            unread.push(format!("what its shim has noted of its virtual machine: {error}"));
            None
        });
        let scraped = match silent {
            // Its monitor would only make the shim wait for more.
            Some(error) => Err(format!("{error}, and its monitor was not asked")),
            None => match sandbox.scrape(context, survey, force).await {
                // What is on the host is read here, and more of it.
                Ok(SandboxMetrics {
                    source: MetricsSource::Host { why, guest },
                    ..
                }) => Err(guest.unwrap_or(why).to_string()),
                Ok(metrics) => Readings::read(&metrics.body, &Filter::default())
                    .map(|readings| (Instant::now(), readings))
                    .map_err(|error| error.to_string()),
                Err(error) if machine.is_none() => return Err(sandbox.failure(&error)),
                Err(error) => Err(error.to_string()),
            },
        };
        let guest = match silent {
            Some(_) => None,
            None => survey.guest_facts(&pod, false).await.ok(),
        };
        let shim_pid = sandbox.pod.main().and_then(|main| main.shim_pid());
        let task_pid = state.and_then(|state| Some(state.ok()?.pid));
        let taken = Instant::now();
        let processes = host_processes(machine.as_ref(), shim_pid, task_pid);
        let vm = machine
            .as_mut()
            .and_then(|machine| VmLook::take(machine, &processes, task_pid));
        Ok(Self {
            processes: (taken, processes),
            machine,
            vm,
            containers: containers.into_iter().zip(answers).collect(),
            unread,
            guest,
            scraped,
        })
    }
}

/// The pod with all of its containers, none if containerd does not know it; and what is wrong with containers of which it
/// is not known whether they are in it.
fn whole_pod(context: &Context, sandbox: &Sandbox) -> Result<(Pod, Vec<String>), Failure> {
    let mut whole = sandbox.pod.clone();
    let mut unread = Vec::new();
    if whole.main().is_some() {
        let containers = Inventory::new(context.node.clone()).read()?;
        let wrong = |container: &Arc<Container>| {
            let error = container.unread()?;
            Some(format!(
                "container {}, which may be in the sandbox: {error}",
                container.id()
            ))
        };
        unread = containers.iter().filter_map(wrong).collect();
        let pods = shimstat::node::pods(&containers);
        if let Some(pod) = pods.into_iter().find(|pod| pod.key == whole.key) {
            whole.sandbox = pod.sandbox;
            whole.containers = pod.containers;
        }
    }
    Ok((whole, unread))
}
