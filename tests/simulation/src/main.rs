//! `simulation FIRST COUNT` runs seeds and says what came of them; `simulation show SEED` shows what happens in one.

#![allow(clippy::restriction)] // A test's program: it may panic and print.

use std::time::{Duration, Instant};

use simulation::{ASKERS, run};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &String| text.parse::<u64>().ok();
    match &arguments[..] {
        [show, seed] if show == "show" => self::show(number(seed).expect("SEED is a number")),
        [first, count] => {
            let [first, count] =
                [first, count].map(|text| number(text).expect("FIRST and COUNT are numbers"));
            run_many(first, count);
        }
        _ => {
            eprintln!("usage: simulation FIRST COUNT, or: simulation show SEED");
            std::process::exit(2);
        }
    }
}

fn show(seed: u64) {
    let run = run(seed);
    for event in run.events {
        let who = match event.who.checked_sub(ASKERS) {
            Some(asker) => format!("asker {asker}"),
            None => format!("sandbox {}", event.who),
        };
        println!("{:>8} ms  {who}: {} {}", event.at, event.what, event.number);
    }
    run.findings.iter().for_each(|finding| println!("{finding}"));
}

fn run_many(first: u64, count: u64) {
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
    std::process::exit(i32::from(broken > 0));
}
