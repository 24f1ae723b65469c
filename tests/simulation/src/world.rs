//! A simulated node with its sandboxes, and how a run on it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shimstat::node::Pod;
use shimstat::survey::{AskError, NotRunning, State, Survey};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::connect::Node;
use crate::dice::Dice;
use crate::mood::{self, Mood, Moods};
use crate::place;
use crate::record::Record;
use crate::run::Run;
use crate::sandbox::Sandbox;

/// A sandbox and the pod that it is to those who ask.
pub struct Known {
    pub sandbox: Arc<Sandbox>,
    pub pod: Pod,
}

/// A node, drawn from a seed.
pub struct World {
    seed: u64,
    /// What is not drawn yet.
    pub dice: Dice,
    /// How long an answer is waited for.
    pub limit: Duration,
    /// How many are asked at once.
    pub concurrency: usize,
    /// How long the sandboxes change.
    pub length: Duration,
    pub known: Arc<Vec<Known>>,
    pub record: Arc<Record>,
    node: Arc<Node>,
    moods: Vec<JoinHandle<()>>,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let limit = Duration::from_secs(dice.pick(&[1, 3, 10]));
        let concurrency = 1 + dice.index(8);
        let length = Duration::from_secs(10) + dice.time(Duration::from_secs(40));
        let record = Arc::new(Record::new(limit, concurrency));
        let mut sandboxes = Vec::new();
        let mut moods = Vec::new();
        for index in 0..=dice.index(place::SANDBOXES) {
            let mut dice = dice.of(index as u64);
            let plan = mood::plan(&mut dice, length);
            let is_healthy = plan.len() == 1;
            let containers = dice.index(place::CONTAINERS + 1);
            let stops = (0..=containers)
                .map(|_| dice.percent(15).then(|| Instant::now() + dice.time(length)))
                .collect();
            let mood = Arc::new(Moods::new(Mood::Well));
            let sandbox = Sandbox::new(
                index,
                is_healthy,
                containers,
                stops,
                mood.clone(),
                record.clone(),
                dice,
            );
            sandboxes.push(Arc::new(sandbox));
            moods.push(tokio::spawn(change_moods(mood, plan)));
        }
        let known = sandboxes.iter().map(|sandbox| Known {
            sandbox: sandbox.clone(),
            pod: place::pod(sandbox.is_kata, sandbox.index, sandbox.containers),
        });
        Self {
            seed,
            dice,
            limit,
            concurrency,
            length,
            known: Arc::new(known.collect()),
            record,
            node: Arc::new(Node(sandboxes)),
            moods,
        }
    }

    /// A survey of this node. Call it once: what is in flight is known to one survey alone.
    pub fn survey(&self) -> Survey {
        Survey::through(self.node.clone(), self.limit, self.concurrency)
            .reaching_guests_through(self.node.clone())
    }

    /// Waits until those who ask have come to their end. Whatever happens, there is one.
    pub async fn all(&self, asking: impl IntoIterator<Item = JoinHandle<()>>) {
        let longest = self.length + self.limit * 1000;
        let all = async {
            for asker in asking {
                if let Err(error) = asker.await {
                    self.record.finding(format!("an asker has panicked: {error}"));
                }
            }
        };
        if tokio::time::timeout(longest, all).await.is_err() {
            self.record.finding("an asker does not come to an end".into());
        }
    }

    /// All are well again, what is in flight comes to its end, and everyone has had their rest.
    pub async fn recover(&self) {
        tokio::time::sleep(Duration::from_secs(120) + self.limit * 4).await;
        let rest = self.known.iter().map(|known| known.sandbox.rest()).max();
        tokio::time::sleep(rest.unwrap_or_default() * 2 + Duration::from_secs(120)).await;
    }

    /// No connection may be open.
    pub fn expect_none_open(&self, when: &str) {
        let left_open = self.record.connections.load(Ordering::Relaxed);
        if left_open > 0 {
            self.record
                .finding(format!("{left_open} connections are open {when}"));
        }
    }

    /// All are well again, and have had their rest: then each answers, and nothing is left open.
    pub async fn settle(&self, survey: &Survey) {
        self.recover().await;
        survey.rest();
        self.expect_none_open("where nothing is in flight");
        for known in self.known.iter() {
            for container in known.pod.all() {
                match survey.ask(container, State).await {
                    Ok(_) | Err(AskError::NotRunning(NotRunning::Stopped(_))) => {}
                    Err(error) => self.record.finding(format!(
                        "sandbox {} is well, and its lane is not idle: {error}",
                        known.sandbox.index
                    )),
                }
            }
        }
        survey.rest();
        self.expect_none_open("in the end");
    }

    /// What came of it. Nobody asks any more, and no task is left.
    pub async fn end(self) -> Run {
        for mood in self.moods {
            let _ = mood.await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        if tasks > 0 {
            self.record.finding(format!("{tasks} tasks are left"));
        }
        Run {
            seed: self.seed,
            simulated: self.record.elapsed(),
            events: self.record.events(),
            findings: self.record.findings(),
        }
    }
}

/// Changes the mood of a sandbox as planned. In the end it is well.
async fn change_moods(moods: Arc<Moods>, plan: Vec<(Duration, Mood)>) {
    for (time, mood) in plan {
        moods.set(mood);
        tokio::time::sleep(time).await;
    }
    moods.set(Mood::Well);
}
