//! `events` as a stream: its rhythm and its end.

use std::{
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::support::{Running, for_each_containerd};

const IDLE: [&str; 2] = ["sleep", "1000"];

#[test]
fn a_stream_ends_when_the_container_stops() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&[], &IDLE);
        let begin = Instant::now();
        let mut stream = Running::start(&[
            "--state",
            &containerd.state(),
            "events",
            "--interval",
            "300ms",
            "--format",
            "json",
            &task.id,
        ]);
        let first = stream.event();
        assert_eq!(first["id"], task.id.as_str());
        assert_eq!(first["type"], "stats");
        for _ in 0..6 {
            assert_eq!(stream.event()["id"], task.id.as_str());
        }
        // Six intervals: none is cut short, and a busy machine may skip a tick or two.
        let elapsed = begin.elapsed().as_millis();
        assert!((1750..2700).contains(&elapsed), "{elapsed} ms for seven events");

        task.stop();
        let stopped = Instant::now();
        while stream.line().is_some() {}
        let (status, stderr) = stream.finish();
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert!(
            stopped.elapsed() < Duration::from_secs(2),
            "within the next ticks"
        );
        assert_eq!(stderr.lines().count(), 1, "one line: {stderr}");
        assert!(
            stderr.contains(&task.id) && stderr.contains("stopped"),
            "{stderr}"
        );
    });
}

#[test]
fn a_stream_ends_when_it_is_interrupted() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&[], &IDLE);
        let state = containerd.state();
        let begin = Instant::now();
        let mut stream = Running::start(&["--state", &state, "events", "--format", "json", &task.id]);
        stream.event();
        assert!(
            begin.elapsed() < Duration::from_secs(1),
            "the first event comes at once, not after 5 s"
        );
        assert_eq!(stream.threads(), 1);
        let begin = Instant::now();
        stream.interrupt();
        assert_eq!(stream.line(), None);
        let (status, stderr) = stream.finish();
        assert!(
            begin.elapsed() < Duration::from_secs(1),
            "not only at the next tick, 5 s later"
        );
        // The user has seen enough: the answer was given.
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    });
}

#[test]
fn a_reader_that_goes_away_ends_the_stream_quietly() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&[], &IDLE);
        let state = containerd.state();
        let args = [
            "--state",
            &state,
            "events",
            "--interval",
            "100ms",
            "--format",
            "json",
            &task.id,
        ];
        let mut stream = Running::start(&args);
        stream.event();
        stream.close_stdout();
        let begin = Instant::now();
        let (_, stderr) = stream.finish();
        assert!(begin.elapsed() < Duration::from_secs(2));
        assert_eq!(stderr, "");
    });
}

/// A hung shim is reported while it hangs, and the stream goes on when the shim does.
#[test]
fn a_stream_outlives_a_shim_that_hangs_for_a_while() {
    for_each_containerd(|containerd| {
        let task = containerd.run_container(&[], &IDLE);
        let mut stream = Running::start(&[
            "--state",
            &containerd.state(),
            "--timeout",
            "300ms",
            "events",
            "--interval",
            "200ms",
            "--format",
            "json",
            &task.id,
        ]);
        stream.event();
        task.signal_shim(Signal::SIGSTOP);
        thread::sleep(Duration::from_millis(1500));
        task.signal_shim(Signal::SIGCONT);
        // At most a few were under way before; so many can only come from a stream that went on.
        for _ in 0..10 {
            stream.event();
        }
        stream.interrupt();
        while stream.line().is_some() {}
        let (_, stderr) = stream.finish();
        assert!(stderr.contains(&task.id), "the hang was reported: {stderr:?}");
    });
}
