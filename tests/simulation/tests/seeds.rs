//! The survey keeps its promises whatever the shims do, and a seed tells the same each time.

#![allow(clippy::restriction)] // A test may panic.

use simulation::run;

/// Seeds that were findings once.
const FOUND: [u64; 6] = [7, 44, 646, 1007, 6445, 10329];

fn keeps_promises(seeds: impl IntoIterator<Item = u64>) {
    for seed in seeds {
        let run = run(seed);
        assert!(run.findings.is_empty(), "seed {seed}: {:#?}", run.findings);
    }
}

#[test]
fn what_was_found_once_is_not_found_again() {
    keeps_promises(FOUND);
}

/// Many more are run, and faster, by `.ci/run` and by `tests/simulation/run.sh`.
#[test]
fn promises_are_kept_in_hundreds_of_runs() {
    keeps_promises(1..=300);
}

#[test]
fn a_seed_tells_the_same_each_time() {
    for seed in 1..=40 {
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
    assert_ne!(run(1).events, run(2).events);
}
