//! Looking up a task's network, without holding up what else waits for answers.

use std::time::Duration;

use tokio::time::Instant;

use super::question::Network;
use crate::node::network::{NetworkNamespace, SocketTables, interfaces};
use crate::stats::{Interface, Sockets};

/// What there is of a task's network.
pub(super) struct Found {
    pub interfaces: Vec<Interface>,
    pub sockets: Option<Sockets>,
}

/// The network of a task; `None` where it has none of its own, or it cannot be read. Tables of sockets that take longer
/// than the limit are left out.
pub(super) async fn look_up(pid: u32, wanted: Network, limit: Duration) -> Option<Found> {
    if wanted == Network::None {
        return None;
    }
    let namespace = NetworkNamespace::of_task(pid)?;
    let interfaces = interfaces(pid)?;
    let sockets = match wanted {
        Network::InterfacesAndSockets => sockets(pid, limit).await,
        Network::Interfaces | Network::None => None,
    };
    namespace.holds(pid).then_some(Found { interfaces, sockets })
}

async fn sockets(pid: u32, limit: Duration) -> Option<Sockets> {
    let deadline = (Instant::now() + limit).into_std();
    let tables = SocketTables::of(pid);
    if tables.are_empty() {
        return Some(tables.count(deadline));
    }
    // On a thread of its own: other shims' answers must not wait for it.
    tokio::task::spawn_blocking(move || tables.count(deadline))
        .await
        .ok()
}
