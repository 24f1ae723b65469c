//! Asking a sandbox's monitor, where that does not put the sandbox at risk.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Survey;
use super::error::{AskError, MonitorError, NotRunning};
use super::question::State;
use crate::node::Pod;
use crate::node::hypervisor::{self, Risk};
use crate::shim::address::{Address, Endpoint, TaskVersion};
use crate::shim::task::TaskStatus;
use crate::shim::{Connect, Connection, monitor};

/// A question to a sandbox's monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MonitorQuestion {
    /// `GET /metrics`. Some sandboxes die of it (see [`hypervisor::risk`]): those are not asked.
    Metrics,
    /// `GET /metrics`, even where the sandbox may die of it.
    MetricsAtAnyRisk,
    /// `GET /agent-url`: where the agent in the guest listens.
    AgentUrl,
}

impl MonitorQuestion {
    fn path(self) -> &'static str {
        match self {
            Self::Metrics | Self::MetricsAtAnyRisk => "/metrics",
            Self::AgentUrl => "/agent-url",
        }
    }

    fn call(self) -> &'static str {
        match self {
            Self::Metrics | Self::MetricsAtAnyRisk => "GET /metrics",
            Self::AgentUrl => "GET /agent-url",
        }
    }
}

/// What a monitor answered, and where it listens.
#[derive(Debug)]
pub struct MonitorPage {
    pub address: Address,
    pub body: Vec<u8>,
}

impl Survey {
    /// Asks the monitor of a pod's sandbox. Whether the sandbox runs is asked first: a stopped one may still have a
    /// shim that serves its own families, and one that does not answer this is not asked for more. A shim that is gone
    /// is left for its monitor to tell. A body of more than `most` bytes is an error.
    pub async fn ask_monitor(
        &self,
        pod: &Pod,
        question: MonitorQuestion,
        most: usize,
    ) -> Result<MonitorPage, MonitorError> {
        if let Some(main) = pod.main() {
            match self.ask(main, State).await {
                Ok(state) if state.status == TaskStatus::Stopped => {
                    return Err(AskError::NotRunning(NotRunning::Stopped(state)).into());
                }
                Ok(_) | Err(AskError::NotRunning(NotRunning::Gone(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let lane = self.lane(&way_to(pod)?);
        let call = Call {
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
    let shim = pod.main().and_then(|main| main.endpoint.as_ref().ok());
    let monitor = || {
        // No task is asked about there, so the version does not matter.
        Some(Endpoint {
            address: pod.monitor.first()?.clone(),
            version: TaskVersion::V2,
        })
    };
    shim.cloned().or_else(monitor).ok_or(MonitorError::NoAddress)
}

struct Call {
    connect: Arc<dyn Connect>,
    /// The time to connect. Once somebody listens, the answer is waited for to its end.
    limit: Duration,
    sandbox: String,
    addresses: Vec<Address>,
    question: MonitorQuestion,
    most: usize,
}

impl Call {
    async fn run(self) -> Result<MonitorPage, MonitorError> {
        let (address, connection) = self.connect().await?;
        if self.question == MonitorQuestion::Metrics {
            check_risk(&self.sandbox, address, &connection)?;
        }
        let body = monitor::get(connection, address, self.question.path(), self.most)
            .await
            .map_err(MonitorError::Shim)?;
        Ok(MonitorPage {
            address: address.clone(),
            body,
        })
    }

    /// Connects to the first address at which somebody listens.
    async fn connect(&self) -> Result<(&Address, Connection), MonitorError> {
        let started = Instant::now();
        let deadline = started + self.limit;
        let mut first_failure = None;
        for address in &self.addresses {
            match tokio::time::timeout_at(deadline, self.connect.connect(address)).await {
                Ok(Ok(connection)) => return Ok((address, connection)),
                // Nobody there: the next place. If nobody is anywhere, the best place is the one to name.
                Ok(Err(error)) if error.is_gone() => {
                    first_failure.get_or_insert(MonitorError::Shim(error));
                }
                Ok(Err(error)) => return Err(MonitorError::Shim(error)),
                Err(_elapsed) => {
                    return Err(MonitorError::Ask(AskError::Unanswered {
                        address: address.clone(),
                        call: "the connect",
                        waited: started.elapsed(),
                    }));
                }
            }
        }
        Err(first_failure.unwrap_or(MonitorError::NoAddress))
    }
}

fn check_risk(sandbox: &str, address: &Address, connection: &Connection) -> Result<(), MonitorError> {
    match hypervisor::risk(sandbox, address) {
        Risk::None => Ok(()),
        // Only Kata's shim dies of it. Who listens is known once connected, and nothing was asked yet.
        Risk::Unknown { .. }
            if connection
                .peer_pid()
                .is_some_and(|pid| !hypervisor::is_kata_shim(pid)) =>
        {
            Ok(())
        }
        risk => Err(MonitorError::Risk(risk)),
    }
}
