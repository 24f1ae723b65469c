//! One run: a node, those who ask about it, and what came of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use shimstat::survey::{AskError, NotRunning, State, Survey};
use tokio::time::Instant;

use crate::askers::{Asker, Known};
use crate::connect::Node;
use crate::dice::Dice;
use crate::mood::{self, Mood, Moods};
use crate::place;
use crate::record::{Event, Record};
use crate::sandbox::Sandbox;

/// What came of a run.
#[derive(Debug)]
pub struct Run {
    pub seed: u64,
    pub simulated: Duration,
    /// The same for the same seed.
    pub events: Vec<Event>,
    /// Promises that were not kept.
    pub findings: Vec<String>,
}

/// Runs a seed.
pub fn run(seed: u64) -> Run {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(simulate(seed))
}

async fn simulate(seed: u64) -> Run {
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
    let node = Arc::new(Node(sandboxes.clone()));
    let mut survey = Survey::through(node.clone(), limit, concurrency).reaching_guests_through(node.clone());
    if dice.percent(50) {
        survey = survey.keeping_connections();
    }
    let known: Arc<Vec<Known>> = Arc::new(
        sandboxes
            .iter()
            .map(|sandbox| Known {
                sandbox: sandbox.clone(),
                pod: place::pod(sandbox.is_kata, sandbox.index, sandbox.containers),
            })
            .collect(),
    );
    let mut asking = Vec::new();
    for number in 0..2 + dice.below(6) {
        let asker = Asker {
            number,
            known: known.clone(),
            survey: survey.clone(),
            record: record.clone(),
            dice: dice.of(1000 + number),
            asks: 0,
            until: Instant::now() + length,
        };
        asking.push(tokio::spawn(asker.run()));
    }
    // Whatever happens, it has an end.
    let longest = length + limit * 1000;
    let all = async {
        for asker in asking {
            if let Err(error) = asker.await {
                record.finding(format!("an asker has panicked: {error}"));
            }
        }
    };
    if tokio::time::timeout(longest, all).await.is_err() {
        record.finding("an asker does not come to an end".into());
    }
    settle(&record, &survey, &known).await;
    drop(survey);
    for mood in moods {
        let _ = mood.await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    if tasks > 0 {
        record.finding(format!("{tasks} tasks are left"));
    }
    Run {
        seed,
        simulated: record.elapsed(),
        events: record.events(),
        findings: record.findings(),
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

/// All are well again, and have had their rest: then each answers, and nothing is left open.
async fn settle(record: &Record, survey: &Survey, known: &[Known]) {
    // What is in flight comes to its end.
    tokio::time::sleep(Duration::from_secs(120) + record.limit * 4).await;
    let rest = known.iter().map(|known| known.sandbox.rest()).max();
    tokio::time::sleep(rest.unwrap_or_default() * 2 + Duration::from_secs(120)).await;
    survey.rest();
    let left_open = record.connections.load(Ordering::Relaxed);
    if left_open > 0 {
        record.finding(format!(
            "{left_open} connections are open where nothing is in flight"
        ));
    }
    for known in known {
        for container in known.pod.all() {
            match survey.ask(container, State).await {
                Ok(_) | Err(AskError::NotRunning(NotRunning::Stopped(_))) => {}
                Err(error) => record.finding(format!(
                    "sandbox {} is well, and its lane is not idle: {error}",
                    known.sandbox.index
                )),
            }
        }
    }
    survey.rest();
    let left_open = record.connections.load(Ordering::Relaxed);
    if left_open > 0 {
        record.finding(format!("{left_open} connections are open in the end"));
    }
}
