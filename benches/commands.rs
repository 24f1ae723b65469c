//! What one question costs: `events --stats` and `metrics` as whole processes, beside other programs that ask the
//! same shim in the same run, and finding one container among ten thousand.
//!
//! `cargo bench --bench commands` as root, on a machine with containerd, runc, busybox-static, curl and a C
//! compiler (`tests/run.sh` installs them). Every round runs each program once, in turn, so that a noisy machine
//! is noisy for all; the figures are medians, and the ratios are what to look at.

#![allow(clippy::restriction)] // A benchmark may panic.

mod measure;

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use measure::{Containerd, KATA_RUNTIME, Program, compile, in_turns, median};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use shimstat::node::processes::ShimTime;
use shimstat::node::{Container, Id, Node};

const ROUNDS: usize = 300;
const BUNDLES: usize = 10_000;

fn main() {
    if !measure::is_wanted() {
        return;
    }
    let world = World::start();
    whole_processes(&world);
    a_kata_container(&world);
    a_prefix_among_many();
}

/// A private containerd with a container and a sandbox.
struct World {
    containerd: Containerd,
    container: String,
    sandbox: String,
}

impl World {
    fn start() -> Self {
        let shim = measure::build("sandbox-shim", "containerd-shim-test-sandbox-v2");
        let containerd = Containerd::start(shim.parent());
        let container = format!("bench-runc-{}", std::process::id());
        let sandbox = format!("bench-pod-{}", std::process::id());
        let dir = containerd.dir();
        let idle = ["--", "sleep", "100000"];
        containerd.script(&[&["ctd_run", &dir, "default", &container][..], &idle].concat());
        let agent = ["--annotation", "io.kata-runtime.test.agent=yes"];
        containerd.script(&[&["ctd_run_sandbox", &dir, "default", &sandbox][..], &agent, &idle].concat());
        Self {
            containerd,
            container,
            sandbox,
        }
    }
}

fn whole_processes(world: &World) {
    let raw = compile("raw_stats", &world.containerd.dir);
    let (socket, service) = world.containerd.shim(&world.container);
    let state = world.containerd.state();
    let containerd = world.containerd.dir.join("containerd.sock").display().to_string();
    let monitor = format!("/run/vc/sbs/{}/shim-monitor.sock", world.sandbox);

    let mut programs = [
        Program::new("an empty process (true)", &["true"]),
        Program::new(
            "State and Stats raw, in C",
            &[&raw, &socket, &service, &world.container],
        ),
        Program::new(
            "kata-runtime events --stats",
            &[
                KATA_RUNTIME,
                "--state",
                &state,
                "events",
                "--stats",
                &world.container,
            ],
        ),
        Program::new(
            "ctr task metrics",
            &[
                "ctr",
                "-a",
                &containerd,
                "task",
                "metrics",
                "--format",
                "json",
                &world.container,
            ],
        ),
        Program::new(
            "curl --unix-socket",
            &["curl", "-s", "--unix-socket", &monitor, "http://shim/metrics"],
        ),
        Program::new(
            "kata-runtime metrics",
            &[KATA_RUNTIME, "--state", &state, "metrics", &world.sandbox],
        ),
    ];
    in_turns("one question", ROUNDS, &mut programs);
    let [_, raw, events, ctr, curl, metrics] = &programs;
    println!("  events / raw C          {}   (at most 1.5)", events.to(raw));
    println!("  ctr / events            {}   (at least 5)", ctr.to(events));
    println!(
        "  metrics / curl          {}   (at most 1.5), memory {:.2}",
        metrics.to(curl),
        metrics.peak_mib() / curl.peak_mib()
    );
    induced_cost(world);
    stream(world);
    let size = fs::metadata(KATA_RUNTIME).unwrap().len() as f64 / f64::from(1 << 20);
    println!("  the binary              {size:.2} MiB   (at most 6)");
}

/// A container whose guest's agent is asked too. The program in C makes the three calls that matter; ours asks the shim for
/// the state first, and its monitor where the agent listens.
fn a_kata_container(world: &World) {
    let raw = compile("raw_stats", &world.containerd.dir);
    let (socket, service) = world.containerd.shim(&world.sandbox);
    let state = world.containerd.state();
    let agent = format!("/run/vc/sbs/{}/agent.sock", world.sandbox);
    let events = [
        KATA_RUNTIME,
        "--state",
        &state,
        "events",
        "--stats",
        &world.sandbox,
    ];
    let mut programs = [
        Program::new(
            "Check, StatsContainer, Stats raw",
            &[&raw, &socket, &service, &world.sandbox, &agent],
        ),
        Program::new("kata-runtime events --stats", &events),
        Program::new(
            "the same, --via shim",
            &[&events[..], &["--via", "shim"]].concat(),
        ),
        Program::new(
            "the same, --via guest",
            &[&events[..], &["--via", "guest"]].concat(),
        ),
    ];
    in_turns("a Kata container", ROUNDS, &mut programs);
    let [raw, events, ..] = &programs;
    println!("  events / raw C          {}   (at most 1.5)", events.to(raw));
}

/// What an answer costs the shim, beside what asking costs us: CPU time by the kernel's clocks.
fn induced_cost(world: &World) {
    const ANSWERS: u32 = 100;
    let node = Node::new(vec![world.containerd.state().into()], None);
    for (shim, id) in [("runc", &world.container), ("the sandbox shim", &world.sandbox)] {
        let bundle = node.find(&Id::parse(id).unwrap()).unwrap();
        let pid = Container::read(bundle).unwrap().shim_pid().unwrap();
        let (shim_before, own_before) = (ShimTime::read(pid, false).unwrap(), of_children());
        for _ in 0..ANSWERS {
            let status = Command::new(KATA_RUNTIME)
                .args(["--state", &world.containerd.state(), "events", "--stats", id])
                .stdout(Stdio::null())
                .status()
                .unwrap();
            assert!(status.success());
        }
        let shims = ShimTime::read(pid, false).unwrap().since(&shim_before).unwrap();
        let own = of_children() - own_before;
        println!(
            "  an answer of {shim:16} {:.2} ms of the shim's CPU, {:.2} ms of ours",
            (shims / ANSWERS).as_secs_f64() * 1e3,
            (own / ANSWERS).as_secs_f64() * 1e3
        );
    }
}

/// CPU time of the processes that were waited for.
fn of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
    let time = usage.user_time() + usage.system_time();
    Duration::from_micros(time.num_microseconds().unsigned_abs())
}

/// Memory and threads of a stream that has printed an event, from its own /proc.
fn stream(world: &World) {
    use std::io::{BufRead, BufReader};
    let mut child = Command::new(KATA_RUNTIME)
        .args([
            "--state",
            &world.containerd.state(),
            "events",
            "--interval",
            "1h",
            "--format",
            "json",
            &world.container,
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(child.stdout.as_mut().unwrap())
        .read_line(&mut String::new())
        .unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(name))
            .unwrap()
            .trim()
            .to_string()
    };
    let peak: f64 = field("VmHWM:").trim_end_matches(" kB").parse().unwrap();
    println!(
        "  a stream of events      {:.2} MiB peak (at most 6), threads: {} (1)",
        peak / 1024.0,
        field("Threads:")
    );
}

/// Finding one container by a beginning of its id, beside a listing of the directory and a reading of its bundle.
fn a_prefix_among_many() {
    let state = std::env::temp_dir().join(format!("kr-bench-bundles-{}", std::process::id()));
    let tasks = state.join("io.containerd.runtime.v2.task/k8s.io");
    let spec = include_str!("../crates/shimstat/tests/fixtures/kata-3.30-go/bundle-child/config.json");
    for number in 0..BUNDLES {
        let bundle = tasks.join(format!(
            "{:016x}{number:048x}",
            number as u64 * 0x9e37_79b9_7f4a_7c15
        ));
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("config.json"), spec).unwrap();
        fs::write(bundle.join("address"), "unix:///run/containerd/s/x").unwrap();
    }
    let wanted = fs::read_dir(&tasks)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .file_name()
        .into_string()
        .unwrap();
    let node = Node::new(vec![state.clone()], None);
    let prefix = Id::parse(&wanted[..14]).unwrap();
    let (mut ours, mut baseline) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let started = Instant::now();
        let container = Container::read(node.find(&prefix).unwrap()).unwrap();
        assert!(container.endpoint().is_some() && container.description().is_ok());
        ours.push(started.elapsed().as_secs_f64() * 1e3);
        let started = Instant::now();
        assert_eq!(list_raw(&tasks), BUNDLES + 2);
        let bundle = tasks.join(&wanted);
        assert!(!fs::read(bundle.join("address")).unwrap().is_empty());
        assert!(!fs::read(bundle.join("config.json")).unwrap().is_empty());
        baseline.push(started.elapsed().as_secs_f64() * 1e3);
    }
    fs::remove_dir_all(&state).unwrap();
    let (ours, baseline) = (median(ours.into_iter()), median(baseline.into_iter()));
    println!("one container by prefix among {BUNDLES} bundles, medians of 100:");
    println!("  {ours:.2} ms; listing the directory and reading that bundle {baseline:.2} ms");
    println!("  ratio                   {:.2}   (at most 2)", ours / baseline);
}

/// Reads a directory with the C library, and does nothing with it.
fn list_raw(directory: &Path) -> usize {
    let path = CString::new(directory.to_str().unwrap()).unwrap();
    let mut entries = 0;
    // SAFETY: the path is NUL-terminated, and the stream is open until it is closed here.
    unsafe {
        let stream = libc::opendir(path.as_ptr());
        assert!(!stream.is_null());
        while !libc::readdir(stream).is_null() {
            entries += 1;
        }
        libc::closedir(stream);
    }
    entries
}
