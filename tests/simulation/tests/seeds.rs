//! The survey keeps its promises whatever the shims do, and a seed tells the same each time.

#![allow(clippy::restriction)] // A test may panic.

use simulation::{keeps_promises, repeats_itself, run};

/// Seeds that were findings once.
const FOUND: [u64; 10] = [
    7, 44, 646, 1007, 6445, 10329, 956_984, 1_006_831, 1_288_734, 1_291_781,
];

#[test]
fn what_was_found_once_is_not_found_again() {
    for seed in FOUND {
        let run = run(seed);
        assert!(run.findings.is_empty(), "seed {seed}: {:#?}", run.findings);
    }
}

/// Many more are run, and faster, by `.ci/run` and by `tests/simulation/run.sh`.
#[test]
fn promises_are_kept_in_hundreds_of_runs() {
    keeps_promises(300, run);
}

#[test]
fn a_seed_tells_the_same_each_time() {
    for seed in 1..=40 {
        repeats_itself(seed, run);
    }
    assert_ne!(run(1).events, run(2).events);
}
