//! Following one container. Each has ticks of its own, so that a slow or hung shim does not delay the others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shimstat::node::{Container, EndRecord, Ended};
use shimstat::rates::Rates;
use shimstat::survey::{AskError, LastStatistics, NotRunning, Sample, Statistics, Survey};
use tokio::sync::mpsc;

use crate::ticks::Ticks;

/// The time between the two samples of an answer with rates.
const BETWEEN: Duration = Duration::from_secs(1);

/// A container to follow.
pub struct Subject {
    /// As the user named it; `None` with `--all`.
    pub given: Option<String>,
    pub container: Arc<Container>,
    /// Where its numbers come from, as last reported.
    pub origin: Mutex<String>,
}

/// How long a manager may take to note how a container has ended, once its shim no longer knows it. containerd's CRI
/// deletes the task first, and writes a few milliseconds later.
const NOTED_WITHIN: Duration = Duration::from_secs(1);
const NOTED_CHECK: Duration = Duration::from_millis(50);

/// What a follower found out.
pub enum News {
    /// Its statistics, and the rates since the previous ones.
    Stats {
        sample: Box<Sample>,
        rates: Option<Rates>,
    },
    /// A process in it was OOM-killed since the previous statistics.
    OomKill,
    /// It was running, and no longer is; with what its manager has noted of its end.
    Exit(NotRunning, Option<Ended>),
    /// It was not running in the first place.
    NeverRan(NotRunning),
    /// There was no answer this time.
    NoAnswer(AskError),
}

/// How often to ask a container.
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

/// What is noted of a container's end, waited for a moment.
async fn noted_end(record: &EndRecord) -> Option<Ended> {
    let noted = async {
        loop {
            match record.read() {
                Some(ended) => return ended,
                None => tokio::time::sleep(NOTED_CHECK).await,
            }
        }
    };
    tokio::time::timeout(NOTED_WITHIN, noted).await.ok()
}

/// Nobody receives the news any more.
struct Closed;

impl Follower {
    pub async fn run(self, rounds: Rounds) {
        // Then there is nobody to report to.
        let _: Result<(), Closed> = match rounds {
            Rounds::One => self.once().await,
            Rounds::Two => self.twice().await,
            Rounds::Every(interval) => self.stream(interval).await,
        };
        // Another shim may listen at this address later.
        self.survey.hang_up(&self.subject.container);
    }

    async fn once(&self) -> Result<(), Closed> {
        match self.sample().await {
            Ok(sample) => self.stats(Box::new(sample), None).await,
            Err(error) => self.no_sample(error).await,
        }
    }

    async fn twice(&self) -> Result<(), Closed> {
        let first = match self.sample().await {
            Ok(first) => first,
            Err(error) => return self.no_sample(error).await,
        };
        tokio::time::sleep(BETWEEN).await;
        match self.sample().await {
            Ok(second) => {
                let rates = Rates::between(&first, &second);
                self.stats(Box::new(second), Some(rates)).await
            }
            // It has stopped or hangs: what was measured before is shown, without rates.
            Err(_) => self.stats(Box::new(first), None).await,
        }
    }

    async fn stream(&self, interval: Duration) -> Result<(), Closed> {
        let mut last: Option<Box<Sample>> = None;
        // Its bundle leads there, and is gone afterwards.
        let record = EndRecord::of(&self.subject.container.bundle);
        let mut ticks = Ticks::every(interval);
        loop {
            ticks.tick().await;
            match self.sample().await {
                Ok(sample) => {
                    // The same one again, where it is too early to ask for another.
                    if last.as_ref().is_some_and(|last| last.taken == sample.taken) {
                        continue;
                    }
                    let sample = Box::new(sample);
                    let rates = last.as_ref().map(|last| Rates::between(last, &sample));
                    if rates.is_some_and(|rates| rates.oom_kills > Some(0)) {
                        self.tell(News::OomKill).await?;
                    }
                    self.stats(sample.clone(), rates).await?;
                    last = Some(sample);
                }
                Err(error @ AskError::NotRunning(_)) => {
                    let Some(last) = last else {
                        return self.no_sample(error).await;
                    };
                    let ended = match &record {
                        Some(record) => noted_end(record).await,
                        None => None,
                    };
                    if ended.is_some_and(|ended| ended.oom_killed)
                        || self.was_oom_killed_at_the_end(&last, &error).await
                    {
                        self.tell(News::OomKill).await?;
                    }
                    return self.exit(error, ended).await;
                }
                // There will be none.
                Err(error @ AskError::NoStatistics(_)) => return self.no_sample(error).await,
                Err(error) => self.tell(News::NoAnswer(error)).await?,
            }
        }
    }

    async fn sample(&self) -> Result<Sample, AskError> {
        // On the heap, so that a follower takes little room between two rounds.
        Box::pin(self.survey.ask(&self.subject.container, self.question)).await
    }

    /// Whether a process of a stopped container was OOM-killed after its last sample: most likely that is why it stopped.
    /// Only runc's shim can be asked for this without harm.
    async fn was_oom_killed_at_the_end(&self, last: &Sample, why: &AskError) -> bool {
        if !matches!(why, AskError::NotRunning(NotRunning::Stopped(_)))
            || !self.subject.container.has_runcs_shim()
        {
            return false;
        }
        let end = self.survey.ask(&self.subject.container, LastStatistics).await;
        let kills = |sample: &Sample| sample.stats.memory.oom_kill;
        end.is_ok_and(|end| kills(last).is_some() && kills(&end) > kills(last))
    }

    async fn stats(&self, sample: Box<Sample>, rates: Option<Rates>) -> Result<(), Closed> {
        self.tell(News::Stats { sample, rates }).await
    }

    async fn no_sample(&self, error: AskError) -> Result<(), Closed> {
        self.tell(match error {
            AskError::NotRunning(why) => News::NeverRan(why),
            error => News::NoAnswer(error),
        })
        .await
    }

    async fn exit(&self, error: AskError, ended: Option<Ended>) -> Result<(), Closed> {
        self.tell(match error {
            AskError::NotRunning(why) => News::Exit(why, ended),
            error => News::NoAnswer(error),
        })
        .await
    }

    async fn tell(&self, news: News) -> Result<(), Closed> {
        self.news
            .send((self.subject.clone(), news))
            .await
            .map_err(|_| Closed)
    }
}
