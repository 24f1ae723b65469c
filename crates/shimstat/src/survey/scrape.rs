//! Asking a sandbox's monitor for its metrics, where that does not put the sandbox at risk.

use std::time::{Duration, Instant};

use tokio::net::UnixStream;

use crate::node::hypervisor::{self, Risk};
use crate::shim::address::Address;
use crate::shim::{self, ShimError, monitor};

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    #[error("{}", risk_text(.0))]
    Risk(Risk),
    #[error("the monitor at {address} has not answered GET {path} for {}", go_duration::show(*waited))]
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
        let (address, stream) = self.connect(limit).await?;
        let left = limit.saturating_sub(started.elapsed());
        match tokio::time::timeout(left, self.ask(stream, address, monitor::BODY_LIMIT)).await {
            Ok(body) => Ok((address.clone(), body?)),
            Err(_elapsed) => Err(self.unanswered(address, started)),
        }
    }

    /// The body of the answer, of at most so many bytes, however long it takes once somebody listens: for a
    /// [`Lane::call`](super::Lane::call), which waits for what it has sent. `limit` is the time to connect.
    pub async fn run_to_its_end(&self, limit: Duration, most: usize) -> Result<Vec<u8>, ScrapeError> {
        let (address, stream) = self.connect(limit).await?;
        self.ask(stream, address, most).await
    }

    /// Connects to the first address at which somebody listens.
    async fn connect(&self, limit: Duration) -> Result<(&Address, UnixStream), ScrapeError> {
        let started = Instant::now();
        let mut first_failure = None;
        for address in self.addresses {
            let left = limit.saturating_sub(started.elapsed());
            match tokio::time::timeout(left, shim::connect(address)).await {
                Ok(Ok(stream)) => return Ok((address, stream)),
                // Nobody there: the next place. If nobody is anywhere, the best place is the one to name.
                Ok(Err(error)) if error.is_gone() => {
                    first_failure.get_or_insert(ScrapeError::Shim(error));
                }
                Ok(Err(error)) => return Err(ScrapeError::Shim(error)),
                Err(_elapsed) => return Err(self.unanswered(address, started)),
            }
        }
        Err(first_failure.unwrap_or(ScrapeError::NoAddress))
    }

    fn unanswered(&self, address: &Address, since: Instant) -> ScrapeError {
        ScrapeError::Unanswered {
            address: address.clone(),
            path: self.path.to_string(),
            waited: since.elapsed(),
        }
    }

    async fn ask(&self, stream: UnixStream, address: &Address, most: usize) -> Result<Vec<u8>, ScrapeError> {
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
        monitor::get(stream, address, self.path, most)
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
