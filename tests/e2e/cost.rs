//! What watching costs: the CPU time of shims, as told, beside what the scheduler counts.

use std::fs;
use std::time::Duration;

use crate::monitor::monitor;
use crate::support::{eventually, for_each_containerd};

/// The CPU time of a process' threads, as the scheduler counts it.
fn cpu_time(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanos = |thread: fs::DirEntry| -> Option<u64> {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(threads.flatten().filter_map(nanos).sum())
}

#[test]
fn what_shims_spend_on_answering_is_told() {
    for_each_containerd(|containerd| {
        let (plain, sandbox) = (
            containerd.run_container(&[], &["sleep", "1000"]),
            containerd.run_sandbox(&[]),
        );
        for task in [&plain, &sandbox] {
            let before = cpu_time(task.shim());
            let ran = containerd.ask(&["-v", "events", "--stats", &task.id]);
            let spent = cpu_time(task.shim()) - before;
            let cost = ran
                .stderr
                .lines()
                .find_map(|line| line.strip_prefix("cost: shims used "));
            let (told, rest) = cost.unwrap().split_once(" of CPU to answer ").unwrap();
            assert!(rest.starts_with("1 question, this program "), "{rest}");
            let told = go_duration::parse_positive(told).unwrap();
            // The shim had also to take the connection, before and after that.
            assert!(told > Duration::ZERO && told <= spent, "{told:?} {spent:?}");
        }
        let monitor = monitor(containerd);
        monitor.scrape();
        let page = monitor.scrape();
        let number = |name, labels: &[(&str, &str)]| page.value(name, labels).parse::<f64>().unwrap();
        assert!(number("kata_monitor_answers_total", &[("cpu_known", "true")]) >= 2.0);
        assert!(number("kata_monitor_answering_cpu_seconds_total", &[]) > 0.0);
        // The kernel counts it in steps of 10 ms, which a few scrapes may not take.
        eventually("its own time is told", || {
            let page = monitor.scrape();
            page.value("kata_monitor_process_cpu_seconds_total", &[])
                .parse::<f64>()
                .unwrap()
                > 0.0
        });
    });
}
