//! Asking a sandbox's monitor, or the agent in its guest, where that does not put the sandbox at risk.

use super::ask::Survey;
use super::error::{AskError, MonitorError, NotRunning};
use super::guest::{GuestFacts, Liveness, Told};
use super::monitor_call::{MonitorCall, MonitorPage, MonitorQuestion};
use super::question::State;
use crate::guest::GuestAddress;
use crate::node::Pod;
use crate::shim::address::{Address, Endpoint, TaskVersion};
use crate::shim::task::{TaskState, TaskStatus};

/// What a guest's agent tells of itself and the guest.
#[derive(Debug)]
pub struct GuestMetrics {
    /// Where the agent listens.
    pub address: GuestAddress,
    /// Prometheus' text format, as the guest sent it. Untrusted.
    pub text: String,
    /// The pid of the sandbox's task, where its shim has told it.
    pub task_pid: Option<u32>,
}

impl Survey {
    /// Asks the monitor of a pod's sandbox. Whether the sandbox runs is asked first: a stopped one may still have a
    /// shim that serves its own families, and one that does not answer this is not asked for more. A shim that is gone
    /// is left for its monitor to tell. For [`MonitorQuestion::Metrics`] the guest is asked next whether it lives: the
    /// shim would wait for it. A body of more than `most` bytes is an error.
    pub async fn ask_monitor(
        &self,
        pod: &Pod,
        question: MonitorQuestion,
        most: usize,
    ) -> Result<MonitorPage, MonitorError> {
        let state = self.state_of(pod).await?;
        let lane = self.lane(&way_to(pod)?);
        let guest = match question {
            MonitorQuestion::Metrics => {
                let (guest, terms) = (self.guest_of_pod(pod), self.terms.clone());
                Some(lane.hold(async move { guest.liveness(&terms).await }).await?)
            }
            MonitorQuestion::MetricsAtAnyRisk | MonitorQuestion::AgentUrl => None,
        };
        if let Some(Liveness::Hung(silence)) = guest {
            return Err(silence.error(state).into());
        }
        let call = MonitorCall {
            connect: self.terms.connect.clone(),
            limit: self.terms.limit,
            sandbox: pod.id.clone(),
            addresses: pod.monitor.clone(),
            question,
            most,
        };
        let monitor = pod.monitor.first().cloned();
        lane.call(question.call(), call.run())
            .await
            .map_err(|error| named(error, question.call(), monitor))?
    }

    /// Asks the agent in a pod's guest for its metrics and the guest's (`kata_agent_*`, `kata_guest_*`), as text that
    /// was not checked. The shim is asked whether the sandbox runs, and for nothing else.
    pub async fn guest_metrics(&self, pod: &Pod) -> Result<GuestMetrics, MonitorError> {
        let state = self.state_of(pod).await?;
        let lane = self.lane(&way_to(pod)?);
        let (guest, terms) = (self.guest_of_pod(pod), self.terms.clone());
        match lane.hold(async move { guest.metrics(&terms).await }).await? {
            Told::Answer(address, text) => Ok(GuestMetrics {
                address,
                text,
                task_pid: state.map(|state| state.pid),
            }),
            Told::Hung(silence) => Err(silence.error(state).into()),
            Told::Nothing(why) => Err(AskError::NoGuest { why, state }.into()),
        }
    }

    /// Asks the agent in a pod's guest for its version and the guest's interfaces.
    pub async fn guest_facts(&self, pod: &Pod) -> Result<GuestFacts, MonitorError> {
        let state = self.state_of(pod).await?;
        let lane = self.lane(&way_to(pod)?);
        let (guest, terms) = (self.guest_of_pod(pod), self.terms.clone());
        match lane.hold(async move { guest.facts(&terms).await }).await? {
            Told::Answer(_, facts) => Ok(facts),
            Told::Hung(silence) => Err(silence.error(state).into()),
            Told::Nothing(why) => Err(AskError::NoGuest { why, state }.into()),
        }
    }

    /// The state of a pod's sandbox, where it runs; `None` where its shim is gone or not known to containerd.
    async fn state_of(&self, pod: &Pod) -> Result<Option<TaskState>, AskError> {
        let Some(main) = pod.main() else {
            return Ok(None);
        };
        match self.ask(main, State).await {
            Ok(state) if state.status == TaskStatus::Stopped => {
                Err(AskError::NotRunning(NotRunning::Stopped(state)))
            }
            Ok(state) => Ok(Some(state)),
            Err(AskError::NotRunning(NotRunning::Gone(_))) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The same error, about the socket that was asked: the lane is named after the shim's other one.
fn named(error: AskError, asked: &str, monitor: Option<Address>) -> AskError {
    match (error, monitor) {
        (AskError::Unanswered { call, waited, .. }, Some(address)) if call == asked => AskError::Unanswered {
            address,
            call,
            waited,
        },
        (error, _) => error,
    }
}

/// The shim whose lane a question to the pod's monitor goes by.
fn way_to(pod: &Pod) -> Result<Endpoint, MonitorError> {
    let shim = pod.main().and_then(|main| main.endpoint());
    let monitor = || {
        // No task is asked about there, so the version does not matter.
        Some(Endpoint {
            address: pod.monitor.first()?.clone(),
            version: TaskVersion::V2,
        })
    };
    shim.cloned().or_else(monitor).ok_or(MonitorError::NoAddress)
}
