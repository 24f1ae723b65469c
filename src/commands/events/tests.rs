//! Followers under simulated time: many streams at once, of which some share a sandbox, on simulated nodes whose shims and
//! guests do what they can, and whoever reads the news may be slow or go away. [`simulation`] checks what the sandboxes are
//! asked; what is reported of them is checked here.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shimstat::survey::{AskError, Network, Statistics, Via};
use simulation::{ASKERS, Dice, Record, Run, Sandbox, What, World, in_simulated_time};
use simulation::{keeps_promises, repeats_itself};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::WAITING;
use super::follow::{Follower, News, Rounds, Subject};

#[test]
fn promises_are_kept_in_hundreds_of_runs() {
    keeps_promises(500, run);
}

#[test]
fn a_seed_tells_the_same_each_time() {
    for seed in 1..=20 {
        repeats_itself(seed, run);
    }
}

fn run(seed: u64) -> Run {
    in_simulated_time(following(seed))
}

async fn following(seed: u64) -> Run {
    let mut world = World::new(seed);
    let survey = world.survey().keeping_connections();
    let mut dice = world.dice.clone();
    let (to_show, news) = mpsc::channel(1 + dice.index(WAITING));
    let (mut streams, mut followers) = (Vec::new(), Vec::new());
    for number in 0..1 + dice.index(8) {
        let known = &world.known[dice.index(world.known.len())];
        let containers: Vec<_> = known.pod.all().cloned().collect();
        let container = containers[dice.index(containers.len())].clone();
        let interval = Duration::from_millis(100) + dice.time(Duration::from_secs(3));
        streams.push(Stream {
            sandbox: known.sandbox.clone(),
            interval,
            last: Instant::now(),
            shown: HashSet::new(),
            has_ended: false,
        });
        let follower = Follower {
            subject: Arc::new(Subject {
                given: Some(number.to_string()),
                container,
                origin: Mutex::default(),
            }),
            survey: survey.clone(),
            question: Statistics {
                network: Network::InterfacesAndSockets,
                via: dice.pick(&[Via::Both, Via::Both, Via::Guest]),
            },
            news: to_show.clone(),
        };
        followers.push(tokio::spawn(follower.run(Rounds::Every(interval))));
    }
    drop(to_show);
    let until = Instant::now() + world.length.mul_f64(0.5 + dice.below(50) as f64 / 100.0);
    let reader = Reader {
        streams,
        record: world.record.clone(),
        // In thousandths of a second. Whoever reads a pipe may stop for a while.
        slowness: if dice.percent(30) { dice.below(2000) } else { 0 },
        queue: Duration::from_millis(101) * (followers.len() / world.concurrency + 1) as u32,
        until,
    };
    world.dice = dice.clone();
    followers.push(tokio::spawn(reader.read(news, dice)));
    followers.push(tokio::spawn(be_held_up(
        world.record.clone(),
        world.dice.of(3000),
        until,
    )));
    world.all(followers).await;
    world.settle(&survey).await;
    drop(survey);
    world.end().await
}

async fn be_held_up(record: Arc<Record>, mut dice: Dice, until: Instant) {
    let is_held_up = dice.percent(10);
    while is_held_up && Instant::now() < until {
        let pause = Duration::from_secs(1) + dice.time(Duration::from_secs(20));
        tokio::time::sleep(pause).await;
        let lost = dice.time(record.limit * 3);
        record.lose(lost).await;
    }
}

/// What is known of one follower's reports.
struct Stream {
    sandbox: Arc<Sandbox>,
    interval: Duration,
    /// When it last reported.
    last: Instant,
    shown: HashSet<u64>,
    has_ended: bool,
}

struct Reader {
    streams: Vec<Stream>,
    record: Arc<Record>,
    slowness: u64,
    queue: Duration,
    until: Instant,
}

impl Reader {
    /// Reads the news until all followers have ended, or its time is over. Then it goes away, and so must the followers.
    async fn read(mut self, mut news: mpsc::Receiver<(Arc<Subject>, News)>, mut dice: Dice) {
        while Instant::now() < self.until
            && let Ok(Some((subject, news))) = tokio::time::timeout_at(self.until, news.recv()).await
        {
            self.check(&subject, news);
            tokio::time::sleep(Duration::from_millis(dice.below(self.slowness))).await;
        }
        if Instant::now() < self.until && !self.streams.iter().all(|stream| stream.has_ended) {
            self.record.finding("a follower ended without a word".into());
        }
        for number in 0..self.streams.len() {
            self.check_silence(number);
        }
    }

    fn check(&mut self, subject: &Subject, news: News) {
        let number: usize = subject.given.as_ref().unwrap().parse().unwrap();
        self.check_silence(number);
        let was_held_up = self.record.was_held_up(self.streams[number].last);
        let stream = &mut self.streams[number];
        stream.last = Instant::now();
        let id = subject.container.id();
        let sandbox = &stream.sandbox;
        let finding = |text: &str| self.record.finding(format!("stream {number} of {id}: {text}"));
        if stream.has_ended {
            finding("news after its end");
        }
        let is_well = sandbox.is_healthy && !was_held_up && !sandbox.has_stopped(id);
        let what = match news {
            News::Stats { sample, .. } => {
                let total = sample.stats.cpu.usage.total.unwrap_or_default();
                sandbox.check(total, What::Stats, id, self.record.begun());
                sandbox.check(sample.state.pid.into(), What::State, id, self.record.begun());
                if !stream.shown.insert(total) {
                    finding("the same statistics twice");
                }
                "statistics"
            }
            News::OomKill => {
                finding("nobody was killed");
                "an OOM kill"
            }
            News::Exit(..) | News::NeverRan(_) => {
                stream.has_ended = true;
                if is_well {
                    finding("it is said to have ended, and runs");
                }
                "its end"
            }
            News::NoAnswer(AskError::NoGuest { .. }) => "no guest",
            News::NoAnswer(error) => {
                if is_well {
                    finding(&format!("healthy, and not answered: {error}"));
                }
                "no answer"
            }
        };
        self.record.note(ASKERS + number as u64, what, 0);
    }

    /// No report came later than it should: where the sandbox is well, the others' state does not matter.
    fn check_silence(&self, number: usize) {
        let stream = &self.streams[number];
        let sharing = |other: &&Stream| Arc::ptr_eq(&other.sandbox, &stream.sandbox);
        let sharing = self.streams.iter().filter(sharing).count() as u32;
        let answer = match stream.sandbox.is_healthy {
            true => Duration::from_millis(60) * (sharing + 1),
            false => (self.record.limit + Duration::from_secs(2)) * 2 * sharing,
        };
        let longest = stream.interval + self.queue + answer;
        let silence = stream.last.elapsed();
        if self.slowness == 0
            && !stream.has_ended
            && silence > longest
            && !self.record.was_held_up(stream.last)
        {
            self.record.finding(format!(
                "stream {number}: silent for {silence:?}, not {longest:?}"
            ));
        }
    }
}
