//! One question to a sandbox's monitor, over a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::error::{AskError, MonitorError, NoGuest};
use crate::node::hypervisor::{self, Risk};
use crate::shim::address::Address;
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
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Metrics | Self::MetricsAtAnyRisk => "/metrics",
            Self::AgentUrl => "/agent-url",
        }
    }

    pub(super) fn call(self) -> &'static str {
        match self {
            Self::Metrics | Self::MetricsAtAnyRisk => "GET /metrics",
            Self::AgentUrl => "GET /agent-url",
        }
    }
}

/// What a monitor answered, and where it listens.
#[derive(Debug)]
pub struct MonitorPage {
    /// The monitor's socket.
    pub address: Address,
    /// What it answered, as it was sent. Untrusted.
    pub body: Vec<u8>,
    /// Why the guest could not be asked first whether it lives.
    pub no_guest: Option<Arc<NoGuest>>,
}

/// One question on its way.
pub(super) struct MonitorCall {
    pub connect: Arc<dyn Connect>,
    /// The time to connect. Once somebody listens, the answer is waited for to its end.
    pub limit: Duration,
    pub sandbox: String,
    pub addresses: Vec<Address>,
    pub question: MonitorQuestion,
    pub most: usize,
}

impl MonitorCall {
    pub async fn run(self) -> Result<MonitorPage, MonitorError> {
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
            no_guest: None,
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
