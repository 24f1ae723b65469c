//! Decoders of this module that nobody outside has a use for, for fuzz targets.

use std::time::Duration;

use super::address::{Address, Endpoint, Protocol, TaskVersion};
use super::connect::Connect;
use super::task::TaskConnection;

/// Asks a shim for the state and the statistics of the task `a`, and shows what comes back.
pub async fn state_and_stats(connect: &dyn Connect) -> String {
    let endpoint = Endpoint {
        address: Address::Path("/fuzzed".into()),
        protocol: Protocol::Ttrpc,
        version: TaskVersion::V2,
    };
    let limit = Duration::from_secs(1);
    match TaskConnection::connect(&endpoint, connect).await {
        Ok(mut connection) => {
            let state = connection.state("a", limit).await;
            let stats = connection.stats("a", limit).await;
            format!("{state:?} {stats:?}")
        }
        Err(error) => error.to_string(),
    }
}
