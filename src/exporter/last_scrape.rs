//! What the last scrape found, for the landing page.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shimstat::node::{Container, Pod};
use shimstat::survey::Sample;
use tokio::time::Instant;

use super::reason::NoAnswer;

/// The numbers of a container that people look for first.
#[derive(Debug, Clone, Copy)]
pub struct ContainerFigures {
    at: Instant,
    cpu: Option<Duration>,
    /// Share of one processor since the scrape before.
    pub cpu_share: Option<f64>,
    /// The working set, in bytes.
    pub memory: Option<u64>,
    /// In bytes.
    pub limit: Option<u64>,
    pub processes: Option<u64>,
}

impl ContainerFigures {
    pub fn of(sample: &Sample) -> Self {
        let stats = &sample.stats;
        Self {
            at: Instant::now(),
            cpu: stats.cpu.usage.total.map(Duration::from_nanos),
            cpu_share: None,
            memory: stats.memory.working_set(),
            limit: stats.memory.limit(),
            processes: stats.pids.current,
        }
    }

    fn since(&mut self, before: &Self) {
        let used = || self.cpu?.checked_sub(before.cpu?);
        let elapsed = self.at.saturating_duration_since(before.at);
        self.cpu_share = match (used(), elapsed.is_zero()) {
            (Some(used), false) => Some(used.as_secs_f64() / elapsed.as_secs_f64()),
            // Two scrapes shared one answer.
            (_, true) => before.cpu_share,
            (None, false) => None,
        };
    }
}

/// A pod, and what came of asking it.
pub struct PodResult {
    pub pod: Arc<Pod>,
    /// Why its sandbox's page is not there, or not all of it.
    pub failure: Option<NoAnswer>,
    /// In the order of [`Pod::all`].
    pub containers: Vec<Result<ContainerFigures, NoAnswer>>,
}

impl PodResult {
    /// Each container with what came of asking it.
    pub fn containers(&self) -> impl Iterator<Item = (&Arc<Container>, &Result<ContainerFigures, NoAnswer>)> {
        self.pod.all().zip(&self.containers)
    }
}

/// A scrape of everything.
pub struct LastScrape {
    pub at: SystemTime,
    pub took: Duration,
    pub pods: Vec<PodResult>,
}

impl LastScrape {
    /// What has come of a scrape that follows another.
    pub fn new(mut pods: Vec<PodResult>, took: Duration, before: Option<&Self>) -> Self {
        let before: HashMap<*const Container, &ContainerFigures> = before
            .iter()
            .flat_map(|before| &before.pods)
            .flat_map(PodResult::containers)
            .filter_map(|(container, figures)| Some((Arc::as_ptr(container), figures.as_ref().ok()?)))
            .collect();
        for result in &mut pods {
            for (container, figures) in result.pod.all().zip(&mut result.containers) {
                if let (Ok(figures), Some(before)) = (figures, before.get(&Arc::as_ptr(container))) {
                    figures.since(before);
                }
            }
        }
        Self {
            at: SystemTime::now(),
            took,
            pods,
        }
    }
}
