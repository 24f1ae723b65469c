//! Asking a sandbox's monitor, or the agent in its guest, where that does not put the sandbox at risk.

use std::sync::Arc;

use super::ask::Survey;
use super::error::{AskError, MonitorError, NoGuest, NotRunning};
use super::facts::GuestFacts;
use super::guest::{Guest, Liveness, Told};
use super::meter::ShimMeter;
use super::monitor_call::{MonitorCall, MonitorPage, MonitorQuestion};
use super::question::State;
use crate::guest::GuestAddress;
use crate::node::{GuestVolume, Pod};
use crate::shim::address::{Address, Endpoint, Protocol, TaskVersion};
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
        let way = way_to(pod)?;
        let lane = self.lane(&way);
        let meter = pod.main().and_then(|main| self.shim_meter(main, &way.address));
        let guest = match question {
            MonitorQuestion::Metrics => self.guest_of_pod(pod),
            MonitorQuestion::MetricsAtAnyRisk | MonitorQuestion::AgentUrl => None,
        };
        let terms = self.terms.clone();
        let check = async move {
            let Some(guest) = guest else {
                return Ok::<_, MonitorError>(None);
            };
            match guest.liveness(&terms).await {
                Liveness::Alive(_) => Ok(None),
                Liveness::Hung(silence) => Err(silence.error(state).into()),
                Liveness::Unknown(why) => Ok(Some(why)),
            }
        };
        let call = MonitorCall {
            connect: self.terms.connect.clone(),
            limit: self.terms.limit,
            sandbox: pod.id.clone(),
            addresses: pod.monitor.clone(),
            question,
            most,
        };
        let monitor = pod.monitor.first().cloned();
        let measured = async move {
            let running = meter.as_ref().map(ShimMeter::start);
            let page = call.run().await;
            if let (Some(meter), Some(running), Ok(_)) = (meter, running, &page) {
                meter.stop(running);
            }
            page
        };
        let answer = lane.checked_call(question.call(), check, measured).await;
        let (no_guest, page) = answer.map_err(|error| named(error, question.call(), monitor))??;
        Ok(MonitorPage { no_guest, ..page? })
    }

    /// Asks the agent in a pod's guest for its metrics and the guest's (`kata_agent_*`, `kata_guest_*`), as text that
    /// was not checked. The shim is asked whether the sandbox runs, and for nothing else.
    pub async fn guest_metrics(&self, pod: &Pod) -> Result<GuestMetrics, MonitorError> {
        let terms = self.terms.clone();
        let ask = async move |guest: Arc<Guest>| guest.metrics(&terms).await;
        let (state, address, text) = self.ask_guest(pod, ask).await?;
        Ok(GuestMetrics {
            address,
            text,
            task_pid: state.map(|state| state.pid),
        })
    }

    /// Whether a pod runs in a guest of Kata's. It is not asked.
    pub fn has_guest(&self, pod: &Pod) -> bool {
        self.guest_of_pod(pod).is_some()
    }

    /// Asks the agent in a pod's guest about itself, its guest and the pod's volumes in it, and for its metrics where they
    /// are wanted. The shim is asked whether the sandbox runs, and for nothing else.
    pub async fn guest_facts(&self, pod: &Pod, metrics: bool) -> Result<GuestFacts, MonitorError> {
        let terms = self.terms.clone();
        let ask = |guest: Arc<Guest>| {
            let volumes = GuestVolume::of_pod(pod.all().map(Arc::as_ref));
            async move { guest.facts(volumes, metrics, &terms).await }
        };
        let (_, _, facts) = self.ask_guest(pod, ask).await?;
        Ok(facts)
    }

    async fn ask_guest<T: Send + 'static, F>(
        &self,
        pod: &Pod,
        ask: impl FnOnce(Arc<Guest>) -> F,
    ) -> Result<(Option<TaskState>, GuestAddress, T), MonitorError>
    where
        F: Future<Output = Told<T>> + Send + 'static,
    {
        let no_guest = |why, state| AskError::NoGuest { why, state };
        let guest = self
            .guest_of_pod(pod)
            .ok_or_else(|| no_guest(Arc::new(NoGuest::NotKata), None))?;
        let state = self.state_of(pod).await?;
        let lane = self.lane(&way_to(pod)?);
        match lane.hold(ask(guest)).await? {
            Told::Answer(address, answer) => Ok((state, address, answer)),
            Told::Hung(silence) => Err(silence.error(state).into()),
            Told::Nothing(why) => Err(no_guest(why, state).into()),
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
            protocol: Protocol::Ttrpc,
            version: TaskVersion::V2,
        })
    };
    shim.cloned().or_else(monitor).ok_or(MonitorError::NoAddress)
}
