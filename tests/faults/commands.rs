//! The commands, and what each has to do with a fault: end in time, say what is the matter, show no number that nobody
//! sent, and show what is well.

use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use test_needs::needs;

use crate::exporter::{Monitor, Page};
use crate::ground::Ground;
use crate::list::{FAULTS, Outcome};
use crate::mock::Ran;
use crate::tmux::{Tmux, cells};

/// How long each command waits for an answer, as an argument.
const TIMEOUT: &str = "300ms";

/// The longest that a command may take that waits so long for each of several answers, on a busy machine.
const LONGEST: Duration = Duration::from_secs(6);

#[derive(Debug, Clone, Copy)]
pub enum Command {
    EventsStats,
    Stream,
    All,
    List,
    Top,
    Metrics,
    Monitor,
}

impl Command {
    pub fn title(self) -> &'static str {
        match self {
            Self::EventsStats => "`events --stats`",
            Self::Stream => "`events`",
            Self::All => "`events --all`",
            Self::List => "`list`",
            Self::Top => "`top`",
            Self::Metrics => "`metrics`",
            Self::Monitor => "`monitor`",
        }
    }

    /// What the command makes of it, for the documentation.
    pub fn words(self, outcome: Outcome) -> &'static str {
        use Outcome::*;
        match (self, outcome) {
            (Self::Metrics, Answered) => "the page",
            (_, Answered) => "numbers",
            (Self::Metrics, NoPage | PageSilent | NoSpec) => "an error",
            (Self::Monitor, NoPage) => "numbers; `kata_monitor_sandbox_up` 0",
            (Self::Monitor, PageSilent) => "`kata_monitor_sandbox_up` 0, the guest may hang",
            (Self::List, NoSpec) => "the status; what is wrong is said",
            (Self::Monitor, NoSpec) => "`kata_monitor_container_up` 0",
            (_, NoPage | PageSilent | NoSpec) => "numbers",
            (Self::All, NotRunning) => "left out",
            (Self::List, NotRunning) => "the status",
            (Self::Top, NotRunning) => "no numbers",
            (Self::Monitor, NotRunning | Wrong | Silent) => "`kata_monitor_container_up` 0",
            (Self::Metrics, NotRunning | Wrong | Silent | Unknown) => "an error",
            (_, NotRunning) => "does not exist",
            (Self::EventsStats, Wrong) => "an error",
            (Self::Stream, Wrong) => "an error, again and again",
            (Self::All, Wrong) => "said; the others",
            (Self::List, Wrong) => "`error`",
            (Self::Top, Wrong) => "no numbers",
            (Self::EventsStats, Silent) => "an error in time",
            (Self::Stream, Silent) => "said, again and again",
            (Self::All, Silent) => "said in time; the others",
            (Self::List, Silent) => "`not answering`, or the state alone",
            (Self::Top, Silent) => "no numbers",
            (Self::EventsStats | Self::Stream, Unknown) => "does not exist",
            (_, Unknown) => "not there",
        }
    }
}

/// One cell of the table.
pub fn cell(fault: &str, command: Command) {
    let fault = FAULTS.iter().find(|one| one.name == fault).unwrap();
    let ground = Ground::new();
    (fault.make)(&ground);
    let started = Instant::now();
    match command {
        Command::EventsStats => events_stats(&ground, fault.outcome),
        Command::Stream => stream(&ground, fault.outcome),
        Command::All => all(&ground, fault.outcome),
        Command::List => list(&ground, fault.outcome),
        Command::Top => top(&ground, fault.outcome),
        Command::Metrics => metrics(&ground, fault.outcome),
        Command::Monitor => monitor(&ground, fault.outcome),
    }
    let took = started.elapsed();
    assert!(took < LONGEST * 2, "{took:?}");
}

fn has_numbers(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Answered | Outcome::NoPage | Outcome::PageSilent | Outcome::NoSpec
    )
}

/// Nothing crashes, and nothing that a terminal acts on comes through.
#[track_caller]
fn check_text(text: &str) {
    assert!(!text.contains("panicked"), "{text}");
    assert!(!text.contains('\x1b'), "{text:?}");
}

fn run(ground: &Ground, arguments: &[&str]) -> Ran {
    let ran = ground.node.run(&[&["--timeout", TIMEOUT], arguments].concat());
    check_text(&ran.stdout);
    check_text(&ran.stderr);
    assert!(ran.took < LONGEST, "{ran:?}");
    assert!(ran.status.is_some(), "{ran:?}");
    ran
}

fn events_stats(ground: &Ground, outcome: Outcome) {
    let ran = run(ground, &["events", "--stats", "sick"]);
    if has_numbers(outcome) {
        assert_eq!(ran.status, Some(0), "{ran:?}");
        let event: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(event["id"], "sick");
        return;
    }
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
    let is_missing = ran.stderr.contains("Container ID (sick) does not exist");
    let must_be_missing = matches!(outcome, Outcome::NotRunning | Outcome::Unknown);
    assert_eq!(is_missing, must_be_missing, "{ran:?}");
}

fn stream(ground: &Ground, outcome: Outcome) {
    let mut child = ground
        .node
        .command(&[
            "--timeout",
            TIMEOUT,
            "events",
            "--interval",
            "100ms",
            "--format",
            "json",
            "sick",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pipes: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stdout.take().unwrap()),
        Box::new(child.stderr.take().unwrap()),
    ];
    let readers = pipes.map(|mut pipe| {
        std::thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).unwrap();
            text
        })
    });
    // Two deadlines and some ticks.
    let started = Instant::now();
    let has_ended = loop {
        if child.try_wait().unwrap().is_some() {
            break true;
        }
        if started.elapsed() > Duration::from_millis(900) {
            break false;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    if !has_ended {
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    }
    let interrupted = Instant::now();
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if interrupted.elapsed() > LONGEST => {
                child.kill().unwrap();
                panic!("it does not end");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let [stdout, stderr] = readers.map(|reader| reader.join().unwrap());
    check_text(&stdout);
    check_text(&stderr);
    let context = format!("{status:?}\n{stdout}\n{stderr}");
    assert_eq!(stdout.contains("\"stats\""), has_numbers(outcome), "{context}");
    if !has_numbers(outcome) {
        assert!(!stderr.is_empty() || stdout.contains("error"), "{context}");
    }
    let ends_by_itself = matches!(outcome, Outcome::NotRunning | Outcome::Unknown);
    assert!(has_ended || !ends_by_itself, "{context}");
}

fn all(ground: &Ground, outcome: Outcome) {
    let ran = run(ground, &["events", "--all", "--stats", "--format", "json"]);
    let ids: Vec<String> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["type"] == "stats")
        .map(|event| event["id"].as_str().unwrap().to_string())
        .collect();
    let expected: &[&str] = match has_numbers(outcome) {
        true => &["sick", "well"],
        false => &["well"],
    };
    let mut ids: Vec<_> = ids
        .iter()
        .map(String::as_str)
        .filter(|id| *id != "sicker")
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, expected, "{ran:?}");
    match outcome {
        Outcome::Wrong | Outcome::Silent => {
            assert_eq!(ran.status, Some(1), "{ran:?}");
            assert!(ran.stderr.contains("sick"), "{ran:?}");
        }
        _ => {}
    }
}

fn list(ground: &Ground, outcome: Outcome) {
    let ran = run(ground, &["list", "--format", "json"]);
    let is_whole = outcome != Outcome::NoSpec;
    assert_eq!(ran.status, Some(i32::from(!is_whole)), "{ran:?}");
    assert!(is_whole || ran.stderr.contains("config.json"), "{ran:?}");
    let rows: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap();
    let status = |id: &str| {
        let row = rows.iter().find(|row| row["id"] == id)?;
        Some(row["status"].as_str().unwrap_or_default().to_string())
    };
    assert_eq!(status("well").as_deref(), Some("running"), "{ran:?}");
    let sick = status("sick");
    let allowed: &[Option<&str>] = match outcome {
        Outcome::Answered | Outcome::NoPage | Outcome::PageSilent | Outcome::NoSpec => &[Some("running")],
        Outcome::NotRunning => &[Some("shim gone"), Some("unknown"), Some("stopped")],
        // Where State is answered, that is all that the list needs.
        Outcome::Wrong => &[Some("error"), Some("running")],
        Outcome::Silent => &[Some("not answering"), Some("running")],
        Outcome::Unknown => &[None],
    };
    assert!(allowed.contains(&sick.as_deref()), "{ran:?}");
}

fn top(ground: &Ground, outcome: Outcome) {
    needs!("tmux");
    let program = env!("CARGO_BIN_EXE_kata-runtime");
    let state = ground.node.state_dir().display();
    let command = format!("{program} --state {state} --timeout {TIMEOUT} top --interval 300ms");
    let tmux = Tmux::start((100, 24), &command);
    // Memory, of the documented example.
    let memory = |screen: &[String], name: &str| cells(screen, name).get(1).cloned();
    let is_number = |cell: &Option<String>| {
        cell.as_ref()
            .is_some_and(|cell| cell.starts_with(|c: char| c.is_ascii_digit()))
    };
    tmux.wait_for("the healthy row", |screen| {
        is_number(&memory(screen, "shop/well"))
    });
    if has_numbers(outcome) {
        tmux.wait_for("numbers", |screen| {
            ["shop/sick", "sick"]
                .iter()
                .any(|name| is_number(&memory(screen, name)))
        });
    } else {
        std::thread::sleep(Duration::from_millis(500));
        let screen = tmux.screen();
        assert!(!is_number(&memory(&screen, "shop/sick")), "{screen:#?}");
    }
    tmux.keys(&["q"]);
    tmux.wait_for("the end", |screen| screen.iter().any(|line| line == "status=0"));
}

fn metrics(ground: &Ground, outcome: Outcome) {
    let ran = run(ground, &["metrics", "sick"]);
    match outcome {
        Outcome::Answered => {
            assert_eq!(ran.status, Some(0), "{ran:?}");
            assert!(ran.stdout.contains("kata_shim_threads"), "{ran:?}");
        }
        // The page is the monitor's, and needs no more of the shim than State.
        Outcome::Wrong | Outcome::Silent if ran.status == Some(0) => {
            assert_eq!(ran.stdout.as_bytes(), crate::ground::PAGE);
        }
        _ => {
            assert_eq!((ran.status, ran.stdout.as_str()), (Some(1), ""), "{ran:?}");
            assert!(!ran.stderr.is_empty());
        }
    }
}

fn monitor(ground: &Ground, outcome: Outcome) {
    let arguments = ["--timeout", TIMEOUT, "monitor", "--listen-address", "127.0.0.1:0"];
    let monitor = Monitor::start(ground.node.command(&arguments));
    let started = Instant::now();
    let page: Page = monitor.scrape();
    assert!(started.elapsed() < LONGEST);
    page.check();
    let up = |family: &str, label: &str, id: &str| {
        let samples = page.samples(family, &[(label, id)]);
        samples
            .first()
            .map(|line| line.rsplit_once(' ').unwrap().1.to_string())
    };
    let container = |id: &str| up("kata_monitor_container_up", "id", id);
    let sandbox = |id: &str| up("kata_monitor_sandbox_up", "sandbox_id", id);
    assert_eq!(container("well").as_deref(), Some("1"));
    assert_eq!(sandbox("well").as_deref(), Some("1"));
    let expected = match outcome {
        Outcome::Answered | Outcome::NoPage => Some("1"),
        Outcome::NotRunning | Outcome::Wrong | Outcome::Silent | Outcome::PageSilent | Outcome::NoSpec => {
            Some("0")
        }
        Outcome::Unknown => None,
    };
    assert_eq!(container("sick").as_deref(), expected, "{}", page.text);
    if matches!(outcome, Outcome::NoPage | Outcome::PageSilent) {
        assert_eq!(sandbox("sick").as_deref(), Some("0"));
    }
    let is_of_sick = |line: &str| line.starts_with("container_") && line.contains("id=\"sick\"");
    assert_eq!(
        page.text.lines().any(is_of_sick),
        expected == Some("1"),
        "{}",
        page.text
    );
}
