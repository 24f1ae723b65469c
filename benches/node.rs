//! What a whole node costs: `list` and `events --all --stats` on 200 containers beside a program that sends the same
//! frames to the same shims at once, `list -q` on ten thousand bundles beside one that reads the same files, and the
//! processor time that `top` takes of its own.
//!
//! `cargo bench --bench node` as root, on a machine with containerd, runc, busybox-static, tmux and a C compiler
//! (`tests/run.sh` installs them). The containers are real: containerd and runc start them, which takes a minute; they
//! are gone afterwards, whatever happens. Every round runs each program once, in turn.

#![allow(clippy::restriction)] // A benchmark may panic.

mod measure;
#[cfg(feature = "top")]
#[path = "../tests/support/tmux.rs"]
mod tmux;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use measure::{Containerd, KATA_RUNTIME, Program, compile, in_turns};

const CONTAINERS: usize = 200;
const BUNDLES: usize = 10_000;
const ROUNDS: usize = 60;

/// One container in so many has something to do every second, so that what is shown of it changes.
const BUSY: usize = 10;

fn main() {
    if !measure::is_wanted() {
        return;
    }
    ids_of_many();
    let node = FullNode::start();
    answers(&node);
    #[cfg(feature = "top")]
    top::cost(&node.containerd.state());
}

/// A private containerd with its containers.
struct FullNode {
    containerd: Containerd,
    /// A file with a line for each container: its shim's socket, the name of the task service, its id.
    shims: String,
}

impl FullNode {
    fn start() -> Self {
        let started = Instant::now();
        let containerd = Containerd::start(None);
        containerd.run_many(CONTAINERS, |number| match number.is_multiple_of(BUSY) {
            true => vec!["sh", "-c", "while :; do sleep 1; done"],
            false => vec!["sleep", "100000"],
        });
        let mut lines = String::new();
        for number in 0..CONTAINERS {
            let (socket, service) = containerd.shim(&Containerd::id(number));
            lines += &format!("{socket} {service} {}\n", Containerd::id(number));
        }
        let shims = containerd.dir.join("shims");
        fs::write(&shims, lines).unwrap();
        println!("{CONTAINERS} containers started in {:.0?}", started.elapsed());
        Self {
            shims: shims.to_str().unwrap().to_string(),
            containerd,
        }
    }
}

fn answers(node: &FullNode) {
    let raw = compile("raw_all", &node.containerd.dir);
    let state = node.containerd.state();
    let ours = |arguments: &[&'static str]| [&[KATA_RUNTIME, "--state", &state], arguments].concat();
    let mut programs = [
        Program::new("an empty process (true)", &["true"]),
        Program::new("State of all raw, in C", &[&raw, "state", &node.shims]),
        Program::new("kata-runtime list", &ours(&["list"])),
        Program::new("State and Stats of all raw, in C", &[&raw, "stats", &node.shims]),
        Program::new(
            "kata-runtime events --all --stats",
            &ours(&["events", "--all", "--stats"]),
        ),
    ];
    in_turns(&format!("{CONTAINERS} containers"), ROUNDS, &mut programs);
    let [_, state, list, stats, events] = &programs;
    println!("  list / raw C            {}   (at most 1.3)", list.to(state));
    println!("  events --all / raw C    {}   (at most 1.3)", events.to(stats));
}

/// Bundles without shims: `list -q` asks none.
struct Bundles(PathBuf);

impl Bundles {
    fn make() -> Self {
        let bundles = Self(std::env::temp_dir().join(format!("kr-bench-bundles-{}", std::process::id())));
        let spec = include_str!("../crates/shimstat/tests/fixtures/kata-3.30-go/bundle-child/config.json");
        for number in 0..BUNDLES as u64 {
            let id = format!("{:016x}{number:048x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let bundle = bundles.0.join("io.containerd.runtime.v2.task/k8s.io").join(id);
            fs::create_dir_all(&bundle).unwrap();
            fs::write(bundle.join("config.json"), spec).unwrap();
            fs::write(
                bundle.join("address"),
                format!("unix:///run/containerd/s/{number:064x}"),
            )
            .unwrap();
        }
        bundles
    }
}

impl Drop for Bundles {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ids_of_many() {
    let bundles = Bundles::make();
    let state = bundles.0.to_str().unwrap();
    let read = compile("read_bundles", &bundles.0);
    let mut programs = [
        Program::new("reading their address files, in C", &[&read, "read", state]),
        Program::new("looking whether they are there, in C", &[&read, "look", state]),
        Program::new(
            "kata-runtime list -q",
            &[KATA_RUNTIME, "--state", state, "list", "-q"],
        ),
    ];
    in_turns(&format!("{BUNDLES} bundles"), ROUNDS, &mut programs);
    let [read, look, list] = &programs;
    println!("  list -q / reading       {}   (at most 2)", list.to(read));
    println!("  list -q / looking       {}", list.to(look));
}

#[cfg(feature = "top")]
mod top {
    use std::fs;
    use std::time::{Duration, Instant};

    use shimstat::node::ProcessUsage;

    use super::tmux::Tmux;
    use super::{CONTAINERS, KATA_RUNTIME};

    const WARM_UP: Duration = Duration::from_secs(5);
    const TIME: Duration = Duration::from_secs(30);

    /// The processor time of `top`'s own process, in a terminal of 200 columns and 60 lines.
    pub fn cost(state: &str) {
        let tmux = Tmux::start(
            (200, 60),
            &format!("{KATA_RUNTIME} --state {state} top --interval 1s"),
        );
        tmux.wait_for("the table", |screen| {
            screen.iter().any(|line| line.contains("bench-"))
        });
        std::thread::sleep(WARM_UP);
        let (begin, before) = (Instant::now(), cpu(tmux.pid()));
        std::thread::sleep(TIME);
        let (took, used) = (begin.elapsed(), cpu(tmux.pid()) - before);
        let share = used / took.as_secs_f64() * 100.0;
        println!("top, {CONTAINERS} containers, every second, for {TIME:?}:");
        println!("  of a processor          {share:.2} %   (less than 3)");
        println!("  most memory resident    {}", peak(tmux.pid()));
    }

    /// Processor time of a process, in seconds.
    fn cpu(pid: u32) -> f64 {
        ProcessUsage::read(pid).expect("it runs").cpu.as_secs_f64()
    }

    fn peak(pid: u32) -> String {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.unwrap_or("?").trim().to_string()
    }
}
