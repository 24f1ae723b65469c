//! `simulation FIRST COUNT` runs seeds and says what came of them; `simulation show SEED` shows what happens in one.

#![allow(clippy::restriction)] // A test's program: it may panic and print.

use simulation::{ASKERS, run, run_many};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &String| text.parse::<u64>().ok();
    match &arguments[..] {
        [show, seed] if show == "show" => self::show(number(seed).expect("SEED is a number")),
        [first, count] => {
            let [first, count] =
                [first, count].map(|text| number(text).expect("FIRST and COUNT are numbers"));
            std::process::exit(i32::from(!run_many(first, count, run)));
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
