//! One run: a node, those who ask about it, and what came of it.

use std::time::{Duration, Instant};

use crate::askers::Asker;
use crate::record::Event;
use crate::world::World;

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

/// Runs a seed: a survey, and those who ask it.
pub fn run(seed: u64) -> Run {
    in_simulated_time(survey(seed))
}

/// Runs a future under a clock that goes on when nobody has anything to do.
pub fn in_simulated_time<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(future)
}

async fn survey(seed: u64) -> Run {
    let mut world = World::new(seed);
    let mut survey = world.survey();
    if world.dice.percent(50) {
        survey = survey.keeping_connections();
    }
    let mut asking = Vec::new();
    for number in 0..2 + world.dice.below(6) {
        let asker = Asker {
            number,
            known: world.known.clone(),
            survey: survey.clone(),
            record: world.record.clone(),
            dice: world.dice.of(1000 + number),
            asks: 0,
            until: tokio::time::Instant::now() + world.length,
        };
        asking.push(tokio::spawn(asker.run()));
    }
    world.all(asking).await;
    world.settle(&survey).await;
    drop(survey);
    world.end().await
}

/// Runs seeds and prints what came of them. `false`: some have findings.
pub fn run_many(first: u64, count: u64, run: impl Fn(u64) -> Run) -> bool {
    let begun = Instant::now();
    let (mut simulated, mut events, mut broken) = (Duration::ZERO, 0, 0);
    for seed in first..first + count {
        let run = run(seed);
        simulated += run.simulated;
        events += run.events.len();
        broken += u64::from(!run.findings.is_empty());
        for finding in run.findings {
            println!("seed {seed}: {finding}");
        }
    }
    println!(
        "seeds {first} to {}: {:.0} hours simulated in {:.0} s, {events} events, {broken} seeds with findings",
        first + count - 1,
        simulated.as_secs_f64() / 3600.0,
        begun.elapsed().as_secs_f64()
    );
    broken == 0
}

/// For tests: the seeds from 1 on, or those that `SIMULATION_SEEDS="FIRST COUNT"` says.
pub fn keeps_promises(count: u64, run: impl Fn(u64) -> Run) {
    let (first, count) = match std::env::var("SIMULATION_SEEDS") {
        Ok(seeds) => {
            let (first, count) = seeds.split_once(' ').expect("FIRST COUNT");
            (first.parse().unwrap(), count.parse().unwrap())
        }
        Err(_) => (1, count),
    };
    assert!(run_many(first, count, run), "promises were not kept: see above");
}

/// For tests: a seed tells the same each time.
pub fn repeats_itself(seed: u64, run: impl Fn(u64) -> Run) {
    let (one, other) = (run(seed), run(seed));
    assert!(one.events.len() > 10, "seed {seed}: {:?}", one.events);
    let first_difference = one
        .events
        .iter()
        .zip(&other.events)
        .find(|(one, other)| one != other);
    assert_eq!(first_difference, None, "seed {seed}");
    assert_eq!(one.events.len(), other.events.len(), "seed {seed}");
    assert_eq!(one.simulated, other.simulated);
}
