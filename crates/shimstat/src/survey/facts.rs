//! What a guest's agent tells beside statistics of containers.

use std::sync::Arc;
use std::time::Duration;

use crate::guest::{AgentConnection, GuestDetails, GuestError, GuestInterface, VolumeStats};
use crate::node::GuestVolume;

/// What a guest's agent tells of itself and its guest. Untrusted text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFacts {
    /// Asked once, and remembered for as long as the guest lives.
    pub agent: Arc<AgentFacts>,
    /// The volumes that the guest has, of those that were asked about.
    pub volumes: Vec<(GuestVolume, VolumeStats)>,
    /// Its metrics and the guest's (`kata_agent_*`, `kata_guest_*`) in Prometheus' text format, which was not checked.
    /// `None` where they were not asked for, or the agent does not tell them.
    pub metrics: Option<String>,
}

/// What does not change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentFacts {
    /// Kata's release, of the agent.
    pub version: String,
    /// `None` where the agent does not tell them: its policy may forbid the call.
    pub details: Option<GuestDetails>,
    /// The guest's. `None` as well where the agent does not tell them.
    pub interfaces: Option<Vec<GuestInterface>>,
}

impl AgentFacts {
    async fn ask(agent: &mut AgentConnection, limit: Duration) -> Result<Self, GuestError> {
        let details = unless_refused(agent.details(limit).await)?;
        Ok(Self {
            version: match &details {
                Some(details) => details.agent_version.clone(),
                None => agent.version(limit).await?.agent,
            },
            interfaces: unless_refused(agent.interfaces(limit).await)?,
            details,
        })
    }
}

/// The answer; `None` where the agent lives, and has none.
fn unless_refused<T>(answer: Result<T, GuestError>) -> Result<Option<T>, GuestError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_answer() => Ok(None),
        Err(error) => Err(error),
    }
}

impl GuestFacts {
    /// Asks an agent about itself where that is not remembered, its guest and these volumes, and for its metrics where
    /// they are wanted.
    pub(super) async fn ask(
        agent: &mut AgentConnection,
        remembered: Option<Arc<AgentFacts>>,
        volumes: Vec<GuestVolume>,
        metrics: bool,
        limit: Duration,
    ) -> Result<Self, GuestError> {
        let about = match remembered {
            Some(about) => about,
            None => Arc::new(AgentFacts::ask(agent, limit).await?),
        };
        let mut there = Vec::with_capacity(volumes.len());
        for volume in volumes {
            if let Some(stats) = unless_refused(agent.volume_stats(&volume.path, limit).await)? {
                there.push((volume, stats));
            }
        }
        Ok(Self {
            agent: about,
            volumes: there,
            metrics: match metrics {
                true => unless_refused(agent.metrics(limit).await)?,
                false => None,
            },
        })
    }
}
