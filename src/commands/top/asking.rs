//! Asking all containers at each tick, and gathering their answers.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use shimstat::node::Container;
use shimstat::survey::{AskError, Hidden, Network, Sample, Statistics, Survey, Via};
use tokio::sync::{Notify, mpsc};

pub type Answer = (Arc<Container>, Result<Sample, AskError>);

/// Asks containers, and keeps the answers until they are taken. Whoever waits is woken once, when all of them have
/// arrived: being woken for each of hundreds costs more than reading it.
pub struct Asking {
    survey: Survey,
    /// The bundles of the containers that have been asked and whose answers have not been taken.
    open: HashSet<PathBuf>,
    missing: Arc<Missing>,
    sender: mpsc::UnboundedSender<Answer>,
    answers: mpsc::UnboundedReceiver<Answer>,
}

/// The answers that have not arrived.
#[derive(Default)]
struct Missing {
    count: AtomicUsize,
    none_left: Notify,
}

impl Asking {
    pub fn new(survey: Survey) -> Self {
        let (sender, answers) = mpsc::unbounded_channel();
        Self {
            survey,
            open: HashSet::new(),
            missing: Arc::default(),
            sender,
            answers,
        }
    }

    /// Asks these containers, except those that have not answered yet.
    pub fn ask<'a>(&mut self, containers: impl IntoIterator<Item = &'a Arc<Container>>) {
        for container in containers {
            if !self.open.insert(container.bundle.path.clone()) {
                continue;
            }
            self.missing.count.fetch_add(1, Ordering::Relaxed);
            let container = container.clone();
            let (survey, sender, missing) = (self.survey.clone(), self.sender.clone(), self.missing.clone());
            tokio::spawn(async move {
                let question = Statistics {
                    network: Network::Interfaces,
                    via: Via::Both,
                };
                let answer = survey.ask(&container, question).await;
                // The view may have ended.
                let _ = sender.send((container, answer));
                if missing.count.fetch_sub(1, Ordering::Relaxed) == 1 {
                    missing.none_left.notify_one();
                }
            });
        }
    }

    /// Waits until the last missing answer has arrived.
    pub async fn complete(&self) {
        self.missing.none_left.notified().await;
    }

    /// Whether every answer has been taken.
    pub fn is_over(&self) -> bool {
        self.open.is_empty()
    }

    /// Why the processes of containers cannot be looked at, and so neither can their network; as far as it is known.
    pub fn hidden(&self) -> Option<Hidden> {
        match (self.survey.sees_pids(), self.survey.may_look_at_processes()) {
            (Some(false), _) => Some(Hidden::Pids),
            (_, Some(false)) => Some(Hidden::Forbidden),
            _ => None,
        }
    }

    /// The next answer, if one has arrived.
    pub fn take(&mut self) -> Option<Answer> {
        let answer = self.answers.try_recv().ok()?;
        self.open.remove(&answer.0.bundle.path);
        Some(answer)
    }

    /// Closes connections to shims that none of these containers has.
    pub fn keep<'a>(&self, containers: impl IntoIterator<Item = &'a Arc<Container>>) {
        let endpoints = containers
            .into_iter()
            .filter_map(|container| container.endpoint());
        let here: HashSet<_> = endpoints.map(|endpoint| &endpoint.address).collect();
        self.survey.keep(|address| here.contains(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::top::fixtures::{row, without_address};
    use shimstat::shim::address::Address;
    use shimstat::shim::{Connect, Connecting};
    use std::time::Duration;
    use tokio::time::{Instant, timeout};

    /// Connects to shims that accept no connection.
    struct Stopped;

    impl Connect for Stopped {
        fn connect<'a>(&'a self, _: &'a Address) -> Connecting<'a> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_gather_until_the_last_is_there() {
        const LIMIT: Duration = Duration::from_secs(3);
        let mut asking = Asking::new(Survey::through(Arc::new(Stopped), LIMIT, 10));
        let (quick, hung) = (without_address("quick"), row("hung", None).container);
        let both = [quick.clone(), hung.clone()];
        let started = Instant::now();
        asking.ask(&both);
        let waited = timeout(LIMIT / 2, asking.complete()).await;
        assert!(waited.is_err(), "one is missing");
        // What has arrived can be taken anyway.
        let (first, answer) = asking.take().unwrap();
        assert!(Arc::ptr_eq(&first, &quick) && matches!(answer, Err(AskError::NoAddress(_))));
        assert!(asking.take().is_none() && !asking.is_over());
        // The one that has not answered is not asked again.
        asking.ask([&hung]);
        asking.complete().await;
        assert_eq!(started.elapsed(), LIMIT);
        let (last, answer) = asking.take().unwrap();
        assert!(Arc::ptr_eq(&last, &hung) && matches!(answer, Err(AskError::Unanswered { .. })));
        assert!(asking.take().is_none() && asking.is_over());
        asking.ask(&both);
        assert!(!asking.is_over());
    }
}
