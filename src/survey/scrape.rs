//! Asking a sandbox's monitor for its metrics, where that does not put the sandbox at risk.

use std::time::{Duration, Instant};

use crate::node::hypervisor::{self, Risk};
use crate::shim::address::Address;
use crate::shim::{self, ShimError, monitor};

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    #[error("{}", risk_text(.0))]
    Risk(Risk),
    #[error("the monitor at {address} has not answered GET {path} for {}", crate::duration::show(*waited))]
    Unanswered {
        address: Address,
        path: String,
        waited: Duration,
    },
    #[error("no address is known for its monitor")]
    NoAddress,
    #[error(transparent)]
    Shim(ShimError),
}

/// What was asked, of which sandbox.
pub struct Scrape<'a> {
    pub sandbox: &'a str,
    /// Where its monitor may listen, best first; the first at which somebody does is asked.
    pub addresses: &'a [Address],
    pub path: &'a str,
    /// Ask even where the sandbox may die of it.
    pub force: bool,
}

impl Scrape<'_> {
    /// The body of the answer, and who gave it. `limit` is the time for the whole of it.
    pub async fn run(&self, limit: Duration) -> Result<(Address, Vec<u8>), ScrapeError> {
        let started = Instant::now();
        let mut first_failure = None;
        for address in self.addresses {
            let attempt = self.ask(address);
            let left = limit.saturating_sub(started.elapsed());
            match tokio::time::timeout(left, attempt).await {
                Ok(Ok(body)) => return Ok((address.clone(), body)),
                // Nobody there: the next place. If nobody is anywhere, the best place is the one to name.
                Ok(Err(ScrapeError::Shim(error))) if error.is_gone() => {
                    first_failure.get_or_insert(ScrapeError::Shim(error));
                }
                Ok(Err(error)) => return Err(error),
                Err(_elapsed) => {
                    return Err(ScrapeError::Unanswered {
                        address: address.clone(),
                        path: self.path.to_string(),
                        waited: started.elapsed(),
                    });
                }
            }
        }
        Err(first_failure.unwrap_or(ScrapeError::NoAddress))
    }

    async fn ask(&self, address: &Address) -> Result<Vec<u8>, ScrapeError> {
        let stream = shim::connect(address).await.map_err(ScrapeError::Shim)?;
        if !self.force {
            match hypervisor::risk(self.sandbox, address) {
                Risk::None => {}
                // Only Kata's shim dies of it. Who listens is known once connected, and nothing was asked yet.
                Risk::Unknown { .. }
                    if stream
                        .peer_cred()
                        .is_ok_and(|peer| peer.pid().is_some_and(|pid| !hypervisor::is_kata_shim(pid))) => {}
                risk => return Err(ScrapeError::Risk(risk)),
            }
        }
        monitor::get(stream, address, self.path)
            .await
            .map_err(ScrapeError::Shim)
    }
}

fn risk_text(risk: &Risk) -> String {
    match risk {
        Risk::None => "there is no risk".to_string(),
        Risk::Deadly { hypervisor } => format!(
            "it runs on {hypervisor} under Kata's Rust shim, which aborts when it is asked for metrics of that \
             hypervisor, and the sandbox dies with it (kata-containers issue 13708)"
        ),
        Risk::Unknown { reason } => format!(
            "it may run on QEMU or Firecracker under Kata's Rust shim, which aborts when it is asked for their \
             metrics, and the sandbox dies with it (kata-containers issue 13708): {reason}"
        ),
    }
}
