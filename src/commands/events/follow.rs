//! Following one container: each has its own ticks, so that a slow or hung shim costs no other container a tick.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shimstat::node::Container;
use shimstat::rates::Rates;
use shimstat::survey::{AskError, LastStatistics, NotRunning, Sample, Statistics, Survey};
use tokio::sync::mpsc;

use crate::ticks::Ticks;

/// The time between two samples that are taken for the rates of one answer.
const BETWEEN: Duration = Duration::from_secs(1);

/// A container that is followed.
pub struct Subject {
    /// As the user gave it; `None` where it was not named (`--all`).
    pub given: Option<String>,
    pub container: Arc<Container>,
    /// Where its numbers come from, as far as that has been said.
    pub origin: Mutex<String>,
}

/// What became known of a container.
pub enum News {
    /// Its statistics, and what it used since the last ones.
    Stats {
        sample: Box<Sample>,
        rates: Option<Rates>,
    },
    /// A process in it was killed for want of memory since the last statistics.
    OomKill,
    /// It ran, and no longer does.
    Exit(NotRunning),
    /// It did not run in the first place.
    NeverRan(NotRunning),
    /// There is no answer this time.
    Trouble(AskError),
}

/// How often a container is asked.
pub enum Rounds {
    One,
    /// Twice, for one answer with rates in it.
    Two,
    /// At every tick, until it stops.
    Every(Duration),
}

pub struct Follower {
    pub subject: Arc<Subject>,
    pub survey: Survey,
    pub question: Statistics,
    pub news: mpsc::Sender<(Arc<Subject>, News)>,
}

/// The news are no longer wanted.
struct Unwanted;

impl Follower {
    pub async fn run(self, rounds: Rounds) {
        // Nobody is left to be told of it.
        let _: Result<(), Unwanted> = match rounds {
            Rounds::One => self.once().await,
            Rounds::Two => self.twice().await,
            Rounds::Every(interval) => self.stream(interval).await,
        };
        // Not kept for later: another shim may listen there by then.
        self.survey.hang_up(&self.subject.container);
    }

    async fn once(&self) -> Result<(), Unwanted> {
        match self.sample().await {
            Ok(sample) => self.stats(Box::new(sample), None).await,
            Err(error) => self.no_sample(error, false).await,
        }
    }

    async fn twice(&self) -> Result<(), Unwanted> {
        let first = match self.sample().await {
            Ok(first) => first,
            Err(error) => return self.no_sample(error, false).await,
        };
        tokio::time::sleep(BETWEEN).await;
        match self.sample().await {
            Ok(second) => {
                let rates = Rates::between(&first, &second);
                self.stats(Box::new(second), Some(rates)).await
            }
            // What was measured is shown, though it has no rates, and it stopped or hangs by now.
            Err(_) => self.stats(Box::new(first), None).await,
        }
    }

    async fn stream(&self, interval: Duration) -> Result<(), Unwanted> {
        let mut last: Option<Box<Sample>> = None;
        let mut ticks = Ticks::every(interval);
        loop {
            ticks.tick().await;
            match self.sample().await {
                Ok(sample) => {
                    let sample = Box::new(sample);
                    let rates = last.as_ref().map(|last| Rates::between(last, &sample));
                    if rates.is_some_and(|rates| rates.oom_kills > Some(0)) {
                        self.tell(News::OomKill).await?;
                    }
                    self.stats(sample.clone(), rates).await?;
                    last = Some(sample);
                }
                Err(error @ AskError::NotRunning(_)) => {
                    if let Some(last) = &last
                        && self.was_killed_in_the_end(last, &error).await
                    {
                        self.tell(News::OomKill).await?;
                    }
                    return self.no_sample(error, last.is_some()).await;
                }
                Err(error) => self.tell(News::Trouble(error)).await?,
            }
        }
    }

    async fn sample(&self) -> Result<Sample, AskError> {
        self.survey.ask(&self.subject.container, self.question).await
    }

    /// Whether a process of a container that has stopped was killed for want of memory after its last sample: most
    /// likely that is why it stopped. Only runc's shim can be asked for it without harm.
    async fn was_killed_in_the_end(&self, last: &Sample, why: &AskError) -> bool {
        if !matches!(why, AskError::NotRunning(NotRunning::Stopped(_)))
            || !self.subject.container.bundle.has_runcs_shim()
        {
            return false;
        }
        let end = self.survey.ask(&self.subject.container, LastStatistics).await;
        let kills = |sample: &Sample| sample.stats.memory.oom_kill;
        end.is_ok_and(|end| kills(last).is_some() && kills(&end) > kills(last))
    }

    async fn stats(&self, sample: Box<Sample>, rates: Option<Rates>) -> Result<(), Unwanted> {
        self.tell(News::Stats { sample, rates }).await
    }

    async fn no_sample(&self, error: AskError, ran: bool) -> Result<(), Unwanted> {
        self.tell(match error {
            AskError::NotRunning(why) if ran => News::Exit(why),
            AskError::NotRunning(why) => News::NeverRan(why),
            error => News::Trouble(error),
        })
        .await
    }

    async fn tell(&self, news: News) -> Result<(), Unwanted> {
        self.news
            .send((self.subject.clone(), news))
            .await
            .map_err(|_| Unwanted)
    }
}
