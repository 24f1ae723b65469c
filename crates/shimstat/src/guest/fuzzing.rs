//! Decoders of this module that nobody outside has a use for, for fuzz targets.

use std::time::Duration;

use super::address::GuestAddress;
use super::agent::AgentConnection;
use crate::shim::Connection;
use crate::stats::Stats;

/// Asks an agent for one of the things that it may be asked for; its statistics of a container, where that was it.
pub async fn ask(connection: Connection, what: u8) -> Option<Stats> {
    let address = GuestAddress::Vsock { cid: 3, port: 1024 };
    let mut agent = AgentConnection::new(connection, address);
    let limit = Duration::from_secs(1);
    match what % 8 {
        0..=2 => return Some(agent.stats("a", limit).await.ok()?.stats),
        3 => drop(agent.check(limit).await),
        4 => drop(agent.details(limit).await),
        5 => drop(agent.interfaces(limit).await),
        6 => drop(agent.volume_stats("/", limit).await),
        _ => drop((agent.metrics(limit).await, agent.version(limit).await)),
    }
    None
}
